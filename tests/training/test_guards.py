"""The plateau warning: after each fifth of training, not before three epochs, where a method names a plateau."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from gloam.losses.permutation import permutation_loss, uniform_permutation_loss
from gloam.methods import create_method
from gloam.methods.contract import Plateau
from gloam.training.guards import CollapseGuard

FEATURES = torch.eye(4)


def _warned(guard: CollapseGuard, value: float, epochs: int) -> list[int]:
    return [e for e in range(epochs) if guard.check_epoch(FEATURES, {"part": value}, e)]


def test_the_warning_comes_after_each_fifth_of_training() -> None:
    guard = CollapseGuard("train", 100, {"part": Plateau(5.0, "Try this.")})
    assert _warned(guard, 4.95, 100) == [19, 39, 59, 79, 99]
    assert _warned(guard, 4.85, 100) == []
    hint = guard.check_epoch(FEATURES, {"part": 4.95}, 19)
    assert hint is not None
    assert "4.9500" in hint
    assert "Try this." in hint


def test_short_stages_and_other_methods_are_left_alone() -> None:
    assert _warned(CollapseGuard("train", 2, {"part": Plateau(5.0, "")}), 5.0, 2) == []
    assert _warned(CollapseGuard("train", 5, {"part": Plateau(5.0, "")}), 5.0, 5) == [2, 3, 4]
    assert _warned(CollapseGuard("train", 100), 5.0, 100) == []
    assert _warned(CollapseGuard("train", 100, {"other": Plateau(5.0, "")}), 5.0, 100) == []


@pytest.mark.parametrize("form", ["mse_sum", "mse_mean", "ce"])
@pytest.mark.parametrize("parts", [3, 6])
def test_mmgl_names_the_loss_of_a_uniform_guess(form: str, parts: int) -> None:
    orders = torch.stack([torch.randperm(parts) for _ in range(8)])
    uniform = permutation_loss(torch.full((8, parts, parts), 1 / parts), orders, form)
    assert uniform_permutation_loss(parts, form) == pytest.approx(uniform.item(), rel=1e-6)
    method = create_method("mmgl", 1, arch="tiny", num_stripes=parts, permutation_loss=form)
    assert method.plateaus()["permutation"].value == pytest.approx(uniform.item(), rel=1e-6)
    assert create_method("mmgl", 1, arch="tiny", permutation=False).plateaus() == {}


def test_values_of_the_specification() -> None:
    assert uniform_permutation_loss(6) == 5.0
    assert uniform_permutation_loss(6, "mse_mean") == pytest.approx(0.1389, abs=1e-4)
    assert uniform_permutation_loss(6, "ce") == pytest.approx(math.log(6))


def test_a_run_that_learns_no_order_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from gloam.drawing.dataset import draw_dataset
    from gloam.training.run import train
    from tests.training.tiny import tiny_recipe

    draw_dataset("sysu_mm01", tmp_path / "data", ids=4, images=1, height=48, width=16, progress=False)
    recipe = tiny_recipe(
        tmp_path / "data",
        method={"name": "mmgl", "permutation_loss": "mse_mean"},
        sampler={"name": "modality_shuffle", "batch_size": 2},
        train={"epochs": 3, "iterations": 1},
    )
    train(recipe, output=tmp_path / "run", progress=False)
    assert "without any learning it is 0.1389" in caplog.text
    assert "mse_sum" in (tmp_path / "run" / "log.txt").read_text()
