"""Batches of images: by identity across modalities, by identity and camera, and without labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.sampling.base import Batches, SamplerConfig, Strategy, check_identities, groups

Indices = NDArray[np.int64]


def cross_modality_identity(config: SamplerConfig, labels: Indices, modalities: Indices, cams: Indices) -> Strategy:
    """P identities with K visible and K infrared images each; rows [visible block; infrared block], identity-major.

    *Source*: ``IdentitySampler`` of the AGW release (``utils.py``): default options, same order of draws. The samplers
    of the WSL-VIReID and PF-MGCD releases: the other options.
    """
    visible = groups(labels, modalities == Modality.VISIBLE)
    infrared = groups(labels, modalities == Modality.INFRARED)
    if config.independent_modalities:
        check_identities(config, len(visible), "visible identities")
        check_identities(config, len(infrared), "infrared identities")
    else:
        visible, infrared = _paired(config, visible, infrared)
    visible_ids, infrared_ids = np.array(list(visible)), np.array(list(infrared))
    p, k = config.identities, config.instances
    larger = max(sum(map(len, visible.values())), sum(map(len, infrared.values()))) * config.epoch_multiplier
    count = larger // (p * k) + int(config.extra_batch)

    def take(random: np.random.RandomState, pool: Indices, replace: bool) -> Indices:
        return random.choice(pool, k, replace=replace)

    def replacing(a: Indices, b: Indices) -> tuple[bool, bool]:
        if config.draw == "with_replacement":
            return True, True
        if config.draw == "without_when_possible":
            return len(a) < k, len(b) < k
        return (min(len(a), len(b)) < k,) * 2

    def make(random: np.random.RandomState) -> Batches:
        batches = []
        for _ in range(count):
            first = random.choice(visible_ids, p, replace=False)
            second = random.choice(infrared_ids, p, replace=False) if config.independent_modalities else first
            rows: tuple[list[Indices], list[Indices]] = ([], [])
            for v, r in zip(first.tolist(), second.tolist(), strict=True):
                replace = replacing(visible[v], infrared[r])
                rows[0].append(take(random, visible[v], replace[0]))
                rows[1].append(take(random, infrared[r], replace[1]))
            batches.append(np.concatenate([*rows[0], *rows[1]]))
        return batches

    return make


def _paired(
    config: SamplerConfig, visible: dict[int, Indices], infrared: dict[int, Indices]
) -> tuple[dict[int, Indices], dict[int, Indices]]:
    for name, ids in (("visible", visible), ("infrared", infrared)):
        if not ids:
            raise GloamError(
                f"Sampler {config.name!r} needs both modalities, but no training sample is {name}. "
                "For data of one modality use sampler.name=identity."
            )
    missing = sorted(set(visible) ^ set(infrared))
    if missing and config.incomplete_ids == "fail":
        shown = ", ".join(f"{i} (no {'infrared' if i in visible else 'visible'})" for i in missing[:10])
        raise GloamError(
            f"{len(missing)} of {len(set(visible) | set(infrared))} identities lack one modality: labels {shown}"
            f"{', ...' if len(missing) > 10 else ''}. Draw the modalities on their own with "
            "sampler.independent_modalities=true (labels that differ between the modalities need that), leave these "
            "identities out with sampler.incomplete_ids=skip, or use sampler.name=identity."
        )
    both = [i for i in visible if i in infrared]
    check_identities(config, len(both), "identities with images in both modalities")
    return {i: visible[i] for i in both}, {i: infrared[i] for i in both}


def camera_identity(config: SamplerConfig, labels: Indices, modalities: Indices, cams: Indices) -> Strategy:
    """For every (pseudo-)identity an anchor image and K-1 more, preferably of other cameras; P*K rows a batch.

    *Source*: ``RandomMultipleGallerySampler`` of the SpCL release, the same in Cluster Contrast and MetaPRD. An
    identity with one image contributes only that image, which shifts the alignment of the rows behind it.
    """
    by_id = groups(labels)
    check_identities(
        config,
        len(by_id),
        "(pseudo-)identities",
        "with pseudo-labels let more clusters form (method.eps, method.min_samples, pre-trained weights)",
    )
    ids, k = np.array(list(by_id)), config.instances
    size = config.identities * k

    def more(random: np.random.RandomState, anchor: int, pool: Indices) -> Indices:
        others = pool[cams[pool] != cams[anchor]] if config.use_cameras else pool[:0]
        if len(others) == 0:
            others = pool[pool != anchor]
        if len(others) == 0 or k == 1:
            return others[:0]
        # Compared with K although K-1 are drawn, as in the reference.
        return random.choice(others, k - 1, replace=len(others) < k)

    def make(random: np.random.RandomState) -> Batches:
        rows: list[Indices] = []
        while sum(map(len, rows)) < size:  # one pass, unless single-image identities are too few to fill a batch
            for i in random.permutation(ids).tolist():
                anchor = int(random.choice(by_id[i]))
                rows += [np.array([anchor]), more(random, anchor, by_id[i])]
        return _chunks(np.concatenate(rows), size)

    return make


def modality_shuffle(config: SamplerConfig, labels: Indices, modalities: Indices, cams: Indices) -> Strategy:
    """B visible and B unrelated infrared images a batch, from independent permutations. Labels are not looked at.

    *Source*: docs/methods/mmgl.md (MMGL's pre-training program was not released). ``floor(max(N_visible, N_infrared) /
    B)`` batches; the shorter list is extended by further independent permutations.
    """
    size = config.batch_size or config.identities * config.instances
    lists = [np.flatnonzero(modalities == m) for m in (Modality.VISIBLE, Modality.INFRARED)]
    if min(map(len, lists)) == 0:
        raise GloamError(
            f"Sampler {config.name!r} needs both modalities, not {len(lists[0])} visible and {len(lists[1])} infrared."
        )
    count = max(map(len, lists)) // size

    def make(random: np.random.RandomState) -> Batches:
        orders = []
        for indices in lists:
            repeats = -(-count * size // len(indices))
            orders.append(np.concatenate([random.permutation(indices) for _ in range(max(repeats, 1))]))
        return [np.concatenate([order[t : t + size] for order in orders]) for t in range(0, count * size, size)]

    return make


def shuffle(config: SamplerConfig, labels: Indices, modalities: Indices, cams: Indices) -> Strategy:
    """A plain random order; the incomplete last batch is dropped, unless it is the only one."""
    size = config.batch_size or config.identities * config.instances
    indices = np.flatnonzero(labels >= 0)

    def make(random: np.random.RandomState) -> Batches:
        return _chunks(random.permutation(indices), min(size, max(len(indices), 1)))

    return make


def _chunks(rows: Indices, size: int) -> Batches:
    return [rows[t : t + size] for t in range(0, len(rows) - size + 1, size)]


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "cross_modality_identity": cross_modality_identity,
    "camera_identity": camera_identity,
    "modality_shuffle": modality_shuffle,
    "shuffle": shuffle,
}
