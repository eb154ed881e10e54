"""Own data: a CSV or Parquet table, or a folder whose file names say who is where.

Columns ``path`` and ``pid`` are required; ``cam``, ``modality``, ``tracklet`` and ``split`` are optional. Ids and
cameras may be any text: numbers stay numbers, other texts are numbered in natural order.
"""

from __future__ import annotations

import csv
import os
import posixpath
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from gloam.atomic import atomic_path
from gloam.datasets import register
from gloam.datasets.base import Dataset, Option, Options, relabel, with_labels
from gloam.datasets.files import natural_key, some, walk_images
from gloam.datasets.folder_pattern import FIELDS, compile_pattern
from gloam.datasets.query_gallery import divide, fitting_protocols
from gloam.datasets.records import DatasetSplits, Modality, Record
from gloam.errors import GloamError, did_you_mean

COLUMNS = ("path", *FIELDS)
MODALITY_WORDS = {
    **dict.fromkeys(("visible", "vis", "rgb", "color", "colour"), Modality.VISIBLE),
    **dict.fromkeys(("infrared", "ir", "thermal", "nir", "tir"), Modality.INFRARED),
}
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("query", "probe"), "query"),
    "gallery": "gallery",
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("auxiliary", "aux"), "auxiliary"),
}
# One image: the columns' texts, "" where a column or cell is absent.
Row = dict[str, str]


