"""``gloam data check``: is a copy complete and readable?"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gloam.console import console, styled
from gloam.datasets import get_dataset
from gloam.datasets.files import render_tree, side_by_side
from gloam.datasets.records import DatasetSplits, Protocol, Record
from gloam.image_files import UnreadableImage, holds_deep, load_image

_CHUNK = 32


@dataclass(frozen=True, slots=True)
class CountRow:
    """One line of the statistics table.

    Attributes:
        what: a name of ``DatasetSplits.counts()``, or ``gallery of <protocol>``.
        found: counted in this copy.
        published: what the authors published, or None.
    """

    what: str
    found: int
    published: int | None

    @property
    def differs(self) -> bool:
        """True if a published count exists and is another one."""
        return self.published is not None and self.found != self.published


@dataclass(frozen=True)
class CheckReport:
    """What ``check`` found. Prints as a table (``rich``), converts to plain values with ``to_dict``.

    Attributes:
        name: dataset name.
        root: folder that was checked.
        strict: whether differing counts are errors.
        expected_tree: how the folder should look.
        found_tree: how it looks (cut to two levels).
        counts: statistics, one row per count.
        num_files: different files that were checked.
        missing: listed files that do not exist.
        unreadable: (file, reason) of files that cannot be decoded completely.
        remarks: oddities that do no harm.
        notice: what the user must know about the dataset, or None.
        splits: the records that were read.
    """

    name: str
    root: Path
    strict: bool
    expected_tree: str
    found_tree: str
    counts: tuple[CountRow, ...]
    num_files: int
    missing: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    notice: str | None
    splits: DatasetSplits

    @property
    def differing(self) -> tuple[CountRow, ...]:
        """Counts that are not the published ones."""
        return tuple(row for row in self.counts if row.differs)

    @property
    def ok(self) -> bool:
        """No file is missing or unreadable and, under ``strict``, every count is the published one."""
        return not (self.missing or self.unreadable or (self.strict and self.differing))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "root": str(self.root),
            "ok": self.ok,
            "strict": self.strict,
            "counts": {row.what: {"found": row.found, "published": row.published} for row in self.counts},
            "num_files": self.num_files,
            "missing": list(self.missing),
            "unreadable": [{"path": path, "reason": reason} for path, reason in self.unreadable],
            "remarks": list(self.remarks),
            "notice": self.notice,
        }

    def __rich__(self) -> RenderableType:
        table = Table("count", "found", "published", "", title=styled(f"{self.name} in {self.root}"))
        table.columns[1].justify = table.columns[2].justify = "right"
        bad = styled(("differs", "red" if self.strict else "yellow"))
        for row in self.counts:
            published = "" if row.published is None else f"{row.published:,}"
            mark = bad if row.differs else styled(("equal", "green") if row.published is not None else "")
            table.add_row(row.what, f"{row.found:,}", published, mark)
        trees = side_by_side(self.expected_tree, self.found_tree, ("expected", "found"))
        parts: list[RenderableType] = [styled(trees), table]
        if self.notice:
            parts.append(styled(("notice:", "yellow"), f" {self.notice}"))
        parts += [styled(f"remark: {remark}") for remark in self.remarks]
        if self.differing:
            parts.append(
                styled(
                    ("error:", "red") if self.strict else ("warning:", "yellow"),
                    f" {len(self.differing)} counts differ from the published ones: scores on this copy cannot be "
                    "compared with papers.",
                )
            )
        parts += _listing("missing", self.missing)
        parts += _listing("unreadable", [f"{path}: {reason}" for path, reason in self.unreadable])
        verdict = ("ok", "green") if self.ok else ("not ok", "red")
        parts.append(styled(verdict, f": {self.num_files:,} files checked"))
        return Group(*parts)


def check(
    name: str,
    root: str | Path,
    *,
    strict: bool = False,
    workers: int | None = None,
    progress: bool = True,
    **options: Any,
) -> CheckReport:
    """Compare a folder with what a dataset should be, and decode every image completely.

    Args:
        name: dataset name.
        root: its folder; for ``table`` a table file or a folder.
        strict: count differences make the report not ok (they are warnings otherwise).
        workers: decoding threads (Pillow decodes outside the interpreter lock); default: one per core.
        progress: show a progress bar where the output is a terminal.
        **options: the dataset's options.

    Raises:
        GloamError: the folder cannot be loaded at all (wrong root, missing or broken list); the message shows the
            expected tree beside the found one.
    """
    cls = get_dataset(name)
    if "check_files" in cls.options:
        # Missing files are a finding here, not an obstacle.
        options.setdefault("check_files", False)
    dataset = cls(root, **options)
    splits = dataset.load()
    paths = sorted({path for part in _parts(splits) for record in part for path in record.paths})
    missing, unreadable = _examine(splits.root, paths, workers or os.cpu_count() or 1, progress)
    return CheckReport(
        name=name,
        root=splits.root,
        strict=strict,
        expected_tree=cls.tree.strip("\n"),
        found_tree=render_tree(splits.root, entries=8),
        counts=_count_rows(splits, cls.expected_galleries),
        num_files=len(paths),
        missing=tuple(missing),
        unreadable=tuple(unreadable),
        remarks=(*dataset.remarks, *_deep_remark(splits.root, paths)),
        notice=splits.notice,
        splits=splits,
    )


def decode_problem(path: Path) -> str | None:
    """Why an image cannot be decoded completely, or None if it can.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if os.stat(path).st_size == 0:
        return "zero bytes"
    try:
        load_image(path)
    except UnreadableImage as error:
        return str(error)
    return None


