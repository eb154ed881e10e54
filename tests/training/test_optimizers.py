"""Optimisers and schedules beyond the published ones: timm's and users' own keep groups, rates and exact resume."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm.optim
import torch
from torch import nn

from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.recipes.merge import merge
from gloam.recipes.recipe import validate
from gloam.recipes.sections import OptimizerConfig, ScheduleConfig
from gloam.training import optimizers, schedule
from gloam.training.optimizers import check_optimizer, create_optimizer, set_learning_rate
from gloam.training.run import train
from gloam.training.schedule import check_schedule, learning_rate_factor
from tests.training.tiny import tiny_recipe

# Those of other packages need a GPU; timm's one second-order method needs gradients of gradients.
USABLE = [n for n in timm.optim.list_optimizers() if not n.startswith(("bnb", "fused")) and n != "adahessian"]
USABLE += ["lookahead_adamw", "lookahead_kron"]
# kron compiles itself with the machine's C++ compiler.
COMPILED = [name for name in USABLE if "kron" in name]
EAGER = [name for name in USABLE if name not in COMPILED]


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def _groups(network: nn.Sequential) -> list[dict[str, Any]]:
    return [
        {"params": list(network[:2].parameters()), "lr": 0.001},
        {"params": list(network[4].parameters()), "lr": 0.01},
    ]


def _train(network: nn.Sequential, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        if step % 5 == 0:
            torch.manual_seed(step)  # as at the start of an epoch
        set_learning_rate(optimizer, 1 / (step + 1))
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(8, 3, 6, 6, generator=generator)
        labels = torch.randint(0, 5, (8,), generator=generator)
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("name", [*EAGER, *(pytest.param(name, marks=pytest.mark.slow) for name in COMPILED)])
def test_every_timm_optimiser_keeps_the_groups_and_resumes_exactly(name: str) -> None:
    config = OptimizerConfig(name=f"timm:{name}", lr=0.01, weight_decay=1e-4)
    whole = _network()
    optimizer = create_optimizer(config, _groups(whole))
    before = [parameter.clone() for parameter in whole.parameters()]
    _train(whole, optimizer, 0, 10)
    assert [group["lr"] for group in optimizer.param_groups] == [0.001 / 10, 0.01 / 10]
    assert not torch.equal(before[0], next(iter(whole.parameters())))

    half = _network()
    stopped = create_optimizer(config, _groups(half))
    _train(half, stopped, 0, 5)
    file = io.BytesIO()
    torch.save({"network": half.state_dict(), "optimizer": stopped.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    rest = _network()
    resumed = create_optimizer(config, _groups(rest))
    rest.load_state_dict(saved["network"])
    resumed.load_state_dict(saved["optimizer"])
    _train(rest, resumed, 5, 10)
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)


def test_options_reach_timm() -> None:
    config = OptimizerConfig(name="timm:lamb", lr=0.01, weight_decay=0.02, options={"betas": [0.8, 0.95], "eps": 1e-5})
    optimizer = create_optimizer(config, _groups(_network()))
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.8, 0.95), 1e-5, 0.02)


def test_timm_and_torch_agree_on_sgd() -> None:
    left, right = _network(), _network()
    ours = create_optimizer(OptimizerConfig(name="sgd", lr=0.01, momentum=0.8, nesterov=False), _groups(left))
    theirs = create_optimizer(OptimizerConfig(name="timm:momentum", lr=0.01, options={"momentum": 0.8}), _groups(right))
    _train(left, ours, 0, 5)
    _train(right, theirs, 0, 5)
    for one, other in zip(left.parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "timm:lamp"}, "'lamb'"),
        ({"name": "lamb"}, "no optimizer called 'lamb'"),
        ({"name": "timm:lamb", "options": {"beta": 1}}, "'betas'"),
        ({"name": "timm:lamb", "options": {"layer_decay": 0.5}}, "has no 'layer_decay'"),
        ({"name": "timm:adan", "options": {"betas": [0.9, 0.9]}}, "could not be built"),
        ({"name": "timm:adahessian"}, "second derivatives"),
    ],
)
def test_mistakes_about_optimisers(values: dict[str, Any], message: str) -> None:
    with pytest.raises(GloamError, match=message):
        check_optimizer(OptimizerConfig(**values))


@pytest.fixture
def _own() -> Iterator[None]:
    with optimizers.registry.temporarily(), schedule.registry.temporarily():
        yield


@pytest.mark.usefixtures("_own")
def test_a_users_optimiser_and_what_it_must_keep() -> None:
    optimizers.register("mine")(torch.optim.RMSprop)
    config = OptimizerConfig(name="mine", lr=0.01, options={"alpha": 0.5})
    optimizer = create_optimizer(config, _groups(_network()))
    assert isinstance(optimizer, torch.optim.RMSprop)
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.001, 0.01]
    assert optimizer.param_groups[0]["alpha"] == 0.5

    @optimizers.register("flat")
    def flat(groups: list[dict[str, Any]], lr: float, weight_decay: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for group in groups for p in group["params"]], lr=lr, weight_decay=weight_decay)

    with pytest.raises(GloamError, match="does not keep the parameter groups"):
        create_optimizer(OptimizerConfig(name="flat"), _groups(_network()))
    optimizers.register("none")(lambda groups, lr, weight_decay: None)
    with pytest.raises(GloamError, match="built NoneType"):
        check_optimizer(OptimizerConfig(name="none"))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cosine", {}, lambda e: (1 + math.cos(math.pi * e / 8)) / 2),
        ("cosine", {"min_lr": 0.1}, lambda e: 0.1 + 0.9 * (1 + math.cos(math.pi * e / 8)) / 2),
        ("poly", {"decay_rate": 2.0}, lambda e: (1 - e / 8) ** 2),
        ("step", {"decay_epochs": 3, "decay_rate": 0.5}, lambda e: 0.5 ** (e // 3)),
        # timm multiplies one epoch before its milestones.
        ("multistep", {"decay_milestones": [2, 5]}, lambda e: 0.1 ** ((e + 1 >= 2) + (e + 1 >= 5))),
        ("constant", {"warmup_epochs": 4, "warmup_lr": 0.2}, lambda e: min(0.2 + 0.8 * e / 4, 1)),
    ],
)
def test_timm_schedules_are_factors(name: str, options: dict[str, Any], expected: Any) -> None:
    config = ScheduleConfig(name=f"timm:{name}", options=options)
    check_schedule(config, 8)
    # Out of order: a resume asks for a later epoch without the earlier ones.
    for epoch in (5, 0, 7, 3, 1, 2, 4, 6):
        assert learning_rate_factor(config, epoch, 8) == pytest.approx(expected(epoch), abs=1e-12)


def test_the_recipes_warm_up_comes_before_every_shape() -> None:
    config = ScheduleConfig(name="timm:poly", warmup_epochs=2, options={"decay_rate": 1.0})
    assert [learning_rate_factor(config, epoch, 4) for epoch in range(4)] == [0.5, 1.0, 0.5, 0.25]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "timm:plateau"}, "no schedule 'plateau' over epochs"),
        ({"name": "timm:cosin"}, "'cosine'"),
        ({"name": "cosin"}, "'cosine'"),
        ({"name": "timm:cosine", "options": {"minlr": 0.1}}, "'min_lr'"),
        ({"name": "timm:cosine", "options": {"updates_per_epoch": 5}}, "has no 'updates_per_epoch'"),
        ({"name": "timm:multistep", "options": {"decay_milestones": 3}}, "Check schedule.options"),
    ],
)
def test_mistakes_about_schedules(values: dict[str, Any], message: str) -> None:
    with pytest.raises(GloamError, match=message):
        check_schedule(ScheduleConfig(**values), 10)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("optimizer", {"name": "timm:lamb", "momentum": 0.5}),
        ("optimizer", {"name": "timm:lamb", "betas": [0.5, 0.9]}),
        ("optimizer", {"name": "adam", "options": {"a": 1}}),
        ("schedule", {"name": "timm:cosine", "minimum": 0.1}),
        ("schedule", {"name": "cosine", "options": {"min_lr": 0.1}}),
    ],
)
def test_flags_that_would_do_nothing_are_refused(section: str, values: dict[str, Any], tmp_path: Path) -> None:
    idle = next(key for key in values if key != "name")
    content = tiny_recipe(tmp_path).model_dump(mode="json")
    with pytest.raises(GloamError, match=f"{idle} does nothing while name is {values['name']}"):
        validate({**content, section: values}, "mine")


def test_another_name_takes_no_options_along(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        tmp_path,
        optimizer={"name": "timm:lamb", "options": {"betas": [0.8, 0.9]}},
        stages={"one": {}, "two": {"optimizer": {"name": "sgd", "momentum": 0.5}}, "three": {"optimizer": {"lr": 0.3}}},
    )
    one, two, three = recipe.resolved_stages().values()
    assert (two.optimizer.options, two.optimizer.lr) == ({}, recipe.optimizer.lr)
    assert three.optimizer.options == one.optimizer.options == {"betas": [0.8, 0.9]}
    back = validate(merge(two.model_dump(mode="json"), {"optimizer": {"name": "timm:adan"}}), "test")
    assert back.optimizer.momentum == OptimizerConfig().momentum


@pytest.mark.usefixtures("_own")
def test_a_users_schedule() -> None:
    schedule.register("halving")(lambda epoch, num_epochs, every=1: 0.5 ** (epoch // every))
    config = ScheduleConfig(name="halving", options={"every": 2})
    assert [learning_rate_factor(config, epoch, 6) for epoch in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    for value in (-0.1, math.nan, math.inf):
        schedule.register(f"bad{value}")(lambda epoch, num_epochs, value=value: value)
        with pytest.raises(GloamError, match="must be 0 or more"):
            check_schedule(ScheduleConfig(name=f"bad{value}"), 3)
    with pytest.raises(GloamError, match="TypeError"):
        check_schedule(ScheduleConfig(name="halving", options={"often": 2}), 3)


def test_a_run_with_them_resumes_exactly(sysu_root: Path, tmp_path: Path) -> None:
    # lookahead keeps a second copy of the weights.
    recipe = tiny_recipe(
        sysu_root,
        optimizer={"name": "timm:lookahead_adan", "lr": 0.01, "weight_decay": 1e-4},
        schedule={"name": "timm:poly", "warmup_epochs": 1, "options": {"decay_rate": 2.0}},
        train={"epochs": 3, "iterations": 4},
    )
    whole = train(recipe, output=tmp_path / "whole", progress=False)
    train(recipe, output=tmp_path / "parts", stop_after=1, progress=False)
    parts = train(recipe, resume=tmp_path / "parts", progress=False)
    left, right = (Checkpoint.load(path / "checkpoints" / "last.ckpt") for path in (whole.path, parts.path))
    for name, value in left.method.items():
        assert torch.equal(value, right.method[name]), name
    # A tenth of the rate in the network, all of it in the classifier; the factor after warm-up is (1 - e / 3) squared.
    assert [row["lr"] for row in left.history] == pytest.approx([0.01, 0.01 * 4 / 9, 0.01 / 9])
    rates = {group["lr"] for group in left.optimizer["param_groups"]}
    assert sorted(rates) == pytest.approx([0.001 / 9, 0.01 / 9])


def test_a_wrong_name_stops_before_the_data_are_read(tmp_path: Path) -> None:
    for section in ({"optimizer": {"name": "timm:lamp"}}, {"schedule": {"name": "timm:lamp"}}):
        with pytest.raises(GloamError, match="'lamp'"):
            train(tiny_recipe(tmp_path / "nowhere", **section), output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["multistep", "step", "cosine", "constant", "timm:cosine", "timm:multistep"])
def test_a_stage_of_no_epochs_has_a_schedule(name: str) -> None:
    options = {"decay_milestones": [2]} if name == "timm:multistep" else {}
    check_schedule(ScheduleConfig(name=name, options=options), 0)


def test_untrained_weights_are_scored_by_no_epochs_of_a_cosine(sysu_root: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(sysu_root, train={"epochs": 0}, schedule={"name": "cosine"})
    assert train(recipe, output=tmp_path / "run", progress=False).results is not None
