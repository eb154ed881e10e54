"""What the contract tests need to drive any method without a trainer: random people and an epoch context."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gloam.batches.batch import Batch
from gloam.methods import Method, create_method, get_method
from gloam.methods.contrastive_baselines import TwoViewMethod

HEIGHT, WIDTH, FRAMES = 96, 48, 4
IDS, PER_MODALITY = 4, 4

# Options that make a published network small enough for a test; methods not named here only get arch="tiny".
SMALL: dict[str, dict[str, Any]] = {
    "cluster_contrast": {"k1": 5, "k2": 2, "min_samples": 2},
    "spcl": {"k1": 5, "k2": 2, "min_samples": 2},
    "simsiam": {"hidden_dim": 32, "out_dim": 32, "predictor_dim": 8},
    "ntxent": {"hidden_dim": 32},
    # Batches of the contract have no partner rows.
    "metaprd": {"k1": 5, "k2": 2, "min_samples": 2, "ppa": False, "gcn": True, "gcn_hidden": 8, "gcn_neighbours": 4},
}


def small_method(name: str, num_classes: int = IDS, **options: Any) -> Method[Any]:
    """A method with the tiny backbone and fixed initial weights; skips where its optional package is missing."""
    if issubclass(get_method(name), TwoViewMethod):
        pytest.importorskip("lightly")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_method(name, num_classes, **{"arch": "tiny", **SMALL.get(name, {}), **options})


def people(video: bool, both_modalities: bool = True, seed: int = 0) -> Batch:
    """A normalised batch: identity-dependent patterns plus noise, visible block first, then infrared."""
    generator = torch.Generator().manual_seed(seed)
    modalities = torch.arange(2 if both_modalities else 1).repeat_interleave(IDS * PER_MODALITY)
    pids = torch.arange(IDS).repeat_interleave(PER_MODALITY).repeat(2 if both_modalities else 1)
    frames = (FRAMES,) if video else ()
    patterns = torch.randn((IDS, *[1] * len(frames), 3, HEIGHT, WIDTH), generator=generator)
    noise = torch.randn((len(pids), *frames, 3, HEIGHT, WIDTH), generator=generator)
    return Batch(
        images=patterns[pids] + 0.5 * noise,
        pids=pids,
        cams=modalities * 2 + torch.arange(len(pids)) % 2,
        modalities=modalities,
        indices=torch.arange(len(pids)),
        views=torch.zeros_like(pids),
    )


def with_views(method: Method[Any], batch: Batch, seed: int = 0) -> Batch:
    """The batch as the method's augmentation gives it: with noisy second views where the method compares two."""
    if not isinstance(method, TwoViewMethod):
        return batch
    noise = torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(seed))
    second = dataclasses.replace(batch, images=batch.images + 0.5 * noise, views=torch.ones_like(batch.views))
    pairs = {f.name: (getattr(batch, f.name), getattr(second, f.name)) for f in dataclasses.fields(Batch)}
    return Batch(**{name: torch.cat(pair) for name, pair in pairs.items()})


class MemoryContext:
    """An epoch context over one batch that plays the whole training set."""

    def __init__(
        self, method: Method[Any], data: Batch, epoch: int = 0, num_epochs: int = 4, stage: str = "train"
    ) -> None:
        self._method = method
        self._data = data
        self.stage, self.epoch, self.num_epochs = stage, epoch, num_epochs
        self.labels = torch.arange(len(data)) if method.is_unsupervised else data.pids.clone()
        self.modalities, self.cams = data.modalities, data.cams
        self.generator = torch.Generator().manual_seed(epoch)
        self.logged: dict[str, float] = {}

    def extract(self, function: Callable[[Tensor, Tensor], Tensor] | None = None, rows: Tensor | None = None) -> Tensor:
        was_training = self._method.training
        self._method.eval()
        chosen = torch.ones(len(self._data), dtype=torch.bool) if rows is None else rows
        with torch.no_grad():
            result = (function or self._method.extract)(self._data.images[chosen], self._data.modalities[chosen])
        self._method.train(was_training)
        return result.float()

    def set_labels(self, labels: Tensor) -> None:
        self.labels = labels

    def log(self, name: str, value: float) -> None:
        self.logged[name] = float(value)

    def report_pseudo_labels(self, labels: Tensor) -> None:
        self.logged["pseudo_labels"] = float(len(labels))

    def report_correspondence(self, visible: Tensor, infrared: Tensor, name: str = "match") -> None:
        self.logged[name] = float(len(visible))
