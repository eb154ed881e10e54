"""Runs from recipe to results: files, exact resume, stages, selection, guards, checkpoints that survive."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import gloam
from gloam import cli
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint, export_weights
from gloam.inference.loading import load_model
from gloam.recipes.recipe import load_recipe
from gloam.training.run import train
from tests.training.tiny import tiny_recipe


@pytest.fixture(scope="module")
def finished(sysu_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_recipe(sysu_root), output=tmp_path_factory.mktemp("runs") / "run", progress=False).path


def _same_state(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, right[name]), name


def test_a_run_leaves_everything_behind(finished: Path) -> None:
    for name in ("recipe.yaml", "environment.json", "metrics.csv", "log.txt", "results.json", "results.csv"):
        assert (finished / name).stat().st_size > 0
    assert list((finished / "tensorboard").iterdir())
    results = json.loads((finished / "results.json").read_text())
    assert results["notes"]["selection"] == "weights of the last epoch"
    assert len(results["protocols"]["sysu_mm01/all_single"]["trials"]) == 10
    assert not list(finished.rglob("*.tmp"))
    assert finished.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("method", ["base", "agw", "ddag", "wsl_vireid", "pf_mgcd", "mmgl"])
def test_two_and_two_epochs_equal_four(method: str, sysu_root: Path, tmp_path: Path) -> None:
    options = {"pf_mgcd": {"warmup_epochs": 1, "num_parts": 3}, "agw": {"wrt": "exact"}}.get(method, {})
    sampler = {"name": "modality_shuffle", "batch_size": 6} if method == "mmgl" else {}
    weak = {"relabel": "per_modality"} if method in ("pf_mgcd", "wsl_vireid") else {}
    recipe = tiny_recipe(
        sysu_root,
        method={"name": method, "arch": "tiny", **options},
        train={"epochs": 4, "iterations": 2},
        sampler=sampler,
        data=weak,
    )
    whole = train(recipe, output=tmp_path / "whole", progress=False)
    train(recipe, output=tmp_path / "parts", stop_after=2, progress=False)
    assert not (tmp_path / "parts" / "results.json").exists()
    parts = train(recipe, resume=tmp_path / "parts", progress=False)
    left, right = (Checkpoint.load(p / "checkpoints" / "last.ckpt") for p in (whole.path, parts.path))
    assert left.epoch == right.epoch == 4
    _same_state(left.method, right.method)
    for group, other in zip(left.optimizer["state"].values(), right.optimizer["state"].values(), strict=True):
        _same_state(group, other)
    timing = ("seconds", "images_per_second")
    rows = [[{k: v for k, v in row.items() if k not in timing} for row in c.history] for c in (left, right)]
    assert rows[0] == rows[1]
    assert whole.results is not None
    assert parts.results is not None
    assert whole.results.trials == parts.results.trials


def test_training_leaves_global_generators_alone(sysu_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 - the global generator is what must not move
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(tiny_recipe(sysu_root, train={"epochs": 1}), output=tmp_path / "run", progress=False)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_load_model_gives_the_scores_of_the_run(finished: Path, sysu_root: Path, tmp_path: Path) -> None:
    assert (
        cli.main(
            [
                "evaluate",
                str(finished),
                "--data.root",
                str(sysu_root),
                "--protocol",
                "all_single",
                "--output",
                str(tmp_path),
            ]
        )
        == 0
    )
    again = json.loads((tmp_path / "evaluation.json").read_text())["protocols"]
    first = json.loads((finished / "results.json").read_text())["protocols"]
    assert again["sysu_mm01/all_single"] == first["sysu_mm01/all_single"]
    method = gloam.load_model(finished).method
    assert not method.training


def test_several_runs_are_averaged(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(finished)
    other = train(recipe.with_changes({"train.seed": recipe.train.seed + 1}), output=tmp_path / "seed", progress=False)
    command = ["evaluate", str(finished), str(other.path), "--protocol", "indoor_single", "--output", str(tmp_path)]
    assert cli.main(command) == 0
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["notes"]["models"] == "2"
    assert len(content["protocols"]["sysu_mm01/indoor_single"]["trials"]) == 20


def test_other_feature_mirror_and_reranking_change_the_scores(finished: Path, tmp_path: Path) -> None:
    outcomes = []
    for number, words in enumerate([[], ["--feature", "pool"], ["--mirror", "True"], ["--rerank"]]):
        folder = tmp_path / str(number)
        assert cli.main(["evaluate", str(finished), "--protocol", "all_single", "--output", str(folder), *words]) == 0
        content = json.loads((folder / "evaluation.json").read_text())
        outcomes.append(content["protocols"]["sysu_mm01/all_single"]["mean"]["mAP"])
    assert len(set(outcomes)) == 4


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".csv"])
def test_extract_writes_a_split_and_a_folder(finished: Path, sysu_root: Path, suffix: str, tmp_path: Path) -> None:
    output = tmp_path / f"query{suffix}"
    assert cli.main(["extract", str(finished), str(sysu_root), str(output), "--split", "query"]) == 0
    assert cli.main(["extract", str(finished), str(sysu_root / "cam3" / "0001"), str(tmp_path / f"f{suffix}")]) == 0
    if suffix == ".npz":
        stored = np.load(output)
        np.testing.assert_allclose(np.linalg.norm(stored["features"], axis=1), 1, atol=1e-5)
        assert set(stored["modality"]) == {"infrared"}


def test_rank_list_is_an_image(finished: Path, tmp_path: Path) -> None:
    from PIL import Image

    output = tmp_path / "list.png"
    assert cli.main(["rank-list", str(finished), "--output", str(output), "--queries", "3", "--top", "4"]) == 0
    with Image.open(output) as image:
        assert image.width > 300


def test_validation_selection_keeps_the_best_and_says_so(sysu_root: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(sysu_root, evaluation={"selection": "validation"}, train={"epochs": 3})
    result = train(recipe, output=tmp_path / "run", progress=False)
    best = Checkpoint.load(result.path / "checkpoints" / "best.ckpt")
    assert best.num_classes == 6
    assert best.best is not None
    scores = [
        row["validation_rank1"] + row["validation_mAP"]
        for row in Checkpoint.load(result.path / "checkpoints" / "last.ckpt").history
    ]
    assert best.best["score"] == pytest.approx(max(scores))
    assert best.epoch == scores.index(max(scores)) + 1
    assert result.results is not None
    assert "held-out" in result.results.notes["selection"]


def test_two_stages_hand_their_weights_on(sysu_root: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        sysu_root,
        method={"name": "mmgl", "arch": "tiny"},
        sampler={"name": "modality_shuffle", "batch_size": 6},
        stages={
            "pretrain": {"train": {"epochs": 1}},
            "finetune": {
                "method": {"name": "base", "arch": "tiny"},
                "sampler": {"name": "cross_modality_identity"},
                "train": {"epochs": 2},
            },
        },
    )
    whole = train(recipe, output=tmp_path / "whole", progress=False)
    assert (whole.path / "log.txt").read_text().count("tensors loaded") == 1
    for stop in (1, 2):
        folder = tmp_path / f"stop{stop}"
        train(recipe, output=folder, stop_after=stop, progress=False)
        train(recipe, resume=folder, progress=False)
        left, right = (Checkpoint.load(p / "checkpoints" / "last.ckpt") for p in (whole.path, folder))
        _same_state(left.method, right.method)


def test_a_used_folder_is_refused(finished: Path, sysu_root: Path) -> None:
    with pytest.raises(GloamError, match="--resume"):
        train(tiny_recipe(sysu_root), output=finished, progress=False)


def test_resume_on_other_data_is_refused(finished: Path, tmp_path: Path) -> None:
    from tests.people_tree import write_sysu

    other = write_sysu(tmp_path / "other", train=7)
    with pytest.raises(GloamError, match="cannot go on"):
        train(tiny_recipe(other), resume=finished, progress=False)


def test_a_diverging_run_stops_with_what_to_try(sysu_root: Path, tmp_path: Path) -> None:
    with pytest.raises(GloamError, match=r"nan|inf|collapsed"):
        train(
            tiny_recipe(sysu_root, optimizer={"lr": 1e3}, train={"epochs": 6}), output=tmp_path / "run", progress=False
        )


def test_truncated_and_foreign_checkpoints_are_named(finished: Path, tmp_path: Path) -> None:
    content = (finished / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(GloamError, match="cut off"):
        load_model(tmp_path / "cut.ckpt")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "foreign.ckpt")
    with pytest.raises(GloamError, match="not a gloam checkpoint"):
        load_model(tmp_path / "foreign.ckpt")
    with pytest.raises(GloamError, match="no run or checkpoint"):
        load_model(tmp_path / "absent")


def test_weights_of_another_size_are_named(finished: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(finished / "checkpoints" / "last.ckpt")
    checkpoint.num_classes = 99
    checkpoint.save(tmp_path / "other.ckpt")
    with pytest.raises(GloamError, match="99 classes"):
        load_model(tmp_path / "other.ckpt")


def test_export_is_plain_safetensors(finished: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    export_weights(finished, tmp_path / "model.safetensors")
    own = load_model(finished).method.state_dict()
    _same_state(
        load_file(tmp_path / "model.safetensors"), {k: v for k, v in own.items() if isinstance(v, torch.Tensor)}
    )


def test_a_kill_while_saving_leaves_the_old_checkpoint(finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    target.write_bytes((finished / "checkpoints" / "last.ckpt").read_bytes())
    code = f"""
import time, torch
from pathlib import Path
from gloam.inference.checkpoint import Checkpoint
checkpoint = Checkpoint.load(Path({str(target)!r}))
original = torch.save
def slow(content, path):
    original(content, path)
    Path({str(tmp_path / "written")!r}).touch()
    time.sleep(60)
torch.save = slow
checkpoint.epoch = 77
checkpoint.save(Path({str(target)!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (tmp_path / "written").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "written").exists()
    assert Checkpoint.load(target).epoch == 2


def test_a_run_that_cannot_begin_leaves_nothing_behind(sysu_root: Path, tmp_path: Path) -> None:
    too_many_parts = {"method": {"name": "pf_mgcd", "arch": "tiny", "relabel": False, "num_parts": 6}}
    with pytest.raises(GloamError, match="num_parts"):
        train(tiny_recipe(sysu_root, **too_many_parts), output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
