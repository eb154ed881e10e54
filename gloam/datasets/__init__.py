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
    from gloam.datasets.base import Option, id_key, relabel, with_labels
    from gloam.datasets.bupt_campus import BUPTCampus
    from gloam.datasets.check import CheckReport, CountRow, decode_problem, gallery_size
    from gloam.datasets.dukemtmc import DukeMTMC
    from gloam.datasets.files import (
        list_images,
        natural_key,
        numbered_folders,
        read_ids,
        read_lines,
        read_path_labels,
        render_tree,
        side_by_side,
        some,
        walk_images,
        whole_number,
    )
    from gloam.datasets.fingerprint import data_fingerprint
    from gloam.datasets.folder_pattern import compile_pattern
    from gloam.datasets.hitsz_vcm import HITSZVCM
    from gloam.datasets.labelled_lists import labelled_records
    from gloam.datasets.llcm import LLCM
    from gloam.datasets.market1501 import Market1501
    from gloam.datasets.market_style import MarketStyle, single_query
    from gloam.datasets.msmt17 import MSMT17
    from gloam.datasets.personx import PersonX
    from gloam.datasets.query_gallery import QueryGallery, divide, fitting_protocols, has_match
    from gloam.datasets.records import raw_id
    from gloam.datasets.regdb import RegDB
    from gloam.datasets.sysu_mm01 import SYSUMM01
    from gloam.datasets.table import Table, write_table
    from gloam.datasets.table_ids import cameras, identities
    from gloam.datasets.table_rows import Row, folder_rows
    from gloam.datasets.validation import hold_out
    from gloam.datasets.veri776 import VeRi776
    from gloam.datasets.weak import WeakLabels, shuffle_labels_per_modality

# File -> what it offers: imported when one of the names is asked for.
_NAMES = {
    "base": "Dataset Option id_key relabel with_labels",
    "bupt_campus": "BUPTCampus",
    "check": "CheckReport CountRow decode_problem gallery_size",
    "dukemtmc": "DukeMTMC",
    "files": (
        "list_images natural_key numbered_folders read_ids read_lines read_path_labels render_tree "
        "side_by_side some walk_images whole_number"
    ),
    "fingerprint": "data_fingerprint",
    "folder_pattern": "compile_pattern",
    "hitsz_vcm": "HITSZVCM",
    "labelled_lists": "labelled_records",
    "llcm": "LLCM",
    "market1501": "Market1501",
    "market_style": "MarketStyle single_query",
    "msmt17": "MSMT17",
    "personx": "PersonX",
    "query_gallery": "QueryGallery divide fitting_protocols has_match",
    "records": "DatasetSplits Modality Protocol Record raw_id",
    "regdb": "RegDB",
    "sysu_mm01": "SYSUMM01",
    "table": "Table write_table",
    "table_ids": "cameras identities",
    "table_rows": "Row folder_rows",
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
    "CheckReport",
    "CountRow",
    "Dataset",
    "DatasetSplits",
    "DukeMTMC",
    "Market1501",
    "MarketStyle",
    "Modality",
    "Option",
    "PersonX",
    "Protocol",
    "QueryGallery",
    "Record",
    "RegDB",
    "Row",
    "Table",
    "VeRi776",
    "WeakLabels",
    "cameras",
    "compile_pattern",
    "data_fingerprint",
    "decode_problem",
    "divide",
    "fitting_protocols",
    "folder_rows",
    "gallery_size",
    "has_match",
    "hold_out",
    "id_key",
    "identities",
    "labelled_records",
    "list_datasets",
    "list_images",
    "load_dataset",
    "natural_key",
    "numbered_folders",
    "raw_id",
    "read_ids",
    "read_lines",
    "read_path_labels",
    "register",
    "relabel",
    "render_tree",
    "shuffle_labels_per_modality",
    "side_by_side",
    "single_query",
    "some",
    "walk_images",
    "whole_number",
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
