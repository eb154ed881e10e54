from __future__ import annotations

import torch
from torch.nn.functional import normalize

from gloam.models.dgcnn import DGCNN
from gloam.models.pair_graph import PairGraphNetwork
from gloam.models.subgraphs import build_subgraphs, nearest_others


def bank(count: int = 30, width: int = 8) -> torch.Tensor:
    return normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(0)), dim=1)


def test_two_stars_without_the_pairs_own_link() -> None:
    graphs = build_subgraphs(torch.tensor([7]), torch.tensor([2]), torch.tensor([[9, 2, 4]]), torch.tensor([[4, 7, 1]]))
    assert graphs.nodes[0, graphs.mask[0]].tolist() == [7, 2, 1, 4, 9]
    assert graphs.labels[0, graphs.mask[0]].tolist() == [1, 1, 0, 2, 0]
    links = {(i, j) for i, j in graphs.adjacency[0].nonzero().tolist() if i < j}
    assert links == {(0, 3), (0, 4), (1, 2), (1, 3)}
    assert torch.equal(graphs.adjacency, graphs.adjacency.transpose(1, 2))


def test_graph_layers_are_the_formula_node_by_node() -> None:
    torch.manual_seed(0)
    network = DGCNN(8, hidden=5, head=6).eval()
    rows = bank()
    pairs = torch.tensor([[0, 1], [5, 9]])
    graphs = build_subgraphs(pairs[:, 0], pairs[:, 1], *(nearest_others(rows[p], rows, p, 4) for p in pairs.T))
    result = network(graphs, rows)
    assert torch.allclose(result.exp().sum(1), torch.ones(2))
    for g in range(2):
        nodes = graphs.nodes[g][graphs.mask[g]]
        size = len(nodes)
        z = torch.cat([torch.nn.functional.one_hot(graphs.labels[g, :size], 16).float(), rows[nodes]], dim=1)
        looped = graphs.adjacency[g, :size, :size] + torch.eye(size)
        outputs = []
        for layer in network.gnn.conv_params:
            z = torch.tanh((looped @ z @ layer.weight.T + layer.bias) / looped.sum(1, keepdim=True))
            outputs.append(z)
        joined = torch.cat(outputs, 1)[z[:, 0].argsort(descending=True)]
        joined = torch.cat([joined, torch.zeros(16 - size, joined.shape[1])]).reshape(1, 1, -1)
        heads = torch.nn.functional.max_pool1d(network.gnn.conv1d_params1(joined).relu(), 2, 2)
        top = network.gnn.conv1d_params2(heads).relu().amax(2)
        torch.testing.assert_close(result[g : g + 1], network.mlp(top), atol=1e-5, rtol=1e-5)


def test_published_size() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in DGCNN(2048).parameters()) == 14_959_107


def test_a_score_does_not_depend_on_the_other_pairs() -> None:
    torch.manual_seed(1)
    network, rows = PairGraphNetwork(8, neighbours=4, hidden=4), bank()
    pairs = torch.tensor([[0, 1], [5, 9], [3, 20], [8, 2]])
    together, alone = network.probability(pairs, rows), network.probability(pairs[2:3], rows)
    torch.testing.assert_close(together[2:3], alone)


def test_unconfirmed_pairs_are_dropped() -> None:
    torch.manual_seed(1)
    network, rows = PairGraphNetwork(8, neighbours=4, hidden=4), bank()
    changed = torch.zeros(2, 30, dtype=torch.bool)
    changed[0, [3, 4, 5]] = changed[1, [4, 7]] = True
    indices = torch.tensor([0, 0])
    score = {j: float(network.probability(torch.tensor([[0, j]]), rows)) for j in (3, 4, 5, 7)}
    positive, negative = network.confirm(changed, changed, indices, rows)
    for row, j in changed.nonzero().tolist():
        assert bool(positive[row, j]) == (score[j] > 0.5)
        assert bool(negative[row, j]) == (score[j] <= 0.5)
    assert not (positive & ~changed).any()


