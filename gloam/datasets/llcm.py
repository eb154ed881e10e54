"""LLCM: low light, 1,064 people, nine cameras that see visible light by day and near infrared by night.

*Source*: releases of DEEN and WSL-VIReID (docs/datasets.md). Cameras keep their numbers 1..9; camera k is one device in
both modalities. Paths are taken apart by component, so a root that contains ``cam`` is fine.
"""

from __future__ import annotations

import re
from typing import ClassVar

from gloam.datasets import register
from gloam.datasets.base import Counts, Dataset
from gloam.datasets.files import list_images, numbered_folders, read_ids, read_path_labels, some, whole_number
from gloam.datasets.labelled_lists import labelled_records
from gloam.datasets.records import DatasetSplits, Modality, Protocol, Record
from gloam.errors import GloamError

VISIBLE_CAMS = (1, 2, 3, 4, 5, 6, 7, 8, 9)
# The paper's table counts nine infrared cameras; the released code leaves out camera 3, and so do published numbers.
INFRARED_CAMS = (1, 2, 4, 5, 6, 7, 8, 9)
TRIALS = 10
_CAMERA = re.compile(r"_c(\d+)")


@register("llcm")
class LLCM(Dataset):
    """LLCM (Zhang and Wang, CVPR 2023)."""

    name = "llcm"
    title = "LLCM"
    cross_modal = True
    expected: ClassVar[Counts] = {
        "train_ids": 713,
        "train_records": 30_921,
        "train_visible": 16_946,
        "train_infrared": 13_975,
        "query_ids": 351,
        "query_records": 8_680,
        "query_visible": 8_680,
        "gallery_ids": 351,
        "gallery_records": 7_166,
        "gallery_infrared": 7_166,
    }
    tree = """
LLCM/
  vis/                0001/0001_c01_s185535_f7010_vis.jpg ...
  nir/                0001/0001_c01_s185535_f7010_nir.jpg ...
  test_vis/           cam1/0003/0003_c01_s185734_f3195_vis.jpg ... cam9/
  test_nir/           cam1/ cam2/ cam4/ ... cam9/
  idx/
    train_vis.txt  train_nir.txt  test_id.txt
"""
    obtain = "Sign the agreement and send it to the authors at Xiamen University."
    page = "https://github.com/ZYK100/LLCM"
    licence = "academic use only, no redistribution"

    def read(self) -> DatasetSplits:
        """Training in list order, visible first; test sorted by id, camera, file name."""
        train, label_map, remarks = labelled_records(
            {
                Modality.VISIBLE: read_path_labels(self.split_file("idx/train_vis.txt")),
                Modality.INFRARED: read_path_labels(self.split_file("idx/train_nir.txt")),
            },
            camera=lambda path, _: self._camera(path),
        )
        self.remarks += [f"training lists: {remark}" for remark in remarks]
        pids = read_ids(self.split_file("idx/test_id.txt"))
        query = self._test("test_vis", VISIBLE_CAMS, pids, Modality.VISIBLE)
        gallery = self._test("test_nir", INFRARED_CAMS, pids, Modality.INFRARED)
        if (self.root / "test_nir" / "cam3").is_dir():
            self.remarks.append("test_nir/cam3 is ignored, as in the released evaluation")
        absent = sorted(set(pids) - {record.pid for record in query + gallery})
        if absent:
            self.remarks.append(f"{len(absent)} listed test ids have no image: {some(map(str, absent))}")
        return DatasetSplits(
            name=self.name,
            root=self.root,
            train=tuple(train),
            query=tuple(query),
            gallery=tuple(gallery),
            protocols=_protocols(),
            label_map=label_map,
            expected_counts=self.expected_counts(),
        )

    def _camera(self, path: str) -> int:
        found = _CAMERA.search(path.rpartition("/")[2])
        camera = whole_number(found.group(1)) if found else None
        if camera is None:
            raise GloamError(
                f"{self.root}/idx: {path[:80]!r} names no camera. Expected names like 0001_c01_s1_f2_vis.jpg."
            )
        return camera

    def _test(self, part: str, cams: tuple[int, ...], pids: tuple[int, ...], modality: Modality) -> list[Record]:
        folder = self.folder(part)
        folders = {cam: numbered_folders(folder / f"cam{cam}") for cam in cams}
        return [
            Record((f"{part}/cam{cam}/{folders[cam][pid]}/{name}",), pid, cam, modality, pid)
            for pid in pids
            for cam in cams
            if pid in folders[cam]
            for name in list_images(folder / f"cam{cam}" / folders[cam][pid])
        ]


def _protocols() -> dict[str, Protocol]:
    protocols = (
        Protocol(
            "llcm/infrared_to_visible",
            f"all infrared queries, one visible image per id and camera, {TRIALS} galleries",
            swapped=True,
            gallery_cams=VISIBLE_CAMS,
            shots=1,
            trials=TRIALS,
            cmc="unique_id",
        ),
        Protocol(
            "llcm/visible_to_infrared",
            f"all visible queries, one infrared image per id and camera, {TRIALS} galleries (the paper's text)",
            gallery_cams=INFRARED_CAMS,
            shots=1,
            trials=TRIALS,
            cmc="unique_id",
        ),
        Protocol(
            "llcm/released_script",
            "what the authors' test script computes for visible to infrared: one infrared QUERY per id and camera "
            f"against all visible images, {TRIALS} draws; not comparable with visible_to_infrared",
            swapped=True,
            sampled="query",
            gallery_cams=INFRARED_CAMS,
            shots=1,
            trials=TRIALS,
            cmc="unique_id",
        ),
    )
    return {protocol.name: protocol for protocol in protocols}
