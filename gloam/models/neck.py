"""Batch-norm neck, bias-free classifier and safe unit vectors."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import normalize

from gloam.precision import at_least_float32


class BNNeck(nn.BatchNorm1d):
    """Batch norm between the metric feature and the classifier; its shift is frozen at zero.

    *Source*: Luo et al., CVPRW 2019; weight ~ N(1, 0.01 squared) as in the release of AGW.

    Args:
        channels: D.
        weight_std: spread of the initial weight.
    """

    def __init__(self, channels: int, weight_std: float = 0.01) -> None:
        super().__init__(channels)
        nn.init.normal_(self.weight, mean=1.0, std=weight_std)
        nn.init.zeros_(self.bias)
        self.bias.requires_grad_(False)


class Classifier(nn.Linear):
    """Linear identity classifier without bias, weight ~ N(0, 0.001 squared).

    Args:
        channels: D.
        num_classes: C.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels, num_classes, bias=False)
        nn.init.normal_(self.weight, std=0.001)


def unit(features: Tensor) -> Tensor:
    """Rows of ``(N, D)`` divided by their length (at least 1e-12), in float32 or better."""
    return normalize(at_least_float32(features), dim=-1, eps=1e-12)
