"""The layout of Market-1501 that many visible benchmarks copied: three folders of images named ``<pid>_c<cam>...``.

*Source*: ``datasets/`` of SpCL, Cluster Contrast and MetaPRD (docs/datasets.md). Differences: the pattern is applied to
the file name, never to the path, and folders are read in sorted order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import ClassVar

from gloam.datasets.base import Dataset, relabel, with_labels
from gloam.datasets.files import list_images, some
from gloam.datasets.records import DatasetSplits, Modality, Protocol, Record
from gloam.errors import GloamError

MARKET_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
JUNK = -1
DISTRACTOR = 0
# Person, camera. All digits of the camera are read: c11 is camera 11, and a wrong dataset is noticed.
_NAME = re.compile(r"(-?\d+)_c(\d+)")


def single_query(dataset: str) -> dict[str, Protocol]:
    """The one protocol of visible benchmarks: every query image alone against the whole gallery."""
    name = f"{dataset}/single_query"
    description = "each query image alone; gallery images of the same id and camera do not count"
    return {name: Protocol(name, description)}


class MarketStyle(Dataset):
    """Base of the datasets that come as three flat folders. A subclass sets the number of cameras."""

    # Cameras as written in names 1..cameras; stored 0-based.
    cameras: ClassVar[int]
    # train, query, gallery
    folders: ClassVar[tuple[str, str, str]] = MARKET_FOLDERS
    # True where id 0 marks gallery distractors (Market-1501); elsewhere 0 is a person.
    has_distractors: ClassVar[bool] = False

    def read(self) -> DatasetSplits:
        """Records sorted by file name."""
        train, query, gallery = (self.read_folder(folder) for folder in self.folders)
        if self.has_distractors:
            train, query = ([r for r in part if r.pid != DISTRACTOR] for part in (train, query))
        return self.splits(train, query, gallery)

    def splits(
        self,
        train: Sequence[Record],
        query: Sequence[Record],
        gallery: Sequence[Record],
        auxiliary: Sequence[Record] = (),
        notice: str | None = None,
    ) -> DatasetSplits:
        """Relabel the training records and put everything together."""
        label_map = relabel(record.pid_raw for record in train)
        return DatasetSplits(
            name=self.name,
            root=self.root,
            train=with_labels(train, label_map),
            query=tuple(query),
            gallery=tuple(gallery),
            protocols=single_query(self.name),
            label_map=label_map,
            expected_counts=self.expected_counts(),
            auxiliary=tuple(auxiliary),
            notice=notice or self.notice,
        )

    def camera(self, written: int) -> int:
        """0-based camera of the number written in a name.

        Raises:
            ValueError: there is no such camera.
        """
        if not 1 <= written <= self.cameras:
            raise ValueError(f"cameras are 1..{self.cameras}")
        return written - 1

    def read_folder(self, folder: str, camera: Callable[[int], int] | None = None) -> list[Record]:
        """Records of the images directly inside a folder, sorted by name; junk (id -1) is dropped.

        Args:
            folder: relative to the root; must exist.
            camera: written camera -> stored camera; default: ``self.camera``.

        Raises:
            GloamError: no such folder, or a camera that the dataset does not have.
        """
        names = list_images(self.folder(folder))
        records, foreign, junk = [], [], 0
        for name in names:
            found = _NAME.match(name)
            if not found:
                foreign.append(name)
                continue
            pid = int(found.group(1))
            if pid == JUNK:
                junk += 1
                continue
            try:
                cam = (camera or self.camera)(int(found.group(2)))
            except ValueError as error:
                raise GloamError(
                    f"{self.title}: {self.root}/{folder}/{name} names camera {int(found.group(2))}, but {error}. "
                    "Is this folder another dataset?"
                ) from error
            records.append(Record((f"{folder}/{name}",), pid, cam, Modality.VISIBLE, pid))
        if foreign:
            self.remarks.append(f"{folder}: {len(foreign)} images with other names are ignored: {some(foreign, 3)}")
        if junk:
            self.remarks.append(f"{folder}: {junk} junk detections (id -1) are ignored")
        return records
