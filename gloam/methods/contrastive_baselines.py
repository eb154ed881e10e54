"""SimSiam and NT-Xent: two common self-supervised methods, to compare MMGL's pre-training with.

Two augmented views of every image shall agree; no label and no visible-infrared pairing is read. Network, sampler,
parameter groups and fine-tuning are MMGL's. The losses are those of the package ``lightly`` (extra: ssl).
"""

from __future__ import annotations

import importlib
from typing import Any, Generic, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from gloam.batches.batch import Batch
from gloam.errors import GloamError
from gloam.methods import register
from gloam.methods.contract import Method, StemOptions
from gloam.models.backbone import create_backbone


class TwoViewOptions(StemOptions):
    """Flags that both methods share."""

    hidden_dim: int = Field(2048, ge=1, description="width inside the projection head")


OptionsT = TypeVar("OptionsT", bound=TwoViewOptions)


class TwoViewMethod(Method[OptionsT], Generic[OptionsT]):
    """A two-stream network whose pooled features see two views of every image.

    Both views of both modalities pass the network together, so batch-norm sees all of them, as in MMGL.

    Args:
        num_classes: ignored; no identity is used.
        options: flags.

    Raises:
        GloamError: the package ``lightly`` is not installed.
    """

    features = ("pool",)
    is_unsupervised = True

    def __init__(self, num_classes: int, options: OptionsT) -> None:
        super().__init__(num_classes, options)
        self.backbone = create_backbone(options.arch, streams=options.streams, last_stride=1)

    @property
    def feature_dim(self) -> int:
        return int(self.backbone.out_channels)

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of B images with two views each, of any mixture of modalities.

        Raises:
            GloamError: the batch does not hold a second view of every image.
        """
        first, second = batch.views == 0, batch.views == 1
        rows = torch.cat([first.nonzero(), second.nonzero()])[:, 0]
        indices = batch.indices[rows]
        if 2 * int(first.sum()) != len(batch) or not torch.equal(*indices.chunk(2)):
            raise GloamError(
                f"{type(self).__name__} compares two views of every image, but the batch holds {int(first.sum())} "
                f"first and {int(second.sum())} second views. Set augment.visible_views and infrared_views to 2."
            )
        pooled = self._pool(batch.images[rows], batch.modalities[rows])
        return self.compare(pooled)

    def compare(self, pooled: Tensor) -> dict[str, Tensor]:
        """Losses of ``(2 B, D)`` pooled features: all first views, then the second views in the same order."""
        raise NotImplementedError(f"{type(self).__name__} must define compare")

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Unit average-pooled features ``(N, D)``."""
        return normalize(self._pool(images, modalities).float(), dim=1, eps=1e-12)

    def _pool(self, images: Tensor, modalities: Tensor) -> Tensor:
        pooled: Tensor = self.backbone(images, modalities).mean(dim=(2, 3))
        return pooled


class SimSiamOptions(TwoViewOptions):
    """Flags of SimSiam."""

    out_dim: int = Field(2048, ge=1, description="width of the projections")
    predictor_dim: int = Field(512, ge=1, description="bottleneck of the predictor")


@register("simsiam")
class SimSiam(TwoViewMethod[SimSiamOptions]):
    """Each view predicts the other's projection, through which no gradient flows; no negatives.

    *Source*: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021: three-layer projection whose
    last batch-norm has no scale, two-layer predictor. Deliberate difference: both views share batch-norm statistics.

    Args:
        num_classes: ignored; no identity is used.
        options: flags.

    Raises:
        GloamError: the package ``lightly`` is not installed.
    """

    Options = SimSiamOptions

    def __init__(self, num_classes: int, options: SimSiamOptions) -> None:
        super().__init__(num_classes, options)
        hidden, out = options.hidden_dim, options.out_dim
        self.projector = nn.Sequential(
            *_layer(self.backbone.out_channels, hidden),
            *_layer(hidden, hidden),
            nn.Linear(hidden, out, bias=False),
            nn.BatchNorm1d(out, affine=False),
        )
        self.predictor = nn.Sequential(*_layer(out, options.predictor_dim), nn.Linear(options.predictor_dim, out))
        # The bound method, not the module: nothing of the loss belongs into the state dict.
        self._distance = _lightly_loss("NegativeCosineSimilarity").forward

    def compare(self, pooled: Tensor) -> dict[str, Tensor]:
        """See the base class; ``spread`` is 1 for projections in all directions and 0 after a collapse."""
        projected = self.projector(pooled)
        predicted = self.predictor(projected)
        with torch.autocast(device_type=pooled.device.type, enabled=False):
            z1, z2 = projected.detach().float().chunk(2)
            p1, p2 = predicted.float().chunk(2)
            loss = (self._distance(p1, z2) + self._distance(p2, z1)) / 2
            unit = normalize(z1, dim=1, eps=1e-12)
            spread = unit.std(dim=0).mean() * unit.shape[1] ** 0.5
        return {"loss": loss, "spread": spread}


class NTXentOptions(TwoViewOptions):
    """Flags of NT-Xent."""

    out_dim: int = Field(128, ge=1, description="width of the projections")
    temperature: float = Field(0.1, gt=0, description="temperature of the contrast")


@register("ntxent")
class NTXent(TwoViewMethod[NTXentOptions]):
    """Each view recognises the image's other view among all views of the batch (SimCLR).

    *Source*: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020: two-layer
    projection of 128, normalised temperature-scaled cross-entropy. Negatives are those of the own process.

    Args:
        num_classes: ignored; no identity is used.
        options: flags.

    Raises:
        GloamError: the package ``lightly`` is not installed.
    """

    Options = NTXentOptions

    def __init__(self, num_classes: int, options: NTXentOptions) -> None:
        super().__init__(num_classes, options)
        self.projector = nn.Sequential(
            *_layer(self.backbone.out_channels, options.hidden_dim), nn.Linear(options.hidden_dim, options.out_dim)
        )
        self._contrast = _lightly_loss("NTXentLoss", temperature=options.temperature).forward

    def compare(self, pooled: Tensor) -> dict[str, Tensor]:
        """See the base class; ``recognised`` is how often the other view is the nearest of the 2B - 1 candidates."""
        projected = self.projector(pooled)
        with torch.autocast(device_type=pooled.device.type, enabled=False):
            vectors = projected.float()
            loss = self._contrast(*vectors.chunk(2))
            unit = normalize(vectors.detach(), dim=1, eps=1e-12)
            nearest = (unit @ unit.T).fill_diagonal_(-2.0).argmax(dim=1)
            partner = torch.arange(len(unit), device=unit.device).roll(len(unit) // 2)
        return {"loss": loss, "recognised": (nearest == partner).float().mean()}


def _layer(inside: int, outside: int) -> list[nn.Module]:
    return [nn.Linear(inside, outside, bias=False), nn.BatchNorm1d(outside), nn.ReLU(inplace=True)]


def _lightly_loss(name: str, **options: Any) -> Any:
    """A loss of the optional package ``lightly``, imported only here: the import takes seconds."""
    try:
        losses = importlib.import_module("lightly.loss")
    except ImportError as error:
        raise GloamError(
            "SimSiam and NT-Xent take their losses from the package lightly: pip install 'gloam[ssl]', or pre-train "
            "with mmgl."
        ) from error
    return getattr(losses, name)(**options)
