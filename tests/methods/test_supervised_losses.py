"""Base, AGW and CAJ: every part of their losses and every weight, against loops in float64."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from gloam.batches.batch import Batch
from gloam.errors import GloamError
from gloam.losses.triplet import fraction_correct
from gloam.methods import create_method
from gloam.methods.contract import Method
from tests.oracles import triplet as oracle
from tests.tiny_people import tiny_people, visible_twice

Rows = list[list[float]]


def _method(name: str, **options: Any) -> Method[Any]:
    """A float64 network whose logits and distances are of order one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = create_method(name, 4, arch="tiny", **options).double().train()
        torch.nn.init.normal_(method.net.classifier.weight, std=0.5)
    return method


def _data() -> Batch:
    data = tiny_people(noise=2.0)
    return dataclasses.replace(data, images=data.images.double())


def _log_softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    total = math.log(sum(math.exp(x / temperature) for x in row))
    return [x / temperature - total for x in row]


def _identity(logits: Rows, pids: list[int], smoothing: float) -> float:
    """The smoothed mass is spread over all classes, the true one included."""
    total = 0.0
    for row, pid in zip(logits, pids, strict=True):
        log_p = _log_softmax(row)
        total -= (1 - smoothing) * log_p[pid] + smoothing * sum(log_p) / len(log_p)
    return total / len(logits)


def _step(method: Method[Any], batch: Batch) -> tuple[dict[str, float], Any]:
    """Losses, and what the network computes for the same batch."""
    outputs = {name: value.item() for name, value in method.training_step(batch).items()}
    with torch.no_grad():
        return outputs, method.net(batch.images, batch.modalities)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.25, 3.0)])
def test_base_weighs_its_two_losses(weights: tuple[float, float]) -> None:
    options = {"weight_identity": weights[0], "weight_triplet": weights[1], "margin": 0.7, "label_smoothing": 0.2}
    data = _data()
    outputs, out = _step(_method("base", **options), data)
    identity = _identity(out.logits.tolist(), data.pids.tolist(), 0.2)
    triplet = oracle.hard(out.pooled.tolist(), data.pids.tolist(), 0.7)
    assert identity > 0.1
    assert triplet > 0.1
    assert outputs["identity"] == pytest.approx(identity, rel=1e-9)
    assert outputs["triplet"] == pytest.approx(triplet, rel=1e-9)
    assert outputs["loss"] == pytest.approx(weights[0] * identity + weights[1] * triplet, rel=1e-9)


def test_base_counts_what_is_right() -> None:
    data = _data()
    outputs, out = _step(_method("base"), data)
    right = out.logits.argmax(1) == data.pids
    assert 0 < right.sum() < len(data)
    assert outputs["identity_correct"] == pytest.approx(right.double().mean().item())
    rows, pids = out.pooled.tolist(), data.pids.tolist()
    won = 0
    for a, pid in zip(rows, pids, strict=True):
        distances = [(oracle.distance(a, b), other == pid) for b, other in zip(rows, pids, strict=True)]
        won += min(d for d, same in distances if not same) >= max(d for d, same in distances if same)
    assert outputs["triplet_correct"] == pytest.approx(won / len(rows))


def test_a_tie_between_positive_and_negative_is_right() -> None:
    found = fraction_correct(torch.tensor([1.0, 1.0, 2.0, 0.5]), torch.tensor([1.0, 2.0, 1.0, 0.5]))
    assert found.item() == 0.75


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_agw_smooths_its_labels(smoothing: float) -> None:
    data = _data()
    outputs, out = _step(_method("agw", label_smoothing=smoothing), data)
    assert outputs["identity"] == pytest.approx(_identity(out.logits.tolist(), data.pids.tolist(), smoothing), rel=1e-9)
    assert outputs["loss"] == pytest.approx(outputs["identity"] + outputs["triplet"], rel=1e-12)


def _softplus_mean(gaps: list[float]) -> float:
    return sum(oracle.softplus(gap) for gap in gaps) / len(gaps)


@pytest.mark.parametrize("form", ["reference", "exact"])
def test_agw_compares_the_weighted_means(form: str) -> None:
    data = _data()
    outputs, out = _step(_method("agw", wrt=form), data)
    pairs = oracle.weighted(out.pooled.tolist(), data.pids.tolist(), form)
    assert outputs["triplet"] == pytest.approx(_softplus_mean([a - b for a, b in pairs]), rel=1e-9)


