"""Non-local block over space and time, embedded Gaussian form (M3-ReID)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class SpatioTemporalNonLocal(nn.Module):
    """``x + BN(W softmax(theta phi) g)`` over all T H W positions of a clip; starts as the identity.

    *Source*: release of M3-ReID. The affinity is not scaled by the root of the width: trained weights assume scale 1.
    Fused attention never stores the N x N affinity (N = 3,888 at stage 2 of a 6-frame clip) where the device offers a
    memory-lean kernel.

    Args:
        channels: C of the map.
        reduction: inner width is C // reduction.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        inner = max(channels // reduction, 1)
        self.theta = nn.Conv3d(channels, inner, kernel_size=1)
        self.phi = nn.Conv3d(channels, inner, kernel_size=1)
        self.g = nn.Conv3d(channels, inner, kernel_size=1)
        self.W = nn.Sequential(nn.Conv3d(inner, channels, kernel_size=1), nn.BatchNorm3d(channels))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(cast(Tensor, module.bias))
            elif isinstance(module, nn.BatchNorm3d):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, clip: Tensor) -> Tensor:
        """``(B, C, T, H, W)`` to the same shape."""
        size = clip.shape[2:]
        # One head and dense rows: the lean kernels refuse anything else, and the fallback stores the affinity.
        query, key, value = (
            layer(clip).flatten(2).transpose(1, 2).unsqueeze(1).contiguous() for layer in (self.theta, self.phi, self.g)
        )
        mixed = scaled_dot_product_attention(query, key, value, scale=1.0).squeeze(1)
        residual: Tensor = self.W(mixed.transpose(1, 2).unflatten(2, size))
        return clip + residual


def over_clips(block: nn.Module, frames: Tensor, clip_length: int) -> Tensor:
    """Apply a space-time block to folded frames ``(B T, C, H, W)``."""
    clips = frames.unflatten(0, (-1, clip_length)).transpose(1, 2)
    mixed: Tensor = block(clips)
    return mixed.transpose(1, 2).flatten(0, 1)
