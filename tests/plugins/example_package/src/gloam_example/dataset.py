"""A dataset: one folder per part, one file per image, named <identity>_<camera>_<visible or infrared>_<number>.png."""

from pathlib import Path

from gloam.datasets import Dataset, DatasetSplits, Modality, Protocol, Record, register, relabel, with_labels


@register("corridor")
class Corridor(Dataset):
    """Two cameras in a corridor: a colour camera by day, an infrared camera by night."""

    name = "corridor"
    title = "Corridor"
    tree = """
corridor/
  train/0001_1_visible_0.png
  query/0002_2_infrared_0.png
  gallery/0002_1_visible_0.png
"""
    obtain = "Ask whoever owns the corridor."
    licence = "example"
    cross_modal = True

    def read(self) -> DatasetSplits:
        found = {part: self._records(part) for part in ("train", "query", "gallery")}
        label_map = relabel(record.pid_raw for record in found["train"])
        day_and_night = Protocol("corridor/day_and_night", "infrared queries, visible gallery", camera_rule="none")
        return DatasetSplits(
            name=self.name,
            root=self.root,
            train=with_labels(found["train"], label_map),
            query=found["query"],
            gallery=found["gallery"],
            protocols={day_and_night.name: day_and_night},
            label_map=label_map,
        )

    def _records(self, part: str) -> tuple[Record, ...]:
        return tuple(self._record(path) for path in sorted(self.folder(part).glob("*.png")))

    def _record(self, path: Path) -> Record:
        pid, cam, modality, _ = path.stem.split("_")
        return Record(
            paths=(path.relative_to(self.root).as_posix(),),
            pid=int(pid),
            pid_raw=int(pid),
            cam=int(cam),
            modality=Modality[modality.upper()],
        )