@register("table")
class Table(Dataset):
    """Your own images or tracklets. ``root`` is a .csv, .tsv or .parquet file, or a folder read with a pattern.

    ``split`` words: train, val (training people set aside for validation), query, gallery, test (divided into query and
    gallery), auxiliary. Without the column, half of the people become test people.
    """

    name = "table"
    title = "Own data (table or folder)"
    required_parts = ()
    tree = """
people.csv            path,pid[,cam][,modality][,tracklet][,split]
                      anna/0001.jpg,anna,3,visible,,train
or a folder, with the option pattern (default {pid}/*):
  0001/
    c1_visible_0001.jpg ...   pattern {pid}/c{cam}_{modality}_*.jpg
"""
    obtain = "Yours."
    licence = "yours; mind the privacy of the people shown"
    options: ClassVar[Options] = {
        "pattern": Option(None, "how file names of a folder are read, e.g. {pid}/{cam}_{modality}_*.jpg"),
        "images": Option(None, "folder that the table's paths are relative to (default: the table's folder)"),
        "modality": Option("visible", "modality of images without a modality", choices=("visible", "infrared")),
        "test_fraction": Option(0.5, "share of people for testing where no split is given", least=0.0, most=1.0),
        "seed": Option(0, "of the draw of test people"),
        "write_split": Option(None, "CSV file to write the table with its default split to"),
        "check_files": Option(True, "make sure that every listed file exists"),
    }

    @classmethod
    def setting(cls) -> str:
        return "visible, infrared or both; images or tracklets"

    def read(self) -> DatasetSplits:
        """Records in table order; a folder is read in natural order of its names."""
        source = self.root
        if source.is_dir():
            rows = self._folder_rows(source)
        else:
            rows = _file_rows(source)
            images = self.values["images"]
            self.root = Path(images).expanduser() if images else source.parent
        if not rows:
            raise GloamError(f"{source} holds no images: nothing to load.")
        self._check_paths(source, rows)
        parts = self._parts(source, rows)

        train = parts["train"] + parts["val"]
        query, gallery, notice = tuple(parts["query"]), tuple(parts["gallery"]), None
        if parts["test"]:
            if query or gallery:
                raise GloamError(
                    f"{source}: split 'test' cannot be mixed with 'query' and 'gallery'. Use one or the other."
                )
            query, gallery, protocols, notice = divide(parts["test"], self.name)
        else:
            if bool(query) != bool(gallery):
                absent = "gallery" if query else "query"
                raise GloamError(f"{source}: no image has the split {absent!r}. Add some, or use the split 'test'.")
            protocols, notice = fitting_protocols(query, gallery, self.name)
        label_map = relabel(record.pid_raw for record in train)
        splits = DatasetSplits(
            name=self.name,
            root=self.root,
            train=with_labels(train, label_map),
            query=query,
            gallery=gallery,
            protocols=protocols,
            label_map=label_map,
            auxiliary=tuple(parts["auxiliary"]),
            validation_pids=tuple(sorted({record.pid_raw for record in parts["val"]})),
            notice=notice,
        )
        if self.values["write_split"]:
            write_table(splits, self.values["write_split"])
        return splits

    def _folder_rows(self, folder: Path) -> list[Row]:
        pattern = self.values["pattern"] or "{pid}/*"
        match = compile_pattern(pattern)
        rows, foreign = [], []
        for path in walk_images(folder):
            fields = match(path)
            if fields is None:
                foreign.append(path)
            else:
                rows.append({"path": path, **fields})
        if not rows:
            found = f"found {some(foreign, 3)}" if foreign else "it holds no images at all"
            raise GloamError(
                f"No image under {folder} matches the pattern {pattern!r}: {found}. "
                f"Give the option pattern, for example pattern='{{pid}}/{{cam}}_*.jpg'."
            )
        if foreign:
            self.remarks.append(f"{len(foreign)} images do not match {pattern!r} and are ignored: {some(foreign, 3)}")
        return rows

    def _check_paths(self, source: Path, rows: Sequence[Row]) -> None:
        first: dict[str, int] = {}
        root = self.root.absolute().as_posix()
        for number, row in enumerate(rows, start=1):
            path = posixpath.normpath(row["path"].replace("\\", "/")) if row["path"] else ""
            row["path"] = path = path.removeprefix(f"{root}/")
            if not path or not row["pid"]:
                raise GloamError(f"{source}: row {number} has no {'path' if not path else 'pid'}.")
            if path in first:
                raise GloamError(f"{source}: {path} is listed twice, in rows {first[path]} and {number}. Remove one.")
            first[path] = number
        if self.values["check_files"]:
            absent = [path for path in first if not os.path.isfile(self.root / path)]
            if absent:
                raise GloamError(
                    f"{source}: {len(absent)} of {len(first)} files do not exist under {self.root}: {some(absent)}. "
                    "Paths are relative to the table's folder, or to the option images."
                )

    def _parts(self, source: Path, rows: Sequence[Row]) -> dict[str, list[Record]]:
        """Records by split word; rows of one tracklet become one record."""
        pids = _numbers(rows, "pid", source)
        cams = _numbers(rows, "cam", source)
        splits = self._split_words(source, rows, pids)
        tracklets: dict[tuple[Any, ...], list[str]] = {}
        default = self.values["modality"]
        for number, (row, pid, cam, split) in enumerate(zip(rows, pids, cams, splits, strict=True), start=1):
            word = (row.get("modality") or default).lower()
            if word not in MODALITY_WORDS:
                hint = did_you_mean(word, MODALITY_WORDS)
                raise GloamError(f"{source}: row {number} has the modality {row['modality']!r}. {hint}")
            name = row.get("tracklet", "")
            # Without a tracklet name every image stands alone.
            key = (split, pid, cam, MODALITY_WORDS[word], (name, None) if name else (None, number))
            tracklets.setdefault(key, []).append(row["path"])
        parts: dict[str, list[Record]] = {word: [] for word in SPLIT_WORDS.values()}
        for (split, pid, cam, light, _), paths in tracklets.items():
            parts[split].append(Record(tuple(paths), pid, cam, light, pid))
        return parts

    def _split_words(self, source: Path, rows: Sequence[Row], pids: Sequence[int]) -> list[str]:
        if not any(row.get("split") for row in rows):
            people = sorted(set(pids))
            if len(people) < 2:
                raise GloamError(f"{source} shows one person only: there is nobody to tell apart.")
            count = round(len(people) * self.values["test_fraction"])
            test = set(random.Random(self.values["seed"]).sample(people, count))
            return ["test" if pid in test else "train" for pid in pids]
        words = []
        for number, row in enumerate(rows, start=1):
            word = row["split"].lower()
            if word not in SPLIT_WORDS:
                hint = did_you_mean(word, SPLIT_WORDS)
                raise GloamError(f"{source}: row {number} has the split {row['split']!r}. {hint}")
            words.append(SPLIT_WORDS[word])
        return words


