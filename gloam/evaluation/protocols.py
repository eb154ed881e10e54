"""Carrying out a protocol: which records are query and gallery, and which gallery a trial draws."""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gloam.datasets.records import DatasetSplits, Protocol, Record
from gloam.errors import GloamError, did_you_mean


@dataclass(frozen=True)
class Selection:
    """Positions of a protocol's records.

    Attributes:
        query: ``(Q,)`` positions in the query side.
        gallery: ``(G,)`` positions in the gallery side, all candidates.
        query_side: records the query positions refer to.
        gallery_side: records the gallery positions refer to.
        swapped: True when the query side is ``splits.gallery``.
    """

    query: NDArray[np.int64]
    gallery: NDArray[np.int64]
    query_side: Sequence[Record]
    gallery_side: Sequence[Record]
    swapped: bool


def find_protocols(splits: DatasetSplits, patterns: str | Sequence[str] | None = None) -> list[Protocol]:
    """A dataset's protocols by name or wildcard, in the dataset's order.

    Args:
        splits: the dataset.
        patterns: full names (``sysu_mm01/all_single``), the part behind the slash, or shell wildcards; None: all.

    Raises:
        GloamError: a pattern matches nothing.
    """
    if patterns is None:
        return list(splits.protocols.values())
    chosen: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        short = {name.split("/")[-1]: name for name in splits.protocols}
        found = set(fnmatch.filter(splits.protocols, pattern)) | {short[s] for s in fnmatch.filter(short, pattern)}
        if not found:
            raise GloamError(f"{splits.name} has no protocol {pattern!r}. {_near(pattern, splits)}")
        chosen |= found
    return [protocol for name, protocol in splits.protocols.items() if name in chosen]


def _near(pattern: str, splits: DatasetSplits) -> str:
    known = list(splits.protocols)
    return did_you_mean(pattern, known if "/" in pattern else [name.split("/")[-1] for name in known])


def select(splits: DatasetSplits, protocol: Protocol) -> Selection:
    """Query and gallery candidates of a protocol.

    Raises:
        GloamError: one of them is empty.
    """
    query_side, gallery_side = splits.query, splits.gallery
    if protocol.swapped:
        query_side, gallery_side = gallery_side, query_side
    query_cams = protocol.gallery_cams if protocol.sampled == "query" else None
    gallery_cams = protocol.gallery_cams if protocol.sampled == "gallery" else None
    query = _positions(query_side, protocol.query_modality, query_cams)
    gallery = _positions(gallery_side, protocol.gallery_modality, gallery_cams)
    for positions, what in ((query, "queries"), (gallery, "gallery entries")):
        if len(positions) == 0:
            raise GloamError(
                f"Protocol {protocol.name} finds no {what} in {splits.root}. Are the test lists complete? "
                "gloam data check tells."
            )
    return Selection(query, gallery, query_side, gallery_side, protocol.swapped)


def trials(protocol: Protocol, selection: Selection) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Query and gallery positions of every trial, as indices into ``selection.query`` and ``selection.gallery``.

    *Source*: reference sampling of SYSU-MM01 and LLCM: ids ascending, cameras in the protocol's order, files by name,
    one private Mersenne generator per trial seeded with its number; ``choice`` for one shot, ``sample`` for several.
    A person with fewer images than shots in a camera gives all of them.

    Raises:
        GloamError: an explicit gallery names an image that does not exist.
    """
    every_query, every_gallery = np.arange(len(selection.query)), np.arange(len(selection.gallery))
    if protocol.galleries is not None:
        place = {selection.gallery_side[p].paths[0]: i for i, p in enumerate(selection.gallery)}
        for number, paths in enumerate(protocol.galleries):
            missing = [path for path in paths if path not in place]
            if missing:
                raise GloamError(
                    f"Trial {number} of {protocol.name} names {missing[0]} ({len(missing)} such images), which the "
                    "gallery lacks. Do the permutations belong to this copy of the dataset?"
                )
            yield every_query, np.array([place[path] for path in paths], dtype=np.int64)
        return
    if protocol.shots is None:
        yield every_query, every_gallery
        return
    if protocol.sampled == "query":
        groups = _groups(selection.query_side, selection.query, protocol.gallery_cams)
        for trial in range(protocol.trials):
            yield _draw(groups, protocol.shots, trial), every_gallery
        return
    groups = _groups(selection.gallery_side, selection.gallery, protocol.gallery_cams)
    for trial in range(protocol.trials):
        yield every_query, _draw(groups, protocol.shots, trial)


def _positions(records: Sequence[Record], modality: int | None, cams: tuple[int, ...] | None) -> NDArray[np.int64]:
    kept = [
        i
        for i, record in enumerate(records)
        if (modality is None or record.modality == modality) and (cams is None or record.cam in cams)
    ]
    return np.array(kept, dtype=np.int64)


def _groups(records: Sequence[Record], positions: NDArray[np.int64], cams: tuple[int, ...] | None) -> list[list[int]]:
    """Indices into ``positions`` per (id, camera), ids ascending, cameras in the given order, files by name."""
    order = {cam: number for number, cam in enumerate(cams or ())}
    found: dict[tuple[int, int], list[int]] = {}
    for index, position in enumerate(positions):
        record = records[position]
        found.setdefault((record.pid, order.get(record.cam, record.cam)), []).append(index)
    names = [records[position].paths[0] for position in positions]
    return [sorted(found[key], key=lambda index: names[index]) for key in sorted(found)]


def _draw(groups: list[list[int]], shots: int, trial: int) -> NDArray[np.int64]:
    generator = random.Random(trial)
    drawn: list[int] = []
    for group in groups:
        if shots == 1:
            drawn.append(generator.choice(group))
        else:
            drawn.extend(generator.sample(group, min(shots, len(group))))
    return np.array(drawn, dtype=np.int64)
