"""MSMT17: 4,101 people, fifteen cameras, visible light. V1, V2 (faces masked) and the re-packed Market layout.

*Source*: the readers of fast-reid, torchreid and SpCL (docs/datasets.md). Training ids and test ids overlap as numbers
but are different people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gloam.datasets import register
from gloam.datasets.base import Counts, Option, Options
from gloam.datasets.files import read_path_labels
from gloam.datasets.market_style import MarketStyle
from gloam.datasets.records import DatasetSplits, Modality, Record
from gloam.errors import GloamError

# Folder of the training images, folder of the test images.
_RELEASES = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
_TRAIN_VAL = 32_621


@register("msmt17")
class MSMT17(MarketStyle):
    """MSMT17 (Wei et al., CVPR 2018). Cameras are stored 0-based."""

    name = "msmt17"
    title = "MSMT17"
    cameras = 15
    numbers_test_ids_anew = True
    expected: ClassVar[Counts] = {
        "train_ids": 1_041,
        "train_records": 30_248,
        "query_ids": 3_060,
        "query_records": 11_659,
        "gallery_ids": 3_060,
        "gallery_records": 82_161,
    }
    tree = """
MSMT17_V1/
  train/              (V2: mask_train_v2)
    0000/             0000_000_01_0303morning_0015_0.jpg ...
  test/               (V2: mask_test_v2)
  list_train.txt  list_val.txt
  list_query.txt  list_gallery.txt
or, re-packed:
  bounding_box_train/ 0781_c11_0015.jpg ...
  bounding_box_test/  query/
"""
    obtain = "Sign the release agreement with the authors at Peking University; V2 is the version handed out now."
    page = "https://www.pkuvmc.com/dataset.html"
    licence = "research use under the agreement"
    options: ClassVar[Options] = {
        "train": Option(
            "train",
            "train: list_train (supervised work); train_val: list_train and list_val (unsupervised work)",
            choices=("train", "train_val"),
        )
    }

    @property
    def repacked(self) -> bool:
        """True for the Market-style copy, whose training folder always holds train and val."""
        return (self.root / self.folders[0]).is_dir()

    def expected_counts(self) -> Mapping[str, int]:
        """Published counts of the chosen training set."""
        whole = self.values["train"] == "train_val" or self.repacked
        return {**self.expected, "train_records": _TRAIN_VAL} if whole else dict(self.expected)

    def read(self) -> DatasetSplits:
        """Records in the order of the lists (re-packed copy: sorted by file name)."""
        if self.repacked:
            if self.values["train"] == "train":
                self.remarks.append(
                    "the re-packed copy does not say which training images belong to list_val: all are used"
                )
            return super().read()
        for train, test in _RELEASES:
            if (self.root / train).is_dir() and (self.root / test).is_dir():
                break
        else:
            raise self.wrong_root("There is neither train/ and test/, nor mask_train_v2/, nor bounding_box_train/")
        training = self._listed(train, "list_train.txt")
        if self.values["train"] == "train_val":
            training += self._listed(train, "list_val.txt")
        return self.splits(training, self._listed(test, "list_query.txt"), self._listed(test, "list_gallery.txt"))

    def _listed(self, folder: str, relative: str) -> list[Record]:
        path = self.split_file(relative)
        records = []
        for name, pid in read_path_labels(path):
            # Third field of the base name; folder names may hold underscores too.
            fields = name.rpartition("/")[2].split("_")
            try:
                cam = self.camera(int(fields[2]))
            except (IndexError, ValueError) as error:
                raise GloamError(
                    f"{path}: {name!r} names no camera 1..{self.cameras} in third place. "
                    "Expected names like 0000_000_01_0303morning_0015_0.jpg."
                ) from error
            records.append(Record((f"{folder}/{name}",), pid, cam, Modality.VISIBLE, pid))
        return records
