"""Tiny dataset trees with the traps that docs/datasets.md lists. One valid JPEG, copied everywhere."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image


@functools.cache
def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((16, 32), 40).convert("RGB").save(stream, "JPEG", quality=90)
    return stream.getvalue()


def put(root: Path, *names: str) -> None:
    """Write the image under every name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg())


def text(root: Path, name: str, content: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())


# (id, camera) -> images. Ids 1, 2, 5: train; 7: val; 9, 12: test. 5 lacks camera 1; 12 has no indoor camera.
SYSU: Mapping[tuple[int, int], int] = {
    **{(pid, cam): 2 for pid in (1, 2, 7) for cam in range(1, 7)},
    **{(5, cam): 1 for cam in (4, 5, 6)},
    **{(9, cam): 12 for cam in (1, 2, 4, 5)},
    **{(9, cam): 3 for cam in (3, 6)},
    **{(12, cam): 11 for cam in (4, 5)},
    (12, 6): 4,
}


def sysu(root: Path, images: Mapping[tuple[int, int], int] = SYSU) -> Path:
    for (pid, cam), count in images.items():
        put(root, *(f"cam{cam}/{pid:04d}/{n:04d}.jpg" for n in range(1, count + 1)))
    text(root, "exp/train_id.txt", "1,2,5")
    text(root, "exp/val_id.txt", "7")
    text(root, "exp/test_id.txt", "9,12")
    return root


def regdb(root: Path) -> Path:
    """Trials 1 and 2; labels unlike folder numbers; trial 1 has CRLF, trial 2 a trailing comma."""
    divisions = {1: {"train": (285, 7), "test": (40, 3)}, 2: {"train": (3, 40), "test": (7, 285)}}
    for trial, parts in divisions.items():
        for part, folders in parts.items():
            for modality, folder, letter in (("visible", "Visible", "v"), ("thermal", "Thermal", "t")):
                lines = []
                for label, pid in enumerate(folders):
                    for frame in (1, 2):
                        name = f"{folder}/{pid}/male_front_{letter}_{frame:05d}_{pid}.bmp"
                        put(root, name)
                        lines.append(f"{name} {label}" + ("," if trial == 2 else ""))
                # No order of lines may be assumed.
                lines.reverse()
                text(root, f"idx/{part}_{modality}_{trial}.txt", ("\r\n" if trial == 1 else "\n").join(lines) + "\n\n")
    return root


def llcm(root: Path) -> Path:
    """Test ids 3 and 10; 10 matches in the query's camera only; an infrared camera 3 that must be ignored."""
    for modality, folder in (("vis", "vis"), ("nir", "nir")):
        lines = []
        for label, pid in enumerate((1, 4, 11)):
            for cam in (1, 9):
                name = f"{folder}/{pid:04d}/{pid:04d}_c{cam:02d}_s1_f{cam}_{modality}.jpg"
                put(root, name)
                lines.append(f"{name} {label}")
        text(root, f"idx/train_{modality}.txt", "\n".join(lines))
    for modality, cams in (("vis", (1, 2, 9)), ("nir", (1, 2, 3))):
        for cam in cams:
            put(root, *(f"test_{modality}/cam{cam}/0003/0003_c{cam:02d}_s{n}_f1_{modality}.jpg" for n in (1, 2)))
        put(root, f"test_{modality}/cam2/0010/0010_c02_s1_f1_{modality}.jpg")
    text(root, "idx/test_id.txt", "10, 3,\r\n")
    return root


def vcm(root: Path, layout: str) -> Path:
    """Layouts A (Train, Test, info), B (info), C (flat). Tracks of 11, 12 and 13 frames, a two-digit camera."""
    tracks = {
        # modality, pid, camera, frames
        "train": [(1, 2, 1, 12), (2, 2, 10, 12), (1, 10, 1, 11), (2, 10, 3, 11), (2, 1, 3, 13)],
        "test": [(2, 20, 12, 12), (1, 20, 12, 12), (1, 30, 1, 11), (2, 30, 2, 13), (1, 30, 2, 12)],
    }
    info = "" if layout == "C" else "info/"
    for part, rows in tracks.items():
        prefix = f"{part.capitalize()}/" if layout == "A" else ""
        names, lines = [], []
        for track, (modality, pid, cam, frames) in enumerate(rows, start=1):
            start = len(names) + 1
            for frame in range(1, frames + 1):
                # File numbers are unique inside (person, modality, camera): the tracklet is not part of the path.
                file = f"{track * 100 + frame}.jpg"
                names.append(f"{pid:04d}M{modality}D{cam}T{track}F{file}")
                put(root, f"{prefix}{pid:04d}/{'ir' if modality == 1 else 'rgb'}/D{cam}/{file}")
            lines.append(f"{modality} {start} {len(names)} {pid:04d} {cam}")
        text(root, f"{info}{part}_name.txt", "\r\n".join(names))
        text(root, f"{info}track_{part}_info.txt", "\n".join(lines) + "\n")
    text(root, f"{info}query_IDX.txt", "2 3\n5\n")
    return root


