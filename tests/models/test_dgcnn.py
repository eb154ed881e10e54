"""The graph network of MetaPRD node by node, with biases that are not zero."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from gloam.models.dgcnn import DGCNN
from gloam.models.subgraphs import Subgraphs, build_subgraphs

WIDTH, HIDDEN, HEAD = 3, 4, 5


def _network(sort_k: int | None = 16) -> DGCNN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DGCNN(WIDTH, hidden=HIDDEN, head=HEAD, sort_k=sort_k).double().eval()
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
    return network


def _bank(count: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return normalize(torch.randn(count, WIDTH, generator=generator, dtype=torch.float64), dim=1)


def _graphs(*sizes: int) -> Subgraphs:
    """A pair per size: both images have ``size - 2`` neighbours in all, the first of them in common."""
    graphs = []
    for number, size in enumerate(sizes):
        others = torch.arange(10, 10 + size - 2)
        left, right = others[: (size - 1) // 2 + 1], torch.cat([others[:1], others[(size - 1) // 2 + 1 :]])
        pad = 7 - len(left), 7 - len(right)  # repeated neighbours are one node
        left, right = torch.cat([left, left[:1].repeat(pad[0])]), torch.cat([right, right[:1].repeat(pad[1])])
        pair = torch.tensor([number]), torch.tensor([number + 5])
        graphs.append(build_subgraphs(*pair, left[None], right[None]))
        assert int(graphs[-1].mask.sum()) == size
    return Subgraphs(*(torch.cat(parts) for parts in zip(*graphs, strict=True)))


def _layers(network: DGCNN, graphs: Subgraphs, g: int, bank: Tensor) -> list[list[float]]:
    """The three layers of every node of a graph, side by side: sums over neighbours and itself, then the bias, and
    both over the number of them."""
    size = int(graphs.mask[g].sum())
    links = graphs.adjacency[g, :size, :size].tolist()
    near = [[j for j in range(size) if j == i or links[i][j]] for i in range(size)]
    rows = [
        [float(k == label) for k in range(16)] + bank[node].tolist()
        for node, label in zip(graphs.nodes[g, :size].tolist(), graphs.labels[g, :size].tolist(), strict=True)
    ]
    joined: list[list[float]] = [[] for _ in rows]
    for layer in network.gnn.conv_params:
        weight, bias = layer.weight.tolist(), layer.bias.tolist()
        projected = [[sum(w * x for w, x in zip(out, row, strict=True)) for out in weight] for row in rows]
        rows = [
            [math.tanh((sum(projected[j][o] for j in near[i]) + bias[o]) / len(near[i])) for o in range(len(bias))]
            for i in range(size)
        ]
        joined = [own + row for own, row in zip(joined, rows, strict=True)]
    return joined


def _score(network: DGCNN, joined: list[list[float]], kept: int) -> Tensor:
    """Sorting by the last layer, the convolutions over nodes and the head."""
    ordered = sorted(joined, key=lambda row: -row[-1])[:kept]
    ordered += [[0.0] * len(joined[0])] * (kept - len(ordered))
    gnn = network.gnn
    first = torch.stack([gnn.conv1d_params1.weight[:, 0] @ torch.tensor(row).double() for row in ordered], dim=1)
    first = (first + gnn.conv1d_params1.bias[:, None]).relu()
    halved = torch.stack([first[:, 2 * i : 2 * i + 2].amax(1) for i in range(kept // 2)], dim=1)
    seconds = [
        (gnn.conv1d_params2.weight * halved[None, :, i : i + 5]).sum((1, 2)) + gnn.conv1d_params2.bias
        for i in range(halved.shape[1] - 4)
    ]
    top = torch.stack(seconds).relu().amax(0)
    hidden = (network.mlp.h1_weights.weight @ top + network.mlp.h1_weights.bias).relu()
    logits = network.mlp.h2_weights.weight @ hidden + network.mlp.h2_weights.bias
    return logits - logits.exp().sum().log()


def test_scores_are_the_formula_with_biases_divided_by_the_degree() -> None:
    network, graphs, bank = _network(), _graphs(5, 9, 12), _bank()
    scores = network(graphs, bank)
    for g in range(3):
        torch.testing.assert_close(scores[g], _score(network, _layers(network, graphs, g, bank), 16))


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ((14, 4, 12, 11, 13), 12),  # ascending 4 11 12 13 14: the third is at 0.6 x 5
        ((14, 10, 11, 14), 14),  # 0.6 x 4 = 2.4: the third of 10 11 14 14
        ((5, 6, 7), 10),  # never fewer than ten
        ((13,), 13),
    ],
)
def test_the_published_percentile_of_a_call(sizes: tuple[int, ...], kept: int) -> None:
    network, graphs, bank = _network(sort_k=None), _graphs(*sizes), _bank()
    scores = network(graphs, bank)
    for g in range(len(sizes)):
        torch.testing.assert_close(scores[g], _score(network, _layers(network, graphs, g, bank), kept))


def test_labels_beyond_the_one_hot_are_clipped() -> None:
    network, graphs, bank = _network(), _graphs(6), _bank()
    far, clipped = (graphs._replace(labels=graphs.labels.clone()) for _ in range(2))
    far.labels[0, 4], clipped.labels[0, 4] = 99, 15
    torch.testing.assert_close(network(far, bank), network(clipped, bank))
