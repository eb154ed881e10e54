"""Benchmarks that train: true partners are the true ones and act, stopped runs go on, and commands name real flags."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import pretraining, weak_supervision
from benchmarks.trainings import Training, last_numbers, mean_and_deviation, print_table, score
from gloam.cli.main import main
from gloam.cli.recipe_flags import parse_overrides
from gloam.inference.checkpoint import Checkpoint
from gloam.methods import registry
from gloam.recipes.recipe import load_recipe, resolve
from gloam.training.run import train
from gloam.training.training_data import prepare_data
from tests.training.tiny import tiny_recipe

with registry.temporarily():  # to import the plugin is to register its methods
    from benchmarks import true_partners

WEAK = {"relabel": "per_modality"}
PF = {"name": "pf_mgcd_true_partners", "arch": "tiny", "num_parts": 3, "feature_dim": 16, "warmup_epochs": 1}
WSL = {"name": "wsl_vireid_true_partners", "arch": "tiny", "weak_from_epoch": 1}
STAGES = {"experts": {"train": {"epochs": 1}}, "collaboration": {"train": {"epochs": 2}}}


@pytest.mark.parametrize("method", [PF, WSL])
def test_the_true_partners_take_the_place_of_those_found(
    method: dict[str, Any], sysu_root: Path, tmp_path: Path
) -> None:
    sections: dict[str, Any] = {"data": WEAK, "train": {"epochs": 3, "iterations": 2, "seed": weak_supervision.SEED}}
    if method is WSL:
        sections["stages"] = STAGES
    partners = weak_supervision.true_partners(sysu_root)
    with registry.temporarily():
        registry.register("pf_mgcd_true_partners")(true_partners.PFMGCDTruePartners)
        registry.register("wsl_vireid_true_partners")(true_partners.WSLVIReIDTruePartners)
        recipe = tiny_recipe(sysu_root, method={**method, "partners": partners}, **sections)
        hidden = prepare_data(resolve(recipe), progress=False).partners()
        assert hidden is not None
        assert partners == hidden.tolist()
        run = train(recipe, output=tmp_path / "run", progress=False).path
        last = Checkpoint.load(run / "checkpoints" / "last.ckpt")
    rows = [row for row in last.history if "given_precision" in row]
    assert len(rows) == 2
    assert {(row["given_precision"], row["given_recall"]) for row in rows} == {(1.0, 1.0)}
    assert all("match_precision" in row for row in rows)  # what it would have matched is still told
    if method is PF:
        # Of every infrared identity the visible partner: the inverse of the list.
        assert [partners.index(label) for label in range(len(partners))] == last.method["matches"].tolist()
    else:
        truth = torch.nn.functional.one_hot(torch.tensor(partners)).bool()
        assert torch.equal(last.method["consistent"], truth)
        assert torch.equal(last.method["trusted"], truth)
        assert not last.method["contradictory"].any()


@pytest.mark.parametrize("start", weak_supervision.STARTS)
@pytest.mark.parametrize("method", weak_supervision.METHODS)
def test_every_cell_is_a_command_without_idle_flags(start: str, method: str, tmp_path: Path) -> None:
    setting = weak_supervision.Setting(root=tmp_path, others=tmp_path / "others", output=tmp_path / "runs")
    before = weak_supervision.start_training(start, method, setting)
    cells = {
        column: weak_supervision.training(column, start, method, setting, "none", [1, 0])
        for column in ("start", *weak_supervision.RECIPES)
    }
    with registry.temporarily():
        registry.register("pf_mgcd_true_partners")(true_partners.PFMGCDTruePartners)
        registry.register("wsl_vireid_true_partners")(true_partners.WSLVIReIDTruePartners)
        plans = {column: _plan(cell) for column, cell in cells.items()}
        assert (before is None) == (start == "random")
        if before is not None:
            assert _epochs(_plan(before)) == setting.start_epochs
    assert len({cell.name for cell in cells.values()}) == len(cells)
    assert _epochs(plans["start"]) == 0
    # All columns train equally long from the same weights.
    assert len({_epochs(plans[column]) for column in weak_supervision.RECIPES}) == 1
    spaces = {column: plan.stages[next(iter(plan.stages))].options.label_spaces for column, plan in plans.items()}
    assert spaces == {"start": "two", "alone": "two", "weak": "two", "true partners": "two", "full": "one"}


@pytest.mark.parametrize("variant", pretraining.VARIANTS)
def test_every_variant_of_pretraining_ends_with_the_same_fine_tuning(variant: str, tmp_path: Path) -> None:
    plan = _plan(pretraining.training(variant, 3, tmp_path))
    *before, last = plan.stages.values()
    assert len(before) == (0 if variant == "none" else 1)
    assert (last.recipe.method_name, last.recipe.train.epochs, last.recipe.train.iterations) == ("base", 6, 30)
    assert (last.recipe.schedule.name, last.recipe.schedule.length, last.recipe.train.seed) == ("cosine", 6, 3)
    if before:
        options = before[0].recipe.method_options
        tasks = (options.get("permutation", True), options.get("pcc", True))
        assert tasks == {"permutation only": (True, False), "PCC only": (False, True), "both": (True, True)}[variant]
        assert before[0].recipe.train.epochs == 20


def test_a_stopped_training_goes_on_and_a_finished_one_is_not_repeated(sysu_root: Path, tmp_path: Path) -> None:
    words = (
        f"--data.root {sysu_root} --data.height 48 --data.width 24 --data.workers 0 --method.arch tiny --weights none"
    )
    words += " --train.iterations 2 --train.epochs 2 --sampler.identities 2 --sampler.instances 2"
    words += " --schedule.warmup-epochs 0 --train.accelerator cpu"
    one = Training("cell", "sysu_mm01/base", tuple(words.split()))
    run = tmp_path / "cell"
    assert main([*one.command(tmp_path), "--stop-after", "1"]) == 0
    assert not (run / "results.json").exists()
    one.run(tmp_path)
    assert [row["epoch"] for row in Checkpoint.load(run / "checkpoints" / "last.ckpt").history] == [1, 2]
    means = {"rank1": 0.25, "mAP": 0.125}
    (run / "results.json").write_text(json.dumps({"protocols": {"sysu_mm01/all_single": {"mean": means}}}))
    shutil.rmtree(run / "checkpoints")
    # Nothing is started: that file is all there is to read.
    assert score(one.run(tmp_path)) == {"rank1": 25.0, "mAP": 12.5}


def test_a_training_that_fails_ends_the_benchmark_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"cell\.log"):
        Training("cell", "sysu_mm01/nonsense", ()).run(tmp_path)
    assert "nonsense" in (tmp_path / "cell.log").read_text()


def test_the_last_number_of_a_column_that_ends_early_is_kept(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,loss,accuracy\n0,3,0.5\n1,2,0.75\n2,1,\n")
    accuracy, loss, missing = last_numbers(tmp_path, "accuracy", "loss", "nothing")
    assert (accuracy, loss) == (0.75, 1.0)
    assert missing != missing


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{"a": 1, "b": mean_and_deviation([1.0, 3.0])}, {"a": mean_and_deviation([2.0])}])
    assert capsys.readouterr().out.splitlines() == ["| a | b |", "|---|---|", "| 1 | 2.00 ± 1.41 |", "| 2.00 | - |"]


def _plan(one: Training) -> Any:
    recipe, _ = parse_overrides(load_recipe(one.recipe), list(one.flags), program="gloam train")
    return resolve(recipe)


def _epochs(plan: Any) -> int:
    return sum(stage.recipe.train.epochs for stage in plan.stages.values())
