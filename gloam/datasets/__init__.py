"""Benchmarks and own data. ``load_dataset("sysu_mm01", root)`` turns a folder into records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gloam.datasets.base import Dataset
from gloam.datasets.records import DatasetSplits, Modality, Protocol, Record
from gloam.errors import GloamError
from gloam.registry import Registry

__all__ = ["Dataset", "DatasetSplits", "Modality", "Protocol", "Record", "list_datasets", "load_dataset", "register"]


def _check(name: str, entry: Any) -> None:
    if not (isinstance(entry, type) and issubclass(entry, Dataset)):
        raise GloamError(f"The dataset {name!r} must be a subclass of gloam.datasets.Dataset, not {entry!r}.")
    needed = ("name", "title", "tree", "obtain", "licence", "read")
    if missing := [key for key in needed if getattr(entry, key, None) in (None, Dataset.read)]:
        raise GloamError(f"The dataset {name!r} ({entry.__module__}) lacks {', '.join(missing)}.")
    if entry.name != name:
        raise GloamError(f"The dataset {name!r} ({entry.__module__}) calls itself {entry.name!r}: use one name.")


registry: Registry[type[Dataset]] = Registry("dataset", __name__, check=_check)
register = registry.register
get_dataset = registry.get


def list_datasets(pattern: str = "*") -> list[str]:
    """Names of all datasets that match a shell wildcard."""
    return registry.names(pattern)


def load_dataset(name: str, root: str | Path, **options: Any) -> DatasetSplits:
    """Read a dataset's file lists.

    Args:
        name: registered name, e.g. ``"market1501"``.
        root: the dataset's folder.
        **options: what the dataset offers (RegDB: ``trial=3``).

    Raises:
        GloamError: unknown name or option, or a folder that does not look as it should (both trees are shown).
    """
    return get_dataset(name)(root, **options).load()
