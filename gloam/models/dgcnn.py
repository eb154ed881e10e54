"""DGCNN: graph convolutions, sort pooling and a small convolutional head that says whether a pair is one identity.

*Source*: Zhang et al., "An End-to-End Deep Learning Architecture for Graph Classification", AAAI 2018, as in
``mprd/gcn/gcn.py`` of the MetaPRD release. Graphs have at most 16 nodes, so they are dense padded batches. Deliberate
difference: sort pooling keeps a fixed number of nodes, so that a pair's score does not depend on the other pairs of a
call.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, log_softmax, max_pool1d, one_hot, pad, relu

from gloam.models.subgraphs import NODE_LABELS, Subgraphs


class _GraphLayers(nn.Module):
    """Three graph convolutions, sort pooling, two 1-d convolutions. Names are those of the published state."""

    def __init__(self, width: int, hidden: int, head: int, sort_k: int | None) -> None:
        super().__init__()
        sizes = [(width, hidden), (hidden, hidden), (hidden, 1)]
        self.conv_params = nn.ModuleList(nn.Linear(inner, outer) for inner, outer in sizes)
        total = 2 * hidden + 1
        self.conv1d_params1 = nn.Conv1d(1, head, total, total)
        self.conv1d_params2 = nn.Conv1d(head, 2 * head, 5)
        self._sort_k = sort_k

    def forward(self, x: Tensor, mask: Tensor, adjacency: Tensor) -> Tensor:
        """``(G, n, F)`` node inputs to ``(G, 2 head)``."""
        looped = adjacency + torch.eye(adjacency.shape[1], device=x.device, dtype=x.dtype)
        degrees = looped.sum(dim=2, keepdim=True)
        outputs = []
        for layer in self.conv_params:
            linear = cast(nn.Linear, layer)
            # The bias is divided by the degree too, as published.
            x = torch.tanh((looped @ (x @ linear.weight.T) + linear.bias) / degrees) * mask[:, :, None]
            outputs.append(x)
        joined = torch.cat(outputs, dim=2)
        k = self._kept(mask)
        order = x[:, :, 0].masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :k]
        pooled = joined.gather(1, order[:, :, None].expand(-1, -1, joined.shape[2]))
        pooled = pad(pooled, (0, 0, 0, k - pooled.shape[1]))
        heads = relu(self.conv1d_params1(pooled.flatten(1)[:, None]))
        heads = relu(self.conv1d_params2(max_pool1d(heads, 2, 2)))
        return relu(heads.amax(dim=2))

    def _kept(self, mask: Tensor) -> int:
        if self._sort_k is not None:
            return self._sort_k
        sizes = mask.sum(dim=1).sort().values
        return max(10, int(sizes[math.ceil(0.6 * len(sizes)) - 1]))


class _PairHead(nn.Module):
    """Two linear layers to the log-probabilities."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.h1_weights = nn.Linear(width, width // 2)
        self.h2_weights = nn.Linear(width // 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """``(G, width)`` to ``(G, 2)``."""
        hidden = dropout(relu(self.h1_weights(x)), 0.5, self.training)
        return log_softmax(self.h2_weights(hidden), dim=1)


class DGCNN(nn.Module):
    """Log-probabilities (different, same) of pairs from their subgraphs.

    Args:
        width: D of the image features.
        hidden: width of the graph convolutions.
        head: channels of the first 1-d convolution.
        sort_k: nodes kept by sort pooling, at least 10; None: the published percentile over the graphs of a call.
    """

    def __init__(self, width: int, *, hidden: int = 512, head: int = 1024, sort_k: int | None = 16) -> None:
        super().__init__()
        self.gnn = _GraphLayers(width + NODE_LABELS, hidden, head, sort_k)
        self.mlp = _PairHead(2 * head)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, graphs: Subgraphs, features: Tensor) -> Tensor:
        """Score graphs.

        Args:
            graphs: G graphs.
            features: ``(M, D)`` unit features of every id that occurs.

        Returns:
            ``(G, 2)`` log-probabilities; column 1: same identity.
        """
        # Full precision under autocast: the order of the nodes and the verdict on a pair are choices.
        with torch.autocast(device_type=features.device.type, enabled=False):
            labels = one_hot(graphs.labels.clamp(0, NODE_LABELS - 1), NODE_LABELS).to(features.dtype)
            inputs = torch.cat([labels, features[graphs.nodes]], dim=2) * graphs.mask[:, :, None]
            return cast(Tensor, self.mlp(self.gnn(inputs, graphs.mask, graphs.adjacency.to(features.dtype))))
