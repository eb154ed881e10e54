"""What every dataset file shares: options, finding its files, errors that show the expected tree, relabelling."""

from __future__ import annotations

import dataclasses
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gloam.datasets.files import natural_key, render_tree, side_by_side
from gloam.datasets.records import DatasetSplits, RawId, Record
from gloam.errors import GloamError, did_you_mean

_LEAST, _MOST = -(2**63), 2**63 - 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Option:
    """One keyword that a dataset accepts beside its root.

    Attributes:
        default: value when the user gives none; its type is the option's type (None: text).
        help: one line for tables and ``--help``.
        choices: the only allowed values; empty: any.
        least: smallest allowed number.
        most: largest allowed number.
    """

    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    least: float | None = None
    most: float | None = None

    def validate(self, owner: str, name: str, value: Any) -> Any:
        """The value in the option's type.

        Raises:
            GloamError: a value of the wrong kind or outside the allowed ones.
        """
        text = f"{owner}: option {name}={value!r}"
        if value is None and self.default is None:
            return None
        if self.default is None:
            return str(value)
        if isinstance(self.default, bool):
            words = {"true": True, "false": False, "1": True, "0": False}
            if str(value).lower() not in words:
                raise GloamError(f"{text} must be true or false.")
            return words[str(value).lower()]
        if isinstance(self.default, (int, float)):
            try:
                value = type(self.default)(str(value))
            except ValueError as error:
                raise GloamError(f"{text} must be a number.") from error
            if not math.isfinite(value) or abs(value) >= 2**63:
                raise GloamError(f"{text} is no usable number.")
            low, high = self.least, self.most
            if (low is not None and value < low) or (high is not None and value > high):
                span = f"from {low} to {high}" if high is not None else f"at least {low}"
                raise GloamError(f"{text} must be {span}.")
            return value
        if self.choices and value not in self.choices:
            raise GloamError(f"{text} is not offered. {did_you_mean(str(value), map(str, self.choices))}")
        return str(value)


# Kinds of the class attributes that every dataset file fills.
Counts = Mapping[str, int]
Options = Mapping[str, Option]


def relabel(pids: Iterable[RawId]) -> dict[RawId, int]:
    """Original training id -> label: the rank of the id among the ascending ids, texts in natural order.

    *Source*: the released loaders number ``set(pids)``, which ascends for small whole numbers.
    """
    return {pid: label for label, pid in enumerate(sorted(set(pids), key=id_key))}


def id_key(pid: RawId) -> tuple[Any, ...]:
    """Sort key of ids: numbers by value, before texts in natural order."""
    return (0, pid) if isinstance(pid, int) else (1, natural_key(pid), pid)


def with_labels(records: Iterable[Record], label_map: Mapping[RawId, int]) -> tuple[Record, ...]:
    """Training records whose ``pid`` is the label of their ``pid_raw``."""
    return tuple(dataclasses.replace(record, pid=label_map[record.pid_raw]) for record in records)


