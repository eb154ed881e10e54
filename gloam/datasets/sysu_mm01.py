"""SYSU-MM01: visible and infrared images of 491 people from six cameras, indoors and outdoors.

*Source*: the authors' evaluation code and ``data_manager.py`` of the AGW release (docs/datasets.md). Cameras keep their
numbers 1..6; 3 and 6 are infrared, and camera 3 stands in the room of camera 2, hence the camera rule ``sysu``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from gloam.datasets import register
from gloam.datasets.base import Counts, Dataset, Option, Options, relabel, with_labels
from gloam.datasets.files import list_images, numbered_folders, read_ids, some
from gloam.datasets.records import DatasetSplits, Modality, Protocol, Record
from gloam.errors import GloamError

VISIBLE_CAMS = (1, 2, 4, 5)
INFRARED_CAMS = (3, 6)
INDOOR_CAMS = (1, 2)
TRIALS = 10


@register("sysu_mm01")
class SYSUMM01(Dataset):
    """SYSU-MM01 (Wu et al., ICCV 2017)."""

    name = "sysu_mm01"
    title = "SYSU-MM01"
    cross_modal = True
    expected: ClassVar[Counts] = {
        "train_ids": 395,
        "train_records": 34_167,
        "train_visible": 22_258,
        "train_infrared": 11_909,
        "query_ids": 96,
        "query_records": 3_803,
        "query_infrared": 3_803,
        "gallery_ids": 96,
        "gallery_records": 6_775,
        "gallery_visible": 6_775,
    }
    expected_galleries: ClassVar[Counts] = {
        "sysu_mm01/all_single": 301,
        "sysu_mm01/indoor_single": 112,
        "sysu_mm01/all_multi": 3_010,
        "sysu_mm01/indoor_multi": 1_120,
    }
    tree = """
SYSU-MM01/            (or its sub-folder ori_data/)
  cam1/ ... cam6/     3 and 6 infrared
    0001/
      0001.jpg 0002.jpg ...
  exp/
    train_id.txt  val_id.txt  test_id.txt
