"""Temperatures, momenta, radii and weights of the methods without labels, against loops in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import DBSCAN
from torch import Tensor
from torch.nn.functional import normalize

from gloam.batches.batch import Batch
from gloam.clustering.jaccard import jaccard_distance
from gloam.clustering.pseudo_labels import outliers_alone
from gloam.losses.permutation import permutation_loss, sinkhorn
from gloam.methods import create_method, mmgl
from gloam.methods.contract import Method
from tests.methods.contract import MemoryContext
from tests.oracles import self_pacing
from tests.oracles.metaprd import mean_update
from tests.tiny_people import tiny_people

CLUSTERS = {"k1": 5, "k2": 2, "min_samples": 2}


def _method(name: str, **options: Any) -> Method[Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_method(name, 1, arch="tiny", **options).train()


def _started(name: str, **options: Any) -> tuple[Method[Any], MemoryContext, Batch]:
    """A method at the start of its first epoch, and the batch of all images that train."""
    method = _method(name, **{**CLUSTERS, **options})
    data = tiny_people(both_modalities=False, ids=5, images=4)
    context = MemoryContext(method, data)
    method.on_epoch_start(context)
    batch = data.select(context.labels >= 0)
    batch.pids = context.labels[context.labels >= 0]
    return method, context, batch


def _units(method: Method[Any], batch: Batch) -> Tensor:
    """What the network computes for a training batch, without moving its statistics again."""
    with torch.no_grad():
        return method.net(batch.images, batch.modalities).double()


def _dot(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_cluster_contrast_divides_cosines_by_its_temperature(temperature: float) -> None:
    options = {} if temperature == 0.05 else {"temperature": temperature}
    method, _, batch = _started("cluster_contrast", **options)
    loss = method.training_step(batch)["loss"].item()
    total = 0.0
    rows = method.memory.rows.double()
    for unit, label in zip(_units(method, batch), batch.pids.tolist(), strict=True):
        scores = [math.exp(_dot(unit, row) / temperature) for row in rows]
        total -= math.log(scores[label] / sum(scores))
    assert loss == pytest.approx(total / len(batch), rel=1e-4)


@pytest.mark.parametrize("temperature", [0.05, 0.3])
def test_spcl_divides_mean_cosines_by_its_temperature(temperature: float) -> None:
    options = {} if temperature == 0.05 else {"temperature": temperature}
    method, context, batch = _started("spcl", **options)
    loss = method.training_step(batch)["loss"].item()
    labels, rows = context.labels.tolist(), method.bank.rows.double()
    total = 0.0
    for unit, label in zip(_units(method, batch), labels, strict=True):
        own = {c: [_dot(unit, row) for row, k in zip(rows, labels, strict=True) if k == c] for c in set(labels)}
        scores = {c: math.exp(sum(cosines) / len(cosines) / temperature) for c, cosines in own.items()}
        total -= math.log(scores[label] / (sum(scores.values()) + 1e-6) + 1e-6)
    assert loss == pytest.approx(total / len(labels), rel=1e-4)


@pytest.mark.parametrize(("name", "momentum"), [("cluster_contrast", 0.1), ("spcl", 0.2), ("cluster_contrast", 0.7)])
def test_memories_keep_the_stated_part_of_the_old_row(name: str, momentum: float) -> None:
    method, _, batch = _started(name, **({"momentum": momentum} if momentum == 0.7 else {}))
    memory, slots = (method.memory, batch.pids) if name == "cluster_contrast" else (method.bank, batch.indices)
    before = memory.rows.clone()
    units = []
    method.net.register_forward_hook(lambda *given: units.append(given[2].detach()))
    method.training_step(batch)
    method.after_step()
    torch.testing.assert_close(memory.rows, mean_update(before, units[0], slots, momentum), atol=1e-5, rtol=1e-5)


def _spread(seed: int) -> Tensor:
    """Groups of different tightness, so that every radius gives other clusters."""
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(6, 12, generator=generator), dim=1).repeat_interleave(6, 0)
    grain = torch.linspace(0.1, 0.45, 6).repeat_interleave(6)[:, None]
    return normalize(centres + grain * torch.randn(36, 12, generator=generator), dim=1)


def _labels(features: Tensor, eps: float) -> list[int]:
    """Scikit-learn on the dense distance, every outlier a class of its own."""
    sparse = jaccard_distance(features, k1=8, k2=3).tocoo()
    dense = np.ones(sparse.shape, dtype=np.float32)
    dense[sparse.row, sparse.col] = sparse.data
    found = DBSCAN(eps=np.float32(eps), min_samples=3, metric="precomputed").fit_predict(dense)
    return outliers_alone(found.astype(np.int64)).tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("gap", [0.02, 0.15])
def test_spcl_is_compact_at_the_tight_and_independent_at_the_loose_radius(seed: int, gap: float) -> None:
    options = {"k1": 8, "k2": 3, "min_samples": 3, "eps": 0.6, "eps_gap": gap}
    method = _method("spcl", **options)
    data = tiny_people(both_modalities=False, ids=6, images=6)
    features = _spread(seed)
    context = MemoryContext(method, data)
    context.extract = lambda *_: features  # type: ignore[method-assign]
    radii = [_labels(features, eps) for eps in (0.6, 0.6 - gap, 0.6 + gap)]
    for epoch, known in ((0, None), (1, 0.3)):
        context.epoch = epoch
        if known is not None:
            method.independence_threshold.fill_(known)
        method.on_epoch_start(context)
        expected, threshold = self_pacing.reliable(*radii, known)
        assert context.labels.tolist() == expected
        assert float(method.independence_threshold) == pytest.approx(threshold)


def test_the_three_radii_of_spcl_matter_on_that_data() -> None:
    """What the test above compares differs between the radii, and between the roles of tight and loose."""
    for gap in (0.02, 0.15):
        differing = 0
        for seed in range(6):
            labels, tight, loose = (_labels(_spread(seed), eps) for eps in (0.6, 0.6 - gap, 0.6 + gap))
            differing += self_pacing.reliable(labels, tight, loose, 0.3) != self_pacing.reliable(
                labels, loose, tight, 0.3
            )
        assert differing > 0


@pytest.mark.parametrize("temperature", [3.0, 0.5])
@pytest.mark.parametrize("stem", ["own", "released"])
def test_wsl_sharpens_the_guesses_by_its_temperature(
    temperature: float, stem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``softmax(T logits)``: visible images by the infrared expert, infrared ones by the visible expert."""
    seen: list[Tensor] = []

    def select(guesses: Tensor, labels: Tensor, count: int) -> Tensor:
        seen.append(guesses)
        return torch.full((count,), -1)

    monkeypatch.setattr("gloam.methods.wsl_vireid.count_priority_selection", select)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {} if temperature == 3.0 else {"temperature": temperature}
        method = create_method("wsl_vireid", 4, arch="tiny", extract_stem=stem, **options).train()
        for expert in (method.visible_expert, method.infrared_expert):
            torch.nn.init.normal_(expert.weight, std=0.3)
        # Stems that differ.
        torch.nn.init.normal_(method.backbone.stem_infrared.conv1.weight, std=0.1)
    data = tiny_people()
    method.on_epoch_start(MemoryContext(method, data))
    method.eval()
    own = data.modalities if stem == "own" else torch.zeros_like(data.modalities)
    with torch.no_grad():
        features = method.bottleneck(method.pool(method.backbone(data.images, own)))
    for guesses, rows, expert in zip(
        seen, (data.modalities == 0, data.modalities == 1), (method.infrared_expert, method.visible_expert), strict=True
    ):
        for guess, feature in zip(guesses, features[rows], strict=True):
            powers = [math.exp(temperature * _dot(feature, row)) for row in expert.weight]
            assert guess.tolist() == pytest.approx([x / sum(powers) for x in powers], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("weight", [0.5, 0.0, 2.0])
def test_mmgl_adds_the_weighted_contrast(weight: float) -> None:
    options = {} if weight == 0.5 else {"cl_weight": weight}
    outputs = _method("mmgl", num_stripes=3, **options).training_step(tiny_people())
    parts = {name: value.item() for name, value in outputs.items()}
    assert parts["cycle_contrastive"] > 0.1
    assert parts["loss"] == pytest.approx(parts["permutation"] + weight * parts["cycle_contrastive"], rel=1e-6)


def test_both_tasks_of_mmgl_reach_the_network() -> None:
    for off in ({"pcc": False}, {"permutation": False}):
        method = _method("mmgl", num_stripes=3, **off)
        outputs = method.training_step(tiny_people())
        part = outputs["permutation"] if "permutation" in outputs else 0.5 * outputs["cycle_contrastive"]
        assert outputs["loss"].item() == pytest.approx(part.item(), rel=1e-6)
        outputs["loss"].backward()
        assert method.backbone.stem_infrared.conv1.weight.grad.abs().max() > 0


def test_mmgl_contrasts_as_its_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(mmgl, "cycle_contrastive_loss", lambda *_, **given: seen.append(given) or torch.ones(()))
    monkeypatch.setattr(mmgl, "neighbour_masses", lambda *_, **given: seen.append(given) or (torch.ones(()),) * 2)
    options = {"pcc_scope": "batch", "pcc_target": "raw", "pcc_negatives": "img", "pcc_center": True, "cl_temp": 0.3}
    _method("mmgl", num_stripes=3, **options).training_step(tiny_people())
    contrast, masses = seen
    expected = {"scope": "batch", "target": "raw", "negatives": "img", "center": True, "temperature": 0.3}
    assert {name: contrast[name] for name in expected} == expected
    assert masses["temperature"] == 0.3


def test_mmgl_recovers_orders_by_a_noisy_sinkhorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores plus the factor times the noise, three rounds at temperature 0.5, the losses of two samples averaged."""
    data = tiny_people()
    noises = torch.randn(2, len(data), 3, 3, generator=torch.Generator().manual_seed(4))
    left = list(noises)
    monkeypatch.setattr(mmgl, "gumbel_noise", lambda shape, generator: left.pop(0))
    orders = torch.rand(len(data) // 2, 3, generator=torch.Generator().manual_seed(5)).argsort(1)
    monkeypatch.setattr(mmgl, "draw_orders", lambda *_: orders)
    options = {"gumbel_noise": 0.7, "gumbel_samples": 2, "sinkhorn_iterations": 3, "sinkhorn_temperature": 0.5}
    method = _method("mmgl", num_stripes=3, pcc=False, **options)
    torch.nn.init.normal_(method.fc1.bias, std=0.5)
    maps = []
    method.backbone.register_forward_hook(lambda *given: maps.append(given[2].detach()))
    outputs = method.training_step(data)
    scores = method.fc1(maps[0].mean((2, 3))).view(-1, 3, 3)
    losses = [
        permutation_loss(sinkhorn(scores + 0.7 * noise, iterations=3, temperature=0.5), orders.repeat(2, 1))
        for noise in noises
    ]
    assert outputs["permutation"].item() == pytest.approx((sum(losses) / 2).item(), rel=1e-5)
    assert not left
