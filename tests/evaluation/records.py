"""Small record sets for tests of the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gloam.datasets.records import DatasetSplits, Modality, Protocol, Record


def record(pid: int, cam: int, modality: Modality, number: int = 0) -> Record:
    """A record whose file name ends in its number."""
    return Record((f"cam{cam}/{pid:04d}/{number:04d}.jpg",), pid, cam, modality, pid)


def splits(query: Sequence[Record], gallery: Sequence[Record], *protocols: Protocol, root: str = ".") -> DatasetSplits:
    """A dataset without training records."""
    named = {protocol.name: protocol for protocol in protocols}
    return DatasetSplits("x", Path(root), (), tuple(query), tuple(gallery), named, {})
