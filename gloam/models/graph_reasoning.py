"""Graph reasoning between the positions of one image's map and their mean (CGRNet)."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn

from gloam.models.row_attention import attention_weights, gated_residual

Fusion = Literal["sum", "residual"]


class Relation(nn.Module):
    """How one kind of node gathers from another: projected dot products, unscaled, behind a gate.

    *Source*: ``PAM_Module`` in ``model_res.py`` of the CGRNet release. Layers keep the release's names.

    Args:
        channels: C.
        reduction: queries and keys have C // reduction channels.
        selective: False: every source weighs the same, so no queries and keys are built.
    """

    def __init__(self, channels: int, reduction: int = 16, *, selective: bool = True) -> None:
        super().__init__()
        inner = max(channels // reduction, 1)
        self.query_conv = nn.Conv2d(channels, inner, kernel_size=1) if selective else None
        self.key_conv = nn.Conv2d(channels, inner, kernel_size=1) if selective else None
        self.value_conv = nn.Conv2d(channels, channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # Kaiming, fan-in; biases keep PyTorch's uniform values.
                nn.init.normal_(module.weight, std=math.sqrt(2 / channels))

    def gather(self, queries: Tensor, sources: Tensor) -> Tensor:
        """Weighted values, without gate and residual.

        Args:
            queries: ``(B, C, Q, 1)`` nodes that receive.
            sources: ``(B, C, S, 1)`` nodes that send.

        Returns:
            ``(B, C, Q, 1)``. Takes B x Q x S numbers.
        """
        values = cast(Tensor, self.value_conv(sources)).squeeze(3)
        if self.query_conv is None or self.key_conv is None:
            return values.mean(dim=2, keepdim=True).unsqueeze(3).expand_as(queries)
        # Unscaled products are large: they and their softmax need float32.
        with torch.autocast(device_type=queries.device.type, enabled=False):
            query, key = _project(self.query_conv, queries), _project(self.key_conv, sources)
            weights = attention_weights(query.transpose(1, 2) @ key)
        return (values @ weights.to(values.dtype).transpose(1, 2)).unsqueeze(3)


class GraphReasoning(nn.Module):
    """One step of message passing between all positions of an image and their mean.

    *Source*: lines of ``model_res.py`` that the CGRNet release has commented out. Three directed relations with weights
    of their own. Two of the release's position-by-position products are degenerate and have closed forms here, equal to
    rounding: with one source (the mean) every position receives the same value, whatever queries and keys are (they are
    not built: they could never learn); with one receiver the result is an attention pooling. Only positions to
    positions are quadratic: (h w)^2 numbers per image, 648^2 at 288 x 144.

    Args:
        channels: C.
        fusion: ``sum`` as released: positions, mean and all three residuals add up, so with closed gates the result is
            ``3 x + mean``. ``residual`` starts as the identity (not published).
    """

    def __init__(self, channels: int, fusion: Fusion = "sum") -> None:
        super().__init__()
        self.fusion = fusion
        self.local2local = Relation(channels)
        self.global2local = Relation(channels, selective=False)
        self.local2global = Relation(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """``(B, C, h, w)`` to the same shape; rows do not see each other."""
        positions = maps.flatten(2).unsqueeze(3)
        mean = positions.mean(dim=2, keepdim=True)
        base = 3 * positions + mean if self.fusion == "sum" else positions
        # What the mean sends and receives is the same for all positions: it is added as one vector per image.
        common = self.global2local.gamma * self.global2local.gather(mean, mean)
        common = common + self.local2global.gamma * self.local2global.gather(mean, positions)
        mixed = gated_residual(self.local2local.gamma, self.local2local.gather(positions, positions), base)
        return (mixed + common.to(mixed.dtype)).view_as(maps)

    @property
    def gates(self) -> dict[str, Tensor]:
        """The gate of every relation; a run whose gates stay at 0 has learnt no graph."""
        relations = {"local2local": self.local2local, "global2local": self.global2local}
        return {name: relation.gamma for name, relation in (relations | {"local2global": self.local2global}).items()}


def _project(convolution: nn.Conv2d, nodes: Tensor) -> Tensor:
    """A 1 x 1 convolution in float32 or better, also of half-precision nodes: ``(B, C, Q, 1)`` to ``(B, c, Q)``."""
    return cast(Tensor, convolution(nodes.to(convolution.weight.dtype))).squeeze(3)
