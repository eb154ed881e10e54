"""fp16 and int8 files: smaller, told what they cost, and a space of their own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gloam
from gloam import cli
from gloam.errors import GloamError
from gloam.inference.proof import Proof
from gloam.inference.release import export_with_proof
from tests.inference.models_to_export import MIXTURES, drawn_model, some_images, write_run

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sysu_root: Path) -> Path:
    """A run and its exports in all three precisions, by command line."""
    place = tmp_path_factory.mktemp("variants")
    run = write_run(place / "run", drawn_model("agw"), sysu_root)
    for precision in ("32", "fp16", "int8"):
        words = ["export", str(run), "--output", str(place), "--precision", precision]
        # int8 finds the run's own data; the others are given it for their scores.
        assert cli.main(words if precision == "int8" else [*words, "--data.root", str(sysu_root)]) == 0
    return place


FILES = {"32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_int8.onnx"}


def test_one_proof_file_speaks_of_all(folder: Path) -> None:
    proofs: dict[str, Any] = json.loads((folder / "proof.json").read_text())
    assert sorted(proofs) == sorted(FILES.values())
    sizes = {}
    for precision, name in FILES.items():
        proof = proofs[name]
        assert proof["precision"] == precision
        assert proof["holds"] is True
        sizes[precision] = (folder / name).stat().st_size
        assert proof["bytes"] == sizes[precision]
        assert proof["real_images"] == 64
        assert set(proof["scores"]) == {"sysu_mm01/all_single"} or len(proof["scores"]) > 1
        if precision != "32":
            assert proof["bytes_in_32"] == pytest.approx(sizes["32"], rel=0.01)
            assert proof["milliseconds_in_32"] > 0
    assert sizes["int8"] < sizes["32"]
    assert sizes["fp16"] < 0.8 * sizes["32"]
    assert proofs["model_int8.onnx"]["file"]["calibration_images"] > 64
    assert proofs["model.onnx"]["top1_changed"] == 0


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_a_variant_costs_is_true(precision: str, folder: Path, sysu_root: Path) -> None:
    """The numbers of the proof against features computed here, one by one."""
    proof = json.loads((folder / "proof.json").read_text())[FILES[precision]]
    splits = gloam.load_dataset("sysu_mm01", sysu_root)
    found, clear = {}, np.ones(len(splits.query), bool)
    for name, origin in (("model", folder / "run"), ("file", folder / FILES[precision])):
        model = gloam.load_model(origin)
        parts = [model.embed(splits, split=part, progress=False) for part in ("query", "gallery")]
        similarities = parts[0].vectors.double().numpy() @ parts[1].vectors.double().numpy().T
        found[name] = similarities.argmax(axis=1)
        # Drawn weights: some gallery images are as near as makes no difference to float32.
        best = np.sort(similarities, axis=1)[:, -2:]
        clear &= best[:, 1] - best[:, 0] > 1e-6
        scores = gloam.evaluate(*parts, splits)
        for protocol, told in proof["scores"].items():
            assert told[name]["mAP"] == pytest.approx(scores.mean(protocol)["mAP"], abs=1e-6)
    changed = found["model"] != found["file"]
    assert clear.sum() > len(clear) / 2
    assert (changed & clear).mean() <= proof["top1_changed"] + 1e-9
    assert proof["top1_changed"] <= (changed | ~clear).mean() + 1e-9
    assert 0.9 < proof["mean_cosine"] < 1
    assert proof["largest_difference"] > 1e-4  # a tighter variant would not need a space of its own


def test_variants_are_spaces_of_their_own(folder: Path) -> None:
    models = {precision: gloam.load_model(folder / name) for precision, name in FILES.items()}
    run = gloam.load_model(folder / "run")
    assert models["32"].fingerprint == run.fingerprint
    digests = {model.fingerprint.digest for model in models.values()}
    assert len(digests) == 3
    image = np.zeros((48, 24, 3), np.uint8)
    ours, theirs = (model.embed(image, progress=False) for model in (run, models["int8"]))
    with pytest.raises(GloamError, match="model"):
        gloam.search(ours, theirs)
    for precision, model in models.items():
        images = some_images(model, 7)
        found = model.extract(images, MIXTURES["both"](7))
        assert found.shape == (7, model.feature_dim), precision
        torch.testing.assert_close(found.norm(dim=1), torch.ones(7), atol=1e-6, rtol=0)


def test_useless_variants_and_missing_images_are_refused(folder: Path, tmp_path: Path) -> None:
    proof = Proof(
        rows=1,
        least_cosine=0.2,
        largest_difference=1.0,
        mean_difference=0.1,
        mean_cosine=0.89,
        same_top1=0.5,
        milliseconds={},
        real_images=0,
        scores={},
        precision="int8",
    )
    with pytest.raises(GloamError, match=r"0\.890.*Nothing was written"):
        proof.require()
    with pytest.raises(GloamError, match="of no use"):
        dataclasses.replace(proof, mean_cosine=float("nan")).require()
    model = gloam.load_model(folder / "run")
    with pytest.raises(GloamError, match="calibrate"):
        export_with_proof(model, tmp_path / "model_int8.onnx", "onnx", precision="int8")
    with pytest.raises(GloamError, match="onnx, not for torch-export"):
        export_with_proof(model, tmp_path / "model.pt2", "torch-export", precision="fp16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_video_methods_have_variants(tmp_path: Path) -> None:
    from tests.analysis.clip_run import draw_clips

    root = draw_clips(tmp_path / "clips", ids=4)
    model = drawn_model("m3reid")
    splits = gloam.load_dataset("hitsz_vcm", root)
    proof = export_with_proof(model, tmp_path / "model_int8.onnx", "onnx", precision="int8", splits=splits)
    assert proof is not None
    assert proof.mean_cosine > 0.95
    file = gloam.load_model(tmp_path / "model_int8.onnx")
    with torch.no_grad():
        assert file.extract(some_images(model, 2, length=5), MIXTURES["both"](2)).shape == (2, model.feature_dim)