def test_agw_can_mine_the_hardest() -> None:
    data = _data()
    outputs, out = _step(_method("agw", triplet="hard", margin=0.7), data)
    assert outputs["triplet"] == pytest.approx(oracle.hard(out.pooled.tolist(), data.pids.tolist(), 0.7), rel=1e-9)


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("form", ["reference", "exact"])
def test_the_triplet_of_caj(square: bool, form: str) -> None:
    data = _data()
    outputs, out = _step(_method("agw", triplet="adp", alpha=2.0, gamma=3.0, square=square, wrt=form), data)
    gaps = [a - b for a, b in oracle.weighted(out.pooled.tolist(), data.pids.tolist(), form, alpha=2.0)]
    gaps = [math.copysign(min(3 * gap**2, 88), gap) if square else 3 * gap for gap in gaps]
    assert outputs["triplet"] == pytest.approx(_softplus_mean(gaps), rel=1e-9)


def _divergence(student: Rows, target: Rows) -> float:
    """``--kl`` of the CAJ release: both softened by 3, times 9, with 1e-7 on every probability of the target."""
    total = 0.0
    for own, other in zip(student, target, strict=True):
        log_p = _log_softmax(own, 3.0)
        mass = [math.exp(x) + 1e-7 for x in _log_softmax(other, 3.0)]
        total += sum(t * (math.log(t) - p) for t, p in zip(mass, log_p, strict=True))
    return 9 * total / len(student)


def _soft_cross_entropy(student: Rows, target: Rows) -> float:
    total = 0.0
    for own, other in zip(student, target, strict=True):
        pairs = zip(_log_softmax(other), _log_softmax(own), strict=True)
        total -= sum(math.exp(t) * p for t, p in pairs)
    return total / len(student)


@pytest.mark.parametrize("kind", ["caj", "weak_from_strong", "strong_from_weak", "all_from_strong"])
def test_agreement_of_the_views(kind: str) -> None:
    """Which view is the student, which the target, and how much it counts."""
    method, batch = _method("agw", consistency=kind, kl=0.6), visible_twice(_data())
    outputs, out = _step(method, batch)
    logits = out.logits.tolist()
    count = len(logits) // 3
    first, infrared, second = logits[:count], logits[count : 2 * count], logits[2 * count :]
    assert batch.views.tolist() == [0] * (2 * count) + [1] * count
    values = {
        "caj": _divergence(first, infrared),
        "weak_from_strong": _soft_cross_entropy(first, second),
        "strong_from_weak": _soft_cross_entropy(second, first),
        "all_from_strong": _soft_cross_entropy(first, second) + _soft_cross_entropy(infrared, second),
    }
    expected = values[kind]
    assert min(abs(expected - other) for name, other in values.items() if name != kind) > 1e-3
    assert outputs["consistency"] == pytest.approx(expected, rel=1e-9)
    total = outputs["identity"] + outputs["triplet"] + 0.6 * expected
    assert outputs["loss"] == pytest.approx(total, rel=1e-9)


def test_rows_may_stand_in_any_order_as_long_as_the_views_do_not_change_theirs() -> None:
    method, batch = _method("agw", consistency="all_from_strong", kl=1.0), visible_twice(_data())
    count = len(batch) // 3
    mixed = torch.stack([torch.arange(3 * count).view(3, count)[k] for k in (2, 0, 1)], dim=1).flatten()
    plain, shuffled = method.training_step(batch), method.training_step(batch.select(mixed))
    assert shuffled["consistency"].item() == pytest.approx(plain["consistency"].item(), rel=1e-9)


def test_missing_views_are_explained() -> None:
    for batch in (_data(), visible_twice(_data()).select(torch.arange(30))):
        with pytest.raises(GloamError, match=r"augment\.visible_views"):
            _method("agw", consistency="caj", kl=1.0).training_step(batch)


@pytest.mark.parametrize("name", ["agw", "base"])
def test_test_features_are_the_unit_rows_after_and_before_the_neck(name: str) -> None:
    method, data = _method(name), _data()
    method.training_step(data)  # moves the running statistics
    method.eval()
    with torch.no_grad():
        out = method.net(data.images, data.modalities)
        for feature, rows in (("fc", out.bn), ("pool", out.pooled)):
            method.test_feature = feature
            found = method.extract(data.images, data.modalities)
            torch.testing.assert_close(found, rows / rows.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("name", ["agw", "base"])
def test_the_backbone_learns_at_a_tenth_of_the_rate(name: str) -> None:
    method = _method(name)
    groups = method.parameter_groups(0.2)
    assert [group["lr"] for group in groups] == pytest.approx([0.02, 0.2, 0.2])
    heads = [*method.net.bottleneck.parameters(), *method.net.classifier.parameters()]
    assert [id(p) for group in groups[1:] for p in group["params"]] == [id(p) for p in heads]
