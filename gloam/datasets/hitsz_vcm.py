"""HITSZ-VCM: 927 people as visible and infrared tracklets from twelve cameras.

*Source*: readers of MITML and M3-ReID (docs/datasets.md). Cameras keep their numbers 1..12; one number is one
place in both modalities.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from gloam.datasets import register
from gloam.datasets.base import Counts, Dataset, Option, Options, relabel, with_labels
from gloam.datasets.files import read_lines, some, whole_number
from gloam.datasets.records import DatasetSplits, Modality, Protocol, Record
from gloam.errors import GloamError

# 0001M2D3T1F1.jpg: person, modality, camera, tracklet, file.
_NAME = re.compile(r"(\d+)M(\d+)D(\d+)T(\d+)F(.+)")
_MODALITIES = {1: Modality.INFRARED, 2: Modality.VISIBLE}
# Counts of all tracklets; the class attribute `expected` holds those of at least 12 frames.
_UNFILTERED = {
    "train_ids": 500,
    "train_records": 11_061,
    "train_images": 232_496,
    "query_ids": 427,
    "query_records": 5_159,
    "gallery_ids": 427,
    "gallery_records": 5_643,
}


@register("hitsz_vcm")
class HITSZVCM(Dataset):
    """HITSZ-VCM (Lin et al., CVPR 2022), in any of the three packagings in use."""

    name = "hitsz_vcm"
    title = "HITSZ-VCM"
    cross_modal = True
    is_video = True
    expected: ClassVar[Counts] = {
        "train_ids": 500,
        "train_records": 9_751,
        "train_visible": 5_460,
        "train_infrared": 4_291,
        "train_images": 224_757,
        "query_ids": 427,
        "query_records": 4_584,
        "query_infrared": 4_584,
        "query_images": 105_979,
        "gallery_ids": 427,
        "gallery_records": 5_099,
        "gallery_visible": 5_099,
        "gallery_images": 118_137,
    }
    tree = """
HITSZ-VCM/
  Train/              (or the person folders directly under the root)
    0001/ir/D2/1.jpg  0001/rgb/D2/1.jpg ...
  Test/
    0503/rgb/D3/1.jpg ...
  info/               (or these five files directly under the root)
    train_name.txt    track_train_info.txt
    test_name.txt     track_test_info.txt
    query_IDX.txt
"""
    obtain = "Public download from the authors' data page."
    page = "https://github.com/VCM-project233/HITSZ-VCM-data"
    licence = "academic use only, no redistribution; models trained on it are non-commercial"
    options: ClassVar[Options] = {
        "min_frames": Option(12, "drop shorter tracklets; published numbers use 12, 1 keeps all", least=1)
    }

    def expected_counts(self) -> Mapping[str, int]:
        """Published counts for 12 frames and for no filter; only the ids otherwise."""
        if self.values["min_frames"] == 12:
            return dict(self.expected)
        if self.values["min_frames"] == 1:
            return dict(_UNFILTERED)
        return {"train_ids": 500}

    def read(self) -> DatasetSplits:
        """Tracklets in the order of the info files; the label map is made before short ones are dropped."""
        info = "info/" if (self.root / "info").is_dir() else ""
        train = self._tracks(info, "train")
        test = self._tracks(info, "test")
        query_rows = self._query_rows(self.split_file(f"{info}query_IDX.txt"), len(test))
        query = [record for row, record in enumerate(test) if row in query_rows]
        gallery = [record for row, record in enumerate(test) if row not in query_rows]
        for part, records, modality in (("query", query, Modality.INFRARED), ("gallery", gallery, Modality.VISIBLE)):
            wrong = sum(record.modality is not modality for record in records)
            if wrong:
                raise GloamError(
                    f"{self.root}: {wrong} of {len(records)} {part} tracklets are not {modality.name.lower()}: "
                    f"{info}query_IDX.txt does not belong to {info}track_test_info.txt. Unpack both again."
                )
        if {r.pid for r in query} != {r.pid for r in gallery}:
            self.remarks.append("query and gallery hold different people; in the released files they are the same")
        label_map = relabel(record.pid_raw for record in train)
        least = self.values["min_frames"]
        self._remark_short(train + test, least)
        i2v = Protocol("hitsz_vcm/infrared_to_visible", "infrared query tracklets, visible gallery tracklets")
        v2i = Protocol(
            "hitsz_vcm/visible_to_infrared", "visible query tracklets, infrared gallery tracklets", swapped=True
        )
        return DatasetSplits(
            name=self.name,
            root=self.root,
            train=with_labels((r for r in train if len(r.paths) >= least), label_map),
            query=tuple(r for r in query if len(r.paths) >= least),
            gallery=tuple(r for r in gallery if len(r.paths) >= least),
            protocols={p.name: p for p in (i2v, v2i)},
            label_map=label_map,
            expected_counts=self.expected_counts(),
        )

    def _tracks(self, info: str, part: str) -> list[Record]:
        names = read_lines(self.split_file(f"{info}{part}_name.txt"))
        folder = part.capitalize()
        prefix = f"{folder}/" if (self.root / folder).is_dir() else ""
        path = self.split_file(f"{info}track_{part}_info.txt")
        records = []
        for number, line in enumerate(read_lines(path), start=1):
            fields = line.replace(",", " ").split()
            numbers = [n for n in map(whole_number, fields) if n is not None]
            if len(fields) != 5 or len(numbers) != 5:
                raise GloamError(f"{path}, line {number}: {line[:80]!r} is not 'modality start end pid camera'.")
            modality, start, end, pid, cam = numbers
            if modality not in _MODALITIES or not 1 <= start <= end <= len(names):
                raise GloamError(
                    f"{path}, line {number}: {line!r} must have modality 1 or 2 and frames inside 1..{len(names)} "
                    f"({info}{part}_name.txt). The two files do not belong together."
                )
            # start and end are 1-based and inclusive.
            frames = tuple(prefix + self._frame(name, path) for name in names[start - 1 : end])
            records.append(Record(frames, pid, cam, _MODALITIES[modality], pid))
        return records

    @staticmethod
    def _frame(name: str, path: Path) -> str:
        found = _NAME.fullmatch(name.rstrip(","))
        if not found:
            raise GloamError(
                f"{path.parent}: cannot read the frame name {name!r}. Expected names like 0001M2D3T1F1.jpg."
            )
        person, modality, camera, _, file = found.groups()
        return f"{person}/{'ir' if whole_number(modality) == 1 else 'rgb'}/D{camera}/{file}"

    @staticmethod
    def _query_rows(path: Path, total: int) -> set[int]:
        """0-based rows; the numbers may be spread over several lines."""
        words = " ".join(read_lines(path)).replace(",", " ").split()
        numbers = {word: whole_number(word) or 0 for word in words}
        wrong = [word[:40] for word, number in numbers.items() if not 1 <= number <= total]
        if wrong:
            raise GloamError(f"{path}: {some(wrong)} are not row numbers 1..{total} of track_test_info.txt.")
        return {number - 1 for number in numbers.values()}

    def _remark_short(self, records: list[Record], least: int) -> None:
        short = sum(len(record.paths) < least for record in records)
        if short:
            self.remarks.append(f"{short} of {len(records)} tracklets have fewer than {least} frames and are left out")
