"""Adversarial modality loss: a discriminator learns to name the modality, the features learn to give it no clue."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gloam.datasets.records import Modality


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """``x`` itself; its gradient comes back multiplied by ``-strength``."""
    result: Tensor = _Reverse.apply(x, strength)
    return result


class PartDiscriminators(nn.Module):
    """One small network per stripe that tells visible from infrared features through a gradient reversal.

    *Source*: last version of PF-MGCD (docs/methods/pf_mgcd.md). There the epoch never reached the model, so that the
    strength of the reversal stayed 0; here the caller passes it.

    Args:
        num_parts: K.
        width: D of the features.
    """

    def __init__(self, num_parts: int, width: int) -> None:
        super().__init__()
        hidden = max(width // 4, 1)
        self.parts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(inplace=True),
                nn.Linear(hidden, len(Modality)),
            )
            for _ in range(num_parts)
        )

    def forward(self, features: Tensor, strength: float) -> Tensor:
        """``(B, K, D)`` identity features to ``(B, K, 2)`` modality logits."""
        reversed_ = reverse_gradient(features, strength)
        return torch.stack([part(x) for part, x in zip(self.parts, reversed_.unbind(1), strict=True)], dim=1)
