"""What all samplers share: their options, their registry, and the epochs that a strategy's batches make.

A sampler is an iterable of batches (lists of record indices). The batches of epoch ``e`` are a function of (seed, e)
alone, so a resumed run repeats them; process ``r`` of ``W`` takes batches r, r+W, r+2W, ... of that one list, so
processes never draw the same batch and all get equally many.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from gloam.errors import GloamError
from gloam.options import Options
from gloam.registry import Registry
from gloam.seeds import Purpose, mix_seed

Indices = NDArray[np.int64]
Batches = list[Indices]

# Names that recipes used before samplers were named by what a batch holds.
OLD_NAMES = {
    "norm_triplet": "identity",
    "cross_modality_triplet": "identity_share",
    "cross_modality_random": "modality_halves",
    "cross_modality_identity_tracklet": "identity_halves",
    "identity_cross_modality": "identity_alternating",
}


class SamplerOptions(Options):
    """Options that every sampler has; a sampler's own model adds its own.

    A subclass states its registered name as the default of ``name``.
    """

    name: str = Field("", description="which samples make a batch")
    partners: bool = Field(
        False, description="append one random sample of the same label per row: rows [B samples; B partners] (MetaPRD)"
    )
    iterations: int | None = Field(
        None, ge=1, le=1_000_000, description="batches per epoch and process; the sampler restarts until they are made"
    )

    @model_validator(mode="before")
    @classmethod
    def _own_options(cls, values: Any) -> Any:
        """Name the sampler that has an option which this one lacks."""
        foreign = [key for key in values if key not in cls.model_fields] if isinstance(values, dict) else []
        for key in foreign:
            if owners := samplers_with(str(key)):
                name = values.get("name", cls.model_fields["name"].default)
                raise ValueError(f"{key} is no option of sampler {name!r}, but of {' and '.join(owners)}; leave it out")
        return values

    @property
    def batch(self) -> str:
        """The wanted batch in words."""
        return "a batch"


class IdentityBatches(SamplerOptions):
    """Options of samplers whose batches hold P identities with K samples each."""

    identities: int = Field(8, ge=1, le=100_000, description="P: identities per batch (and modality)")
    instances: int = Field(4, ge=1, le=100_000, description="K: samples per identity")

    @property
    def batch(self) -> str:
        return f"{self.identities} identities x {self.instances} samples"


class PlainBatches(SamplerOptions):
    """Options of samplers that do not look for identities."""

    batch_size: int = Field(32, ge=1, le=10_000_000, description="rows per batch")

    @property
    def batch(self) -> str:
        return f"batches of {self.batch_size}"


OptionsT = TypeVar("OptionsT", bound=SamplerOptions)


@dataclass(frozen=True)
class Samples:
    """What a strategy may look at.

    Attributes:
        labels: ``(N,)`` training labels or pseudo-labels; -1 is never drawn by strategies that read labels.
        modalities: ``(N,)`` 0 visible, 1 infrared.
        cams: ``(N,)`` camera numbers.
    """

    labels: Indices
    modalities: Indices
    cams: Indices


class Strategy(ABC, Generic[OptionsT]):
    """Decides what batches hold. One class per sampler, registered by name.

    The constructor prepares what does not change between epochs and raises GloamError for samples that cannot fill a
    batch; ``make`` is called once per pass.

    Args:
        options: validated options.
        samples: what there is to draw.
    """

    Options: ClassVar[type[SamplerOptions]] = SamplerOptions

    def __init__(self, options: OptionsT, samples: Samples) -> None:
        self.options: OptionsT = options
        self.samples = samples

    @abstractmethod
    def make(self, random: np.random.RandomState) -> Batches:
        """All batches of one pass, every draw from the private generator."""


def _check(name: str, entry: Any) -> None:
    if not (isinstance(entry, type) and issubclass(entry, Strategy)):
        raise GloamError(f"The sampler {name!r} must be a subclass of gloam.sampling.Strategy, not {entry!r}.")
    if name in OLD_NAMES:
        raise GloamError(f"The sampler {name!r} is an old name of gloam's own {OLD_NAMES[name]!r}. Choose another.")
    if entry.Options.model_fields["name"].default != name:
        raise GloamError(f"The options of sampler {name!r} ({entry.__module__}) must have name: str = {name!r}.")


registry: Registry[type[Strategy[Any]]] = Registry("sampler", "gloam.sampling", check=_check)
register = registry.register
get_sampler = registry.get


def list_samplers(pattern: str = "*") -> list[str]:
    """Names of all samplers that match a shell wildcard."""
    return registry.names(pattern)


def samplers_with(option: str) -> list[str]:
    """Names of the samplers that have an option."""
    return [name for name in list_samplers() if option in get_sampler(name).Options.model_fields]


class BatchSampler(Protocol):
    """What ``create_sampler`` returns."""

    epoch: int

    def __iter__(self) -> Iterator[list[int]]: ...

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration yields."""


