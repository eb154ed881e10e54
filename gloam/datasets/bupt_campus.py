"""BUPTCampus: 3,080 people as pixel-aligned visible and infrared tracklets from six cameras.

*Source*: readers of BUPTCampus and M3-ReID (docs/datasets.md). Cameras: LS3 0, G25 1, CQ1 2, W4 3, TSG1 4, TSG2 5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from gloam.datasets import register
from gloam.datasets.base import Counts, Dataset, Option, Options, relabel, with_labels
from gloam.datasets.files import read_lines, whole_number
from gloam.datasets.records import DatasetSplits, Modality, Protocol, Record
from gloam.errors import GloamError, did_you_mean

CAMERAS = {"LS3": 0, "G25": 1, "CQ1": 2, "W4": 3, "TSG1": 4, "TSG2": 5}
_MODALITIES = {"IR": Modality.INFRARED, "RGB": Modality.VISIBLE}


@register("bupt_campus")
class BUPTCampus(Dataset):
    """BUPTCampus (Du et al., TIFS 2023). Both query and gallery mix the modalities; protocols select by modality."""

    name = "bupt_campus"
    title = "BUPTCampus"
    cross_modal = True
    is_video = True
    expected: ClassVar[Counts] = {
        "train_ids": 1_074,
        "train_records": 7_148,
        "train_visible": 3_574,
        "train_infrared": 3_574,
        "train_images": 796_138,
        "query_ids": 1_076,
        "query_records": 1_076,
        "query_visible": 540,
        "query_infrared": 536,
        "query_images": 101_938,
        "gallery_ids": 1_076,
        "gallery_records": 4_844,
        "gallery_visible": 2_422,
        "gallery_infrared": 2_422,
        "gallery_images": 597_542,
        "auxiliary_ids": 930,
        "auxiliary_records": 1_860,
        "auxiliary_images": 209_150,
    }
    tree = """
BUPTCampus/
  DATA/
    1/
      IR/CQ1/         1_IR_CQ1_1_8535.jpg ...
      RGB/CQ1/        1_RGB_CQ1_1_8535.jpg ...
      FakeIR/CQ1/     (only for the option fake_ir)
  data_paths.json
  train.txt  query.txt  gallery.txt
  train_auxiliary.txt (optional)
"""
    obtain = "Public download from the authors' page."
    page = "https://github.com/dyhBUPT/BUPTCampus"
    licence = "academic use only, no redistribution"
    options: ClassVar[Options] = {
        "auxiliary": Option(False, "train on the 930 single-camera auxiliary people too (no published run does)"),
        "fake_ir": Option(False, "read visible tracklets from FakeIR, the authors' generated infrared frames"),
    }

    def expected_counts(self) -> Mapping[str, int]:
        """Published counts; with ``auxiliary`` the auxiliary ones are added to training."""
        if not self.values["auxiliary"]:
            return dict(self.expected)
        counts = {k: v for k, v in self.expected.items() if not k.startswith("auxiliary_")}
        for key in ("ids", "records", "images"):
            counts[f"train_{key}"] += self.expected[f"auxiliary_{key}"]
        half = self.expected["auxiliary_records"] // 2
        return counts | {
            f"train_{modality}": counts[f"train_{modality}"] + half for modality in ("visible", "infrared")
        }

    def read(self) -> DatasetSplits:
        """Tracklets in list order; a training line gives its infrared tracklet, then its visible one."""
        self.folder("DATA")
        path = self.split_file("data_paths.json")
        try:
            frames = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise GloamError(f"{path} is not valid JSON ({error}). Unpack the dataset again.") from error
        train = self._tracks(frames, "train.txt")
        query = self._tracks(frames, "query.txt")
        gallery = self._tracks(frames, "gallery.txt")
        label_map = relabel(record.pid_raw for record in train)
        auxiliary: list[Record] = []
        if self.values["auxiliary"] or (self.root / "train_auxiliary.txt").is_file():
            auxiliary = self._tracks(frames, "train_auxiliary.txt")
        if self.values["auxiliary"]:
            # Auxiliary labels follow the main ones: the offset is the number of main training ids.
            extra = sorted({record.pid_raw for record in auxiliary} - set(label_map))
            label_map |= {pid: len(label_map) + rank for rank, pid in enumerate(extra)}
            train, auxiliary = train + auxiliary, []
        return DatasetSplits(
            name=self.name,
            root=self.root,
            train=with_labels(train, label_map),
            query=tuple(query),
            gallery=tuple(gallery),
            protocols=_protocols(),
            label_map=label_map,
            expected_counts=self.expected_counts(),
            auxiliary=tuple(auxiliary),
        )

    def _tracks(self, frames: Any, relative: str) -> list[Record]:
        path = self.split_file(relative)
        records = []
        for line in read_lines(path):
            fields = line.rstrip(",").split()
            pid = whole_number(fields[0]) if len(fields) == 4 else None
            if pid is None:
                raise GloamError(
                    f"{path}: {line[:80]!r} is not 'pid modality camera tracklet', as in '1746 RGB/IR TSG2 1'."
                )
            person, modalities, camera, tracklet = fields
            if camera not in CAMERAS:
                raise GloamError(f"{path}: {line!r} names the camera {camera!r}. {did_you_mean(camera, CAMERAS)}")
            words = ["IR", "RGB"] if modalities in ("RGB/IR", "IR/RGB") else [modalities]
            for word in words:
                if word not in _MODALITIES:
                    raise GloamError(f"{path}: {line!r} names the modality {word!r}. Known: RGB, IR, RGB/IR.")
                try:
                    names = frames[person][word][camera][tracklet]
                except (KeyError, TypeError) as error:
                    raise GloamError(
                        f"{path}: data_paths.json has no frames for {person} {word} {camera} {tracklet}. "
                        "The two files do not belong together; unpack the dataset again."
                    ) from error
                if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                    raise GloamError(
                        f"{self.root}/data_paths.json: {person} {word} {camera} {tracklet} is no list of file names. "
                        "Unpack the dataset again."
                    )
                if not names:
                    raise GloamError(f"{self.root}/data_paths.json: {person} {word} {camera} {tracklet} has no frames.")
                if self.values["fake_ir"] and word == "RGB":
                    names = [name.replace("/RGB/", "/FakeIR/") for name in names]
                paths = tuple(f"DATA/{name}" for name in names)
                records.append(Record(paths, pid, CAMERAS[camera], _MODALITIES[word], pid))
        return records


def _protocols() -> dict[str, Protocol]:
    protocols = {}
    directions = (
        ("infrared_to_visible", Modality.INFRARED, Modality.VISIBLE),
        ("visible_to_infrared", Modality.VISIBLE, Modality.INFRARED),
    )
    for suffix, rule, whose in (("", "same_id_same_cam", "M3-ReID"), ("_unfiltered", "none", "the dataset's authors")):
        for direction, query, gallery in directions:
            name = f"bupt_campus/{direction}{suffix}"
            protocols[name] = Protocol(
                name,
                f"{query.name.lower()} queries, {gallery.name.lower()} gallery (tracklets), camera rule of {whose}",
                query_modality=query,
                gallery_modality=gallery,
                camera_rule="none" if rule == "none" else "same_id_same_cam",
            )
    return protocols
