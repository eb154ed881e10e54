"""Ctrl-C and SIGTERM: the run stops between two batches and goes on there with the same bits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gloam.methods
from gloam import cli
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.interruption import Interrupted, listening
from gloam.methods.contract import Method
from gloam.training.epoch_state import UnsavableError, baseline, plain_attributes, set_plain_attributes
from gloam.training.run import train
from tests.small_recipes import small_words
from tests.test_exact_resume import RECIPES
from tests.training.spy import Spy
from tests.training.tiny import tiny_recipe

SPY = {"method": {"name": "spy"}, "train": {"epochs": 3, "iterations": 4}}


@pytest.fixture(autouse=True)
def _spy() -> Iterator[None]:
    Spy.events.clear()
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with gloam.methods.registry.temporarily():
        gloam.methods.register("spy")(Spy)
        yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def same_end(left: Path, right: Path) -> None:
    """Two runs ended with the same checkpoint, numbers and scores."""
    one, other = (Checkpoint.load(run / "checkpoints" / "last.ckpt") for run in (left, right))
    assert (one.stage, one.epoch, one.unfinished) == (other.stage, other.epoch, other.unfinished)
    assert_same(one.method, other.method)
    assert_same(one.optimizer, other.optimizer)
    assert torch.equal(one.labels, other.labels)
    timing = ("seconds", "images_per_second")
    rows = [[{k: v for k, v in row.items() if k not in timing} for row in c.history] for c in (one, other)]
    assert rows[0] == rows[1]
    assert (left / "results.csv").read_text() == (right / "results.csv").read_text()


def assert_same(left: Any, right: Any) -> None:
    """Equal in every bit, through all nesting."""
    if isinstance(left, Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert_same(value, right[key])
    elif isinstance(left, list | tuple):
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


def _signal_at(
    monkeypatch: pytest.MonkeyPatch, cls: type[Method[Any]], name: str, call: int, number: int, stage: str | None = None
) -> None:
    """Send this process a signal in the middle of a method's n-th call (of a stage)."""
    original: Callable[..., Any] = getattr(cls, name)
    begin = cls.start_stage
    calls: list[int] = []

    def start(self: Method[Any], entered: str) -> None:
        if entered == stage:
            calls.clear()
        begin(self, entered)

    def send(self: Method[Any], *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return original(self, *arguments)

    monkeypatch.setattr(cls, "start_stage", start)
    monkeypatch.setattr(cls, name, send)


@pytest.mark.parametrize("name", RECIPES)
def test_every_kind_of_method_goes_on_inside_an_epoch(
    name: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", name, *small_words(name, drawn, epochs=2), "--train.iterations", "3"]
    assert cli.main([*words, "--output", str(tmp_path / "whole")]) == 0
    last = Checkpoint.load(tmp_path / "whole" / "checkpoints" / "last.ckpt")
    cls = gloam.methods.get_method(last.stage_recipe().method_name)
    with monkeypatch.context() as patch:
        # In the second batch of the last epoch: what the epoch before and this one have set up is there.
        _signal_at(patch, cls, "training_step", 3 + 2, signal.SIGTERM, last.stage)
        assert cli.main([*words, "--output", str(tmp_path / "parts")]) == 143
    stopped = Checkpoint.load(tmp_path / "parts" / "checkpoints" / "last.ckpt")
    assert (stopped.stage, stopped.epoch, len(stopped.history)) == (last.stage, 1, len(last.history) - 1)
    assert stopped.unfinished is not None
    assert stopped.unfinished["processes"][0]["step"] == 2
    assert cli.main(["train", "--resume", str(tmp_path / "parts"), "--quiet"]) == 0
    same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_stop_at_any_batch_is_resumed_with_the_same_bits(
    number: int, step: int, sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(sysu_root, **SPY, evaluation={"every": 1})
    train(recipe, output=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        _signal_at(patch, Spy, "training_step", step, number)
        with pytest.raises(Interrupted, match=r"Go on with: gloam train --resume .*parts") as caught:
            train(recipe, output=tmp_path / "parts", progress=False)
    assert caught.value.exit_code == 128 + number
    assert f"after batch {(step - 1) % 4 + 1} of epoch {(step - 1) // 4 + 1}" in str(caught.value)
    assert str(caught.value) in (tmp_path / "parts" / "log.txt").read_text()
    Spy.events.clear()
    train(recipe, resume=tmp_path / "parts", progress=False)
    assert sum(event[0] == "step" for event in Spy.events) == 12 - step
    same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_stop_while_an_epoch_is_scored_keeps_its_batches(
    sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(sysu_root, **SPY, evaluation={"selection": "validation"})
    train(recipe, output=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        # Epoch 1: the probe, query and gallery; epoch 2: the probe, then the query features.
        _signal_at(patch, Spy, "extract", 5, signal.SIGTERM)
        with pytest.raises(Interrupted, match="after batch 4 of epoch 2"):
            train(recipe, output=tmp_path / "parts", progress=False)
    Spy.events.clear()
    train(recipe, resume=tmp_path / "parts", progress=False)
    assert sum(event[0] == "step" for event in Spy.events) == 4
    same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_stop_at_the_start_of_an_epoch_repeats_it(
    sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(sysu_root, **SPY)
    train(recipe, output=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        _signal_at(patch, Spy, "on_epoch_start", 2, signal.SIGINT)
        with pytest.raises(Interrupted, match="after epoch 1 of 3 of stage 'train'"):
            train(recipe, output=tmp_path / "parts", progress=False)
    train(recipe, resume=tmp_path / "parts", progress=False)
    same_end(tmp_path / "whole", tmp_path / "parts")


def test_epochs_that_are_not_due_are_saved_on_a_signal(
    sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(sysu_root, **SPY | {"train": {**SPY["train"], "save_every": 3}})
    with monkeypatch.context() as patch:
        _signal_at(patch, Spy, "training_step", 6, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(recipe, output=tmp_path / "parts", progress=False)
    stopped = Checkpoint.load(tmp_path / "parts" / "checkpoints" / "last.ckpt")
    assert (stopped.epoch, len(stopped.history)) == (1, 1)
    assert stopped.unfinished is not None


def test_a_stop_before_the_first_batch_leaves_no_folder(
    sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _signal_at(patch, Spy, "on_epoch_start", 1, signal.SIGTERM)
        with pytest.raises(Interrupted, match="nothing is kept"):
            train(tiny_recipe(sysu_root, **SPY), output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_random_draws_and_loader_processes_go_on_too(
    sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout from torch's generator, random erasing from the private one, batches from two processes."""

    def noisy(self: Spy, batch: Any) -> dict[str, Tensor]:
        parts = original(self, batch)
        return {**parts, "loss": parts["loss"] * torch.rand(()), "noise": torch.rand(())}

    original = Spy.training_step
    monkeypatch.setattr(Spy, "training_step", noisy)
    recipe = tiny_recipe(sysu_root, **SPY, data={"workers": 2})
    train(recipe, output=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        _signal_at(patch, Spy, "training_step", 7, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(recipe, output=tmp_path / "parts", progress=False)
    train(recipe, resume=tmp_path / "parts", progress=False)
    same_end(tmp_path / "whole", tmp_path / "parts")


def test_a_method_that_cannot_be_saved_inside_an_epoch_repeats_it(
    sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method of somebody else may hold anything; the run then goes back to the epoch's start."""
    start = Spy.on_epoch_start

    def plan(self: Spy, context: Any) -> None:
        start(self, context)
        self.plan = iter(range(100))  # type: ignore[attr-defined]

    monkeypatch.setattr(Spy, "on_epoch_start", plan)
    recipe = tiny_recipe(sysu_root, **SPY)
    train(recipe, output=tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        _signal_at(patch, Spy, "training_step", 7, signal.SIGTERM)
        with pytest.raises(Interrupted, match="after epoch 1"):
            train(recipe, output=tmp_path / "parts", progress=False)
    assert "plan is a range_iterator" in (tmp_path / "parts" / "log.txt").read_text()
    train(recipe, resume=tmp_path / "parts", progress=False)
    same_end(tmp_path / "whole", tmp_path / "parts")


def test_plain_attributes_come_back_as_they_were() -> None:
    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(2, 2)
            self.fixed, self.function = 3, print
            self.flag, self.rate, self.name, self.nothing = False, 0.5, "a", None
            self.generator = torch.Generator().manual_seed(1)
            self.plan: Any = []

    first, second = Holder(), Holder()
    before = baseline(first)
    first.flag, first.rate, first.name = True, float("inf"), "b"
    first.nothing = torch.arange(3)  # type: ignore[assignment]
    first.plan = [(1, torch.ones(2)), {"k": None, 4: [True]}]
    first.inner.extra = 7
    torch.rand(5, generator=first.generator)
    found = plain_attributes(first, before)
    assert {name.lstrip(".") for name in found} == {
        "flag", "rate", "name", "nothing", "generator", "plan", "inner.extra",
    }  # fmt: skip
    set_plain_attributes(second, found, torch.device("cpu"))
    for name in ("flag", "rate", "name", "nothing", "plan", "fixed", "function"):
        assert_same(getattr(first, name), getattr(second, name))
    assert second.inner.extra == 7
    expected = torch.rand(3, generator=first.generator)
    assert torch.equal(torch.rand(3, generator=second.generator), expected)
    first.plan = [object()]
    with pytest.raises(UnsavableError, match="plan is a object"):
        plain_attributes(first, before)
    with pytest.raises(GloamError, match="does not fit Linear"):
        set_plain_attributes(torch.nn.Linear(1, 1), {"absent.flag": ["value", 1]}, torch.device("cpu"))


def test_signals_wait_for_the_end_of_a_block() -> None:
    order = []
    with pytest.raises(Interrupted) as caught, listening() as signals:
        with signals.deferred():
            with signals.deferred():
                os.kill(os.getpid(), signal.SIGTERM)
                order.append("inner")
            order.append("outer")
        order.append("never")
    assert order == ["inner", "outer"]
    assert caught.value.exit_code == 143
    with pytest.raises(Interrupted) as caught, listening():
        os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.exit_code == 130


def test_an_ignored_signal_stays_ignored() -> None:
    """``nohup`` and background jobs of a shell start a process with signals ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with listening() as signals:
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.requested is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
