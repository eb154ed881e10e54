"""DukeMTMC-reID: withdrawn by its authors; gloam only reads a copy that already exists.

*Source*: the readers of fast-reid and torchreid (docs/datasets.md).
"""

from __future__ import annotations

from typing import ClassVar

from gloam.datasets import register
from gloam.datasets.base import Counts
from gloam.datasets.market_style import MarketStyle


@register("dukemtmc")
class DukeMTMC(MarketStyle):
    """DukeMTMC-reID. 408 people occur in the gallery only; ids reach 7140. Cameras are stored 0-based."""

    name = "dukemtmc"
    title = "DukeMTMC-reID"
    cameras = 8
    expected: ClassVar[Counts] = {
        "train_ids": 702,
        "train_records": 16_522,
        "query_ids": 702,
        "query_records": 2_228,
        "gallery_ids": 1_110,
        "gallery_records": 17_661,
    }
    tree = """
DukeMTMC-reID/
  bounding_box_train/ 0001_c2_f0046182.jpg ...
  bounding_box_test/  0002_c1_f0044158.jpg ...
  query/              0005_c2_f0046985.jpg ...
"""
    obtain = "No longer available: its authors withdrew it in 2019. gloam reads an existing local copy only."
    licence = "withdrawn"
    notice = (
        "DukeMTMC-reID was withdrawn by its authors in 2019, because the people filmed had not consented to its "
        "release. Prefer another dataset; do not publish new results on it or pass it on."
    )
