"""From a recipe's ``sampler`` section to options, and from options to a sampler."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gloam.sampling.base import OLD_NAMES, BatchSampler, EpochSampler, SamplerOptions, Samples, get_sampler

DEFAULT = "cross_modality_identity"
_log = logging.getLogger(__name__)


def current_name(name: str) -> str:
    """The name under which a sampler is registered today; warns about an old one."""
    if name in OLD_NAMES:
        _log.warning("Sampler %r is now called %r.", name, OLD_NAMES[name])
    return OLD_NAMES.get(name, name)


def sampler_options(values: Mapping[str, Any]) -> SamplerOptions:
    """Validated options of the sampler that ``values["name"]`` names (default: ``cross_modality_identity``).

    Raises:
        GloamError: there is no such sampler.
        ValueError: an option that the sampler lacks (the samplers that have it are named), or a bad value.
    """
    name = current_name(str(values.get("name", DEFAULT)))
    return get_sampler(name).Options.model_validate({**values, "name": name})


def create_sampler(
    config: SamplerOptions,
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
        config: options of the sampler (:func:`sampler_options`).
        labels: ``(N,)`` training labels or pseudo-labels; samples with -1 are never drawn. ``modality_shuffle`` does
            not look at labels.
        modalities: ``(N,)`` 0 visible, 1 infrared.
        cams: ``(N,)`` camera numbers.
        seed: run seed.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        GloamError: no such sampler, fewer identities than P, identities missing in one modality, a modality missing
            altogether, or nothing to draw.
    """
    samples = Samples(*(np.asarray(column, dtype=np.int64) for column in (labels, modalities, cams)))
    if not len(samples.labels) == len(samples.modalities) == len(samples.cams):
        raise ValueError(
            f"{len(samples.labels)} labels, {len(samples.modalities)} modalities and {len(samples.cams)} cameras do "
            "not match"
        )
    strategy = get_sampler(config.name)(config, samples)
    return EpochSampler(strategy, seed=seed, rank=rank, world_size=world_size)
