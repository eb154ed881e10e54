"""Which samples make a batch: the configuration, the registry of strategies, and what all of them share.

A sampler is an iterable of batches (lists of record indices). The batches of epoch ``e`` are a function of (seed, e)
alone, so a resumed run repeats them; process ``r`` of ``W`` takes batches r, r+W, r+2W, ... of that one list, so
processes never draw the same batch and all get equally many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from gloam.errors import GloamError

SamplerName = Literal[
    "identity",
    "cross_modality_identity",
    "camera_identity",
    "modality_shuffle",
    "shuffle",
    "norm_triplet",
    "cross_modality_triplet",
    "cross_modality_random",
    "cross_modality_identity_tracklet",
    "identity_cross_modality",
]

Batches = list[NDArray[np.int64]]


class SamplerConfig(BaseModel):
    """The ``sampler`` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: SamplerName = Field("cross_modality_identity", description="strategy")
    identities: int = Field(8, ge=1, description="P: identities per batch (and modality)")
    instances: int = Field(4, ge=1, description="K: samples per identity (cross_modality_identity: per modality)")
    batch_size: int | None = Field(
        None,
        ge=1,
        description="shuffle, cross_modality_random: rows per batch; modality_shuffle: rows per modality; default P*K",
    )
    draw: Literal["with_replacement", "without_when_possible", "without_when_both_possible"] = Field(
        "with_replacement",
        description="cross_modality_identity: how K samples are drawn; without_when_possible decides for each modality "
        "(PF-MGCD), without_when_both_possible for the pair (WSL-VIReID)",
    )
    independent_modalities: bool = Field(
        False, description="cross_modality_identity: draw P visible and P other infrared identities (PF-MGCD weak)"
    )
    epoch_multiplier: int = Field(
        1,
        ge=1,
        description="cross_modality_identity: epoch length in passes over the larger modality (RegDB in WSL: 5)",
    )
    extra_batch: bool = Field(
        True, description="cross_modality_identity: floor(N / PK) + 1 batches (AGW) instead of floor(N / PK) (WSL)"
    )
    incomplete_ids: Literal["fail", "skip"] = Field(
        "fail", description="cross_modality_identity: identities seen in one modality only are an error, or left out"
    )
    infrared_share: float = Field(
        0.5, ge=0, le=1, description="cross_modality_triplet: share of infrared samples per identity"
    )
    use_cameras: bool = Field(True, description="camera_identity: prefer samples of other cameras than the anchor's")
    partners: bool = Field(
        False, description="append one random sample of the same label per row: rows [B samples; B partners] (MetaPRD)"
    )
    iterations: int | None = Field(
        None, ge=1, description="batches per epoch and process; strategies restart until they are delivered"
    )


class BatchSampler(Protocol):
    """What ``create_sampler`` returns."""

    epoch: int

    def __iter__(self) -> Iterator[list[int]]: ...

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration yields."""


# A strategy makes all batches of one pass from a private generator.
Strategy = Callable[[np.random.RandomState], Batches]


class EpochSampler:
    """Runs a strategy once per epoch and hands each process its share.

    Args:
        strategy: makes the batches.
        labels: ``(N,)`` int64, for partners and messages.
        config: options.
        seed: run seed.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        strategy: Strategy,
        labels: NDArray[np.int64],
        config: SamplerConfig,
        *,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.epoch = 0
        self._strategy = strategy
        self._labels = labels
        self._config = config
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._made: tuple[int, Batches] | None = None

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches():
            yield batch.tolist()

    def _batches(self) -> Batches:
        if self._made is None or self._made[0] != self.epoch:
            self._made = (self.epoch, self._make())
        return self._made[1]

    def _make(self) -> Batches:
        random = random_state(self._seed, self.epoch)
        batches = self._strategy(random)
        wanted = None if self._config.iterations is None else self._config.iterations * self._world_size
        while wanted is not None and batches and len(batches) < wanted:
            batches = batches + self._strategy(random)
        share = (len(batches) if wanted is None else wanted) // self._world_size
        if not batches or share == 0:
            raise GloamError(
                f"Sampler {self._config.name!r} makes {len(batches)} batches an epoch for "
                f"{self._world_size} processes. "
                f"{len(self._labels)} samples ({(self._labels < 0).sum()} without label) of "
                f"{len(np.unique(self._labels[self._labels >= 0]))} labels are too few for "
                f"{self._config.identities} identities x {self._config.instances} samples. "
                "Lower sampler.identities, sampler.instances or sampler.batch_size."
            )
        mine = batches[self._rank : share * self._world_size : self._world_size]
        return self._with_partners(mine) if self._config.partners else mine

    def _with_partners(self, batches: Batches) -> Batches:
        random = random_state(self._seed, self.epoch, 1, self._rank)
        order = np.argsort(self._labels, kind="stable")
        values = self._labels[order]
        result = []
        for batch in batches:
            first = np.searchsorted(values, self._labels[batch], side="left")
            last = np.searchsorted(values, self._labels[batch], side="right")
            result.append(
                np.concatenate([batch, order[first + (random.random_sample(len(batch)) * (last - first)).astype(int)]])
            )
        return result


