"""Channel-to-channel similarity of one image's map (modality-similarity module of CGRNet)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gloam.models.row_attention import attention_weights, gated_residual
from gloam.precision import at_least_float32

EnergyScale = Literal["none", "root", "mean"]


class ChannelSimilarity(nn.Module):
    """Every channel adds, behind a gate, the channels that it overlaps with least.

    *Source*: ``CAM_Module`` in ``model_res.py`` of the CGRNet release: ``A = softmax(-x x^T)``, ``gamma A x + x``. The
    release has one instance per modality, whose only parameter is the gate; here one module holds a gate each.
    Activations after a ReLU make the unscaled energies so large that rows are almost one-hot: that is the method.

    Args:
        streams: 2: a gate per modality; 1: one gate.
        energy_scale: ``none`` as released; ``root`` divides the energy by the root of the number of positions, ``mean``
            by the number (neither is published).
    """

    def __init__(self, streams: int = 2, energy_scale: EnergyScale = "none") -> None:
        super().__init__()
        self.energy_scale = energy_scale
        self.gamma = nn.Parameter(torch.zeros(streams))

    def attention(self, maps: Tensor, keys: Tensor | None = None) -> Tensor:
        """Row weights ``(B, C, C)`` in float32 or better.

        Args:
            maps: ``(B, C, h, w)``.
            keys: maps of the same shape to compare with, of the other modality for example; ``maps`` if not given.
        """
        # Sums over thousands of positions overflow float16.
        with torch.autocast(device_type=maps.device.type, enabled=False):
            rows = at_least_float32(maps.flatten(2))
            columns = rows if keys is None else at_least_float32(keys.flatten(2))
            energy = rows @ columns.transpose(1, 2)
            if self.energy_scale != "none":
                energy = energy / rows.shape[2] ** (0.5 if self.energy_scale == "root" else 1.0)
            return attention_weights(-energy)

    def forward(self, maps: Tensor, modalities: Tensor, attention: Tensor | None = None) -> Tensor:
        """Mix channels.

        Args:
            maps: ``(B, C, h, w)``.
            modalities: ``(B,)`` int64; picks each row's gate.
            attention: result of :meth:`attention`, if it is already there.

        Returns:
            Shape and number format of ``maps``.
        """
        weights = self.attention(maps) if attention is None else attention
        mixed = (weights.to(maps.dtype) @ maps.flatten(2)).view_as(maps)
        gates = self.gamma[modalities] if len(self.gamma) > 1 else self.gamma.expand(maps.shape[0])
        return gated_residual(gates[:, None, None, None], mixed, maps)


def similarity_gap(attention: Tensor, visible: Tensor, infrared: Tensor) -> Tensor:
    """Mean absolute difference of two modalities' channel similarities, paired in order.

    *Source*: the auxiliary loss that ``train.version3.py`` of the CGRNet release has commented out. At most 2 / C,
    close to it while rows are one-hot, so without an ``energy_scale`` it hardly moves (docs/methods/cgrnet.md).

    Args:
        attention: ``(B, C, C)``.
        visible: ``(n,)`` rows of visible images.
        infrared: ``(n,)`` rows of infrared images; the i-th shows the identity of the i-th visible one.
    """
    return (attention[visible] - attention[infrared]).abs().mean()
