"""Market-1501: 1,501 people, six cameras, visible light.

*Source*: the readers of SpCL and torchreid (docs/datasets.md). Id -1 (junk) is never loaded; id 0 (distractors) stays
in the gallery.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from gloam.datasets import register
from gloam.datasets.base import Counts, Option, Options
from gloam.datasets.files import list_images
from gloam.datasets.market_style import DISTRACTOR, MarketStyle
from gloam.datasets.records import DatasetSplits, Modality, Record


@register("market1501")
class Market1501(MarketStyle):
    """Market-1501 (Zheng et al., ICCV 2015). Cameras are stored 0-based."""

    name = "market1501"
    title = "Market-1501"
    cameras = 6
    has_distractors = True
    expected: ClassVar[Counts] = {
        "train_ids": 751,
        "train_records": 12_936,
        "query_ids": 750,
        "query_records": 3_368,
        "gallery_ids": 751,
        "gallery_records": 15_913,
    }
    tree = """
Market-1501-v15.09.15/
  bounding_box_train/ 0002_c1s1_000451_03.jpg ...
  bounding_box_test/  0000_c1s1_000151_01.jpg ...
  query/              0001_c1s1_001051_00.jpg ...
  images/             (optional: 500k distractors)
"""
    obtain = "Download from the authors' project page."
    page = "https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html"
    licence = "research use"
    options: ClassVar[Options] = {
        "distractors": Option(
            "none", "what to do with images/, the 500k distractors", choices=("none", "auxiliary", "gallery")
        )
    }

    def expected_counts(self) -> Mapping[str, int]:
        """Published counts; the gallery with distractors has no exact published size."""
        if self.values["distractors"] != "gallery":
            return dict(self.expected)
        return {k: v for k, v in self.expected.items() if not k.startswith("gallery_")}

    def read(self) -> DatasetSplits:
        """Records sorted by file name; distractors, if wanted, at the end of the gallery or as auxiliary records."""
        splits = super().read()
        where = self.values["distractors"]
        if where == "none":
            return splits
        # Whatever their names say, they are nobody of the test set; no camera rule can apply to them.
        extra = [
            Record((f"images/{name}",), DISTRACTOR, 0, Modality.VISIBLE, DISTRACTOR)
            for name in list_images(self.folder("images"))
        ]
        if where == "auxiliary":
            return dataclasses.replace(splits, auxiliary=tuple(extra))
        return dataclasses.replace(splits, gallery=(*splits.gallery, *extra))
