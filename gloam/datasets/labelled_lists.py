"""Training lists of the form ``folder/image.jpg LABEL`` whose labels two modalities share (RegDB, LLCM)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from gloam.datasets.base import relabel
from gloam.datasets.files import whole_number
from gloam.datasets.records import Modality, RawId, Record


def labelled_records(
    lists: Mapping[Modality, Sequence[tuple[str, int]]], camera: Callable[[str, Modality], int]
) -> tuple[list[Record], dict[RawId, int], list[str]]:
    """Records of both modalities, in file order, the modalities in the order of ``lists``.

    *Source*: index files of RegDB and LLCM (docs/datasets.md): labels are contiguous and local to the list, and equal
    labels mean equal people across modalities. The original id is the image's folder number where that agrees with the
    labels; a copy whose folders say something else keeps the label as its id.

    Args:
        lists: per modality, pairs (path, label).
        camera: (path, modality) -> camera number.

    Returns:
        records with ``pid`` = label and ``pid_raw`` = original id; original id -> label; remarks for the user.
    """
    pairs = {(PurePosixPath(path).parent.name, label) for rows in lists.values() for path, label in rows}
    remarks = []
    folders = {folder: whole_number(folder) for folder, _ in pairs}
    by_folder = None not in folders.values()
    if not (by_folder and len(set(folders.values())) == len(pairs) == len({label for _, label in pairs})):
        by_folder = False
        remarks.append("folder numbers and labels of the lists disagree: the labels are used as ids")
    label_map = {int(folder) if by_folder else label: label for folder, label in pairs}
    if sorted(label_map.values()) != list(range(len(label_map))):
        remarks.append("labels of the lists are not contiguous from 0: they were renumbered in ascending order")
        ranks: dict[RawId, int] = relabel(label_map.values())
    else:
        ranks = {label: label for label in label_map.values()}
    originals = {label: pid for pid, label in label_map.items()}
    records = [
        Record((path,), ranks[label], camera(path, modality), modality, originals[label])
        for modality, rows in lists.items()
        for path, label in rows
    ]
    return records, {pid: ranks[label] for pid, label in sorted(label_map.items())}, remarks
