"""RegDB: 412 people, ten visible and ten thermal images each, ten published train/test divisions.

*Source*: ``data_loader.py`` of the AGW release (docs/datasets.md). Cameras: 1 visible, 2 thermal (no camera rule
applies).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from gloam.datasets import register
from gloam.datasets.base import Counts, Dataset, Option, Options
from gloam.datasets.files import read_path_labels
from gloam.datasets.labelled_lists import labelled_records
from gloam.datasets.records import DatasetSplits, Modality, Protocol, RawId, Record

_CURE = (
    "The ten divisions idx/*.txt are part of the published protocol and cannot be rebuilt from the images. They are "
    "distributed with the AGW release (Ye et al.); put its idx folder beside Visible and Thermal."
)


@register("regdb")
class RegDB(Dataset):
    """RegDB (Nguyen et al., Sensors 2017) with the divisions of Ye et al. One model is trained per trial."""

    name = "regdb"
    title = "RegDB"
    cross_modal = True
    expected: ClassVar[Counts] = {
        "train_ids": 206,
        "train_records": 4_120,
        "train_visible": 2_060,
        "train_infrared": 2_060,
        "query_ids": 206,
        "query_records": 2_060,
        "query_visible": 2_060,
        "gallery_ids": 206,
        "gallery_records": 2_060,
        "gallery_infrared": 2_060,
    }
    tree = """
RegDB/
  Visible/
    1/ ... 412/       male_front_v_00007_1.bmp ...
  Thermal/
    1/ ... 412/       male_front_t_00007_1.bmp ...
  idx/
    train_visible_{1..10}.txt  train_thermal_{1..10}.txt
    test_visible_{1..10}.txt   test_thermal_{1..10}.txt
"""
    obtain = (
        "Images: copyright form of Dongguk University (Dongguk Body-based Person Recognition Database, "
        "DBPerson-Recog-DB1). The idx folder with the ten divisions: with the AGW release of Ye et al."
    )
    page = "http://dm.dongguk.edu/link.html"
    licence = "academic use under the copyright form"
    options: ClassVar[Options] = {"trial": Option(1, "which of the ten published divisions", least=1, most=10)}

    def read(self) -> DatasetSplits:
        """Records in the order of the trial's lists, visible before thermal."""
        self.folder("Visible")
        self.folder("Thermal")
        trial = self.values["trial"]

        def pairs(part: str, word: str) -> list[tuple[str, int]]:
            return read_path_labels(self.split_file(f"idx/{part}_{word}_{trial}.txt", _CURE))

        parts: dict[str, list[Record]] = {}
        maps: dict[str, dict[RawId, int]] = {}
        for part in ("train", "test"):
            lists = {Modality.VISIBLE: pairs(part, "visible"), Modality.INFRARED: pairs(part, "thermal")}
            parts[part], maps[part], remarks = labelled_records(lists, camera=lambda _, modality: int(modality) + 1)
            self.remarks += [f"{part} lists of trial {trial}: {remark}" for remark in remarks]
        # Test ids are the original ones; equality is all that evaluation asks, so the list's labels are not needed.
        test = [dataclasses.replace(record, pid=int(record.pid_raw)) for record in parts["test"]]
        v2t = Protocol(
            "regdb/visible_to_thermal",
            "visible queries, thermal gallery; papers average ten models, one per trial",
            camera_rule="none",
        )
        t2v = Protocol(
            "regdb/thermal_to_visible",
            "thermal queries, visible gallery; papers average ten models, one per trial",
            swapped=True,
            camera_rule="none",
        )
        return DatasetSplits(
            name=self.name,
            root=self.root,
            train=tuple(parts["train"]),
            query=tuple(r for r in test if r.modality is Modality.VISIBLE),
            gallery=tuple(r for r in test if r.modality is Modality.INFRARED),
            protocols={p.name: p for p in (v2t, t2v)},
            label_map=maps["train"],
            expected_counts=self.expected_counts(),
        )
