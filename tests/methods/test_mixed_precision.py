"""Under mixed precision the choices of a method (nearest, hardest, thresholds) are those of float32.

Layers run in float32 in both runs, so that both see the same features; what the method makes of them runs under bf16
autocast in one. Every index and every comparison that comes out is recorded and must be equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from gloam.batches.batch import Batch
from gloam.methods import list_methods, wsl_vireid
from gloam.methods.contract import Method
from gloam.models import dgcnn
from tests.methods.contract import MemoryContext, people, small_method
from tests.methods.test_options import training_batch

IDS, EACH = 48, 3
# What makes choices out of values, and the choice in its result.
CHOICES = {
    "topk": lambda result: result[1],
    "sort": lambda result: result[1],
    "argsort": lambda result: result,
    "argmax": lambda result: result,
    "argmin": lambda result: result,
    "lt": lambda result: result,
    "gt": lambda result: result,
    "le": lambda result: result,
    "ge": lambda result: result,
}
# The nearest and the farthest value of a row stand for whose they are.
EXTREMES = {"amax": torch.argmax, "amin": torch.argmin}
BASE = {"pf_mgcd": {"num_parts": 3, "warmup_epochs": 0}}
MORE = {
    "agw": [{"triplet": "hard"}],
    "metaprd": [{"ppa": True, "hsd_positive": "hardest"}],
    "pf_mgcd": [{"lambda_triplet": 1.0}],
    "wsl_vireid": [{"weak_from_epoch": 0}],
}
# Networks of a method whose forward is itself a chain of choices.
JUDGES = (dgcnn.DGCNN, dgcnn._GraphLayers, dgcnn._PairHead)


class Recorder(TorchFunctionMode):
    """Keeps the choices that are made of floating-point values."""

    def __init__(self) -> None:
        super().__init__()
        self.choices: list[tuple[str, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").strip("_")
        if args and isinstance(args[0], Tensor) and args[0].is_floating_point() and args[0].ndim:
            if name in CHOICES:
                self.choices.append((name, CHOICES[name](result)))
            elif name in EXTREMES and "dim" in (kwargs or {}):
                dim = kwargs["dim"]
                if isinstance(dim, int):
                    self.choices.append((name, EXTREMES[name](args[0].detach(), dim=dim)))
        return result


@contextmanager
def _layers_in_float32(method: Method[Any]) -> Iterator[None]:
    def full(forward: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            with torch.autocast("cpu", enabled=False):
                return forward(*tree_map_only(Tensor, _float32, args), **tree_map_only(Tensor, _float32, kwargs))

        return run

    changed = [
        m for m in method.modules() if m is not method and not isinstance(m, JUDGES) and not _of_judges(method, m)
    ]
    for module in changed:
        module.forward = full(module.forward)
    yield
    for module in changed:
        del module.forward


def _float32(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x


def _of_judges(method: Method[Any], module: nn.Module) -> bool:
    return any(module in judge.modules() for judge in method.modules() if isinstance(judge, JUDGES))


def _crowd(method: Method[Any]) -> Batch:
    """Many people who differ little, so that choices are close."""
    few = people(video=method.is_video, both_modalities=method.is_cross_modal)
    generator = torch.Generator().manual_seed(3)
    sides = 2 if method.is_cross_modal else 1
    pids = torch.arange(IDS).repeat_interleave(EACH).repeat(sides)
    shape = few.images.shape[1:-2]
    patterns = torch.randn((IDS, *shape, 48, 32), generator=generator)
    images = patterns[pids] + torch.randn((len(pids), *shape, 48, 32), generator=generator)
    return Batch(
        images=images,
        pids=pids,
        cams=torch.zeros_like(pids),
        modalities=torch.arange(sides).repeat_interleave(IDS * EACH),
        indices=torch.arange(len(pids)),
        views=torch.zeros_like(pids),
    )


def _choices(name: str, options: dict[str, Any], *, autocast: bool) -> list[tuple[str, Tensor]]:
    method = small_method(name, IDS, **BASE.get(name, {}), **options)
    data = _crowd(method)
    found: list[tuple[str, Tensor]] = []
    with torch.random.fork_rng(devices=[]), _layers_in_float32(method):
        labels = torch.arange(len(data)) if method.is_unsupervised else data.pids.clone()
        method.train()
        method.start_stage("train")
        for epoch in range(2):
            torch.manual_seed(epoch)
            context = MemoryContext(method, data, epoch=epoch, num_epochs=3)
            context.labels = labels
            method.on_epoch_start(context)
            method.train()
            labels = context.labels
            batch = training_batch(method, data, context)
            recorder = Recorder()
            with recorder, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                method.training_step(batch)
            found += recorder.choices
            method.after_step()
    return found


CASES = [(name, options) for name in list_methods() for options in ({}, *MORE.get(name, []))]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_choices_are_those_of_float32(name: str, options: dict[str, Any]) -> None:
    plain, mixed = (_choices(name, options, autocast=autocast) for autocast in (False, True))
    assert [kind for kind, _ in plain] == [kind for kind, _ in mixed]
    for number, ((kind, one), (_, other)) in enumerate(zip(plain, mixed, strict=True)):
        assert torch.equal(one, other), f"choice {number} ({kind}) differs in {(one != other).float().mean():.1%}"


def test_the_weak_loss_compares_float32_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared classifier's own scores decide, so it runs in float32 on whatever features it is given."""
    method = small_method("wsl_vireid", weak_from_epoch=0)
    method.start_stage("collaboration")
    method.weak_on.fill_(True)
    method.contradictory.fill_(True)
    inputs: list[Tensor] = []
    method.bottleneck.register_forward_hook(lambda module, given, result: inputs.append(result))
    compared: list[Tensor] = []
    monkeypatch.setattr(
        wsl_vireid, "weak_identity_loss", lambda logits, doubtful: compared.append(logits) or logits.sum()
    )
    batch = people(video=False)
    with torch.autocast("cpu", torch.bfloat16):
        method.training_step(batch)
    features = inputs[0][batch.modalities == 0].float()
    torch.testing.assert_close(compared[0], features @ method.shared_classifier.weight.T, rtol=1e-6, atol=1e-6)
