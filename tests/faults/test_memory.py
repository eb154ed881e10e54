"""Memory that runs out in any command: one message with the batch size to try, no traceback, nothing half-written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from gloam import cli
from gloam.methods.base import BaseSoftmax
from gloam.training.run import train
from tests.training.tiny import tiny_recipe


@pytest.fixture(scope="module")
def runs(sysu_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("memory")
    recipe = tiny_recipe(sysu_root, train={"iterations": 1})
    train(recipe, output=folder / "finished", progress=False)
    train(recipe, output=folder / "stopped", stop_after=1, progress=False)
    recipe.save(folder / "recipe.yaml")
    return {name: folder / name for name in ("finished", "stopped", "recipe.yaml")}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"), MemoryError()])
@pytest.mark.parametrize("command", ["evaluate", "extract", "rank-list", "embedding", "train", "resume"])
def test_one_message_says_what_to_try(
    command: str,
    error: Exception,
    runs: dict[str, Path],
    sysu_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finished, output = str(runs["finished"]), str(tmp_path / "out")
    commands = {
        "evaluate": ["evaluate", finished, "--batch-size", "6", "--output", output],
        "extract": ["extract", finished, str(sysu_root), f"{output}.npz", "--split", "query", "--batch-size", "6"],
        "rank-list": ["rank-list", finished, "--output", f"{output}.png", "--batch-size", "6"],
        "embedding": ["embedding", finished, "--output", f"{output}.png", "--batch-size", "6"],
        "train": ["train", str(runs["recipe.yaml"]), "--output", output, "--quiet"],
        "resume": ["train", "--resume", str(runs["stopped"]), "--quiet"],
    }

    def fail(*_: Any) -> NoReturn:
        raise error

    monkeypatch.setattr(BaseSoftmax, "training_step" if command in ("train", "resume") else "extract", fail)
    assert cli.main(commands[command]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("error:") == 1
    assert "memory ran out" in told
    # Half of what did not fit: 6 rows, or batches of 3 identities.
    assert ("--sampler.identities 1" if command in ("train", "resume") else "batch size of 3 (--batch-size)") in told
    assert os.listdir(tmp_path) == []
