"""Exported files compute what the model computes, for every registered method, also where gloam or torch is absent."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import gloam
from gloam import cli
from gloam.augmentation.augmenter import normalize
from gloam.errors import GloamError
from gloam.inference import export as export_file
from gloam.inference.export import SUFFIXES, ExportFormat, export_model
from gloam.inference.model import Model
from gloam.inference.proof import Proof
from gloam.inference.release import export_with_proof
from gloam.methods import list_methods
from tests.inference.models_to_export import FRAMES, MIXTURES, drawn_model, some_images, write_run

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

METHODS = list_methods()
KINDS: tuple[ExportFormat, ...] = ("onnx", "torch-export")
Exporter = Callable[..., tuple[Model, Path, Proof]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """Export a method once for all tests: the model, the file and its proof."""

    @cache
    def export(name: str, kind: ExportFormat, **options: object) -> tuple[Model, Path, Proof]:
        model = drawn_model(name, mirror=bool(options.pop("mirror", False)))
        file = tmp_path_factory.mktemp(name) / f"model{SUFFIXES[kind]}"
        proof = export_with_proof(model, file, kind, **options)  # type: ignore[arg-type]
        assert proof is not None
        return model, file, proof

    return export


def expected(model: Model, images: Tensor, modalities: Tensor) -> Tensor:
    """Row by row, through the path of training: no batch, no exported graph."""
    rows = []
    with torch.no_grad():
        for image, modality in zip(normalize(images).unsqueeze(1), modalities.view(-1, 1), strict=True):
            feature = model.method.extract(image, modality)
            if model.mirror:
                feature = feature + model.method.extract(image.flip(-1), modality)
                feature = feature / feature.norm()
            rows.append(feature)
    return torch.cat(rows)


# Methods whose network is that of another one here: their ONNX files are made in the slow run.
SAME_NETWORK = {"mmgl", "simsiam", "ntxent", "spcl", "metaprd", "base"}
MATRIX = [
    pytest.param(name, kind, marks=[pytest.mark.slow] if kind == "onnx" and name in SAME_NETWORK else [])
    for name in METHODS
    for kind in KINDS
]


@pytest.mark.parametrize(("name", "kind"), MATRIX)
def test_every_method_leaves_with_a_proof(name: str, kind: ExportFormat, exported: Exporter) -> None:
    model, file, proof = exported(name, kind)
    assert proof.holds
    assert proof.rows == 3 * (1 + 2 + 7 + 33) + (6 if model.is_video else 0)
    loaded = gloam.load_model(file)
    assert isinstance(loaded, Model)
    assert loaded.fingerprint == model.fingerprint
    assert (loaded.feature, loaded.feature_dim) == (model.feature, model.feature_dim)
    assert (loaded.size, loaded.is_video) == (model.size, model.is_video)
    for number, (words, mixture) in enumerate(MIXTURES.items()):
        images = some_images(model, 5, length=(1, 2, 7)[number], seed=number)
        wanted = expected(model, images, mixture(5))
        torch.testing.assert_close(loaded.extract(images, mixture(5)), wanted, atol=1e-4, rtol=0, msg=words)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 7, 33])
def test_batches_may_have_any_size(kind: ExportFormat, rows: int, exported: Exporter) -> None:
    model, file, _ = exported("agw", kind)
    images, modalities = some_images(model, rows), MIXTURES["both"](rows)
    found = gloam.load_model(file).extract(images, modalities)
    torch.testing.assert_close(found, expected(model, images, modalities), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, FRAMES, 9])
def test_clips_may_have_any_length(kind: ExportFormat, length: int, exported: Exporter) -> None:
    model, file, _ = exported("m3reid", kind)
    images, modalities = some_images(model, 3, length=length), MIXTURES["both"](3)
    found = gloam.load_model(file).extract(images, modalities)
    torch.testing.assert_close(found, expected(model, images, modalities), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_embed_is_that_of_the_model(kind: ExportFormat, exported: Exporter) -> None:
    """Images of any size and both modalities, resized as the recipe says; features meet in one space."""
    model, file, _ = exported("agw", kind)
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (60, 31, 3), dtype=np.uint8) for _ in range(5)]
    words = ["visible", "infrared", "infrared", "visible", "infrared"]
    loaded = gloam.load_model(file)
    left = model.embed(images, modality=words, progress=False)  # type: ignore[arg-type]
    right = loaded.embed(images, modality=words, progress=False, batch_size=2)  # type: ignore[arg-type]
    torch.testing.assert_close(right.vectors, left.vectors, atol=1e-4, rtol=0)
    assert left.columns.equals(right.columns)
    assert gloam.search(right, left, top=1).rows[:, 0].tolist() == list(range(5))


@pytest.mark.parametrize("kind", ["torch-export"])
def test_mirroring_happens_inside_and_changes_the_space(kind: ExportFormat, exported: Exporter) -> None:
    model, file, _ = exported("base", kind, mirror=True)
    plain, plain_file, _ = exported("base", kind)
    images, modalities = some_images(model, 4), MIXTURES["both"](4)
    found = gloam.load_model(file).extract(images, modalities)
    torch.testing.assert_close(found, expected(model, images, modalities), atol=1e-4, rtol=0)
    assert not torch.allclose(found, expected(plain, images, modalities), atol=1e-3)
    assert gloam.load_model(file).fingerprint == model.fingerprint != gloam.load_model(plain_file).fingerprint


@pytest.mark.parametrize("kind", ["onnx"])
def test_normalisation_may_stay_outside(kind: ExportFormat, exported: Exporter) -> None:
    model, file, _ = exported("base", kind, takes="normalised")
    images, modalities = some_images(model, 4), MIXTURES["both"](4)
    loaded = gloam.load_model(file)
    wanted = expected(model, images, modalities)
    torch.testing.assert_close(loaded.extract(normalize(images), modalities), wanted, atol=1e-4, rtol=0)
    arrays = list(images.permute(0, 2, 3, 1).numpy())
    embedded = loaded.embed(arrays, modality=["visible", "infrared"] * 2, progress=False)
    torch.testing.assert_close(embedded.vectors, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "modality", "kind"),
    [
        # The layers are left out before the format is chosen: one ONNX file is enough.
        ("agw", "visible", "onnx"),
        ("agw", "infrared", "torch-export"),
        ("cgrnet", "visible", "torch-export"),
        ("cgrnet", "infrared", "torch-export"),
    ],
)
def test_one_modality_is_a_smaller_file_that_refuses_the_other(
    name: str, modality: str, kind: ExportFormat, exported: Exporter
) -> None:
    model, file, _ = exported(name, kind, modality=modality)
    images = some_images(model, 4)
    loaded = gloam.load_model(file)
    wanted = expected(model, images, MIXTURES[modality](4))
    torch.testing.assert_close(loaded.extract(images, MIXTURES[modality](4)), wanted, atol=1e-4, rtol=0)
    with pytest.raises(GloamError, match=f"{modality} images only"):
        loaded.extract(images, MIXTURES["both"](4))
    _, whole, _ = exported(name, kind)
    assert file.stat().st_size < whole.stat().st_size
    assert loaded.fingerprint == model.fingerprint


def test_metadata_say_how_images_reach_the_graph_and_no_folder(exported: Exporter) -> None:
    import onnx

    for name in ("agw", "m3reid"):
        model, file, _ = exported(name, "onnx")
        proto = onnx.load(file)
        (entry,) = [p.value for p in proto.metadata_props if p.key == "gloam"]
        about = json.loads(entry)
        (opset,) = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
        assert about["opset"] == opset == 18
        assert (about["height"], about["width"]) == model.size
        assert about["mean"] == [0.485, 0.456, 0.406]
        assert about["std"] == [0.229, 0.224, 0.225]
        assert about["frames"] == (FRAMES if model.is_video else None)
        told = {key: about[key] for key in ("method", "feature_dim", "colour_order", "input", "gloam", "modalities")}
        assert told == {
            "method": name,
            "feature_dim": model.feature_dim,
            "colour_order": "RGB",
            "input": "uint8",
            "gloam": gloam.__version__,
            "modalities": {"visible": 0, "infrared": 1},
        }
        assert about["fingerprint"] == model.fingerprint.digest
        assert "/somebody" not in entry  # the recipe's data folder
        assert "runs/" not in entry
        extra = {"gloam": ""}
        torch.export.load(exported(name, "torch-export")[1], extra_files=extra)
        assert json.loads(extra["gloam"])["fingerprint"] == model.fingerprint.digest


def test_what_only_training_needs_stays_behind(exported: Exporter) -> None:
    """Classifiers and memories (features of the training images) are in no exported graph."""
    import onnx

    for name in ("agw", "spcl"):
        names = list(torch.export.load(exported(name, "torch-export")[1]).state_dict)
        if name == "agw":
            names += [tensor.name for tensor in onnx.load(exported(name, "onnx")[1]).graph.initializer]
        assert names
        assert not [n for n in names if "classifier" in n or "memory" in n or "bank" in n]


RUN_PROGRAM = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "{absent}":
            raise ImportError("{absent} is absent")
sys.meta_path.insert(0, Absent())
import numpy as np
given = np.load(sys.argv[2])
images, modalities = given["images"], given["modalities"]
{body}
assert "{absent}" not in sys.modules
np.save(sys.argv[3], found)
"""
WITHOUT_GLOAM = """
import torch
found = torch.export.load(sys.argv[1]).module()(torch.from_numpy(images), torch.from_numpy(modalities)).numpy()
"""
WITHOUT_TORCH = """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(found,) = session.run(None, dict(images=images, modalities=modalities))
"""


