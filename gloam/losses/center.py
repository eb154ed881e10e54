"""Centre loss: every feature near the centre of its identity."""

from __future__ import annotations

from torch import Tensor

from gloam.precision import at_least_float32


def center_loss(features: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """Mean squared distance of the rows to the centres of their labels.

    *Source*: Wen et al., ECCV 2016, in the form of the releases of BoT and AGW: without the paper's factor 1/2, over
    B, each distance kept within 1e-12 and 1e12.

    Args:
        features: ``(B, D)``.
        labels: ``(B,)`` 0..C-1.
        centers: ``(C, D)``.

    Returns:
        Scalar in float32 or better.
    """
    gaps = at_least_float32(features) - at_least_float32(centers)[labels]
    return gaps.square().sum(dim=1).clamp(1e-12, 1e12).mean()
