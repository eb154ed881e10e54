"""Intra-modality weighted-part attention (IWPA) of DDAG."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from gloam.models.neck import BNNeck
from gloam.models.row_attention import attention_weights
from gloam.precision import at_least_float32


class WeightedPartAttention(nn.Module):
    """Parts of one image attend to each other; their gated sum refines the image's feature.

    *Source*: DDAG (Ye et al., ECCV 2020) and its release. The release's second batch norm is kept; its dead convolution
    ``W`` and unused global pooling are not built.

    Args:
        channels: D.
        num_parts: horizontal stripes q.
    """

    def __init__(self, channels: int, num_parts: int = 3) -> None:
        super().__init__()
        self.num_parts = num_parts
        self.fc1 = nn.Sequential(nn.Conv2d(channels, channels, kernel_size=1))
        self.fc2 = nn.Conv2d(channels, channels, kernel_size=1)
        self.fc3 = nn.Conv2d(channels, channels, kernel_size=1)
        self.gate = nn.Parameter(torch.full((num_parts,), 1 / num_parts))
        self.bottleneck = BNNeck(channels)

    def forward(self, maps: Tensor, feature: Tensor) -> Tensor:
        """Refine.

        Args:
            maps: ``(B, D, h, w)``.
            feature: ``(B, D)`` feature after the main neck.

        Returns:
            ``(B, D)`` after the second neck.
        """
        parts = adaptive_avg_pool2d(maps, (self.num_parts, 1))
        query, key, value = (layer(parts).squeeze(3) for layer in (self.fc1, self.fc2, self.fc3))
        # Unscaled products of D numbers: they and their softmax need float32.
        with torch.autocast(device_type=maps.device.type, enabled=False):
            attention = attention_weights(at_least_float32(query).transpose(1, 2) @ at_least_float32(key))
        refined = value @ attention.to(value.dtype).transpose(1, 2)
        aggregated = refined @ self.gate.softmax(dim=0)
        joined: Tensor = self.bottleneck(aggregated + feature)
        return joined