def bupt(root: Path) -> Path:
    """Pids 2 and 10 (string order trap) in training, a query of each modality, one auxiliary person."""
    paths: dict[str, dict[str, dict[str, dict[str, list[str]]]]] = {}

    def track(pid: int, modality: str, camera: str, tracklet: int, frames: int) -> None:
        names = [
            f"{pid}/{modality}/{camera}/{pid}_{modality}_{camera}_{tracklet}_{f}.jpg" for f in range(9, 9 + frames)
        ]
        put(root / "DATA", *names)
        if modality == "RGB":
            put(root / "DATA", *(name.replace("/RGB/", "/FakeIR/") for name in names))
        paths.setdefault(str(pid), {}).setdefault(modality, {}).setdefault(camera, {})[str(tracklet)] = names

    for pid, camera in ((10, "LS3"), (2, "TSG2"), (2, "G25"), (1746, "W4")):
        for modality in ("RGB", "IR"):
            track(pid, modality, camera, 1, 2)
    for pid, modality, camera, tracklet in TEST_BUPT:
        track(pid, modality, camera, tracklet, 1)
    text(root, "data_paths.json", json.dumps(paths))
    text(root, "train.txt", "10 RGB/IR LS3 1\n2 RGB/IR TSG2 1\r\n2 RGB/IR G25 1\n")
    text(root, "train_auxiliary.txt", "1746 RGB/IR W4 1\n")
    lines = [f"{pid} {modality} {camera} {tracklet}" for pid, modality, camera, tracklet in TEST_BUPT]
    text(root, "query.txt", "\n".join(lines[:2]))
    text(root, "gallery.txt", "\n".join(lines[2:]))
    return root


TEST_BUPT: Sequence[tuple[int, str, str, int]] = (
    (30, "IR", "CQ1", 1),
    (31, "RGB", "TSG1", 1),
    (30, "IR", "LS3", 1),
    (30, "RGB", "LS3", 1),
    (31, "IR", "CQ1", 2),
    (31, "RGB", "CQ1", 2),
)


def market(root: Path) -> Path:
    """Ids -1 and 0, a file that is no image."""
    put(root, *(f"bounding_box_train/{n}" for n in ("0007_c2s1_000001_01.jpg", "0002_c1s1_000451_03.jpg")))
    put(root, "bounding_box_train/0002_c6s1_000100_01.JPG", "bounding_box_train/0000_c6s1_000100_01.jpg")
    put(root, "query/0003_c1s1_000001_00.jpg", "query/0005_c2s1_000001_00.jpg")
    put(
        root,
        "bounding_box_test/-1_c1s1_000401_03.jpg",
        "bounding_box_test/0000_c1s1_000151_01.jpg",
        "bounding_box_test/0003_c6s6_015971_02.jpg",
        "bounding_box_test/0003_c1s6_015971_02.jpg",
        "bounding_box_test/0005_c3s6_015971_02.jpg",
    )
    text(root, "bounding_box_test/Thumbs.db", "x")
    return root


def msmt(root: Path, release: str) -> Path:
    """V1, V2: the same numbers in train and test, a two-digit camera."""
    train, test = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}[release]
    lists = {
        "train": (train, ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/0001_000_15_0303noon_0015_0_ex.jpg 1"]),
        "val": (train, ["0001/0001_001_02_0303noon_0016_0.jpg 1"]),
        "query": (test, ["0000/0000_000_12_0303noon_0001_0.jpg 0 extra"]),
        "gallery": (test, ["0000/0000_001_03_0303noon_0002_0.jpg 0", "0001/0001_000_12_0303noon_0003_0.jpg 1"]),
    }
    for name, (folder, lines) in lists.items():
        put(root, *(f"{folder}/{line.split()[0]}" for line in lines))
        text(root, f"list_{name}.txt", "\r\n".join(lines) + "\r\n")
    return root
