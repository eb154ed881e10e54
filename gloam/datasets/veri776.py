"""VeRi-776: 776 vehicles, twenty cameras, visible light.

*Source*: the readers of MetaPRD and fast-reid (docs/datasets.md). Evaluated with the same-id-same-camera rule,
as the ReID libraries do; the authors' own tool uses explicit good/junk lists per query.
"""

from __future__ import annotations

from typing import ClassVar

from gloam.datasets import register
from gloam.datasets.base import Counts
from gloam.datasets.market_style import MarketStyle


@register("veri776")
class VeRi776(MarketStyle):
    """VeRi-776 (Liu et al., ECCV 2016). Cameras are stored 0-based."""

    name = "veri776"
    title = "VeRi-776 (vehicles)"
    cameras = 20
    folders = ("image_train", "image_query", "image_test")
    expected: ClassVar[Counts] = {
        "train_ids": 576,
        "train_records": 37_778,
        "query_ids": 200,
        "query_records": 1_678,
        "gallery_ids": 200,
        "gallery_records": 11_579,
    }
    tree = """
VeRi/
  image_train/        0001_c001_00016450_0.jpg ...
  image_query/        0002_c002_00030600_0.jpg ...
  image_test/         0002_c002_00030605_1.jpg ...
"""
    obtain = "Request it from the authors by e-mail."
    page = "https://vehiclereid.github.io/VeRi/"
    licence = "research use"