def random_state(seed: int, epoch: int, *more: int) -> np.random.RandomState:
    """Private generator of an epoch.

    The legacy generator on purpose: epoch 0 then repeats the draws of the published SYSU-MM01 runs
    (seed 0 draws identities 329, 318, 317, 65, 59, 287, 212, 60 first).
    """
    if epoch == 0 and not more and 0 <= seed < 2**32:
        return np.random.RandomState(seed)
    return np.random.RandomState(np.random.SeedSequence([seed, epoch, *more]).generate_state(8))


def create_sampler(
    config: SamplerConfig,
    labels: ArrayLike,
    modalities: ArrayLike,
    cams: ArrayLike,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
) -> BatchSampler:
    """Build the sampler that a recipe names.

    Args:
        config: strategy and its options.
        labels: ``(N,)`` training labels or pseudo-labels; samples with -1 are never drawn. ``modality_shuffle`` does
            not look at labels.
        modalities: ``(N,)`` 0 visible, 1 infrared.
        cams: ``(N,)`` camera numbers.
        seed: run seed.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        GloamError: fewer identities than P, identities missing in one modality, a modality missing altogether, or
            nothing to draw.
    """
    from gloam.sampling import identity as identity_samplers
    from gloam.sampling import tracklet as tracklet_samplers

    known = np.asarray(labels, dtype=np.int64)
    lights = np.asarray(modalities, dtype=np.int64)
    cameras = np.asarray(cams, dtype=np.int64)
    if not len(known) == len(lights) == len(cameras):
        raise ValueError(f"{len(known)} labels, {len(lights)} modalities and {len(cameras)} cameras do not match")
    makers: dict[str, Callable[..., Strategy]] = {**identity_samplers.STRATEGIES, **tracklet_samplers.STRATEGIES}
    if set(makers) != set(get_args(SamplerName)):
        raise ValueError("strategies and their names have drifted apart")
    strategy = makers[config.name](config, known, lights, cameras)
    return EpochSampler(strategy, known, config, seed=seed, rank=rank, world_size=world_size)


def groups(labels: NDArray[np.int64], chosen: NDArray[np.bool_] | None = None) -> dict[int, NDArray[np.int64]]:
    """Label -> ascending indices of its samples, labels ascending; -1 and samples that are not chosen are left out."""
    kept = np.flatnonzero(labels >= 0 if chosen is None else (labels >= 0) & chosen)
    order = kept[np.argsort(labels[kept], kind="stable")]
    values, starts = np.unique(labels[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True)) if len(values) else {}


def check_identities(
    config: SamplerConfig,
    count: int,
    what: str = "identities",
    otherwise: str = "check that labels and modalities were read correctly",
) -> None:
    """Raises GloamError, which ends with the other cure, when there are fewer identities than a batch needs."""
    if count < config.identities:
        raise GloamError(
            f"Sampler {config.name!r} needs {config.identities} {what} per batch, the training set has {count}. "
            f"Lower sampler.identities, or {otherwise}."
        )
