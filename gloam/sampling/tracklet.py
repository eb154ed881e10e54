"""The five strategies of video systems, and the classic identity sampler, which is the first of them.

*Source*: ``data/sampler.py`` of the M3-ReID release, with three slips repaired: identities without one modality are
left out instead of crashing, no epoch is empty, short groups are refilled, an identity short in one modality only is
topped up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.sampling.base import Batches, SamplerConfig, Strategy, check_identities, groups

Indices = NDArray[np.int64]
logger = logging.getLogger(__name__)


def norm_triplet(config: SamplerConfig, labels: Indices, modalities: Indices, cams: Indices) -> Strategy:
    """P identities x K samples, blind to modality (5.1): the classic RandomIdentitySampler.

    Each identity's samples are shuffled and cut into chunks of K; an identity with fewer than K draws K with
    replacement. Within an epoch no sample repeats for identities with at least K.
    """
    by_id = groups(labels)
    check_identities(config, len(by_id))
    k = config.instances

    def make(random: np.random.RandomState) -> Batches:
        chunks = {}
        for i, pool in by_id.items():
            rows = random.choice(pool, k, replace=True) if len(pool) < k else pool
            chunks[i] = _cut(random.permutation(rows), k)
        return _emit(random, chunks, config.identities)

    return make


def cross_modality_triplet(config: SamplerConfig, labels: Indices, modalities: Indices, cams: Indices) -> Strategy:
    """P identities x K samples with ``floor(K * infrared_share)`` infrared ones in every chunk (5.2)."""
    visible, infrared = _both(config, labels, modalities)
    k = config.instances
    quota = int(k * config.infrared_share)

    def top_up(random: np.random.RandomState, pool: Indices, wanted: int) -> Indices:
        return random.choice(pool, wanted, replace=True) if len(pool) < wanted else pool

    def make(random: np.random.RandomState) -> Batches:
        chunks = {}
        for i in visible:
            reds = top_up(random, infrared[i], quota)
            colours = top_up(random, visible[i], k - quota)
            chunks[i] = [
                random.permutation(np.concatenate([random.choice(reds, quota), random.choice(colours, k - quota)]))
                for _ in range((len(reds) + len(colours)) // k)
            ]
        return _emit(random, chunks, config.identities)

    return make


def cross_modality_random(config: SamplerConfig, labels: Indices, modalities: Indices, cams: Indices) -> Strategy:
    """First half of a batch infrared, second half visible, without identity structure (5.3).

    The shorter list is extended by whole permutations and a final draw without replacement to the length of the longer.
    """
    half = (config.batch_size or config.identities * config.instances) // 2
    lists = [np.flatnonzero((modalities == m) & (labels >= 0)) for m in (Modality.INFRARED, Modality.VISIBLE)]
    if min(map(len, lists)) == 0 or half == 0:
        raise GloamError(
            f"Sampler {config.name!r} needs batches of at least 2 and both modalities; found {len(lists[1])} visible "
            f"and {len(lists[0])} infrared samples."
        )
    length = max(map(len, lists))

    def make(random: np.random.RandomState) -> Batches:
        orders = []
        for indices in lists:
            # The head of a permutation is a draw without replacement.
            passes = [random.permutation(indices) for _ in range(-(-length // len(indices)))]
            orders.append(np.concatenate(passes)[:length])
        starts = range(0, length - half + 1, half)
        return [np.concatenate([order[t : t + half] for order in orders]) for t in starts]

    return make


def cross_modality_identity_tracklet(
    config: SamplerConfig, labels: Indices, modalities: Indices, cams: Indices
) -> Strategy:
    """P identities; first half of a batch K/2 infrared of each, second half K/2 visible of the same identities (5.4).

    ``floor(N / (C * 2 floor(K/2)))`` passes over the identities, at least one; the last group of a pass is refilled
    with identities drawn from the rest.
    """
    visible, infrared = _both(config, labels, modalities)
    p, half = config.identities, config.instances // 2
    if half == 0:
        raise GloamError(
            f"Sampler {config.name!r} splits sampler.instances between two modalities: it must be at least 2."
        )
    ids = np.array(list(visible))
    total = sum(map(len, visible.values())) + sum(map(len, infrared.values()))
    passes = max(1, total // (len(ids) * 2 * half))

    def make(random: np.random.RandomState) -> Batches:
        batches = []
        for _ in range(passes):
            order = random.permutation(ids)
            if missing := -len(order) % p:
                others = np.setdiff1d(ids, order[len(order) - (p - missing) :])
                order = np.concatenate([order, random.choice(others, missing, replace=False)])
            for group in order.reshape(-1, p).tolist():
                rows = [
                    random.choice(pool[i], half, replace=len(pool[i]) < half)
                    for pool in (infrared, visible)
                    for i in group
                ]
                batches.append(np.concatenate(rows))
        return batches

    return make


def identity_cross_modality(config: SamplerConfig, labels: Indices, modalities: Indices, cams: Indices) -> Strategy:
    """P identities x K samples that alternate infrared, visible, infrared, ... (5.5).

    Each list shorter than K/2 is redrawn to K/2 with replacement, then the longer is cut to the shorter's length.
    """
    visible, infrared = _both(config, labels, modalities)
    k = config.instances
    half = k // 2
    if k % 2 or half == 0:
        raise GloamError(f"Sampler {config.name!r} alternates modalities: sampler.instances must be even, not {k}.")

    def make(random: np.random.RandomState) -> Batches:
        chunks = {}
        for i in visible:
            pools = [pool[i] if len(pool[i]) >= half else random.choice(pool[i], half) for pool in (infrared, visible)]
            length = min(map(len, pools))
            pairs = np.stack([random.permutation(pool)[:length] for pool in pools], axis=1)
            chunks[i] = _cut(pairs.reshape(-1), k)
        return _emit(random, chunks, config.identities)

    return make


def _both(config: SamplerConfig, labels: Indices, modalities: Indices) -> tuple[dict[int, Indices], dict[int, Indices]]:
    visible = groups(labels, modalities == Modality.VISIBLE)
    infrared = groups(labels, modalities == Modality.INFRARED)
    kept = [i for i in visible if i in infrared]
    if lost := len(set(visible) | set(infrared)) - len(kept):
        logger.warning("Sampler %r leaves out %d identities that lack one modality.", config.name, lost)
    check_identities(config, len(kept), "identities with samples in both modalities")
    return {i: visible[i] for i in kept}, {i: infrared[i] for i in kept}


def _cut(rows: Indices, size: int) -> list[Indices]:
    return [rows[t : t + size] for t in range(0, len(rows) - size + 1, size)]


def _emit(random: np.random.RandomState, chunks: dict[int, list[Indices]], identities: int) -> Batches:
    """While at least P identities own a chunk: choose P of them uniformly and emit one chunk of each."""
    ids = np.array([i for i, own in chunks.items() if own])
    left = np.array([len(chunks[i]) for i in ids.tolist()])
    batches = []
    while len(ids) >= identities:
        chosen = random.choice(len(ids), identities, replace=False)
        left[chosen] -= 1
        batches.append(
            np.concatenate([chunks[i][n] for i, n in zip(ids[chosen].tolist(), left[chosen].tolist(), strict=True)])
        )
        if (left[chosen] == 0).any():
            ids, left = ids[left > 0], left[left > 0]
    return batches


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "identity": norm_triplet,
    "norm_triplet": norm_triplet,
    "cross_modality_triplet": cross_modality_triplet,
    "cross_modality_random": cross_modality_random,
    "cross_modality_identity_tracklet": cross_modality_identity_tracklet,
    "identity_cross_modality": identity_cross_modality,
}
