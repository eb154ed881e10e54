"""The five samplers of video systems, and the classic identity sampler, which is the first of them.

*Source*: ``data/sampler.py`` of the M3-ReID release, with three slips repaired: identities without one modality are
left out instead of crashing, no epoch is empty and short groups are refilled, an identity short in one modality only is
topped up. docs/methods/m3reid.md gives the release's names.
"""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.sampling.base import (
    Batches,
    IdentityBatches,
    Indices,
    PlainBatches,
    Samples,
    Strategy,
    check_identities,
    chunks,
    groups,
    register,
)

logger = logging.getLogger(__name__)


class IdentityOptions(IdentityBatches):
    """P identities with K samples each of any modality."""

    name: Literal["identity"] = "identity"


@register("identity")
class Identity(Strategy[IdentityOptions]):
    """P identities x K samples, blind to modality: the classic RandomIdentitySampler (``norm_triplet`` in M3-ReID).

    Each identity's samples are shuffled and cut into chunks of K; an identity with fewer than K draws K with
    replacement. Within an epoch no sample repeats for identities with at least K.
    """

    Options = IdentityOptions

    def __init__(self, options: IdentityOptions, samples: Samples) -> None:
        super().__init__(options, samples)
        self._by_id = groups(samples.labels)
        check_identities(options, len(self._by_id))

    def make(self, random: np.random.RandomState) -> Batches:
        k = self.options.instances
        own = {}
        for i, pool in self._by_id.items():
            rows = random.choice(pool, k, replace=True) if len(pool) < k else pool
            own[i] = chunks(random.permutation(rows), k)
        return _emit(random, own, self.options.identities)


class IdentityShareOptions(IdentityBatches):
    """P identities with K samples each, of which a fixed share is infrared."""

    name: Literal["identity_share"] = "identity_share"
    infrared_share: float = Field(0.5, ge=0, le=1, description="share of infrared samples per identity")


