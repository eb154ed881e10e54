"""Base and AGW within one modality: BoT and the survey's AGW, from their formulas to a run by command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gloam import cli
from gloam.batches.batch import Batch
from gloam.datasets import load_dataset
from gloam.drawing.dataset import draw_dataset
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.methods import create_method
from gloam.methods.contract import Method
from gloam.recipes.fitting import misfit
from gloam.recipes.recipe import load_recipe, resolve
from gloam.training.schedule import learning_rate_factor
from gloam.training.training_data import prepare_data
from tests.oracles import triplet as oracle
from tests.tiny_people import tiny_people

BOT: dict[str, Any] = {"streams": 1, "trunk_factor": 1, "label_smoothing": 0.1, "weight_center": 0.01}


def _method(name: str, **options: Any) -> Method[Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = create_method(name, 4, arch="tiny", **{**BOT, **options}).double().train()
        torch.nn.init.normal_(method.net.classifier.weight, std=0.5)
    return method


def _data() -> Batch:
    data = tiny_people(noise=2.0, both_modalities=False)
    return dataclasses.replace(data, images=data.images.double())


def _smoothed_identity(logits: torch.Tensor, pids: list[int], epsilon: float) -> float:
    """Label smoothing as BoT writes it: q is 1 - (N - 1) e / N for the true identity and e / N for the others."""
    count, total = logits.shape[1], 0.0
    for row, pid in zip(logits.tolist(), pids, strict=True):
        log_p = torch.tensor(row, dtype=torch.float64).log_softmax(0).tolist()
        for i, value in enumerate(log_p):
            total -= (1 - (count - 1) / count * epsilon if i == pid else epsilon / count) * value
    return total / len(pids)


@pytest.mark.parametrize("triplet", ["hard", "soft_margin_triplet"])
def test_the_loss_of_bot(triplet: str) -> None:
    method, data = _method("base", triplet=triplet), _data()
    with torch.no_grad():
        out = method.net(data.images, data.modalities)
    rows, pids = out.pooled.tolist(), data.pids.tolist()
    gaps = oracle.hardest_gaps(rows, pids)
    margin = sum(max(0.0, gap + 0.3) for gap in gaps) / len(gaps)
    soft = sum(oracle.softplus(gap) for gap in gaps) / len(gaps)
    assert abs(margin - soft) > 1e-3
    identity = _smoothed_identity(out.logits, pids, 0.1)
    centers = method.centers.rows.tolist()
    center = sum(
        sum((x - c) ** 2 for x, c in zip(r, centers[p], strict=True)) for r, p in zip(rows, pids, strict=True)
    ) / len(rows)
    found = {key: value.item() for key, value in method.training_step(data).items()}
    expected = margin if triplet == "hard" else soft
    assert found["triplet"] == pytest.approx(expected, rel=1e-9)
    assert found["identity"] == pytest.approx(identity, rel=1e-9)
    assert found["center"] == pytest.approx(center, rel=1e-9)
    assert found["loss"] == pytest.approx(identity + expected + 0.01 * center, rel=1e-9)


def test_the_loss_of_agw_with_centres() -> None:
    method, data = _method("agw", wrt="exact"), _data()
    found = {key: value.item() for key, value in method.training_step(data).items()}
    assert found["center"] > 0.1
    assert found["loss"] == pytest.approx(found["identity"] + found["triplet"] + 0.01 * found["center"], rel=1e-9)


@pytest.mark.parametrize("name", ["base", "agw"])
def test_centres_follow_a_batch_and_only_in_training(name: str) -> None:
    method, data = _method(name), _data()
    before = method.centers.rows.clone()
    with torch.no_grad():
        method.eval().extract(data.images, data.modalities)
    method.after_step()
    assert torch.equal(method.centers.rows, before)
    method.train().training_step(data)
    method.after_step()
    assert not torch.equal(method.centers.rows, before)


@pytest.mark.parametrize("name", ["base", "agw"])
def test_one_stem_for_whatever_modality(name: str) -> None:
    method, data = _method(name), _data()
    assert method.net.backbone.stem_infrared is None
    infrared = dataclasses.replace(data, modalities=torch.ones_like(data.modalities))
    values = [method.training_step(batch)["loss"].item() for batch in (data, infrared)]
    assert values[0] == values[1]
    assert not [key for key in _method(name, weight_center=0).state_dict() if "center" in key]


@pytest.mark.parametrize("name", ["base", "agw"])
@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_the_backbone_learns_at_its_share_of_the_rate(name: str, factor: float) -> None:
    groups = _method(name, trunk_factor=factor).parameter_groups(0.2)
    assert [group["lr"] for group in groups] == pytest.approx([0.2 * factor, 0.2, 0.2])


@pytest.mark.parametrize("name", ["market1501/bot", "market1501/agw", "msmt17/agw", "veri776/bot", "personx/agw"])
def test_recipes_hold_the_published_settings(name: str) -> None:
    """*Source*: Luo et al., CVPRW 2019, section 2 and 3; configs of both releases."""
    stage = resolve(load_recipe(name)).stages["train"]
    recipe, options = stage.recipe, stage.options
    rates = [recipe.optimizer.lr * learning_rate_factor(recipe.schedule, epoch, 120) for epoch in range(120)]
    paper = [3.5e-4 * (t / 10 if t <= 10 else 1 if t <= 40 else 0.1 if t <= 70 else 0.01) for t in range(1, 121)]
    assert rates == pytest.approx(paper)
    assert recipe.optimizer.name == "adam"
    assert (recipe.sampler.name, recipe.sampler.identities, recipe.sampler.instances) == ("identity", 16, 4)
    assert recipe.augment.erase == 0.5
    wanted = {"streams": 1, "last_stride": 1, "label_smoothing": 0.1, "weight_center": 5e-4, "center_lr": 0.5}
    assert {key: getattr(options, key) for key in wanted} == wanted
    assert not stage.method.needs_both_modalities(options)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("one") / "market"
    draw_dataset("market1501", root, ids=12, images=3, height=48, width=24, progress=False)
    return root


def _words(name: str, root: Path, run: Path) -> list[str]:
    flags = {
        "data.root": root, "data.height": 48, "data.width": 24, "data.cache": "off", "weights": "none",
        "method.arch": "tiny", "sampler.identities": 3, "sampler.instances": 3, "train.iterations": 3,
        "train.epochs": 2, "train.accelerator": "cpu", "output": run,
    }  # fmt: skip
    return ["train", name, "--quiet", *(str(word) for key, value in flags.items() for word in (f"--{key}", value))]


@pytest.mark.parametrize("name", ["market1501/bot", "market1501/agw"])
def test_a_run_by_command_line_and_its_exact_resume(name: str, market: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert cli.main(_words(name, market, whole)) == 0
    scores = json.loads((whole / "results.json").read_text())
    assert "market1501/single_query" in json.dumps(scores)
    assert cli.main([*_words(name, market, halves), "--stop-after", "1"]) == 0
    assert cli.main(["train", "--resume", str(halves), "--quiet"]) == 0
    first, second = (Checkpoint.load(run / "checkpoints" / "last.ckpt").method for run in (whole, halves))
    assert "centers.rows" in first
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_two_stems_are_refused_for_one_modality(market: Path) -> None:
    recipe = load_recipe("market1501/bot").with_changes({"method.streams": 2, "data.root": market})
    with pytest.raises(GloamError, match=r"only visible training images\. .*table/bot"):
        prepare_data(resolve(recipe), progress=False)
    splits = load_dataset("market1501", market)
    assert misfit(splits, recipe) == "visible and infrared images are needed, these are visible"
    few = load_recipe("market1501/bot").with_changes({"sampler.identities": 2})
    assert misfit(splits, few) is None


def test_a_loss_between_modalities_needs_both_even_with_one_stem() -> None:
    cls = type(_method("agw"))
    options = {"streams": 1, "kl": 1.0}
    assert cls.needs_both_modalities(cls.Options(**options, consistency="caj"))
    assert not cls.needs_both_modalities(cls.Options(**options, consistency="weak_from_strong"))
