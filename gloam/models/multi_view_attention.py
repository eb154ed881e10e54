"""Multi-view attention pooling (M3-ReID): sigmoid masks over space, time-width and time-height, then GeM per frame."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from gloam.precision import at_least_float32


class MultiViewAttention(nn.Module):
    """Three views x heads masks, each pooling every frame of a clip.

    *Source*: release of M3-ReID. A 1x1 convolution followed by a sigmoid works point by point, so the release's three
    permutations change no mask value: one convolution with all outputs is the same module. The views differ in their
    weights and in how masks are grouped for the diversity loss.

    Args:
        channels: C of the map.
        heads: masks per view.
        pooling: ``gem`` (p = 3, float32) or ``avg``.
    """

    def __init__(self, channels: int, heads: int = 2, pooling: Literal["gem", "avg"] = "gem") -> None:
        super().__init__()
        self.heads = heads
        self.pooling = pooling
        self.view_attention_hw = nn.Conv2d(channels, heads, kernel_size=1)
        self.view_attention_tw = nn.Conv2d(channels, heads, kernel_size=1)
        self.view_attention_th = nn.Conv2d(channels, heads, kernel_size=1)
        for convolution in self._views():
            nn.init.zeros_(cast(Tensor, convolution.bias))

    def forward(self, frames: Tensor, clip_length: int) -> tuple[Tensor, list[Tensor]]:
        """Pool.

        Args:
            frames: ``(B T, C, H, W)`` maps; ``gem`` counts negative values as 0.
            clip_length: T.

        Returns:
            ``(B T, 3 heads C)`` embedding of every frame, and the masks grouped for the diversity loss:
            ``(B T, heads, H W)``, ``(B H, heads, T W)``, ``(B W, heads, T H)``.
        """
        weight = torch.cat([view.weight for view in self._views()])
        bias = torch.cat([cast(Tensor, view.bias) for view in self._views()])
        masks = at_least_float32(nn.functional.conv2d(frames, weight, bias)).sigmoid()
        pooled = self._pool(at_least_float32(frames), masks)
        hw, tw, th = masks.unflatten(0, (-1, clip_length)).unflatten(2, (3, self.heads)).unbind(2)
        # Each is (B, T, heads, H, W) here.
        grouped = [
            hw.flatten(0, 1).flatten(2),
            tw.permute(0, 3, 2, 1, 4).flatten(0, 1).flatten(2),
            th.permute(0, 4, 2, 1, 3).flatten(0, 1).flatten(2),
        ]
        return pooled, grouped

    def _views(self) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
        return self.view_attention_hw, self.view_attention_tw, self.view_attention_th

    def _pool(self, frames: Tensor, masks: Tensor) -> Tensor:
        """``(B T, masks C)``: masked GeM or mean of every frame, mask by mask, as one matrix product.

        The cube of a product is the product of cubes, so masks meet the map in ``(M, HW) x (HW, C)`` instead of M
        copies of the map.
        """
        with torch.autocast(device_type=frames.device.type, enabled=False):
            area = frames.shape[2] * frames.shape[3]
            values, weights = frames.flatten(2), masks.flatten(2)
            if self.pooling == "avg":
                pooled = weights @ values.transpose(1, 2) / area
            else:
                cubes = weights.pow(3) @ values.clamp_min(0).pow(3).transpose(1, 2) / area
                pooled = (cubes + 1e-12).pow(1 / 3)
            return pooled.flatten(1)
