"""The graph network of MetaPRD at work: it confirms changed pairs and learns by Reptile steps.

*Source*: meta-prd.md 10.3 and 10.4. Deliberate differences from the release: gradients are zeroed before every inner
step, and the view of an image is a node of its own instead of a self-loop.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from gloam.models.dgcnn import DGCNN
from gloam.models.subgraphs import Subgraphs, build_subgraphs, nearest_others

_CHUNK = 512  # graphs scored at once: 512 x 16 x 2064 floats are 68 MB


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
        # Stage gcn: where the weights were, and the graphs of the step that the trainer's optimiser takes.
        self._unfinished: tuple[list[Tensor], Subgraphs, Tensor, Tensor] | None = None

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
        kept = []
        for changed, same in ((became_positive, True), (became_negative, False)):
            rows, columns = torch.nonzero(changed, as_tuple=True)
            # The same pair may come from several rows.
            pairs, inverse = torch.unique(torch.stack([indices[rows], columns], dim=1), dim=0, return_inverse=True)
            agreed = (self.probability(pairs, bank) > 0.5) == same
            result = torch.zeros_like(changed)
            result[rows, columns] = agreed[inverse]
            kept.append(result)
        return kept[0], kept[1]

    @torch.no_grad()
    def probability(self, pairs: Tensor, bank: Tensor) -> Tensor:
        """Probability that pairs ``(G, 2)`` of different images show the same person: ``(G,)``."""
        was_training = self.network.training
        self.network.eval()
        scores = [self.network(self._graphs(part, bank), bank)[:, 1].exp() for part in pairs.split(_CHUNK)]
        self.network.train(was_training)
        return torch.cat(scores) if scores else bank.new_empty(0)

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
                    first = self._inner(graphs, bank, targets, self._inner_steps)
                    losses.append(first)
                    self._outer(start)
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
        similar = views @ views.T
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
        start = [p.detach().clone() for p in self.network.parameters()]
        self._unfinished = (start, graphs, features, targets)
        loss: Tensor = nll_loss(self.network(graphs, features), targets)
        return loss

    def finish_steps(self) -> None:
        """After the optimiser's own step on :meth:`view_loss`: the other inner steps, then the outer step."""
        if self._unfinished is not None:
            start, graphs, features, targets = self._unfinished
            self._unfinished = None
            with torch.enable_grad():
                if self._inner_steps > 1:
                    self._inner(graphs, features, targets, self._inner_steps - 1)
            self._outer(start)

    def _inner(self, graphs: Subgraphs, features: Tensor, targets: Tensor, steps: int) -> float:
        """Plain gradient steps; the loss of the first."""
        parameters = list(self.network.parameters())
        first = 0.0
        for step in range(steps):
            loss = nll_loss(self.network(graphs, features), targets)
            gradients = torch.autograd.grad(loss, parameters)
            first = float(loss.detach()) if step == 0 else first
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(self._inner_lr * (gradient + self._decay * parameter))
        return first

    @torch.no_grad()
    def _outer(self, start: list[Tensor]) -> None:
        for parameter, old in zip(self.network.parameters(), start, strict=True):
            parameter.copy_(old + self._outer_step * (parameter - old))

    def _graphs(self, pairs: Tensor, bank: Tensor) -> Subgraphs:
        ids, inverse = torch.unique(pairs, return_inverse=True)
        stars = self._stars(bank[ids], bank, ids)
        return build_subgraphs(pairs[:, 0], pairs[:, 1], stars[inverse[:, 0]], stars[inverse[:, 1]])

    def _stars(self, queries: Tensor, bank: Tensor, own: Tensor) -> Tensor:
        return nearest_others(queries, bank, own, self._neighbours - 1)