def write_table(splits: DatasetSplits, path: str | Path) -> None:
    """Write any dataset as a CSV table that ``load_dataset("table", path)`` reads back.

    Original ids are written; frames of a tracklet share a running number. Paths are relative to the CSV's folder where
    they lie below it, else absolute.
    """
    target = Path(path).expanduser().absolute()
    base = target.parent.as_posix() + "/"
    root = splits.root.absolute()
    held = set(splits.validation_pids)
    with atomic_path(target) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        number = 0
        for split in ("train", "query", "gallery", "auxiliary"):
            for record in getattr(splits, split):
                number += 1
                tracklet = str(number) if len(record.paths) > 1 else ""
                word = "val" if split == "train" and record.pid_raw in held else split
                for frame in record.paths:
                    name = (root / frame).as_posix().removeprefix(base)
                    writer.writerow((name, record.pid_raw, record.cam, record.modality.name.lower(), tracklet, word))


def _file_rows(path: Path) -> list[Row]:
    """Rows of a CSV or Parquet table as text, columns in lower case."""
    if path.suffix.lower() in (".parquet", ".pq"):
        header, rows = _read_parquet(path)
    elif path.suffix.lower() in (".csv", ".tsv", ".txt"):
        header, rows = _read_csv(path)
    else:
        raise GloamError(f"{path} is neither a folder nor a .csv, .tsv or .parquet table.")
    for column in ("path", "pid"):
        if column not in header:
            near = did_you_mean(column, header)
            raise GloamError(
                f"{path} has no column {column!r}. {near} Columns: {', '.join(COLUMNS)}; path, pid required."
            )
    return rows


def _read_csv(path: Path) -> tuple[list[str], list[Row]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            delimiter = max(",;\t", key=first.count)
            table = [row for row in csv.reader(stream, delimiter=delimiter) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise GloamError(f"{path} cannot be read as a CSV table ({error}). Save it as UTF-8 text.") from error
    if not table:
        raise GloamError(f"{path} is empty. Its first line names the columns: {', '.join(COLUMNS)}.")
    header = [cell.strip().lower().removeprefix("\ufeff") for cell in table[0]]
    # A trailing comma makes rows one cell longer than the header; missing cells at the end are blank.
    return header, [
        {key: (row[i].strip() if i < len(row) else "") for i, key in enumerate(header) if key} for row in table[1:]
    ]


def _read_parquet(path: Path) -> tuple[list[str], list[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise GloamError(f"{path} cannot be read as a Parquet table ({error}).") from error
    header = [name.strip().lower() for name in table.column_names]
    columns = {
        key: [_text(value) for value in column.to_pylist()]
        for key, column in zip(header, table.columns, strict=True)
        if key in COLUMNS
    }
    return header, [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def _text(value: Any) -> str:
    """A cell as text: nothing and NaN are blank, 3.0 is 3 (tables with gaps store whole numbers as floats)."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _numbers(rows: Iterable[Mapping[str, str]], column: str, source: Path) -> list[int]:
    """A column as numbers: as written if all are whole numbers, else ranks in natural order; absent: all 0.

    Raises:
        GloamError: some cells are blank and others are not.
    """
    texts = [row.get(column, "") for row in rows]
    if not any(texts):
        return [0] * len(texts)
    if not all(texts):
        raise GloamError(f"{source}: row {texts.index('') + 1} has no {column}; give it in every row or in none.")
    if all(text.removeprefix("-").isdecimal() for text in texts):
        return [int(text) for text in texts]
    ranks = {text: rank for rank, text in enumerate(sorted(set(texts), key=lambda t: (natural_key(t), t)))}
    return [ranks[text] for text in texts]
