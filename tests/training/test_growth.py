"""Epochs cost the same, however many there have been: nothing of an epoch is kept beyond it."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from gloam import cli
from gloam.training.stage import Stage
from tests.small_recipes import small_words


@pytest.mark.parametrize("name", ["sysu_mm01/wsl_vireid", "sysu_mm01/pf_mgcd", "market1501/cluster_contrast"])
def test_nothing_piles_up(name: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors: list[int] = []
    original = Stage._epoch

    def epoch(self: Stage, number: int, unfinished: Any) -> dict[str, Any]:
        gc.collect()
        alive = [t for t in gc.get_objects() if type(t) in (torch.Tensor, torch.nn.Parameter)]
        tensors.append(sum(t.nbytes for t in alive if t.layout == torch.strided))  # other tests may keep sparse ones
        return original(self, number, unfinished)

    monkeypatch.setattr(Stage, "_epoch", epoch)
    words = small_words(name, drawn, epochs=10)
    assert cli.main(["train", name, *words, "--output", str(tmp_path / "run")]) == 0
    # The optimiser's state and the first checkpoint's are there after two epochs of the last stage.
    settled = tensors[-6:]
    assert len(tensors) >= 10
    assert max(settled) - min(settled) < 20_000, tensors
