"""MMGL: no label is read, a fresh network is at chance, orders can be learned, exported weights have released names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gloam.augmentation.augmenter import normalize
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.inference.loading import load_model
from gloam.losses.permutation import draw_orders, permutation_accuracy, shuffle_stripes
from gloam.methods import create_method, mmgl
from gloam.recipes.recipe import resolve
from gloam.training.run import train
from gloam.training.training_data import prepare_data
from tests.methods.contract import MemoryContext, people
from tests.training.tiny import tiny_recipe


def _method(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_method("mmgl", 1, **{"arch": "tiny", **options}).train()


@pytest.mark.parametrize("streams", [1, 2])
def test_labels_change_nothing(streams: int) -> None:
    losses = []
    for order in (torch.arange(32), torch.randperm(32, generator=torch.Generator().manual_seed(1))):
        method, data = _method(streams=streams), people(video=False)
        data.pids = data.pids[order]
        context = MemoryContext(method, data)
        context.labels = context.labels[order]
        method.on_epoch_start(context)
        losses.append(method.training_step(data)["loss"])
    assert torch.equal(losses[0], losses[1])


def test_a_fresh_network_is_at_chance() -> None:
    method, data = _method(), people(video=False)
    outputs = method.training_step(data)
    assert outputs["permutation"].item() == pytest.approx(5.0, rel=0.02)
    method.eval()
    with torch.no_grad():
        scores = method.score_orders(data.images.repeat(8, 1, 1, 1), data.modalities.repeat(8), torch.Generator())
    assert scores[:, 0].mean().item() == pytest.approx(1 / 6, abs=0.08)


def test_different_orders_for_both_modalities_and_no_pcc() -> None:
    method, data = _method(share_order=False, pcc=False), people(video=False)
    assert set(method.training_step(data)) == {"loss", "permutation", "permutation_accuracy"}
    method = _method(permutation=False)
    assert set(method.training_step(data)) == {"loss", "cycle_contrastive", "part_mass", "place_mass"}


def test_stripes_compete_with_other_parts_of_their_own_modality(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(mmgl, "cycle_contrastive_loss", lambda *_, **given: seen.append(given) or torch.ones(()))
    for share in (True, False):
        _method(share_order=share, pcc_negatives="part").training_step(people(video=False))
    same = [torch.equal(given["orders"], given["infrared_orders"]) for given in seen]
    assert same == [True, False]


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"permutation": False, "pcc": False}, "Turn on permutation, or pcc"),
        ({"part": False, "pcc_negatives": "part"}, "pcc_negatives all"),
        ({"part": False, "pcc_negatives": "img"}, "pcc_negatives all"),
    ],
)
def test_flags_that_leave_nothing_to_learn_are_refused(options: dict, cure: str) -> None:
    with pytest.raises(GloamError, match=cure):
        _method(**options)


@pytest.mark.parametrize(
    "options", [{"part": False}, {"shared_projection": False}, {"gumbel_noise": 1.0, "gumbel_samples": 3}]
)
def test_options_train(options: dict) -> None:
    method, data = _method(**options), people(video=False)
    loss = method.training_step(data)["loss"]
    loss.backward()
    assert torch.isfinite(loss)


def test_accuracy_is_reported_for_both_modalities() -> None:
    method, data = _method(), people(video=False)
    names = {f"permutation_{kind}_{modality}" for kind in ("accuracy", "exact") for modality in ("visible", "infrared")}
    for epoch, logged in ((0, names), (1, set()), (5, names), (8, set()), (9, names)):
        context = MemoryContext(method, data, epoch=epoch, num_epochs=10)
        method.on_epoch_start(context)
        assert not context.logged
        method.on_epoch_end(context)
        assert set(context.logged) == logged


def test_an_epochs_accuracy_is_that_of_the_network_it_ends_with(tmp_path: Path, sysu_root: Path) -> None:
    """The last row scores the final network, the one before it the network that the last epoch starts from."""
    recipe = tiny_recipe(
        sysu_root,
        method={"name": "mmgl", "num_stripes": 3, "cl_dim": 8, "report_every": 1},
        sampler={"name": "modality_shuffle", "batch_size": 8},
        augment={"erase": 0.0},
        train={"epochs": 2, "iterations": 2},
    )
    run = train(recipe, output=tmp_path / "run", progress=False).path
    checkpoint = Checkpoint.load(run / "checkpoints" / "last.ckpt")
    method = load_model(run).method
    assert isinstance(method, mmgl.MMGL)
    data = prepare_data(resolve(recipe), progress=False)
    for modality in Modality:
        rows = np.array([i for i, record in enumerate(data.records) if record.modality is modality])
        images = normalize(torch.from_numpy(data.store.read(rows)))
        # The draws of the report: one generator over all images, both modalities together, in order.
        orders = draw_orders(len(data.records), 3, torch.Generator().manual_seed(0))[rows]
        with torch.no_grad():
            predicted = method.predict_orders(shuffle_stripes(images, orders), torch.full((len(rows),), int(modality)))
        right, exact = permutation_accuracy(predicted, orders)
        row = checkpoint.history[-1]
        assert row[f"permutation_accuracy_{modality.name.lower()}"] == pytest.approx(right.mean().item(), abs=1e-6)
        assert row[f"permutation_exact_{modality.name.lower()}"] == pytest.approx(exact.mean().item(), abs=1e-6)


def test_overlapping_bins_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    data = people(video=False)
    _method().training_step(data)
    assert not caplog.records
    data.images = data.images[..., :48, :]  # three rows for six stripes
    method = _method()
    for _ in range(2):
        method.training_step(data)
    assert len(caplog.records) == 1
    assert "6 stripes do not divide a feature map of 3 rows" in caplog.text
    for unused in ({"pcc": False}, {"part": False}):
        caplog.clear()
        _method(**unused).training_step(data)
        assert not caplog.records


def test_accuracy_is_measured_on_a_spread_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmgl, "_SCORED", 4)
    method, data = _method(), people(video=False)
    asked = []

    class Context(MemoryContext):
        def extract(self, function=None, rows=None):
            asked.append(rows.nonzero()[:, 0].tolist())
            return super().extract(function, rows)

    method.on_epoch_end(Context(method, data))
    assert asked == [[0, 5, 10, 15, 16, 21, 26, 31]]


def test_unbalanced_batches_and_odd_heights_are_named() -> None:
    method, data = _method(), people(video=False)
    with pytest.raises(GloamError, match="modality_shuffle"):
        method.training_step(data.select(torch.arange(20)))
    with pytest.raises(GloamError, match=r"data\.height"):
        _method(num_stripes=7).training_step(data)
