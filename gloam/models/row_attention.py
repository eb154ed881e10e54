"""What the graphs of several methods share: normalised rows of scores, and a residual behind a learned gate.

Nodes (parts, positions, channels, images of a batch) and scores are each method's own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import dropout

from gloam.precision import at_least_float32


def attention_weights(
    scores: Tensor, mask: Tensor | None = None, *, dropout_rate: float = 0.0, training: bool = False
) -> Tensor:
    """Softmax of every row over the sources that it may see, in float32 or better.

    Args:
        scores: ``(..., queries, sources)``.
        mask: bool, broadcastable to ``scores``; False hides a source. None: every source is seen.
        dropout_rate: on the weights.
        training: whether dropout acts.

    Returns:
        Weights of the shape of ``scores``; a row that sees no source is all zero.
    """
    scores = at_least_float32(scores)
    if mask is None:
        weights = scores.softmax(dim=-1)
    else:
        # A row without sources would be 0 / 0: it is given finite scores and emptied afterwards.
        seen = mask.any(dim=-1, keepdim=True)
        weights = scores.masked_fill(~mask & seen, -torch.inf).softmax(dim=-1) * seen
    return dropout(weights, dropout_rate, training) if dropout_rate else weights


def gated_residual(gate: Tensor, update: Tensor, base: Tensor) -> Tensor:
    """``gate * update + base`` in the number format of ``base``; a gate that starts at 0 makes the identity."""
    return (gate * update).to(base.dtype) + base