def gallery_size(splits: DatasetSplits, protocol: Protocol) -> int:
    """Number of entries of one trial's drawn side (or of the whole gallery where nothing is drawn)."""
    if protocol.galleries is not None:
        return len(protocol.galleries[0])
    from_gallery = protocol.swapped == (protocol.sampled == "query")
    modality = protocol.query_modality if protocol.sampled == "query" else protocol.gallery_modality
    groups: dict[tuple[int, int], int] = {}
    for record in splits.gallery if from_gallery else splits.query:
        if modality is not None and record.modality is not modality:
            continue
        if protocol.gallery_cams is None or record.cam in protocol.gallery_cams:
            groups[record.pid, record.cam] = groups.get((record.pid, record.cam), 0) + 1
    if protocol.shots is None:
        return sum(groups.values())
    return sum(min(protocol.shots, size) for size in groups.values())


def _parts(splits: DatasetSplits) -> tuple[tuple[Record, ...], ...]:
    return splits.train, splits.query, splits.gallery, splits.auxiliary


def _count_rows(splits: DatasetSplits, expected_galleries: Any) -> tuple[CountRow, ...]:
    found = splits.counts()
    rows = [
        CountRow(what, count, splits.expected_counts.get(what))
        for what, count in found.items()
        # Empty parts and the frame counts of single images say nothing.
        if what in splits.expected_counts or (count and (splits.is_video or not what.endswith("_images")))
    ]
    rows += [
        CountRow(f"gallery of {name}", gallery_size(splits, protocol), expected_galleries.get(name))
        for name, protocol in splits.protocols.items()
        if protocol.shots is not None and protocol.sampled == "gallery"
    ]
    return tuple(rows)


def _examine(root: Path, paths: Sequence[str], workers: int, progress: bool) -> tuple[list[str], list[tuple[str, str]]]:
    missing: list[str] = []
    unreadable: list[tuple[str, str]] = []

    def examine(chunk: Sequence[str]) -> list[tuple[str, str | None]]:
        found: list[tuple[str, str | None]] = []
        for path in chunk:
            try:
                reason = decode_problem(root / path)
            except (FileNotFoundError, NotADirectoryError):
                found.append((path, None))
            except OSError as error:
                found.append((path, error.strerror or str(error)))
            else:
                if reason is not None:
                    found.append((path, reason))
        return found

    screen = console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=screen, transient=True, disable=not (progress and screen.is_terminal))
    with bar, ThreadPoolExecutor(workers) as pool, warnings.catch_warnings():
        # Pillow warns about harmless metadata; only what cannot be decoded matters here.
        warnings.simplefilter("ignore")
        task = bar.add_task("decoding images", total=len(paths))
        chunks = list(_chunks(paths))
        for chunk, found in zip(chunks, pool.map(examine, chunks), strict=True):
            for path, reason in found:
                if reason is None:
                    missing.append(path)
                else:
                    unreadable.append((path, reason))
            bar.advance(task, len(chunk))
    return missing, unreadable


def _deep_remark(root: Path, paths: Sequence[str]) -> list[str]:
    deep = sum(holds_deep(root / path) for path in paths)
    return [f"{deep:,} images have more than 8 bits a pixel: data.stretch says how they are read"] if deep else []


def _chunks(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), _CHUNK):
        yield paths[start : start + _CHUNK]


def _listing(kind: str, lines: Iterable[str], limit: int = 50) -> list[RenderableType]:
    """The first lines in red under a count."""
    every = list(lines)
    if not every:
        return []
    more = [f"  ... {len(every) - limit:,} more"] if len(every) > limit else []
    head = styled((f"{len(every):,} {kind} files", "red"))
    return [head, *(styled(f"  {line}") for line in every[:limit]), *more]
