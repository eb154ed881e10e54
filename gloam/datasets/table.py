"""Own data: a CSV or Parquet table, or a folder whose file names say who is where.

Columns ``path`` and ``pid`` are required; ``cam``, ``modality``, ``tracklet`` and ``split`` are optional. Ids and
cameras may be any text. Query and gallery may be tables or folders of their own, and people may be unknown.
"""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from gloam.atomic import atomic_path
from gloam.datasets import register
from gloam.datasets.base import Dataset, Option, Options, relabel, with_labels
from gloam.datasets.files import some
from gloam.datasets.query_gallery import divide, fitting_protocols
from gloam.datasets.records import DatasetSplits, Modality, RawId, Record
from gloam.datasets.table_ids import cameras, identities
from gloam.datasets.table_rows import COLUMNS, Row, folder_rows, table_rows
from gloam.errors import GloamError, did_you_mean

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
# Parts whose people may be unknown.
_UNNAMED = ("train", "val")
UNKNOWN = -1


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
        "query": Option(None, "table or folder of the queries, beside the root's training images"),
        "gallery": Option(None, "table or folder of the gallery, beside the root's training images"),
        "labels": Option(
            "given", "none: nobody is known; all images train a method without labels", choices=("given", "none")
        ),
        "modality": Option("visible", "modality of images without a modality", choices=("visible", "infrared")),
        "test_fraction": Option(
            0.5, "share of people for testing where no split is given; 0: training only", least=0.0, most=1.0
        ),
        "seed": Option(0, "of the draw of test people"),
        "write_split": Option(None, "CSV file to write the table with its default split to"),
        "check_files": Option(True, "make sure that every listed file exists"),
    }

    @classmethod
    def setting(cls) -> str:
        return "visible, infrared or both; images or tracklets"

    @property
    def _labelled(self) -> bool:
        return bool(self.values["labels"] == "given")

    def read(self) -> DatasetSplits:
        """Records in table order; a folder is read in natural order of its names."""
        source = self.root
        rows = self._all_rows(source)
        self._check_paths(source, rows)
        words = self._split_words(source, rows)
        parts, numbers = self._parts(rows, words)
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
        label_map: dict[RawId, int] = (
            relabel(record.pid_raw for record in train) if self._labelled else {n: n for n in range(len(train))}
        )
        splits = DatasetSplits(
            name=self.name,
            root=self.root,
            train=with_labels(train, label_map) if self._labelled else tuple(train),
            query=query,
            gallery=gallery,
            protocols=protocols,
            label_map=label_map,
            auxiliary=tuple(parts["auxiliary"]),
            validation_pids=tuple(sorted({r.pid_raw for r in parts["val"]}, key=lambda pid: numbers.get(pid, 0)))
            if self._labelled
            else (),
            notice=notice,
            labelled=self._labelled,
        )
        if self.values["write_split"]:
            write_table(splits, self.values["write_split"])
        return splits

    # -- rows ----------------------------------------------------------------------------------------------------

    def _all_rows(self, source: Path) -> list[Row]:
        """Rows of the root and of query and gallery; ``self.root`` becomes the folder of the images."""
        given = {part: self.values[part] for part in ("query", "gallery") if self.values[part]}
        if len(given) == 1:
            absent = "gallery" if "query" in given else "query"
            raise GloamError(f"Queries need a gallery: give the option {absent} too, or the split in one table.")
        self.root = self._images(source)
        places = {part: _beside(self.root, text) for part, text in given.items()}
        # The folder of the root may hold those of the test parts.
        rows = self._rows(source, [place for place in places.values() if place.is_dir()])
        if given and (mixed := next((row for row in rows if row["split"] and _word(row) not in _UNNAMED), None)):
            raise mixed.error("split", "cannot stand beside the options query and gallery. Use one or the other.")
        for part, place in places.items():
            found = self._rows(place, [])
            if not found:
                raise GloamError(f"{place} holds no images: there is no {part}.")
            for row in found:
                row.cells["split"] = part
            rows += found
        if not rows:
            raise GloamError(f"{source} holds no images: nothing to load.")
        return rows

    def _images(self, source: Path) -> Path:
        """The folder that the paths of a table or folder are relative to."""
        if source.is_dir():
            return source
        return Path(self.values["images"]).expanduser() if self.values["images"] else source.parent

    def _rows(self, source: Path, skip: Sequence[Path]) -> list[Row]:
        """Rows of a table or folder, their paths relative to ``self.root`` or absolute."""
        if source.is_dir():
            pattern = self.values["pattern"] or ("{pid}/*" if self._labelled else "**/*")
            rows = folder_rows(source, pattern, self._labelled, skip, self.remarks)
        else:
            rows = table_rows(source, ("path", "pid") if self._labelled else ("path",), self.remarks)
            for row in rows:
                row.cells["path"] = row["path"].replace("\\", "/")
        here, root = os.path.abspath(self._images(source)), os.path.abspath(self.root)
        for row in rows:
            if row["path"]:
                row.cells["path"] = _relative(row["path"], here, root)
        return rows

    def _check_paths(self, source: Path, rows: Sequence[Row]) -> None:
        first: dict[str, Row] = {}
        for row in rows:
            path = row["path"]
            if not path:
                raise GloamError(f"{row.where} has no path.")
            other = first.setdefault(path, row)
            if other is not row:
                if other.source == row.source and row.number is not None:
                    places = f"in rows {other.number} and {row.number}"
                else:
                    places = f"in {other.where} and in {row.where}"
                raise GloamError(f"{source}: {path} is listed twice, {places}. Remove one.")
        if self.values["check_files"]:
            absent = [path for path in first if not os.path.isfile(self.root / path)]
            if absent:
                raise GloamError(
                    f"{source}: {len(absent)} of {len(first)} files do not exist under {self.root}: {some(absent)}. "
                    "Paths are relative to the table's folder, or to the option images."
                )

    # -- meaning -------------------------------------------------------------------------------------------------

    def _split_words(self, source: Path, rows: Sequence[Row]) -> list[str]:
        """The split of every row; drawn where none is given."""
        if not any(row["split"] for row in rows):
            return self._drawn(source, rows) if self._labelled else ["train"] * len(rows)
        separate = bool(self.values["query"])
        words = []
        for row in rows:
            word = "train" if separate and not row["split"] else _word(row)
            if word is None:
                raise row.error("split", f"is no split. {did_you_mean(row['split'].lower(), SPLIT_WORDS)}")
            words.append(word)
        return words

    def _drawn(self, source: Path, rows: Sequence[Row]) -> list[str]:
        numbers = [number for number, _ in identities(rows)]
        people = sorted(set(numbers))
        if len(people) < 2:
            raise GloamError(f"{source} shows one person only: there is nobody to tell apart.")
        count = round(len(people) * self.values["test_fraction"])
        test = set(random.Random(self.values["seed"]).sample(people, count))
        return ["test" if number in test else "train" for number in numbers]

    def _parts(self, rows: Sequence[Row], words: Sequence[str]) -> tuple[dict[str, list[Record]], dict[RawId, int]]:
        """Records by split word, rows of one tracklet as one; and the number of every id."""
        known = [self._labelled or word not in _UNNAMED for word in words]
        named = identities([row for row, is_known in zip(rows, known, strict=True) if is_known])
        people = iter(named)
        tracklets: dict[tuple[Any, ...], list[str]] = {}
        default = self.values["modality"]
        for place, (row, cam, word, is_known) in enumerate(zip(rows, cameras(rows), words, known, strict=True)):
            modality = MODALITY_WORDS.get((row["modality"] or default).lower())
            if modality is None:
                hint = did_you_mean(row["modality"].lower(), MODALITY_WORDS)
                raise row.error("modality", f"is no modality. {hint}")
            person = next(people) if is_known else (UNKNOWN, UNKNOWN)
            # Without a tracklet name every image stands alone.
            name = row["tracklet"]
            tracklets.setdefault((word, *person, cam, modality, name or None, None if name else place), []).append(
                row["path"]
            )
        parts: dict[str, list[Record]] = {word: [] for word in SPLIT_WORDS.values()}
        unknown = 0
        for (word, number, raw, cam, modality, _, _), paths in tracklets.items():
            if not self._labelled and word in _UNNAMED:
                number, unknown = unknown, unknown + 1
                word = "train"
            parts[word].append(Record(tuple(paths), number, cam, modality, raw))
        return parts, {raw: number for number, raw in named}


def _word(row: Row) -> str | None:
    return SPLIT_WORDS.get(row["split"].lower())


def _beside(base: Path, text: str) -> Path:
    """A path from an option: relative to the images' folder, or else to the working directory."""
    given = Path(text).expanduser()
    found = next((path for path in (base / given, given) if path.exists()), None)
    if found is None:
        raise GloamError(f"There is neither a table nor a folder {given} ({base / given} is none either).")
    return found


def _relative(path: str, here: str, root: str) -> str:
    """A path of a table in ``here`` as one relative to ``root`` where it lies below it or was relative to it."""
    if here == root and not os.path.isabs(path):
        return Path(os.path.normpath(path)).as_posix()
    whole = os.path.normpath(os.path.join(here, path))
    inside = root.rstrip(os.sep) + os.sep
    return Path(whole.removeprefix(inside)).as_posix()


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
                if split == "gallery" and not splits.query:
                    word = "test"  # of people with one image each
                for frame in record.paths:
                    name = (root / frame).as_posix().removeprefix(base)
                    writer.writerow((name, record.pid_raw, record.cam, record.modality.name.lower(), tracklet, word))