class EpochSampler:
    """Runs a strategy once per epoch and hands each process its share.

    Args:
        strategy: makes the batches.
        seed: run seed.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(self, strategy: Strategy[Any], *, seed: int, rank: int, world_size: int) -> None:
        self.epoch = 0
        self._strategy = strategy
        self._labels = strategy.samples.labels
        self._options: SamplerOptions = strategy.options
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
        batches = self._strategy.make(random)
        wanted = None if self._options.iterations is None else self._options.iterations * self._world_size
        while wanted is not None and batches and len(batches) < wanted:
            batches = batches + self._strategy.make(random)
        share = (len(batches) if wanted is None else wanted) // self._world_size
        if not batches or share == 0:
            sizes = [
                f"sampler.{key}" for key in ("identities", "instances", "batch_size") if hasattr(self._options, key)
            ]
            raise GloamError(
                f"Sampler {self._options.name!r} makes {len(batches)} batches an epoch for "
                f"{self._world_size} processes. "
                f"{len(self._labels)} samples ({(self._labels < 0).sum()} without label) of "
                f"{len(np.unique(self._labels[self._labels >= 0]))} labels are too few for {self._options.batch}. "
                f"Lower {' or '.join(sizes) or 'the options of the sampler'}."
            )
        mine = batches[self._rank : share * self._world_size : self._world_size]
        return self._with_partners(mine) if self._options.partners else mine

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

    The legacy generator on purpose: epoch 0 then repeats the draws of the published SYSU-MM01 runs of AGW, which seed
    numpy once (seed 0 draws identities 329, 318, 317, 65, 59, 287, 212, 60 first).
    """
    return np.random.RandomState(mix_seed(seed, Purpose.BATCHES, epoch, *more))


def groups(labels: Indices, chosen: NDArray[np.bool_] | None = None) -> dict[int, Indices]:
    """Label -> ascending indices of its samples, labels ascending; -1 and samples that are not chosen are left out."""
    kept = np.flatnonzero(labels >= 0 if chosen is None else (labels >= 0) & chosen)
    order = kept[np.argsort(labels[kept], kind="stable")]
    values, starts = np.unique(labels[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True)) if len(values) else {}


def chunks(rows: Indices, size: int) -> list[Indices]:
    """``rows`` in pieces of ``size``; an incomplete last piece is dropped."""
    return [rows[t : t + size] for t in range(0, len(rows) - size + 1, size)]


def check_identities(
    options: IdentityBatches,
    count: int,
    what: str = "identities",
    otherwise: str = "check that labels and modalities were read correctly",
) -> None:
    """Raises GloamError, which ends with the other cure, when there are fewer identities than a batch needs."""
    if count < options.identities:
        raise GloamError(
            f"Sampler {options.name!r} needs {options.identities} {what} per batch, the training set has {count}. "
            f"Lower sampler.identities, or {otherwise}."
        )
