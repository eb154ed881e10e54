"""From a feature map to one vector per image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gloam.errors import GloamError, did_you_mean
from gloam.precision import at_least_float32


class AveragePool(nn.Module):
    """Mean over all positions."""

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, C)``."""
        return maps.mean(dim=(2, 3))


class MaxPool(nn.Module):
    """Maximum over all positions."""

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, h, w)`` to ``(B, C)``."""
        return maps.amax(dim=(2, 3))


class GeM(nn.Module):
    """Generalised mean, in float32 under autocast (the cube of a half-precision activation overflows).

    Args:
        learnable: False: exponent fixed at 3 and 1e-12 added after the mean (release of AGW), negative inputs counted
            as 0 (networks without a last ReLU have some); True: one learnable scalar exponent and inputs clamped at
            1e-6 (SpCL, WSL-VIReID).
        exponent: initial exponent.
    """

    def __init__(self, *, learnable: bool = False, exponent: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), exponent)) if learnable else None
        self.exponent = exponent

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, h, w)`` maps to ``(B, C)``."""
        with torch.autocast(device_type=maps.device.type, enabled=False):
            maps = at_least_float32(maps)
            if self.p is not None:
                mean = maps.clamp_min(1e-6).pow(self.p).mean(dim=(2, 3))
                return mean.pow(1 / self.p)
            # A mean of cubes below zero has no root: NaN.
            maps = maps.clamp_min(0)
            powered = maps * maps * maps if self.exponent == 3 else maps.pow(self.exponent)
            return (powered.mean(dim=(2, 3)) + 1e-12).pow(1 / self.exponent)


def create_pooling(name: str) -> nn.Module:
    """``avg``, ``max``, ``gem`` (fixed exponent) or ``gem_learnable``."""
    if name in ("gem", "gem_learnable"):
        return GeM(learnable=name == "gem_learnable")
    simple: dict[str, type[nn.Module]] = {"avg": AveragePool, "max": MaxPool}
    if name not in simple:
        raise GloamError(f"There is no pooling {name!r}. {did_you_mean(name, ('gem', 'gem_learnable', *simple))}")
    return simple[name]()
