"""Model: every kind of source gives the features of its images, and fingerprints tell models apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gloam
from gloam.errors import GloamError
from gloam.inference.features import Features
from gloam.inference.model import Model
from gloam.training.run import train
from tests.analysis.clip_run import FRAMES, draw_clips, write_clip_run
from tests.training.tiny import tiny_recipe


@pytest.fixture(scope="module")
def run(sysu_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe(sysu_root, train={"epochs": 1, "iterations": 1})
    return train(recipe, output=tmp_path_factory.mktemp("model") / "run", progress=False).path


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return gloam.load_model(run)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(generator.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def arrays(photos: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(photos / f"{number}.png")) for number in range(3)]


def test_every_source_gives_the_same_features(model: Model, photos: Path, tmp_path: Path) -> None:
    expected = model.embed(photos, progress=False)
    assert expected.columns["path"].tolist() == ["0.png", "1.png", "2.png"]
    files = [photos / f"{number}.png" for number in range(3)]
    images = arrays(photos)
    table = tmp_path / "people.csv"
    table.write_text("path,pid,cam,modality\n" + "".join(f"{file},{i},{i},visible\n" for i, file in enumerate(files)))
    sources = {
        "paths": files,
        "strings": [str(file) for file in files],
        "PIL": [Image.open(file) for file in files],
        "list of arrays": images,
        "array": np.stack(images),
        "tensor": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        "table": table,
    }
    for name, source in sources.items():
        found = model.embed(source, progress=False)
        order = found.columns["path"].argsort() if name == "table" else np.arange(3)
        assert torch.equal(found.vectors[order], expected.vectors), name
    one = {"file": files[1], "PIL image": Image.open(files[1]), "array": images[1]}
    for name, source in one.items():
        torch.testing.assert_close(model.embed(source, progress=False).vectors, expected.vectors[1:2]), name


def test_splits_and_records_are_sources(model: Model, sysu_root: Path) -> None:
    splits = gloam.load_dataset("sysu_mm01", sysu_root)
    by_name = model.embed(sysu_root, split="query", progress=False)
    whole = model.embed(splits, split="query", progress=False)
    records = model.embed(splits.query, root=splits.root, progress=False)
    assert torch.equal(by_name.vectors, whole.vectors)
    assert torch.equal(records.vectors, whole.vectors)
    assert whole.columns["pid"].tolist() == [record.pid_raw for record in splits.query]
    assert set(whole.columns["modality"]) == {"infrared"}


def test_modalities_may_be_mixed(model: Model, photos: Path) -> None:
    words = ["visible", "infrared", "visible"]
    mixed = model.embed(arrays(photos), modality=words, progress=False)  # type: ignore[arg-type]
    assert mixed.columns["modality"].tolist() == words
    infrared = model.embed(arrays(photos)[1], modality="infrared", progress=False)
    torch.testing.assert_close(mixed.vectors[1:2], infrared.vectors)
    assert not torch.allclose(infrared.vectors, model.embed(arrays(photos)[1], progress=False).vectors, atol=1e-4)


def test_more_columns_travel_along(model: Model, photos: Path) -> None:
    features = model.embed(photos, progress=False, time=[3, 2, 1])
    assert features.columns["time"].tolist() == [3, 2, 1]
    with pytest.raises(GloamError, match="'time' has 2 entries"):
        model.embed(photos, progress=False, time=[1, 2])


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ([], {}, "nothing to embed"),
        (["absent.png"], {}, r"no image absent\.png"),
        ("absent", {}, "no folder, image, video or table"),
        (np.zeros((4, 4, 3), np.float32), {}, "uint8"),
        (np.zeros((4, 4, 4), np.uint8), {}, r"\(4, 4, 4\)"),
        (np.zeros((4, 4), np.uint8), {}, "neither"),
        (3.5, {}, "float cannot be embedded"),
        ([3.5], {}, "Image 0 is a float"),
        (np.zeros((4, 4, 3), np.uint8), {"modality": "thermal"}, "'thermal'"),
        (np.zeros((4, 4, 3), np.uint8), {"modality": ["visible"] * 2}, "2 modalities for 1 images"),
    ],
)
def test_wrong_sources_are_named(model: Model, source: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(GloamError, match=message):
        model.embed(source, progress=False, **options)  # type: ignore[arg-type]


def test_fingerprints_tell_models_apart(run: Path, model: Model, photos: Path) -> None:
    assert gloam.load_model(run).fingerprint == model.fingerprint
    assert gloam.load_model(run / "checkpoints" / "last.ckpt").fingerprint == model.fingerprint
    others = [
        gloam.load_model(run, mirror=not model.mirror),
        gloam.load_model(run, precision="bf16"),
    ]
    changed = gloam.load_model(run)
    with torch.no_grad():
        next(changed.method.parameters()).flatten()[0] += 1e-6
    others.append(changed)
    digests = {one.fingerprint.digest for one in (model, *others)}
    assert len(digests) == len(others) + 1


def test_half_precision_gives_unit_float32_rows(run: Path, model: Model, photos: Path) -> None:
    found = gloam.load_model(run, precision="bf16").embed(photos, progress=False)
    assert found.vectors.dtype == torch.float32
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(found.vectors, model.embed(photos, progress=False).vectors, atol=0.05, rtol=0)
    with pytest.raises(GloamError, match="precision 'half'"):
        gloam.load_model(run, precision="half")  # type: ignore[arg-type]


def test_embedding_leaves_training_mode_alone(run: Path, photos: Path) -> None:
    model = gloam.load_model(run)
    assert not model.method.training
    model.method.train()
    model.embed(photos, progress=False)
    assert model.method.training


def test_clips_are_sources_of_video_models(tmp_path: Path) -> None:
    root = draw_clips(tmp_path / "data")
    model = gloam.load_model(write_clip_run(tmp_path / "run", root))
    clip = np.random.default_rng(0).integers(0, 256, (FRAMES + 2, 48, 16, 3), dtype=np.uint8)
    files = []
    for number, frame in enumerate(clip):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(frame).save(files[-1])
    expected = model.embed(clip, progress=False)
    assert isinstance(expected, Features)
    assert expected.columns["frames"].tolist() == [FRAMES + 2]
    tensor = torch.from_numpy(clip).permute(0, 3, 1, 2)
    for source in ([clip], tensor, [files], [[str(file) for file in files]]):
        assert torch.equal(model.embed(source, progress=False).vectors, expected.vectors)
    assert len(model.embed([clip, clip[:3]], progress=False)) == 2
    with pytest.raises(GloamError, match="a clip"):
        model.embed(clip[0], progress=False)


def test_the_repr_is_short(model: Model) -> None:
    assert len(repr(model).splitlines()) <= 5
    assert model.fingerprint.digest[:12] in repr(model)
