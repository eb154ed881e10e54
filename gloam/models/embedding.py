"""Backbone, pooling, neck and classifier: the network that the supervised methods share."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from gloam.models.neck import BNNeck, Classifier
from gloam.models.two_stream import TwoStreamBackbone
from gloam.models.weights import to_reference_names


class Embedded(NamedTuple):
    """What the network computes for a batch.

    Attributes:
        maps: ``(B, C, h, w)`` last feature map.
        pooled: ``(B, D)`` metric feature ("POOL").
        bn: ``(B, D)`` after the neck ("FC").
        logits: ``(B, classes)``.
    """

    maps: Tensor
    pooled: Tensor
    bn: Tensor
    logits: Tensor


class EmbeddingNet(nn.Module):
    """Backbone -> pooling -> BN neck -> bias-free classifier.

    Args:
        backbone: from :func:`gloam.models.backbone.create_backbone`.
        pooling: from :func:`gloam.models.pooling.create_pooling`.
        num_classes: C.
    """

    def __init__(self, backbone: TwoStreamBackbone | nn.Module, pooling: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.width = int(backbone.out_channels)  # type: ignore[arg-type]
        self.bottleneck = BNNeck(self.width)
        self.classifier = Classifier(self.width, num_classes)

    def forward(self, images: Tensor, modalities: Tensor) -> Embedded:
        """``(B, 3, H, W)`` normalised images of any mixture of modalities."""
        return self.head(self.backbone(images, modalities))

    def head(self, maps: Tensor) -> Embedded:
        """Everything after the backbone, from its map ``(B, C, h, w)``."""
        pooled = self.pooling(maps)
        bn = self.bottleneck(pooled)
        return Embedded(maps, pooled, bn, self.classifier(bn))

    def parameter_groups(self, lr: float, trunk_factor: float = 0.1) -> list[dict[str, Any]]:
        """Backbone (and pooling) at ``trunk_factor * lr``; neck and classifier at ``lr``, one group each.

        *Source*: releases of AGW and DDAG.
        """
        trunk = [*self.backbone.parameters(), *self.pooling.parameters()]
        return [
            {"params": trunk, "lr": trunk_factor * lr},
            {"params": list(self.bottleneck.parameters()), "lr": lr},
            {"params": list(self.classifier.parameters()), "lr": lr},
        ]

    def to_published(self) -> dict[str, Tensor] | None:
        """State under the names of the AGW release, dead layers included; None for networks of another kind."""
        if not isinstance(self.backbone, TwoStreamBackbone):
            return None
        heads = {
            f"{head}.{name}": value.detach().cpu()
            for head in ("bottleneck", "classifier")
            for name, value in getattr(self, head).state_dict().items()
        }
        return {**to_reference_names(self.backbone, whole=True), **heads}