@pytest.mark.parametrize(
    ("name", "kind", "absent", "body"),
    [("m3reid", "torch-export", "gloam", WITHOUT_GLOAM), ("cgrnet", "onnx", "torch", WITHOUT_TORCH)],
)
def test_files_run_where_their_makers_are_absent(
    name: str, kind: ExportFormat, absent: str, body: str, exported: Exporter, tmp_path: Path
) -> None:
    model, file, _ = exported(name, kind)
    images, modalities = some_images(model, 5), MIXTURES["both"](5)
    np.savez(tmp_path / "in.npz", images=images.numpy(), modalities=modalities.numpy())
    program = RUN_PROGRAM.format(absent=absent, body=textwrap.dedent(body))
    words = [sys.executable, "-c", program, str(file), str(tmp_path / "in.npz"), str(tmp_path / "out.npy")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = torch.from_numpy(np.load(tmp_path / "out.npy"))
    torch.testing.assert_close(found, expected(model, images, modalities), atol=1e-4, rtol=0)


@pytest.fixture
def run(tmp_path: Path, sysu_root: Path) -> Path:
    return write_run(tmp_path / "run", drawn_model("base"), sysu_root)


class Swapped(export_file.ExportedGraph):
    """A graph with one mistake: infrared images go through the visible stem."""

    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        return super().forward(images, torch.zeros_like(modalities))


class Unnormalised(export_file.ExportedGraph):
    """A graph with another one: the standard deviations are in the wrong order."""

    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        self.gain = self.gain.flip(0)
        return super().forward(images, modalities)


class Noisy(export_file.ExportedGraph):
    """A mistake below what cosines show: one number of each feature is off by 2e-4."""

    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        features = super().forward(images, modalities)
        return torch.cat([features[:, :1] + 2e-4, features[:, 1:]], dim=1)


@pytest.mark.parametrize("graph", [Swapped, Unnormalised, Noisy])
def test_a_file_that_computes_something_else_is_not_written(
    graph: type, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_file, "ExportedGraph", graph)
    folder = tmp_path / "exported"
    words = ["export", str(run), "--output", str(folder), "--format", "torch-export"]
    assert cli.main(words) == 2
    assert "does not compute what the model computes" in " ".join(capsys.readouterr().err.split())
    assert not folder.exists()
    folder.mkdir()
    (folder / "model.pt2").write_bytes(b"an earlier one")
    assert cli.main(words) == 2
    assert [(f.name, f.read_bytes()) for f in folder.iterdir()] == [("model.pt2", b"an earlier one")]


@pytest.mark.parametrize(
    ("field", "value"), [("least_cosine", 0.99998), ("largest_difference", 1.1e-4), ("same_top1", 0.99)]
)
def test_each_number_of_a_proof_can_fail_it(field: str, value: float, exported: Exporter) -> None:
    import dataclasses

    _, _, proof = exported("base", "torch-export")
    assert proof.holds
    with pytest.raises(GloamError, match="Nothing was written"):
        dataclasses.replace(proof, **{field: value}).require()


def test_the_command_scores_both_on_the_test_set(
    run: Path, sysu_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "exported"
    assert cli.main(["export", str(run), "--output", str(folder), "--data.root", str(sysu_root)]) == 0
    proof = json.loads((folder / "proof.json").read_text())["model.onnx"]
    assert proof["holds"] is True
    assert proof["real_images"] == 64
    assert proof["rows"] == 3 * 43 + 64
    assert set(proof["milliseconds"]) == {"model", "file"}
    assert all(0 < value < 1e5 for value in proof["milliseconds"].values())
    splits = gloam.load_dataset("sysu_mm01", sysu_root)
    model = gloam.load_model(run)
    told = gloam.evaluate(
        model.embed(splits, split="query", progress=False), model.embed(splits, split="gallery", progress=False), splits
    )
    for protocol, scores in proof["scores"].items():
        assert scores["model"]["mAP"] == pytest.approx(told.mean(protocol)["mAP"], abs=1e-6)
        assert scores["file"]["mAP"] == pytest.approx(scores["model"]["mAP"], abs=1e-3)
    assert set(proof["scores"]) == set(told.trials)
    assert "least cosine" in capsys.readouterr().out


def test_exported_files_take_the_place_of_runs(run: Path, sysu_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    assert cli.main(["export", str(run), "--output", str(folder), "--format", "torch-export"]) == 0
    file, root = str(folder / "model.pt2"), ["--data.root", str(sysu_root)]
    assert cli.main(["evaluate", file, *root, "--output", str(tmp_path / "scores")]) == 0
    assert cli.main(["evaluate", str(run), "--output", str(tmp_path / "ours")]) == 0
    read = [json.loads((tmp_path / n / "evaluation.json").read_text())["protocols"] for n in ("scores", "ours")]
    assert {p: s["mean"] for p, s in read[0].items()} == {p: s["mean"] for p, s in read[1].items()}
    words = ["extract", file, str(sysu_root), str(tmp_path / "f.parquet"), "--split", "query"]
    assert cli.main(words) == 0


def test_mistakes_are_told(run: Path, tmp_path: Path, exported: Exporter) -> None:
    model, file, _ = exported("base", "torch-export")
    with pytest.raises(GloamError, match="fixed"):
        gloam.load_model(file, mirror=True)
    with pytest.raises(GloamError, match="exported file already"):
        export_model(gloam.load_model(file), tmp_path / "again.onnx", "onnx")
    with pytest.raises(GloamError, match="no export format 'tflite'"):
        export_model(model, tmp_path / "model", "tflite")  # type: ignore[arg-type]
    with pytest.raises(GloamError, match="no exported model"):
        gloam.load_model(tmp_path / "absent.onnx")
    with pytest.raises(GloamError, match="precision 32"):
        export_model(gloam.load_model(run, precision="bf16"), tmp_path / "model.onnx", "onnx")
    for suffix in (".onnx", ".pt2"):
        broken = tmp_path / f"broken{suffix}"
        broken.write_bytes(b"no model")
        with pytest.raises(GloamError, match="could not be read"):
            gloam.load_model(broken)
    assert not list(tmp_path.glob("*.tmp"))
    assert not (tmp_path / "again.onnx").exists()


def test_files_of_other_software_are_refused_in_words(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "linear.pt2")
    with pytest.raises(GloamError, match="not exported by gloam"):
        gloam.load_model(tmp_path / "linear.pt2")
    torch.export.save(program, tmp_path / "odd.pt2", extra_files={"gloam": json.dumps({"format": 1, "input": "uint8"})})
    with pytest.raises(GloamError, match="incomplete"):
        gloam.load_model(tmp_path / "odd.pt2")
    torch.export.save(program, tmp_path / "new.pt2", extra_files={"gloam": json.dumps({"format": 2, "gloam": "9"})})
    with pytest.raises(GloamError, match=r"gloam 9"):
        gloam.load_model(tmp_path / "new.pt2")


def test_objects_inside_a_program_are_never_built(tmp_path: Path) -> None:
    """PyTorch falls back to pickle where tensors are objects; a file with one must not run it."""
    import os
    import zipfile

    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "plain.pt2")
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    torch.save(Trap(), tmp_path / "trap.pt")
    trap = (tmp_path / "trap.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "plain.pt2") as old, zipfile.ZipFile(tmp_path / "trap.pt2", "w") as new:
        for name in old.namelist():
            new.writestr(name, trap if "sample_inputs" in name else old.read(name))
    with pytest.raises(GloamError, match="could not be read"):
        gloam.load_model(tmp_path / "trap.pt2")
    assert not marker.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