class Dataset(ABC):
    """A benchmark's files under a root folder. One subclass per file, registered by name.

    Args:
        root: the dataset's folder.
        **values: what ``options`` offers.

    Raises:
        GloamError: an unknown option or a bad value.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    # Published counts by the names of DatasetSplits.counts(), for the default options.
    expected: ClassVar[Counts] = {}
    # Published size of a protocol's gallery (one trial), where it is published.
    expected_galleries: ClassVar[Counts] = {}
    tree: ClassVar[str]
    obtain: ClassVar[str]
    # The authors' page; None where there is none (own data) or none may be named (withdrawn data).
    page: ClassVar[str | None] = None
    licence: ClassVar[str]
    notice: ClassVar[str | None] = None
    is_video: ClassVar[bool] = False
    cross_modal: ClassVar[bool] = False
    options: ClassVar[Options] = {}
    # True where training and test people are numbered apart: equal ids are then different people.
    numbers_test_ids_anew: ClassVar[bool] = False
    # Parts that may not be empty. Own data may come without a test set.
    required_parts: ClassVar[tuple[str, ...]] = ("train", "query", "gallery")

    def __init__(self, root: str | Path, **values: Any) -> None:
        self.root = Path(root).expanduser()
        for key in values:
            if key not in self.options:
                raise GloamError(f"{self.name} has no option {key!r}. {did_you_mean(key, self.options)}")
        self.values: dict[str, Any] = {
            key: option.validate(self.name, key, values[key]) if key in values else option.default
            for key, option in self.options.items()
        }
        # Facts worth a line in `gloam data check` that do not stop loading.
        self.remarks: list[str] = []

    @abstractmethod
    def read(self) -> DatasetSplits:
        """Turn the files under ``root`` into records. ``load`` adds the checks that every dataset needs."""

    def load(self) -> DatasetSplits:
        """Read the dataset's lists and folders (no image is opened).

        Raises:
            GloamError: the root does not look as it should (both trees are shown), or a list is missing or broken.
        """
        if not self.root.exists():
            raise self.wrong_root("The folder does not exist", f"Not here yet? {self.where_from()}")
        splits = self.read()
        for part in self.required_parts:
            if not getattr(splits, part):
                raise self.wrong_root(f"No {part} image was found")
        for record in (*splits.train, *splits.query, *splits.gallery, *splits.auxiliary):
            if not (_LEAST <= record.pid <= _MOST and _LEAST <= record.cam <= _MOST):
                raise GloamError(f"{self.title}: {record.paths[0]} has an id or camera of more than 64 bits.")
            if any("\0" in path for path in record.paths):
                raise GloamError(f"{self.title}: a list names a file with a null byte: {record.paths[0]!r}.")
        if splits.notice:
            _log.warning("%s: %s", self.name, splits.notice)
        return splits

    def expected_counts(self) -> Mapping[str, int]:
        """Published counts under the chosen options; counts that nobody published are left out."""
        return dict(self.expected)

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """Everything a person wants to know before obtaining the dataset, as plain values."""
        return {
            "name": cls.name,
            "title": cls.title,
            "setting": cls.setting(),
            "expected": dict(cls.expected),
            "tree": cls.tree.strip("\n"),
            "obtain": cls.obtain,
            "page": cls.page,
            "licence": cls.licence,
            "notice": cls.notice,
            "options": {key: option.help for key, option in cls.options.items()},
        }

    @classmethod
    def where_from(cls) -> str:
        """How to obtain the dataset, with the address of its page."""
        return f"{cls.obtain} {cls.page}" if cls.page else cls.obtain

    @classmethod
    def published(cls) -> list[str]:
        """Published sizes in words, a line each; none for own data."""
        counts = cls.expected
        if not counts:
            return []
        people = [
            f"{counts[key]:,} {part}" for part, key in (("train", "train_ids"), ("test", "query_ids")) if key in counts
        ]
        sizes = [f"{part} {counts[f'{part}_records']:,}" for part in ("train", "query", "gallery")]
        unit = "tracklets" if cls.is_video else "images"
        return [f"people: {', '.join(people)}", f"{unit}: {', '.join(sizes)}"]

    @classmethod
    def setting(cls) -> str:
        """Modalities and kind of samples in a few words."""
        return f"{'visible + infrared' if cls.cross_modal else 'visible'}, {'tracklets' if cls.is_video else 'images'}"

    # -- finding files -------------------------------------------------------------------------------------------

    def folder(self, relative: str) -> Path:
        """A folder that must exist.

        Raises:
            GloamError: it does not; both trees are shown.
        """
        path = self.root / relative
        if not path.is_dir():
            raise self.wrong_root(f"There is no folder {relative!r}")
        return path

    def split_file(self, relative: str, cure: str = "") -> Path:
        """A list file that must exist.

        Raises:
            GloamError: it does not; both trees are shown.
        """
        path = self.root / relative
        if not path.is_file():
            raise self.wrong_root(f"The split file {relative!r} is missing", cure)
        return path

    def wrong_root(self, problem: str, cure: str = "") -> GloamError:
        """The error for a folder that does not look like this dataset: expected tree beside found tree."""
        trees = side_by_side(self.tree.strip("\n"), render_tree(self.root), ("expected", f"found in {self.root}"))
        cure = cure or "Give the folder that holds these entries as the root, or unpack the missing part."
        return GloamError(f"{self.title}: {problem} under {self.root}.\n{trees}\n{cure}")