def test_learning_lowers_the_loss_and_restores_frozen_parameters() -> None:
    torch.manual_seed(0)
    network, rows = PairGraphNetwork(8, neighbours=4, hidden=8, inner_lr=0.1), bank()
    network.requires_grad_(False)
    pairs = torch.tensor([[i, (i + 1) % 30, i % 2] for i in range(30)] + [[0, 5, -1]])
    losses = [network.learn(pairs, rows, 16, torch.Generator().manual_seed(s)) for s in range(60)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert not any(p.requires_grad for p in network.parameters())
    assert network.learn(pairs[-1:], rows, 16, torch.Generator()) is None


def test_outer_step_of_one_keeps_the_inner_steps_and_of_zero_forgets_them() -> None:
    for step, moves in ((1.0, True), (0.0, False)):
        torch.manual_seed(0)
        network = PairGraphNetwork(8, neighbours=4, hidden=4, outer_step=step)
        before = [p.clone() for p in network.parameters()]
        loss = network.view_loss(torch.tensor([1, 2, 3]), bank(3), bank())
        loss.backward()
        assert torch.isfinite(loss)
        network.finish_steps()
        assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)) == moves


def test_meta_images_are_paired_among_themselves() -> None:
    torch.manual_seed(0)
    network = PairGraphNetwork(8, neighbours=4, hidden=8, inner_lr=0.1)
    labels = torch.arange(5).repeat_interleave(8)
    g = torch.Generator().manual_seed(0)
    views = normalize(bank(5)[labels] + 0.3 * torch.randn(40, 8, generator=g), dim=1)
    network.meta_loss(views, labels, g, pairs=200)
    assert network._unfinished is not None
    assert len(network._unfinished.steps) == 2
    for graphs, targets in network._unfinished.steps:
        pair = graphs.nodes[:, :2]
        assert torch.equal((labels[pair[:, 0]] == labels[pair[:, 1]]).long(), targets)
        assert (pair[:, 0] != pair[:, 1]).all()
        similar = views @ views.T
        for a, b in pair[targets == 0].tolist():
            assert similar[a, b] == similar[a][labels != labels[a]].max()
        # Both ends of positive pairs are spread over the views.
        assert all(len(pair[targets == 1][:, end].unique()) > 30 for end in (0, 1))


def test_meta_steps_lower_the_loss_and_are_kept_in_part() -> None:
    torch.manual_seed(0)
    network = PairGraphNetwork(8, neighbours=4, hidden=8, inner_lr=0.1)
    labels, g = torch.arange(5).repeat_interleave(8), torch.Generator().manual_seed(0)
    views = normalize(bank(5)[labels] + 0.1 * torch.randn(40, 8, generator=g), dim=1)
    before = [p.detach().clone() for p in network.parameters()]
    network.meta_loss(views, labels, g, outer_step=0.0)
    network.finish_steps()
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    losses = []
    for _ in range(60):
        losses.append(float(network.meta_loss(views, labels, g, outer_step=1.0).detach()))
        network.finish_steps()
    assert sum(losses[-10:]) < sum(losses[:10])


def test_a_pair_is_scored_alike_from_both_ends() -> None:
    torch.manual_seed(1)
    network, rows = PairGraphNetwork(8, neighbours=4, hidden=4), bank()
    changed = torch.zeros(2, 30, dtype=torch.bool)
    changed[0, 7] = changed[1, 3] = True
    positive, negative = network.confirm(changed, changed, torch.tensor([3, 7]), rows)
    assert positive[0, 7] == positive[1, 3] != negative[0, 7]
    assert negative[0, 7] == negative[1, 3]
    nothing = torch.zeros_like(changed)
    assert not any(kept.any() for kept in network.confirm(nothing, nothing, torch.tensor([3, 7]), rows))


def test_neighbours_of_nodes_are_those_of_full_precision_under_autocast() -> None:
    rows, own = bank(300, 64), torch.arange(300)
    plain = nearest_others(rows, rows, own, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest_others(rows, rows, own, 7), plain)