"""
    obtain = "Sign the release agreement and send it to the authors at Sun Yat-sen University."
    page = "https://github.com/wuancong/SYSU-MM01"
    licence = "academic use only, no redistribution"
    options: ClassVar[Options] = {
        "train": Option("train_val", "ids to train on: all papers use train_val (395)", choices=("train_val", "train")),
        "permutations": Option(
            None, "path of the authors' rand_perm_cam.mat: their galleries instead of the seeded draws"
        ),
    }

    def expected_counts(self) -> Mapping[str, int]:
        """Published counts; of the 296-id training set only the number of ids is published."""
        if self.values["train"] == "train_val":
            return dict(self.expected)
        return {k: v for k, v in self.expected.items() if not k.startswith("train_")} | {"train_ids": 296}

    def read(self) -> DatasetSplits:
        """Records sorted by id, camera, file name."""
        if not (self.root / "exp").is_dir() and (self.root / "ori_data").is_dir():
            self.root = self.root / "ori_data"
        for cam in range(1, 7):
            self.folder(f"cam{cam}")
        train_ids = read_ids(self.split_file("exp/train_id.txt"))
        test_ids = read_ids(self.split_file("exp/test_id.txt"))
        validation_ids: tuple[int, ...] = ()
        if self.values["train"] == "train_val":
            cure = "Restore it from the release, or train on the 296 training ids alone with the option train=train."
            validation_ids = read_ids(self.split_file("exp/val_id.txt", cure))
        shared = sorted(set(test_ids) & {*train_ids, *validation_ids})
        if shared:
            raise GloamError(f"{self.root}/exp: ids {some(map(str, shared))} are in the test list and a training list.")

        folders = {cam: numbered_folders(self.root / f"cam{cam}") for cam in range(1, 7)}
        every_cam = range(1, 7)
        train = self._records(folders, sorted({*train_ids, *validation_ids}), every_cam)
        query = self._records(folders, test_ids, INFRARED_CAMS)
        gallery = self._records(folders, test_ids, VISIBLE_CAMS)
        self._remark_absent("train", {*train_ids, *validation_ids}, train)
        self._remark_absent("test", set(test_ids), query + gallery)
        # As in the references, an id counts as a class only if it has an image.
        label_map = relabel(record.pid_raw for record in train)
        protocols = _protocols()
        if self.values["permutations"]:
            protocols = _official(protocols, gallery, Path(self.values["permutations"]).expanduser())
        return DatasetSplits(
            name=self.name,
            root=self.root,
            train=with_labels(train, label_map),
            query=tuple(query),
            gallery=tuple(gallery),
            protocols=protocols,
            label_map=label_map,
            expected_counts=self.expected_counts(),
            validation_pids=tuple(pid for pid in validation_ids if pid in label_map),
            notice=self.notice,
        )

    def _records(
        self, folders: Mapping[int, Mapping[int, str]], pids: Iterable[int], cams: Iterable[int]
    ) -> list[Record]:
        cams = tuple(cams)
        records = []
        for pid in pids:
            for cam in cams:
                if pid not in folders[cam]:
                    continue
                modality = Modality.INFRARED if cam in INFRARED_CAMS else Modality.VISIBLE
                folder = f"cam{cam}/{folders[cam][pid]}"
                records += [
                    Record((f"{folder}/{name}",), pid, cam, modality, pid) for name in list_images(self.root / folder)
                ]
        return records

    def _remark_absent(self, part: str, pids: set[int], records: Iterable[Record]) -> None:
        absent = sorted(pids - {record.pid_raw for record in records})
        if absent:
            self.remarks.append(f"{len(absent)} listed {part} ids have no image: {some(map(str, absent))}")


def _protocols() -> dict[str, Protocol]:
    protocols = {}
    for shots, kind in ((1, "single"), (10, "multi")):
        for search, cams in (("all", VISIBLE_CAMS), ("indoor", INDOOR_CAMS)):
            name = f"sysu_mm01/{search}_{kind}"
            protocols[name] = Protocol(
                name,
                f"{search}-search, {kind}-shot: infrared queries, {shots} visible image(s) per id and camera, "
                f"{TRIALS} galleries",
                query_modality=Modality.INFRARED,
                gallery_modality=Modality.VISIBLE,
                gallery_cams=cams,
                shots=shots,
                trials=TRIALS,
                camera_rule="sysu",
                cmc="unique_id",
            )
    return protocols


def _official(protocols: Mapping[str, Protocol], gallery: Iterable[Record], path: Path) -> dict[str, Protocol]:
    """The protocols with the galleries of the authors' permutation file, camera-major as in their MATLAB code.

    *Source*: ``evaluation_SYSU_MM01.m`` of the dataset's authors (docs/datasets.md).
    """
    permutations = _read_permutations(path)
    files: dict[tuple[int, int], list[str]] = {}
    for record in gallery:
        files.setdefault((record.cam, record.pid), []).append(record.paths[0])
    orders: dict[tuple[int, int], Any] = {}
    for (cam, pid), names in files.items():
        order = permutations(cam, pid)
        if order is None or order.shape != (TRIALS, len(names)) or sorted(order[0]) != list(range(1, len(names) + 1)):
            shape = "none" if order is None else "x".join(map(str, order.shape))
            raise GloamError(
                f"{path}: camera {cam}, id {pid} needs {TRIALS} permutations of {len(names)} images, found {shape}. "
                "The file belongs to the complete official data; use the seeded galleries (no permutations option)."
            )
        orders[cam, pid] = order
    official = {}
    for name, protocol in protocols.items():
        cams, shots = protocol.gallery_cams or (), protocol.shots or 1
        galleries = tuple(
            tuple(
                files[key][number - 1]
                for key in sorted(files)
                if key[0] in cams
                for number in orders[key][trial, :shots].tolist()
            )
            for trial in range(TRIALS)
        )
        official[name] = dataclasses.replace(
            protocol, galleries=galleries, description=f"{protocol.description} (official permutations)"
        )
    return official


def _read_permutations(path: Path) -> Any:
    """A function ``(cam, pid) -> (10, n) array or None`` over the nested cells of ``rand_perm_cam.mat``."""
    import numpy as np
    from scipy.io import loadmat

    if not path.is_file():
        raise GloamError(f"There is no permutation file {path}. Leave the option out to use the seeded galleries.")
    try:
        cells = np.ravel(loadmat(str(path))["rand_perm_cam"])
        cameras = [np.ravel(cell) for cell in cells]
    except Exception as error:  # scipy raises a dozen kinds on damaged or foreign files
        raise GloamError(f"{path} is not the authors' rand_perm_cam.mat: {error}.") from error

    def look_up(cam: int, pid: int) -> Any:
        if cam > len(cameras) or pid > len(cameras[cam - 1]):
            return None
        order = np.atleast_2d(np.asarray(cameras[cam - 1][pid - 1]))
        return order.astype(np.int64) if order.size else None

    return look_up
