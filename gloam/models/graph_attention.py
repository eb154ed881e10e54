"""Graph attention over the rows of a batch (CGSA of DDAG)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, elu, leaky_relu, log_softmax

from gloam.models.row_attention import attention_weights
from gloam.precision import at_least_float32


class GraphAttention(nn.Module):
    """One attention head: every row mixes the rows it is connected to.

    *Source*: Velickovic et al., ICLR 2018, as in the release of DDAG. The pair scores split into a sum over rows and
    columns, so no N x N x 2 out tensor is built: O(N^2) numbers.

    Args:
        in_features: width of a row.
        out_features: width of the result.
        slope: of the leaky ReLU.
        dropout_rate: on the attention weights.
    """

    def __init__(self, in_features: int, out_features: int, *, slope: float = 0.2, dropout_rate: float = 0.2) -> None:
        super().__init__()
        self.slope, self.dropout_rate = slope, dropout_rate
        self.W = nn.Parameter(torch.empty(in_features, out_features))
        self.a = nn.Parameter(torch.empty(2 * out_features, 1))
        nn.init.xavier_uniform_(self.W, gain=1.414)
        nn.init.xavier_uniform_(self.a, gain=1.414)

    def forward(self, rows: Tensor, connected: Tensor) -> Tensor:
        """Mix.

        Args:
            rows: ``(N, in)``.
            connected: ``(N, N)`` bool; every row must be connected to something, itself for example.

        Returns:
            ``(N, out)``.
        """
        projected = rows @ self.W
        left, right = self.a.squeeze(1).chunk(2)
        with torch.autocast(device_type=rows.device.type, enabled=False):
            precise = at_least_float32(projected)
            scores = leaky_relu((precise @ left)[:, None] + (precise @ right)[None, :], self.slope)
        weights = attention_weights(scores, connected, dropout_rate=self.dropout_rate, training=self.training)
        return weights.to(projected.dtype) @ projected


class CrossModalityGraph(nn.Module):
    """Identity log-probabilities of a batch whose rows exchange features along identity links; training only.

    *Source*: CGSA of DDAG: heads side by side with ELU, one output head, ELU, log-softmax. The release normalises the
    adjacency, which changes nothing: only its support is used.

    Args:
        channels: D.
        hidden: width of each head.
        num_classes: C.
        heads: number of heads.
        dropout_rate: on inputs, hidden rows and attention weights.
        slope: of the leaky ReLU.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        num_classes: int,
        *,
        heads: int = 4,
        dropout_rate: float = 0.2,
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.dropout_rate = dropout_rate
        self.heads = nn.ModuleList(
            GraphAttention(channels, hidden, slope=slope, dropout_rate=dropout_rate) for _ in range(heads)
        )
        self.out_att = GraphAttention(heads * hidden, num_classes, slope=slope, dropout_rate=dropout_rate)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """``(N, D)`` pooled features and ``(N,)`` labels to ``(N, C)`` log-probabilities in float32 or better."""
        connected = labels[:, None] == labels[None, :]
        x = dropout(features, self.dropout_rate, self.training)
        x = torch.cat([elu(head(x, connected)) for head in self.heads], dim=1)
        x = dropout(x, self.dropout_rate, self.training)
        return log_softmax(elu(at_least_float32(self.out_att(x, connected))), dim=1)


def dynamic_weight(previous_loss: float | None) -> float:
    """Weight of the graph loss in an epoch: 0 in the first, then ``1 / (1 + mean loss of the epoch before)``.

    Raises:
        ValueError: a loss that is not finite.
    """
    if previous_loss is None:
        return 0.0
    if not math.isfinite(previous_loss):
        raise ValueError(f"the previous epoch's loss is {previous_loss}")
    return 1 / (1 + previous_loss)
