"""Graphs around pairs of images, for a whole batch by tensor operations.

*Source*: ``mprd/gcn/util_gcn.py`` of the MetaPRD release: the two images and their nearest neighbours, two stars joined
at common neighbours. Deliberate difference: nodes 0 and 1 are the pair (the release labels and cuts at the two smallest
image numbers).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gloam.precision import dot_products
from gloam.search.nearest import nearest_columns

NODE_LABELS = 16  # width of the one-hot node label


class Subgraphs(NamedTuple):
    """G graphs of at most n = 2 K nodes.

    Attributes:
        nodes: ``(G, n)`` ids: the pair first, then the others ascending; padding repeats the first node.
        mask: ``(G, n)`` bool: real nodes.
        adjacency: ``(G, n, n)`` float 0/1, symmetric; the pair's own link is removed.
        labels: ``(G, n)`` double-radius labels.
    """

    nodes: Tensor
    mask: Tensor
    adjacency: Tensor
    labels: Tensor


def nearest_others(queries: Tensor, bank: Tensor, own: Tensor, count: int) -> Tensor:
    """The most similar rows of a bank by cosine, without the query's own row.

    Args:
        queries: ``(U, D)`` unit rows.
        bank: ``(N, D)`` unit rows.
        own: ``(U,)`` row to leave out.
        count: how many; at most N - 1.

    Returns:
        ``(U, count)`` indices, ties by index.
    """
    distances = dot_products(queries, bank).neg_()
    distances.scatter_(1, own[:, None], torch.inf)
    return nearest_columns(distances, min(count, len(bank) - 1))


def build_subgraphs(left: Tensor, right: Tensor, left_neighbours: Tensor, right_neighbours: Tensor) -> Subgraphs:
    """One graph per pair.

    For two stars the double-radius label (DRNL) is 1 for the pair, 2 for common neighbours and 0 for all others, which
    cannot reach both without passing the other one.

    Args:
        left: ``(G,)`` ids.
        right: ``(G,)`` ids, different from ``left``.
        left_neighbours: ``(G, K - 1)`` ids linked to ``left``.
        right_neighbours: ``(G, K - 1)`` ids linked to ``right``.
    """
    far = torch.iinfo(left.dtype).max
    others = torch.cat([left_neighbours, right_neighbours], dim=1)
    others = others.masked_fill((others == left[:, None]) | (others == right[:, None]), far).sort(dim=1).values
    repeated = torch.zeros_like(others, dtype=torch.bool)
    repeated[:, 1:] = others[:, 1:] == others[:, :-1]
    others = others.masked_fill(repeated, far).sort(dim=1).values
    nodes = torch.cat([left[:, None], right[:, None], others], dim=1)
    mask = nodes != far
    in_left = (nodes[:, :, None] == left_neighbours[:, None]).any(dim=2) & mask
    in_right = (nodes[:, :, None] == right_neighbours[:, None]).any(dim=2) & mask
    in_left[:, :2] = False
    in_right[:, :2] = False
    adjacency = torch.zeros(*nodes.shape, nodes.shape[1], device=nodes.device)
    adjacency[:, 0] = in_left.float()
    adjacency[:, 1] = in_right.float()
    adjacency = adjacency + adjacency.transpose(1, 2)
    labels = 2 * (in_left & in_right).long()
    labels[:, :2] = 1
    return Subgraphs(torch.where(mask, nodes, left[:, None]), mask, adjacency, labels)
