"""Batches of images: by identity across modalities, by identity and camera, and without labels."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

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


class CrossModalityIdentityOptions(IdentityBatches):
    """P identities with K visible and K infrared samples each."""

    name: Literal["cross_modality_identity"] = "cross_modality_identity"
    instances: int = Field(4, ge=1, le=100_000, description="K: samples per identity and modality")
    draw: Literal["with_replacement", "without_when_possible", "without_when_both_possible"] = Field(
        "with_replacement",
        description="how K samples are drawn; without_when_possible decides for each modality (PF-MGCD), "
        "without_when_both_possible for the pair (WSL-VIReID)",
    )
    independent_modalities: bool = Field(
        False, description="draw P visible and P other infrared identities (PF-MGCD weak)"
    )
    epoch_multiplier: int = Field(
        1, ge=1, le=1000, description="epoch length in passes over the larger modality (RegDB in WSL: 5)"
    )
    extra_batch: bool = Field(True, description="floor(N / PK) + 1 batches (AGW) instead of floor(N / PK) (WSL)")
    incomplete_ids: Literal["fail", "skip"] = Field(
        "fail", description="identities seen in one modality only are an error, or left out"
    )
    # Without pairs there is nothing to leave out of them.
    idle_when: ClassVar = {"incomplete_ids": ("independent_modalities", (True,))}


@register("cross_modality_identity")
class CrossModalityIdentity(Strategy[CrossModalityIdentityOptions]):
    """P identities with K visible and K infrared images each; rows [visible block; infrared block], identity-major.

    *Source*: ``IdentitySampler`` of the AGW release (``utils.py``): default options, same order of draws. The samplers
    of the WSL-VIReID and PF-MGCD releases: the other options.
    """

    Options = CrossModalityIdentityOptions

    def __init__(self, options: CrossModalityIdentityOptions, samples: Samples) -> None:
        super().__init__(options, samples)
        visible = groups(samples.labels, samples.modalities == Modality.VISIBLE)
        infrared = groups(samples.labels, samples.modalities == Modality.INFRARED)
        if options.independent_modalities:
            check_identities(options, len(visible), "visible identities")
            check_identities(options, len(infrared), "infrared identities")
        else:
            visible, infrared = _paired(options, visible, infrared)
        self._visible, self._infrared = visible, infrared
        larger = max(sum(map(len, visible.values())), sum(map(len, infrared.values()))) * options.epoch_multiplier
        self._count = larger // (options.identities * options.instances) + int(options.extra_batch)

    def make(self, random: np.random.RandomState) -> Batches:
        visible_ids, infrared_ids = np.array(list(self._visible)), np.array(list(self._infrared))
        p, k = self.options.identities, self.options.instances
        batches = []
        for _ in range(self._count):
            first = random.choice(visible_ids, p, replace=False)
            second = random.choice(infrared_ids, p, replace=False) if self.options.independent_modalities else first
            rows: tuple[list[Indices], list[Indices]] = ([], [])
            for v, r in zip(first.tolist(), second.tolist(), strict=True):
                pools = (self._visible[v], self._infrared[r])
                for own, pool, replace in zip(rows, pools, self._replacing(*pools), strict=True):
                    own.append(random.choice(pool, k, replace=replace))
            batches.append(np.concatenate([*rows[0], *rows[1]]))
        return batches

    def _replacing(self, visible: Indices, infrared: Indices) -> tuple[bool, bool]:
        k = self.options.instances
        if self.options.draw == "with_replacement":
            return True, True
        if self.options.draw == "without_when_possible":
            return len(visible) < k, len(infrared) < k
        return (min(len(visible), len(infrared)) < k,) * 2


def _paired(
    options: CrossModalityIdentityOptions, visible: dict[int, Indices], infrared: dict[int, Indices]
) -> tuple[dict[int, Indices], dict[int, Indices]]:
    for name, ids in (("visible", visible), ("infrared", infrared)):
        if not ids:
            raise GloamError(
                f"Sampler {options.name!r} needs both modalities, but no training sample is {name}. "
                "For data of one modality use sampler.name=identity."
            )
    missing = sorted(set(visible) ^ set(infrared))
    if missing and options.incomplete_ids == "fail":
        shown = ", ".join(f"{i} (no {'infrared' if i in visible else 'visible'})" for i in missing[:10])
        raise GloamError(
            f"{len(missing)} of {len(set(visible) | set(infrared))} identities lack one modality: labels {shown}"
            f"{', ...' if len(missing) > 10 else ''}. Draw the modalities on their own with "
            "sampler.independent_modalities=true (labels that differ between the modalities need that), leave these "
            "identities out with sampler.incomplete_ids=skip, or use sampler.name=identity."
        )
    both = [i for i in visible if i in infrared]
    check_identities(options, len(both), "identities with images in both modalities")
    return {i: visible[i] for i in both}, {i: infrared[i] for i in both}


class CameraIdentityOptions(IdentityBatches):
    """P identities with an anchor and K - 1 samples that other cameras saw."""

    name: Literal["camera_identity"] = "camera_identity"
    use_cameras: bool = Field(True, description="prefer samples of other cameras than the anchor's")


@register("camera_identity")
class CameraIdentity(Strategy[CameraIdentityOptions]):
    """For every (pseudo-)identity an anchor image and K-1 more, preferably of other cameras; P*K rows a batch.

    *Source*: ``RandomMultipleGallerySampler`` of the SpCL release, the same in Cluster Contrast and MetaPRD. An
    identity with one image contributes only that image, which shifts the alignment of the rows behind it.
    """

    Options = CameraIdentityOptions

    def __init__(self, options: CameraIdentityOptions, samples: Samples) -> None:
        super().__init__(options, samples)
        self._by_id = groups(samples.labels)
        check_identities(
            options,
            len(self._by_id),
            "(pseudo-)identities",
            "with pseudo-labels let more clusters form (method.eps, method.min_samples, pre-trained weights)",
        )

    def make(self, random: np.random.RandomState) -> Batches:
        ids, size = np.array(list(self._by_id)), self.options.identities * self.options.instances
        rows: list[Indices] = []
        while sum(map(len, rows)) < size:  # one pass, unless single-image identities are too few to fill a batch
            for i in random.permutation(ids).tolist():
                anchor = int(random.choice(self._by_id[i]))
                rows += [np.array([anchor]), self._more(random, anchor, self._by_id[i])]
        return chunks(np.concatenate(rows), size)

    def _more(self, random: np.random.RandomState, anchor: int, pool: Indices) -> Indices:
        cams, k = self.samples.cams, self.options.instances
        others = pool[cams[pool] != cams[anchor]] if self.options.use_cameras else pool[:0]
        if len(others) == 0:
            others = pool[pool != anchor]
        if len(others) == 0 or k == 1:
            return others[:0]
        # Compared with K although K-1 are drawn, as in the reference.
        return random.choice(others, k - 1, replace=len(others) < k)


class ModalityShuffleOptions(PlainBatches):
    """B visible and B unrelated infrared samples."""

    name: Literal["modality_shuffle"] = "modality_shuffle"
    batch_size: int = Field(32, ge=1, le=10_000_000, description="rows per batch and modality")


@register("modality_shuffle")
class ModalityShuffle(Strategy[ModalityShuffleOptions]):
    """B visible and B unrelated infrared images a batch, from independent permutations. Labels are not looked at.

    *Source*: docs/methods/mmgl.md (MMGL's pre-training program was not released). ``floor(max(N_visible, N_infrared) /
    B)`` batches; the shorter list is extended by further independent permutations.
    """

    Options = ModalityShuffleOptions

    def __init__(self, options: ModalityShuffleOptions, samples: Samples) -> None:
        super().__init__(options, samples)
        self._lists = [np.flatnonzero(samples.modalities == m) for m in (Modality.VISIBLE, Modality.INFRARED)]
        if min(map(len, self._lists)) == 0:
            raise GloamError(
                f"Sampler {options.name!r} needs both modalities, not {len(self._lists[0])} visible and "
                f"{len(self._lists[1])} infrared."
            )

    def make(self, random: np.random.RandomState) -> Batches:
        size = self.options.batch_size
        count = max(map(len, self._lists)) // size
        orders = []
        for indices in self._lists:
            repeats = -(-count * size // len(indices))
            orders.append(np.concatenate([random.permutation(indices) for _ in range(max(repeats, 1))]))
        return [np.concatenate([order[t : t + size] for order in orders]) for t in range(0, count * size, size)]


class ShuffleOptions(PlainBatches):
    """Any samples."""

    name: Literal["shuffle"] = "shuffle"


@register("shuffle")
class Shuffle(Strategy[ShuffleOptions]):
    """A plain random order; the incomplete last batch is dropped, unless it is the only one."""

    Options = ShuffleOptions

    def make(self, random: np.random.RandomState) -> Batches:
        indices = np.flatnonzero(self.samples.labels >= 0)
        return chunks(random.permutation(indices), min(self.options.batch_size, max(len(indices), 1)))
