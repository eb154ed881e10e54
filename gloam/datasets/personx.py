"""PersonX: synthetic people in front of six backgrounds, each background a camera.

*Source*: ``datasets/personx.py`` of the MetaPRD release (docs/datasets.md).
"""

from __future__ import annotations

from typing import ClassVar

from gloam.datasets import register
from gloam.datasets.base import Counts
from gloam.datasets.market_style import MarketStyle
from gloam.datasets.records import DatasetSplits, Record

# Camera written in a name -> 0-based camera (VisDA-2020 packaging).
_CAMERAS = {3: 0, 4: 1, 8: 2, 10: 3, 11: 4, 12: 5}


@register("personx")
class PersonX(MarketStyle):
    """PersonX (Sun and Zheng, CVPR 2019): the VisDA-2020 packaging, or the first release with sub-folders 1..6.

    In the first release the sub-folder is the background, so it decides the camera (sub-folder k -> camera k-1),
    whatever the names say.
    """

    name = "personx"
    title = "PersonX"
    cameras = 6
    expected: ClassVar[Counts] = {
        "train_ids": 410,
        "train_records": 9_840,
        "query_ids": 856,
        "query_records": 5_136,
        "gallery_ids": 856,
        "gallery_records": 30_816,
    }
    tree = """
PersonX/              (or six sub-folders 1/ ... 6/, each with these three)
  bounding_box_train/ 0001_c3s1_1.jpg ...
  bounding_box_test/  0411_c4s1_1.jpg ...
  query/              0411_c8s1_1.jpg ...
"""
    obtain = "Download from the authors' repository (VisDA-2020 packaging or the CVPR 2019 release)."
    page = "https://github.com/sxzrt/Instructions-of-the-PersonX-dataset"
    licence = "academic use (synthetic people)"

    def camera(self, written: int) -> int:
        """0-based camera of the VisDA-2020 numbering."""
        if written not in _CAMERAS:
            raise ValueError(f"the backgrounds are {', '.join(map(str, _CAMERAS))}")
        return _CAMERAS[written]

    def read(self) -> DatasetSplits:
        """Records sorted by (sub-folder and) file name."""
        backgrounds = [k for k in range(1, 7) if (self.root / str(k)).is_dir()]
        if (self.root / self.folders[0]).is_dir() or not backgrounds:
            return super().read()
        if len(backgrounds) < 6:
            self.remarks.append(f"only the backgrounds {', '.join(map(str, backgrounds))} of 1..6 are present")
        train, query, gallery = (
            [record for background in backgrounds for record in self._background(background, folder)]
            for folder in self.folders
        )
        return self.splits(train, query, gallery)

    def _background(self, background: int, folder: str) -> list[Record]:
        return self.read_folder(f"{background}/{folder}", camera=lambda _: background - 1)
