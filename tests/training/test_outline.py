"""What a run says before it begins, in which order things can fail, and when it will end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gloam.datasets import load_dataset
from gloam.errors import GloamError
from gloam.recipes.recipe import resolve
from gloam.training import run as run_module
from gloam.training.machine import Machine, choose_machine, is_first_process
from gloam.training.number_words import number_text, whole
from gloam.training.outline import commands, outline
from gloam.training.run import train
from gloam.training.run_clock import RunClock
from gloam.training.training_data import read_lists
from tests.training.tiny import tiny_recipe


def test_the_outline_counts_what_training_will_see(sysu_root: Path) -> None:
    plan = resolve(tiny_recipe(sysu_root, train={"epochs": 4, "iterations": 7}))
    splits = load_dataset("sysu_mm01", sysu_root)
    lights = [sum(int(record.modality) == light for record in splits.train) for light in (0, 1)]
    told = dict(outline(plan, read_lists(plan), choose_machine(plan.recipe)))
    kinds = f"({lights[0]:,} visible, {lights[1]:,} infrared)"
    assert told["train"] == f"{len(splits.train):,} images {kinds}, {len(splits.label_map):,} people"
    assert told["test"].startswith(f"{len(splits.query):,} queries, {len(splits.gallery):,} gallery images")
    assert told["training"] == "4 epochs x 7 batches of 12 images"  # 3 identities, 2 visible and 2 infrared each
    assert told["network"] == "base, tiny, 48 x 16, random weights"
    assert told["device"] == f"CPU, {torch.get_num_threads()} threads, float32"


def test_a_run_tells_its_commands_and_keeps_them(
    sysu_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a run"
    recipe = tiny_recipe(sysu_root, train={"epochs": 1, "iterations": 1})
    train(recipe, output=run)
    shown = capsys.readouterr().err
    for line in (f"tensorboard --logdir '{run}'", f"gloam train --resume '{run}'", "1 epoch x 1 batches of 12 images"):
        assert line in shown
        assert line in (run / "log.txt").read_text()
    assert shown.index("data ") < shown.index("device ") < shown.index("watch ")
    train(recipe, output=tmp_path / "silent", progress=False)
    assert "tensorboard --logdir" not in capsys.readouterr().err
    assert commands(Path("runs/a"))[2] == ("resume", "gloam train --resume runs/a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "nothere.pth"}, "nothere"),
        ({"evaluation": {"protocols": ["all_singel"]}}, "all_single"),
        ({"train": {"accelerator": "cuda"}}, "sees no GPU"),
        ({"evaluation": {"feature": "nose"}}, "nose"),
    ],
)
def test_images_are_decoded_after_everything_that_fails_cheaply(
    changes: dict[str, Any], message: str, sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("GLOAM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(GloamError, match=message):
        train(tiny_recipe(sysu_root, **changes), output=tmp_path / "run", progress=False)
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "run").exists()


def test_half_precision_falls_back_on_the_cpu(
    sysu_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe = tiny_recipe(sysu_root, train={"epochs": 1, "iterations": 1, "precision": "fp16", "accelerator": "auto"})
    assert choose_machine(recipe) == Machine("cpu", 1, 1, "32", "fp16")
    assert "fp16 needs a GPU" in str(choose_machine(recipe))
    assert train(recipe, output=tmp_path / "run", progress=False).results is not None
    assert any("computes in float32" in record.message for record in caplog.records)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_one_process_speaks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(other, raising=False)
    assert is_first_process()
    monkeypatch.setenv(name, "0")
    assert is_first_process()
    monkeypatch.setenv(name, "1")
    assert not is_first_process()


def test_the_end_of_a_run_is_told_from_its_latest_epochs() -> None:
    now = [1000.0]
    clock = RunClock(10, now=lambda: now[0])
    assert clock.end(0.0) is None
    assert clock.words(0.0) == ""
    clock.begin_epoch(0)
    assert clock.end(0.0) is None
    now[0] = 1050.0
    assert clock.end(0.5) == 2000.0  # 100 seconds an epoch, ten of them
    for number, began in ((1, 1400.0), (2, 1500.0), (3, 1600.0), (4, 1700.0)):
        now[0] = began
        clock.begin_epoch(number)
    assert clock.end(0.2) == 1700 + 6 * 100  # the slow first epoch is forgotten
    assert clock.done(0.2) == 4.2
    now[0] = 5000.0
    assert clock.end(0.9) == 5000.0  # never in the past
    assert clock.words(0.9) == time.strftime("ends %H:%M", time.localtime(5000.0))
    resumed = RunClock(10, now=lambda: now[0])
    resumed.begin_epoch(8)
    now[0] += 30
    assert resumed.end(0.5) == 5000.0 + 120


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("lr", 0.00035, "3.50e-04"),
        ("lr", 0.1, "1.00e-01"),
        ("pseudo_labels_clusters", 1204.0, "1,204"),
        ("loss", 0.693147, "0.6931"),
        ("identity_correct", 1.0, "1.0000"),
        ("images_per_second", 1312.4, "1,312"),
        ("seconds", 70.26, "70.3"),
        ("epoch", 12, "12"),
        ("stage", "warm", "warm"),
    ],
)
def test_numbers_are_readable(name: str, value: Any, text: str) -> None:
    assert number_text(name, value) == text


def test_counts_are_kept_as_counts() -> None:
    assert repr(whole("pseudo_labels_outliers", 17.0)) == "17"
    assert repr(whole("identity", 2.0)) == "2.0"


def test_epochs_are_counted_from_one(sysu_root: Path, tmp_path: Path) -> None:
    import csv

    recipe = tiny_recipe(sysu_root, train={"epochs": 2, "iterations": 1, "log_every": 1})
    run = train(recipe, output=tmp_path / "run", progress=False).path
    with (run / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    log = (run / "log.txt").read_text()
    assert "epoch 1 batch 1/1 lr" in log
    assert "train epoch 2 done: lr " in log
    assert "epoch 0" not in log


def test_histories_of_older_versions_are_counted_from_one(sysu_root: Path, tmp_path: Path) -> None:
    import json

    from gloam.inference.checkpoint import Checkpoint

    recipe = tiny_recipe(sysu_root, train={"epochs": 2, "iterations": 1})
    file = train(recipe, output=tmp_path / "run", progress=False).path / "checkpoints" / "last.ckpt"
    content = torch.load(file, weights_only=True)
    text = json.loads(content["text"])
    del text["epochs_from"]
    for row in text["history"]:
        row["epoch"] -= 1
    torch.save({**content, "text": json.dumps(text)}, tmp_path / "old.ckpt")
    for path in (file, tmp_path / "old.ckpt"):
        assert [row["epoch"] for row in Checkpoint.load(path).history] == [1, 2]


def test_final_scores_are_in_tensorboard(sysu_root: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(
        tiny_recipe(sysu_root, train={"epochs": 2, "iterations": 1}), output=tmp_path / "run", progress=False
    )
    assert result.results is not None
    board = EventAccumulator(str(result.path / "tensorboard"))
    board.Reload()
    (event,) = board.Scalars("test/sysu_mm01/all_single/mAP")
    assert event.value == pytest.approx(result.results.mean("sysu_mm01/all_single")["mAP"])
    assert event.step == 2
    assert [one.step for one in board.Scalars("train/loss")] == [1, 2]


def test_the_first_lines_come_before_lightning_and_torchvision(sysu_root: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    recipe = tiny_recipe(sysu_root)
    recipe.save(tmp_path / "recipe.yaml")
    code = (
        "import sys\n"
        "from gloam.training import run\n"
        "def first(lines):\n"
        "    heavy = {'lightning', 'torchvision', 'timm', 'sklearn', 'matplotlib'}\n"
        "    print('data' in dict(lines), sorted(heavy & set(sys.modules)))\n"
        "    raise SystemExit\n"
        "run.show = first\n"
        f"run.train({str(tmp_path / 'recipe.yaml')!r}, output=run.Path({str(tmp_path / 'run')!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True []\n", done.stderr
    assert run_module.show is not None
