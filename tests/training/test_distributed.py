"""Two processes on the CPU: they train one model, on different batches, and score like one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results
from gloam.inference.checkpoint import Checkpoint
from gloam.inference.scoring import evaluate_runs
from gloam.training.stage import create_fabric
from tests.training.tiny import tiny_recipe

SCRIPT = """
import json, sys
from pathlib import Path
from gloam.methods import get_method
from gloam.training.run import train
from tests.training.tiny import tiny_recipe

if __name__ == "__main__":
    root, output, action = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    cls, seen = get_method("agw"), []
    original = cls.training_step

    def record(self, batch):
        seen.append(batch.indices.tolist())
        return original(self, batch)

    cls.training_step = record
    recipe = tiny_recipe(
        root, method={"name": "agw", "arch": "tiny", "wrt": "exact"}, train={"epochs": 2, "iterations": 3}
    )
    result = train(
        recipe,
        output=None if action == "resume" else output,
        resume=output if action == "resume" else None,
        stop_after=1 if action == "stop" else None,
        progress=False,
    )
    import torch
    rank = torch.distributed.get_rank()
    trials = None if result.results is None else result.results.trials
    (output / f"rank{rank}.json").write_text(json.dumps({"seen": seen, "trials": trials, "path": str(result.path)}))
"""


def _launch(script: Path, root: Path, output: Path, action: str) -> None:
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script), str(root), str(output), action],
        env=environment,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def two(sysu_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    _launch(folder / "script.py", sysu_root, folder / "run", "whole")
    return folder / "run"


def test_processes_draw_different_batches(two: Path) -> None:
    seen = [json.loads((two / f"rank{rank}.json").read_text())["seen"] for rank in range(2)]
    assert [len(batches) for batches in seen] == [6, 6]
    assert not {tuple(batch) for batch in seen[0]} & {tuple(batch) for batch in seen[1]}


def test_both_processes_end_with_the_same_scores_in_one_folder(two: Path) -> None:
    found = [json.loads((two / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert found[0]["trials"] == found[1]["trials"]
    assert found[0]["path"] == found[1]["path"]
    assert len((two / "metrics.csv").read_text().splitlines()) == 3


def test_two_trained_processes_score_like_one(two: Path, tmp_path: Path) -> None:
    again = evaluate_runs([two], device="cpu", output=tmp_path)
    stored = Results.load(two / "results.json").trials
    assert again.trials == stored


@pytest.mark.slow
def test_two_processes_resume_exactly(two: Path, sysu_root: Path, tmp_path: Path) -> None:
    for action in ("stop", "resume"):
        _launch(tmp_path / "script.py", sysu_root, tmp_path / "run", action)
    left, right = (Checkpoint.load(run / "checkpoints" / "last.ckpt") for run in (two, tmp_path / "run"))
    assert all(torch.equal(value, right.method[name]) for name, value in left.method.items())


def test_torchruns_number_of_processes_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    assert create_fabric(recipe).world_size == 1
    for name, value in {
        "TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1",
        "GROUP_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    fabric = create_fabric(recipe)
    assert fabric.world_size == 4
    assert fabric.global_rank == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_a_missing_gpu_is_named(tmp_path: Path) -> None:
    with pytest.raises(GloamError, match="gloam doctor"):
        create_fabric(tiny_recipe(tmp_path, train={"accelerator": "cuda"}))


@pytest.mark.parametrize("name", ["pf_mgcd", "wsl_vireid"])
def test_methods_whose_prototypes_follow_one_process_refuse_several(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(tmp_path, method={"name": name}, train={"devices": 2})
    with pytest.raises(GloamError, match=rf"{name} cannot train in 2 processes.*prototypes.*train\.devices"):
        create_fabric(recipe)
    later = tiny_recipe(tmp_path, stages={"one": {}, "two": {"method": {"name": name}}}, train={"nodes": 2})
    with pytest.raises(GloamError, match=f"{name} cannot train in 2 processes"):
        create_fabric(later)
    for key, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(GloamError, match=f"{name} cannot train in 4 processes"):
        create_fabric(tiny_recipe(tmp_path, method={"name": name}))
