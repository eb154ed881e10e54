"""Benchmarks and own data. ``load_dataset("sysu_mm01", root)`` turns a folder into records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gloam.datasets.base import Dataset
from gloam.datasets.records import DatasetSplits, Modality, Protocol, Record
from gloam.errors import GloamError
from gloam.exports import lazy_exports
from gloam.registry import Registry

if TYPE_CHECKING:
    from gloam.datasets.base import Option, relabel, with_labels
    from gloam.datasets.bupt_campus import BUPTCampus
    from gloam.datasets.dukemtmc import DukeMTMC
    from gloam.datasets.hitsz_vcm import HITSZVCM
    from gloam.datasets.llcm import LLCM
    from gloam.datasets.market1501 import Market1501
    from gloam.datasets.market_style import MarketStyle
    from gloam.datasets.msmt17 import MSMT17
    from gloam.datasets.personx import PersonX
    from gloam.datasets.records import raw_id
    from gloam.datasets.regdb import RegDB
    from gloam.datasets.sysu_mm01 import SYSUMM01
    from gloam.datasets.table import Table, write_table
    from gloam.datasets.validation import hold_out
    from gloam.datasets.veri776 import VeRi776
    from gloam.datasets.weak import WeakLabels, shuffle_labels_per_modality

# File -> what it offers users: imported when one of the names is asked for. What readers share among themselves is not
# listed; it is found in its file.
_NAMES = {
    "base": "Dataset Option relabel with_labels",
    "bupt_campus": "BUPTCampus",
    "dukemtmc": "DukeMTMC",
    "hitsz_vcm": "HITSZVCM",
    "llcm": "LLCM",
    "market1501": "Market1501",
    "market_style": "MarketStyle",
    "msmt17": "MSMT17",
    "personx": "PersonX",
    "records": "DatasetSplits Modality Protocol Record raw_id",
    "regdb": "RegDB",
    "sysu_mm01": "SYSUMM01",
    "table": "Table write_table",
    "validation": "hold_out",
    "veri776": "VeRi776",
    "weak": "WeakLabels shuffle_labels_per_modality",
}

__all__ = [
    "HITSZVCM",
    "LLCM",
    "MSMT17",
    "SYSUMM01",
    "BUPTCampus",
    "Dataset",
    "DatasetSplits",
    "DukeMTMC",
    "Market1501",
    "MarketStyle",
    "Modality",
    "Option",
    "PersonX",
    "Protocol",
    "Record",
    "RegDB",
    "Table",
    "VeRi776",
    "WeakLabels",
    "get_dataset",
    "hold_out",
    "list_datasets",
    "load_dataset",
    "raw_id",
    "register",
    "relabel",
    "shuffle_labels_per_modality",
    "with_labels",
    "write_table",
]


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


__getattr__, __dir__ = lazy_exports(__name__, _NAMES)
