"""The graph network of MetaPRD at work: it confirms changed pairs and learns by Reptile steps.

*Source*: ``mprd/gcn/`` of the MetaPRD release (docs/methods/metaprd.md). Deliberate differences: gradients are zeroed
before every inner step, the view of an image is a node of its own instead of a self-loop, and all images of a call are
searched at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from gloam.models.dgcnn import DGCNN
from gloam.models.subgraphs import Subgraphs, build_subgraphs, nearest_others
from gloam.precision import dot_products

_CHUNK = 512  # graphs scored at once: 512 x 16 x 2064 floats are 68 MB
_ROWS = 1024  # images searched at once: 1024 x N similarities


class _Unfinished(NamedTuple):
    """Weights before the inner steps, the graphs and targets of those left, and how much of the way counts."""

    start: list[Tensor]
    steps: list[tuple[Subgraphs, Tensor]]
    features: Tensor
    outer_step: float


class PairGraphNetwork(nn.Module):
    """DGCNN on the neighbourhoods of pairs of images.

    Args:
        width: D.
        neighbours: K: an image and its K - 1 nearest.
        hidden: width of the graph convolutions; the head has twice as many channels.
        sort_k: see :class:`gloam.models.dgcnn.DGCNN`.
        inner_steps: R.
        inner_lr: learning rate of the inner steps.
        weight_decay: of the inner steps.
        outer_step: part of the way of the inner steps that is kept.
    """

    def __init__(
        self,
        width: int,
        *,
        neighbours: int = 8,
        hidden: int = 512,
        sort_k: int | None = 16,
        inner_steps: int = 3,
        inner_lr: float = 0.02,
        weight_decay: float = 5e-4,
        outer_step: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = DGCNN(width, hidden=hidden, head=2 * hidden, sort_k=sort_k)
        self._neighbours = neighbours
        self._inner_steps, self._inner_lr, self._decay = inner_steps, inner_lr, weight_decay
        self._outer_step = outer_step
        # Stages gcn_meta and gcn: what is left to do after the step that the trainer's optimiser takes.
        self._unfinished: _Unfinished | None = None

    @torch.no_grad()
    def confirm(
        self, became_positive: Tensor, became_negative: Tensor, indices: Tensor, bank: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Keep the changed pairs that the network agrees with.

        Args:
            became_positive: ``(B, N)`` bool.
            became_negative: ``(B, N)`` bool.
            indices: ``(B,)`` images of the rows.
            bank: ``(N, D)`` unit rows.
        """
        rows, columns = torch.nonzero(became_positive | became_negative, as_tuple=True)
        # The same pair may come from several rows, or from its other end.
        pairs = torch.stack([indices[rows], columns], dim=1).sort(dim=1).values
        pairs, inverse = torch.unique(pairs, dim=0, return_inverse=True)
        same = torch.zeros_like(became_positive)
        same[rows, columns] = (self.probability(pairs, bank) > 0.5)[inverse]
        return became_positive & same, became_negative & ~same

    @torch.no_grad()
    def probability(self, pairs: Tensor, bank: Tensor) -> Tensor:
        """Probability that pairs ``(G, 2)`` of different images show the same identity: ``(G,)``."""
        if len(pairs) == 0:
            return bank.new_empty(0)
        was_training = self.network.training
        self.network.eval()
        ids, places = torch.unique(pairs, return_inverse=True)
        stars = self._stars(bank[ids], bank, ids)
        scores = []
        for part, where in zip(pairs.split(_CHUNK), places.split(_CHUNK), strict=True):
            graphs = build_subgraphs(part[:, 0], part[:, 1], stars[where[:, 0]], stars[where[:, 1]])
            scores.append(self.network(graphs, bank)[:, 1].exp())
        self.network.train(was_training)
        return torch.cat(scores)

    def learn(self, collected: Tensor, bank: Tensor, size: int, generator: torch.Generator) -> float | None:
        """Reptile over shuffled batches of the pairs of an epoch; an incomplete last batch is left out.

        Args:
            collected: ``(P, 3)``: two images, and 1 same, 0 different, -1 void.
            bank: ``(N, D)`` unit rows.
            size: pairs per batch (all, if there are fewer).
            generator: CPU generator.

        Returns:
            Mean loss of the first inner steps; None if there was nothing to learn from.
        """
        pairs = collected[(collected[:, 2] >= 0) & (collected[:, 0] != collected[:, 1])]
        size = min(size, len(pairs))
        if size < 2:
            return None
        parameters = list(self.network.parameters())
        frozen = [not p.requires_grad for p in parameters]
        self.network.requires_grad_(True).train()
        devices = [bank.device] if bank.is_cuda else []
        losses = []
        # Dropout draws from the global generator; forked, and seeded alike in all processes.
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
            order = torch.randperm(len(pairs), generator=generator).to(pairs.device)
            for chosen in order.split(size):
                if len(chosen) == size:
                    graphs, targets = self._graphs(pairs[chosen, :2], bank), pairs[chosen, 2]
                    start = [p.detach().clone() for p in parameters]
                    losses.append(self._inner([(graphs, targets)] * self._inner_steps, bank))
                    self._outer(start, self._outer_step)
        for parameter, was_frozen in zip(parameters, frozen, strict=True):
            parameter.requires_grad_(not was_frozen)
        return sum(losses) / len(losses)

    def view_loss(self, indices: Tensor, views: Tensor, bank: Tensor) -> Tensor:
        """Loss of the pairs (image, its augmented view) and (image, most similar other image of the batch).

        Views are virtual nodes behind the bank, with their own features and neighbours.

        Args:
            indices: ``(B,)``.
            views: ``(B, D)`` unit features of augmented images.
            bank: ``(N, D)`` clean unit features.
        """
        count, size = len(bank), len(indices)
        features = torch.cat([bank, views.to(bank.dtype)])
        virtual = count + torch.arange(size, device=indices.device)
        similar = dot_products(views, views)
        similar = similar.masked_fill(indices[:, None] == indices, -torch.inf)
        others, exists = indices[similar.argmax(dim=1)], (indices[:, None] != indices).any(dim=1)
        left = self._stars(bank[indices], bank, indices)
        right_views = self._stars(views.to(bank.dtype), bank, indices)
        right_others = self._stars(bank[others], bank, others)
        graphs = build_subgraphs(
            torch.cat([indices, indices[exists]]),
            torch.cat([virtual, others[exists]]),
            torch.cat([left, left[exists]]),
            torch.cat([right_views, right_others[exists]]),
        )
        targets = torch.cat([torch.ones_like(indices), torch.zeros_like(indices[exists])])
        return self._begin([(graphs, targets)] * self._inner_steps, features, self._outer_step)

    def meta_loss(
        self, features: Tensor, labels: Tensor, generator: torch.Generator, *, pairs: int = 10, outer_step: float = 0.02
    ) -> Tensor:
        """Loss of pairs among a few meta images alone; every inner step draws its own.

        A positive pair are two random images of a label; a negative one is an image with the most similar image of
        another label. Neighbours are searched among these images.

        *Source*: ``mprd/gcn/gen_meta_gcn_data.py`` and ``gcn_pre_train.py``: 5 images in 8 augmented views each.

        Args:
            features: ``(V, D)`` unit features.
            labels: ``(V,)`` with at least two labels, and two images of one of them.
            generator: CPU generator.
            pairs: positive and negative pairs per inner step.
            outer_step: part of the way of the inner steps that is kept.
        """
        others = labels[:, None] != labels
        mates = ~others & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        paired = torch.nonzero(mates.any(dim=1)).flatten()
        hardest = dot_products(features, features).masked_fill(~others, -torch.inf).argmax(dim=1)
        targets = torch.arange(2, device=labels.device).flip(0).repeat_interleave(pairs)

        def draw(count: int) -> Tensor:
            return torch.randint(count, (pairs,), generator=generator).to(labels.device)

        steps = []
        for _ in range(self._inner_steps):
            first = paired[draw(len(paired))]
            # The first of a random order of the mates.
            noise = torch.rand(pairs, len(labels), generator=generator).to(labels.device)
            second = noise.masked_fill(~mates[first], -1.0).argmax(dim=1)
            anchors = draw(len(labels))
            chosen = torch.stack([torch.cat([first, anchors]), torch.cat([second, hardest[anchors]])], dim=1)
            steps.append((self._graphs(chosen, features), targets))
        return self._begin(steps, features, outer_step)

    def finish_steps(self) -> None:
        """After the optimiser's own step on a loss: the other inner steps, then the outer step."""
        if self._unfinished is not None:
            start, steps, features, outer_step = self._unfinished
            self._unfinished = None
            with torch.enable_grad():
                self._inner(steps, features)
            self._outer(start, outer_step)

    def _begin(self, steps: list[tuple[Subgraphs, Tensor]], features: Tensor, outer_step: float) -> Tensor:
        """Loss of the first inner step; the others wait for :meth:`finish_steps`."""
        start = [p.detach().clone() for p in self.network.parameters()]
        self._unfinished = _Unfinished(start, steps[1:], features, outer_step)
        graphs, targets = steps[0]
        loss: Tensor = nll_loss(self.network(graphs, features), targets)
        return loss

    def _inner(self, steps: list[tuple[Subgraphs, Tensor]], features: Tensor) -> float:
        """Plain gradient steps, averaged over processes; the loss of the first."""
        parameters = list(self.network.parameters())
        first = 0.0
        for number, (graphs, targets) in enumerate(steps):
            loss = nll_loss(self.network(graphs, features), targets)
            gradients = average_over_processes(torch.autograd.grad(loss, parameters))
            first = float(loss.detach()) if number == 0 else first
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(self._inner_lr * (gradient + self._decay * parameter))
        return first

    @torch.no_grad()
    def _outer(self, start: list[Tensor], step: float) -> None:
        for parameter, old in zip(self.network.parameters(), start, strict=True):
            parameter.copy_(old + step * (parameter - old))

    def _graphs(self, pairs: Tensor, bank: Tensor) -> Subgraphs:
        ids, inverse = torch.unique(pairs, return_inverse=True)
        stars = self._stars(bank[ids], bank, ids)
        return build_subgraphs(pairs[:, 0], pairs[:, 1], stars[inverse[:, 0]], stars[inverse[:, 1]])

    def _stars(self, queries: Tensor, bank: Tensor, own: Tensor) -> Tensor:
        parts = zip(queries.split(_ROWS), own.split(_ROWS), strict=True)
        return torch.cat([nearest_others(rows, bank, ids, self._neighbours - 1) for rows, ids in parts])


def average_over_processes(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Means over all processes, in place; unchanged with one process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for gradient in gradients:
            torch.distributed.all_reduce(gradient)
            gradient /= torch.distributed.get_world_size()
    return gradients
