"""A bank of unit prototypes per stripe and identity, and the soft labels that travel from it (PF-MGCD)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class PartMemory(nn.Module):
    """K x N x D unit prototypes with momentum updates, shared by both modalities.

    Slots start as random unit vectors that are never used: ``initialised`` marks the ones that hold a prototype.
    Memory: 4 K N D bytes (SYSU-MM01 with 6 parts and 256 numbers: 2.4 MB).

    Args:
        num_parts: K.
        num_ids: N.
        width: D.
        momentum: weight of the old prototype.
    """

    memory: Tensor
    initialised: Tensor

    def __init__(self, num_parts: int, num_ids: int, width: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(num_parts, num_ids, width, generator=generator)
        self.register_buffer("memory", normalize(start, dim=2))
        self.register_buffer("initialised", torch.zeros(num_ids, dtype=torch.bool))

    @torch.no_grad()
    def initialise(self, features: Tensor, labels: Tensor) -> None:
        """Store the normalised mean of the unit features of every identity.

        Args:
            features: ``(n, K, D)``.
            labels: ``(n,)``; -1 rows are ignored.
        """
        means, present = self._class_means(features, labels)
        self.memory[:, present] = normalize(means, dim=2, eps=1e-12)
        self.initialised[present] = True

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Move the prototypes of a batch's identities towards their batch means; the order of rows does not matter.

        Args:
            features: ``(n, K, D)`` detached training features.
            labels: ``(n,)``; -1 rows are ignored.
        """
        means, present = self._class_means(features, labels)
        old = self.memory[:, present]
        momentum = self.momentum * self.initialised[present].to(old.dtype)[None, :, None]
        moved = torch.where(momentum > 0, momentum * old + (1 - momentum) * means, means)
        self.memory[:, present] = normalize(moved, dim=2, eps=1e-12)
        self.initialised[present] = True

    def similarities(self, features: Tensor) -> Tensor:
        """Cosine of every feature to every slot of its stripe: ``(n, K, D)`` -> ``(n, K, N)``.

        In the memory's precision under autocast too: half-precision products change every third set of neighbours.
        """
        with torch.autocast(device_type=features.device.type, enabled=False):
            units = normalize(features.to(self.memory.dtype), dim=2, eps=1e-12)
            return torch.einsum("bkd,knd->bkn", units, self.memory)

    def _class_means(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Means ``(K, M, D)`` of unit features and the M identities that occur."""
        known = labels >= 0
        units = normalize(features[known].to(self.memory.dtype), dim=2, eps=1e-12)
        present, inverse, counts = torch.unique(labels[known], return_inverse=True, return_counts=True)
        sums = units.new_zeros(len(present), *units.shape[1:]).index_add_(0, inverse, units)
        return (sums / counts[:, None, None]).transpose(0, 1), present


@torch.no_grad()
def propagate(
    similarities: Tensor, initialised: Tensor, *, top_k: int = 5, temperature: float = 3.0, scale: float = 30.0
) -> tuple[Tensor, Tensor]:
    """Soft labels over the nearest prototypes, and how sure they are.

    Args:
        similarities: ``(n, K, N)`` cosines.
        initialised: ``(N,)`` bool; other slots get no probability.
        top_k: neighbours per image and stripe; clamped to the number of initialised slots.
        temperature: divides the scaled cosine.
        scale: multiplies the cosine (1 reproduces the first release, whose labels are almost uniform).

    Returns:
        ``(n, K, N)`` float32 probabilities with at most top_k non-zeros, and ``(n, K)`` weights exp(-entropy).
    """
    slots = torch.nonzero(initialised).flatten()
    scores = similarities.float()[:, :, slots]
    values, columns = scores.topk(min(top_k, len(slots)), dim=2)
    weights = (values * (scale / temperature)).softmax(dim=2)
    soft = torch.zeros(similarities.shape, device=similarities.device)
    soft.scatter_(2, slots[columns], weights)
    # xlogy has 0 log 0 = 0.
    entropy = -torch.special.xlogy(weights, weights).sum(dim=2)
    return soft, (-entropy).exp()
