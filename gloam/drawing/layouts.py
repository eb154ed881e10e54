"""Which images and annotation files each of the ten layouts needs.

*Source*: docs/datasets.md for names and files. People, cameras and file numbers follow the published
sets in kind: some people are missing in some cameras, tests always hold a match in another camera.

The vehicle layout (VeRi-776) shows people too: only its files matter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gloam.drawing.person import person, private
from gloam.drawing.render import Shot

# Numbers of people outside the identities: distractors, auxiliary people and junk never look like a test person.
_OTHERS = 1_000_000


@dataclass
class Plan:
    """Everything that a drawn dataset will hold.

    Attributes:
        shots: images in the order in which they are planned.
        texts: annotation files by path relative to the root.
        folders: folders that must exist even without files.
        counts: what to tell the user.
    """

    shots: list[Shot] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """What the user asked for.

    Attributes:
        ids: people, training and test together.
        images: images (video: tracklets) per person, camera and modality.
        frames: frames of a tracklet (video layouts).
        seed: of the world.
    """

    ids: int
    images: int
    frames: int
    seed: int


@dataclass(frozen=True)
class Layout:
    """A layout that can be drawn.

    Attributes:
        plan: makes the plan.
        images: default images (tracklets) per person, camera and modality.
        frames: default frames of a tracklet; 0: single images.
        least_frames: fewer frames are dropped by the loader.
    """

    plan: Callable[[Sizes], Plan]
    images: int
    frames: int = 0
    least_frames: int = 1


def _divide(sizes: Sizes, share: float = 0.6) -> tuple[list[int], list[int]]:
    """Training and test people (numbers 1..ids), each ascending; at least two on either side."""
    pids = list(range(1, sizes.ids + 1))
    private("split", sizes.seed).shuffle(pids)
    cut = min(max(2, round(sizes.ids * share)), sizes.ids - 2)
    return sorted(pids[:cut]), sorted(pids[cut:])


def _seen_by(sizes: Sizes, pid: int, cams: Sequence[int], low: int, high: int) -> list[int]:
    """Cameras that saw a person: between ``low`` and ``high`` of them, ascending."""
    rng = private("cameras", sizes.seed, pid)
    return sorted(rng.sample(list(cams), min(len(cams), rng.randint(low, high))))


def _people(train: Sequence[int], test: Sequence[int]) -> dict[str, int]:
    return {"people": len(train) + len(test), "training people": len(train), "test people": len(test)}


def _sysu_mm01(sizes: Sizes) -> Plan:
    training, test = _divide(sizes)
    shuffled = training[:]
    private("validation", sizes.seed).shuffle(shuffled)
    # 99 of the 395 published training people are the authors' validation set.
    validation = sorted(shuffled[: max(1, len(training) // 4)])
    train = sorted(set(training) - set(validation))
    plan = Plan(counts=_people(training, test), folders=[f"cam{cam}" for cam in range(1, 7)])
    for group in (training, test):
        for rank, pid in enumerate(group):
            rng = private("cameras", sizes.seed, pid)
            cams = {1, 2, 3, 4, 5, 6}
            if rank % 3 == 2:
                cams -= {1, 2}  # outdoor people, as 40 of the 96 published test people
            elif rng.random() < 0.15:
                cams.discard(rng.choice((1, 2)))
            # One outdoor camera stays: infrared camera 3 may not be matched with camera 2.
            if rng.random() < 0.2:
                cams.discard(rng.choice((4, 5)))
            if rng.random() < 0.2:
                cams.discard(rng.choice((3, 6)))
            plan.shots += [
                Shot(f"cam{cam}/{pid:04d}/{index + 1:04d}.jpg", pid, cam, cam in (3, 6), index)
                for cam in sorted(cams)
                for index in range(sizes.images)
            ]
    for name, pids in (
        ("train", train),
        ("val", validation),
        ("test", test),
        ("available", sorted(training + test)),
    ):
        plan.texts[f"exp/{name}_id.txt"] = ",".join(map(str, pids)) + "\n"
    return plan


def _regdb(sizes: Sizes) -> Plan:
    plan = Plan(counts={"people": sizes.ids, "trials": 10})
    files: dict[tuple[int, str], list[str]] = {}
    for pid in range(1, sizes.ids + 1):
        gender = person(sizes.seed, pid).gender
        for cam, (folder, letter) in enumerate((("Visible", "v"), ("Thermal", "t")), start=1):
            rng = private("frames", sizes.seed, pid, folder)
            side = rng.choice(("front", "back"))
            start = rng.randrange(1, 9000)
            names = [
                f"{folder}/{pid}/{gender}_{side}_{letter}_{start + 3 * i:05d}_{pid}.bmp" for i in range(sizes.images)
            ]
            files[pid, folder] = names
            plan.shots += [Shot(name, pid, cam, cam == 2, i) for i, name in enumerate(names)]
    for trial in range(1, 11):
        pids = list(range(1, sizes.ids + 1))
        rng = private("trial", sizes.seed, trial)
        rng.shuffle(pids)
        # Half of the people train, as published; labels are local to the trial and the part.
        half = min(max(2, sizes.ids // 2), sizes.ids - 2)
        for part, group in (("train", pids[:half]), ("test", pids[half:])):
            for modality in ("Visible", "Thermal"):
                lines = [f"{name} {label}" for label, pid in enumerate(group) for name in files[pid, modality]]
                plan.texts[f"idx/{part}_{modality.lower()}_{trial}.txt"] = _lines(lines)
    return plan


def _llcm(sizes: Sizes) -> Plan:
    train, test = _divide(sizes)
    plan = Plan(counts=_people(train, test), folders=["vis", "nir", "test_vis", "test_nir"])
    lists: dict[str, list[str]] = {"train_vis": [], "train_nir": [], "test_vis": [], "test_nir": []}
    for part, pids in (("train", train), ("test", test)):
        for label, pid in enumerate(pids):
            cams = _seen_by(sizes, pid, (1, 2, 4, 5, 6, 7, 8, 9), 2, 4)
            rng = private("days", sizes.seed, pid)
            for modality, infrared in (("vis", False), ("nir", True)):
                # Camera 3 has no infrared images, as in the released lists.
                extra = [3] if not infrared and rng.random() < 0.4 else []
                for cam in sorted(cams + extra):
                    folder = f"{modality}/{pid:04d}" if part == "train" else f"test_{modality}/cam{cam}/{pid:04d}"
                    sequence, frame = rng.randrange(100_000, 240_000), rng.randrange(1, 8000)
                    for index in range(sizes.images):
                        name = f"{pid:04d}_c{cam:02d}_s{sequence}_f{frame + 5 * index}_{modality}.jpg"
                        plan.shots.append(Shot(f"{folder}/{name}", pid, cam, infrared, index, dim=True))
                        lists[f"{part}_{modality}"].append(f"{folder}/{name} {label}")
    plan.texts |= {f"idx/{name}.txt": _lines(lines) for name, lines in lists.items()}
    plan.texts["idx/test_id.txt"] = ",".join(map(str, test)) + "\n"
    return plan


def _hitsz_vcm(sizes: Sizes) -> Plan:
    train, test = _divide(sizes)
    plan = Plan(counts=_people(train, test))
    tracklets = 0
    for part, pids in (("train", train), ("test", test)):
        names: list[str] = []
        tracks: list[str] = []
        queries: list[int] = []
        for pid in pids:
            for cam in _seen_by(sizes, pid, range(1, 13), 2, 4):
                for modality, folder in ((1, "ir"), (2, "rgb")):
                    file = 0
                    for track in range(1, sizes.images + 1):
                        start = len(names) + 1
                        for frame in range(_length(sizes, pid, cam, modality, track, least=12)):
                            # File numbers run on over the tracklets of a (person, modality, camera).
                            file += 1
                            names.append(f"{pid:04d}M{modality}D{cam}T{track}F{file}.jpg")
                            path = f"{part.capitalize()}/{pid:04d}/{folder}/D{cam}/{file}.jpg"
                            plan.shots.append(Shot(path, pid, cam, modality == 1, track, frame))
                        tracks.append(f"{modality} {start} {len(names)} {pid} {cam}")
                        if modality == 1:
                            queries.append(len(tracks))
        plan.texts[f"info/{part}_name.txt"] = _lines(names)
        plan.texts[f"info/track_{part}_info.txt"] = _lines(tracks)
        if part == "test":
            plan.texts["info/query_IDX.txt"] = " ".join(map(str, queries)) + "\n"
        tracklets += len(tracks)
    plan.counts["tracklets"] = tracklets
    return plan


_BUPT_CAMERAS = ("LS3", "G25", "CQ1", "W4", "TSG1", "TSG2")


def _bupt_campus(sizes: Sizes) -> Plan:
    train, test = _divide(sizes)
    auxiliary = list(range(sizes.ids + 1, sizes.ids + 1 + max(1, sizes.ids // 10)))
    plan = Plan(counts=_people(train, test) | {"auxiliary people": len(auxiliary)})
    frames: dict[str, dict[str, dict[str, dict[str, list[str]]]]] = {}
    lists: dict[str, list[str]] = {name: [] for name in ("train", "train_auxiliary", "query", "gallery")}
    tracklets = 0
    for part, pids in (("train", train), ("test", test), ("train_auxiliary", auxiliary)):
        for rank, pid in enumerate(pids):
            seen = (1, 1) if part == "train_auxiliary" else (2, 4)
            cams = _seen_by(sizes, pid, range(6), *seen)
            # One query a person, alternately of either modality; it may be of any camera.
            asked = (private("query", sizes.seed, pid).choice(cams), 1, ("IR", "RGB")[rank % 2])
            for cam in cams:
                for track in range(1, sizes.images + 1):
                    start = private("start", sizes.seed, pid, cam, track).randrange(1, 9000)
                    length = _length(sizes, pid, cam, 0, track)
                    name = _BUPT_CAMERAS[cam]
                    for word in ("IR", "RGB"):
                        paths = [
                            f"{pid}/{word}/{name}/{pid}_{word}_{name}_{track}_{start + 2 * frame}.jpg"
                            for frame in range(length)
                        ]
                        frames.setdefault(str(pid), {}).setdefault(word, {}).setdefault(name, {})[str(track)] = paths
                        plan.shots += [
                            Shot(f"DATA/{path}", pid, cam, word == "IR", track, frame, aligned=True)
                            for frame, path in enumerate(paths)
                        ]
                        tracklets += 1
                        if part == "test":
                            side = "query" if (cam, track, word) == asked else "gallery"
                            lists[side].append(f"{pid} {word} {name} {track}")
                    if part != "test":
                        lists[part].append(f"{pid} RGB/IR {name} {track}")
    plan.texts["data_paths.json"] = json.dumps(frames, indent=1) + "\n"
    plan.texts |= {f"{name}.txt": _lines(lines) for name, lines in lists.items()}
    plan.counts["tracklets"] = tracklets
    return plan


def _length(sizes: Sizes, *key: int, least: int = 1) -> int:
    """Frames of a tracklet: around the wanted number, as real tracklets differ."""
    spread = max(0, sizes.frames // 8)
    return max(least, sizes.frames + private("length", sizes.seed, *key).randint(-spread, spread))


def _query_gallery(
    sizes: Sizes, cams: Sequence[int], seen: tuple[int, int], name: Callable[[int, int, int], str], first: int = 1
) -> Iterator[tuple[str, str, Shot]]:
    """Images of a visible benchmark as (part, file name, shot); the shot's path is the file name.

    Args:
        sizes: wanted sizes.
        cams: written numbers of the cameras.
        seen: least and most cameras of a person.
        name: (id, camera, running number) -> file name.
        first: id written for person number 1.
    """
    train, test = _divide(sizes)
    for part, pids in (("train", train), ("test", test)):
        for pid in pids:
            for cam in _seen_by(sizes, pid, cams, *seen):
                # A test person's first image of each camera is a query and comes on top.
                for index in range(sizes.images + (part == "test")):
                    side = part if part == "train" else "gallery" if index else "query"
                    file = name(pid - 1 + first, cam, index)
                    yield side, file, Shot(file, pid, cam, False, index)


_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def _flat(
    sizes: Sizes,
    cams: Sequence[int],
    seen: tuple[int, int],
    name: Callable[[int, int, int], str],
    folders: dict[str, str],
) -> Plan:
    """Three flat folders."""
    plan = Plan(counts=_people(*_divide(sizes)), folders=list(folders.values()))
    for part, file, shot in _query_gallery(sizes, cams, seen, name):
        plan.shots.append(_moved(shot, f"{folders[part]}/{file}"))
    return plan


def _moved(shot: Shot, path: str) -> Shot:
    return Shot(path, shot.number, shot.camera, shot.infrared, shot.index, junk=shot.junk)


def _market1501(sizes: Sizes) -> Plan:
    def name(pid: int, cam: int, index: int) -> str:
        start = private("frames", sizes.seed, pid, cam).randrange(1, 90_000)
        return f"{pid:04d}_c{cam}s1_{start + 25 * index:06d}_{index % 5:02d}.jpg"

    plan = _flat(sizes, range(1, 7), (2, 5), name, _FOLDERS)
    others = max(2, sizes.ids // 2)
    for k in range(others):
        cam = 1 + k % 6
        path = f"bounding_box_test/0000_c{cam}s2_{100 + k:06d}_01.jpg"
        plan.shots.append(Shot(path, _OTHERS + k, cam, False, 0))
    _, test = _divide(sizes)
    for k in range(others):
        cam = 1 + k % 6
        path = f"bounding_box_test/-1_c{cam}s3_{100 + k:06d}_02.jpg"
        plan.shots.append(Shot(path, test[k % len(test)], cam, False, k, junk=True))
    return plan


def _dukemtmc(sizes: Sizes) -> Plan:
    def name(pid: int, cam: int, index: int) -> str:
        start = private("frames", sizes.seed, pid, cam).randrange(1, 200_000)
        return f"{pid:04d}_c{cam}_f{start + 120 * index:07d}.jpg"

    plan = _flat(sizes, range(1, 9), (2, 4), name, _FOLDERS)
    # Distractor people have ordinary ids; only the gallery knows them.
    for k in range(max(1, sizes.ids // 5)):
        pid = sizes.ids + 1 + k
        cam = 1 + k % 8
        plan.shots += [
            Shot(f"bounding_box_test/{name(pid, cam, index)}", _OTHERS + k, cam, False, index)
            for index in range(sizes.images)
        ]
    return plan


def _msmt17(sizes: Sizes) -> Plan:
    train, test = _divide(sizes)
    # Training and test ids both count from 0 and are different people.
    written = {pid: rank for group in (train, test) for rank, pid in enumerate(group)}
    running: dict[int, int] = {}

    def name(pid: int, cam: int, index: int) -> str:
        number = running[pid] = running.get(pid, -1) + 1
        day = private("day", sizes.seed, pid, cam).choice(("0303morning", "0113noon", "0302afternoon"))
        frame = private("frames", sizes.seed, pid, cam).randrange(1, 2000) + 8 * index
        return f"{written[pid]:04d}_{number:03d}_{cam:02d}_{day}_{frame:04d}_{index}.jpg"

    plan = Plan(counts=_people(train, test), folders=["train", "test"])
    lists: dict[str, list[str]] = {part: [] for part in ("train", "val", "query", "gallery")}
    for part, file, shot in _query_gallery(sizes, range(1, 16), (2, 5), name):
        pid = written[shot.number]
        path = f"{pid:04d}/{file}"
        plan.shots.append(_moved(shot, f"{'train' if part == 'train' else 'test'}/{path}"))
        # About 7 % of the training images are the authors' validation list.
        rare = part == "train" and shot.index > 0 and private("val", sizes.seed, file).random() < 0.1
        lists["val" if rare else part].append(f"{path} {pid}")
    if not lists["val"]:
        lists["val"].append(lists["train"].pop())
    plan.texts = {f"list_{part}.txt": _lines(lines) for part, lines in lists.items()}
    return plan


def _personx(sizes: Sizes) -> Plan:
    # Camera numbers of the VisDA-2020 packaging; every person walks before every background.
    def name(pid: int, cam: int, index: int) -> str:
        return f"{pid:04d}_c{cam}s1_{index + 1}.jpg"

    return _flat(sizes, (3, 4, 8, 10, 11, 12), (6, 6), name, _FOLDERS)


def _veri776(sizes: Sizes) -> Plan:
    def name(pid: int, cam: int, index: int) -> str:
        start = private("frames", sizes.seed, pid, cam).randrange(1, 80_000)
        return f"{pid:04d}_c{cam:03d}_{start + 5 * index:08d}_{index % 3}.jpg"

    folders = {"train": "image_train", "query": "image_query", "gallery": "image_test"}
    return _flat(sizes, range(1, 21), (2, 6), name, folders)


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


LAYOUTS: dict[str, Layout] = {
    "sysu_mm01": Layout(_sysu_mm01, images=10),
    "regdb": Layout(_regdb, images=10),
    "llcm": Layout(_llcm, images=5),
    "hitsz_vcm": Layout(_hitsz_vcm, images=1, frames=16, least_frames=12),
    "bupt_campus": Layout(_bupt_campus, images=1, frames=16),
    "market1501": Layout(_market1501, images=4),
    "dukemtmc": Layout(_dukemtmc, images=4),
    "msmt17": Layout(_msmt17, images=4),
    "personx": Layout(_personx, images=4),
    "veri776": Layout(_veri776, images=4),
}
