"""A real package, installed by pip into a fresh environment, trains and evaluates by the command line alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gloam

SOURCE = Path(__file__).parent / "example_package"
RECIPE = """
data: {name: corridor, height: 32, width: 16, workers: 1}
method: {name: centroid, arch: thin, loss: to_centroid}
weights: none
augment: {pad: 2}
sampler: {name: whole_identities, identities: 3}
optimizer: {name: signs, lr: 0.01, options: {decay: 0.8}}
schedule: {name: halving, options: {every: 1}}
train: {epochs: 2, accelerator: cpu}
loggers: [text]
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of a new environment that has the packages of this one, gloam, and the example package."""
    pytest.importorskip("setuptools", reason="builds the example package; part of the extra dev")
    folder = tmp_path_factory.mktemp("fresh") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    interpreter = scripts / Path(sys.executable).name
    purelib = subprocess.run(
        [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    here = [
        str(Path(gloam.__file__).parent.parent),
        *(p for p in sys.path if p.endswith(("site-packages", "dist-packages"))),
    ]
    (Path(purelib) / "packages_of_the_test_environment.pth").write_text("\n".join(here) + "\n")
    source = folder.parent / "example_package"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    _run([interpreter, *install, str(source)], folder.parent)
    return interpreter


@pytest.fixture(scope="module")
def corridor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "corridor"
    random = np.random.default_rng(0)

    def write(part: str, pid: int, cam: int, modality: str, number: int) -> None:
        (root / part).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 60, (32, 16, 3)) + random.permutation(195)[:3] * (modality == "visible") + pid * 8
        Image.fromarray(pixels.astype(np.uint8)).save(root / part / f"{pid:04}_{cam}_{modality}_{number}.png")

    for pid in range(1, 7):
        for number in range(2):
            write("train", pid, 1, "visible", number)
            write("train", pid, 2, "infrared", number)
    for pid in range(7, 10):
        write("query", pid, 2, "infrared", 0)
        write("gallery", pid, 1, "visible", 0)
    return root


def _run(words: list[object], folder: Path, **environment: str) -> str:
    """What a command prints; without PYTHONPATH and with the working directory off the import path."""
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "GLOAM_PLUGINS")}
    variables |= {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
    done = subprocess.run([str(word) for word in words], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_trains_and_evaluates(python: Path, corridor: Path, tmp_path: Path) -> None:
    (tmp_path / "corridor.yaml").write_text(RECIPE)
    train = [python, "-m", "gloam", "train", "corridor.yaml", "--data.root", corridor, "--output", "run", "--quiet"]
    _run([*train, "--method.weight", "0.2", "--sampler.identities", "2"], tmp_path)
    run = tmp_path / "run"
    recipe = (run / "recipe.yaml").read_text()
    assert "weight: 0.2" in recipe
    assert "identities: 2" in recipe
    lines = [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert [line["train/lr"] for line in lines[:2]] == [0.01, 0.005]
    assert {"train/identity", "train/pull"} <= lines[0].keys()
    trained = json.loads((run / "results.json").read_text())["protocols"]["corridor/day_and_night"]["mean"]
    assert 0 < trained["mAP"] <= 1
    assert lines[2]["test/corridor/day_and_night/mAP"] == trained["mAP"]

    shown = _run([python, "-m", "gloam", "evaluate", "run", "--output", "again"], tmp_path)
    assert "day_and_night" in shown
    again = json.loads((tmp_path / "again" / "evaluation.json").read_text())["protocols"]["corridor/day_and_night"][
        "mean"
    ]
    assert again == trained

    listed = _run([python, "-m", "gloam", "doctor"], tmp_path)
    for part in ("gloam.methods: centroid", "gloam.samplers: whole_identities", "gloam.loggers: text"):
        assert part in listed
    assert "gloam-example 1.0" in listed