@register("identity_share")
class IdentityShare(Strategy[IdentityShareOptions]):
    """P identities x K samples with ``floor(K * infrared_share)`` infrared ones in every chunk
    (``cross_modality_triplet`` in M3-ReID)."""

    Options = IdentityShareOptions

    def __init__(self, options: IdentityShareOptions, samples: Samples) -> None:
        super().__init__(options, samples)
        self._visible, self._infrared = _both(options, samples)

    def make(self, random: np.random.RandomState) -> Batches:
        k = self.options.instances
        quota = int(k * self.options.infrared_share)

        def top_up(pool: Indices, wanted: int) -> Indices:
            return random.choice(pool, wanted, replace=True) if len(pool) < wanted else pool

        own = {}
        for i in self._visible:
            reds = top_up(self._infrared[i], quota)
            colours = top_up(self._visible[i], k - quota)
            own[i] = [
                random.permutation(np.concatenate([random.choice(reds, quota), random.choice(colours, k - quota)]))
                for _ in range((len(reds) + len(colours)) // k)
            ]
        return _emit(random, own, self.options.identities)


class ModalityHalvesOptions(PlainBatches):
    """Half a batch infrared, half visible, of any identities."""

    name: Literal["modality_halves"] = "modality_halves"
    batch_size: int = Field(32, ge=2, le=10_000_000, description="rows per batch, both modalities together")


@register("modality_halves")
class ModalityHalves(Strategy[ModalityHalvesOptions]):
    """First half of a batch infrared, second half visible, without identity structure (``cross_modality_random`` in
    M3-ReID).

    The shorter list is extended by whole permutations and a final draw without replacement to the length of the longer.
    """

    Options = ModalityHalvesOptions

    def __init__(self, options: ModalityHalvesOptions, samples: Samples) -> None:
        super().__init__(options, samples)
        self._lists = [
            np.flatnonzero((samples.modalities == m) & (samples.labels >= 0))
            for m in (Modality.INFRARED, Modality.VISIBLE)
        ]
        if min(map(len, self._lists)) == 0:
            raise GloamError(
                f"Sampler {options.name!r} needs both modalities; found {len(self._lists[1])} visible and "
                f"{len(self._lists[0])} infrared samples."
            )

    def make(self, random: np.random.RandomState) -> Batches:
        half, length = self.options.batch_size // 2, max(map(len, self._lists))
        orders = []
        for indices in self._lists:
            # The head of a permutation is a draw without replacement.
            passes = [random.permutation(indices) for _ in range(-(-length // len(indices)))]
            orders.append(np.concatenate(passes)[:length])
        starts = range(0, length - half + 1, half)
        return [np.concatenate([order[t : t + half] for order in orders]) for t in starts]


class IdentityHalvesOptions(IdentityBatches):
    """P identities: K/2 infrared samples of each, then K/2 visible ones of the same."""

    name: Literal["identity_halves"] = "identity_halves"
    instances: int = Field(4, ge=2, le=100_000, description="K: samples per identity, half of them infrared")


@register("identity_halves")
class IdentityHalves(Strategy[IdentityHalvesOptions]):
    """P identities; first half of a batch K/2 infrared of each, second half K/2 visible of the same identities
    (``cross_modality_identity`` in M3-ReID).

    ``floor(N / (C * 2 floor(K/2)))`` passes over the identities, at least one; the last group of a pass is refilled
    with identities drawn from the rest.
    """

    Options = IdentityHalvesOptions

    def __init__(self, options: IdentityHalvesOptions, samples: Samples) -> None:
        super().__init__(options, samples)
        self._visible, self._infrared = _both(options, samples)

    def make(self, random: np.random.RandomState) -> Batches:
        p, half = self.options.identities, self.options.instances // 2
        ids = np.array(list(self._visible))
        total = sum(map(len, self._visible.values())) + sum(map(len, self._infrared.values()))
        batches = []
        for _ in range(max(1, total // (len(ids) * 2 * half))):
            order = random.permutation(ids)
            if missing := -len(order) % p:
                others = np.setdiff1d(ids, order[len(order) - (p - missing) :])
                order = np.concatenate([order, random.choice(others, missing, replace=False)])
            for group in order.reshape(-1, p).tolist():
                rows = [
                    random.choice(pool[i], half, replace=len(pool[i]) < half)
                    for pool in (self._infrared, self._visible)
                    for i in group
                ]
                batches.append(np.concatenate(rows))
        return batches


class IdentityAlternatingOptions(IdentityBatches):
    """P identities with K samples each, infrared and visible in turn."""

    name: Literal["identity_alternating"] = "identity_alternating"
    instances: int = Field(4, ge=2, le=100_000, description="K: samples per identity, an even number")

    @model_validator(mode="after")
    def _even(self) -> IdentityAlternatingOptions:
        if self.instances % 2:
            raise ValueError(f"instances must be even, not {self.instances}: modalities alternate")
        return self


@register("identity_alternating")
class IdentityAlternating(Strategy[IdentityAlternatingOptions]):
    """P identities x K samples that alternate infrared, visible, ... (``identity_cross_modality`` in M3-ReID).

    Each list shorter than K/2 is redrawn to K/2 with replacement, then the longer is cut to the shorter's length.
    """

    Options = IdentityAlternatingOptions

    def __init__(self, options: IdentityAlternatingOptions, samples: Samples) -> None:
        super().__init__(options, samples)
        self._visible, self._infrared = _both(options, samples)

    def make(self, random: np.random.RandomState) -> Batches:
        half = self.options.instances // 2
        own = {}
        for i in self._visible:
            pools = [
                pool[i] if len(pool[i]) >= half else random.choice(pool[i], half)
                for pool in (self._infrared, self._visible)
            ]
            length = min(map(len, pools))
            pairs = np.stack([random.permutation(pool)[:length] for pool in pools], axis=1)
            own[i] = chunks(pairs.reshape(-1), self.options.instances)
        return _emit(random, own, self.options.identities)


def _both(options: IdentityBatches, samples: Samples) -> tuple[dict[int, Indices], dict[int, Indices]]:
    visible = groups(samples.labels, samples.modalities == Modality.VISIBLE)
    infrared = groups(samples.labels, samples.modalities == Modality.INFRARED)
    kept = [i for i in visible if i in infrared]
    if lost := len(set(visible) | set(infrared)) - len(kept):
        logger.warning("Sampler %r leaves out %d identities that lack one modality.", options.name, lost)
    check_identities(options, len(kept), "identities with samples in both modalities")
    return {i: visible[i] for i in kept}, {i: infrared[i] for i in kept}


def _emit(random: np.random.RandomState, own: dict[int, list[Indices]], identities: int) -> Batches:
    """While at least P identities own a chunk: choose P of them uniformly and emit one chunk of each."""
    ids = np.array([i for i, pieces in own.items() if pieces])
    left = np.array([len(own[i]) for i in ids.tolist()])
    batches = []
    while len(ids) >= identities:
        chosen = random.choice(len(ids), identities, replace=False)
        left[chosen] -= 1
        batches.append(
            np.concatenate([own[i][n] for i, n in zip(ids[chosen].tolist(), left[chosen].tolist(), strict=True)])
        )
        if (left[chosen] == 0).any():
            ids, left = ids[left > 0], left[left > 0]
    return batches
