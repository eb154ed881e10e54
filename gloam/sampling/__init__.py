"""Which samples make a batch. A sampler is a strategy with options of its own, named by what its batches hold."""

from __future__ import annotations

from gloam.sampling.base import (
    BatchSampler,
    IdentityBatches,
    PlainBatches,
    SamplerOptions,
    Samples,
    Strategy,
    get_sampler,
    list_samplers,
    register,
)
from gloam.sampling.create import create_sampler, sampler_options

__all__ = [
    "BatchSampler",
    "IdentityBatches",
    "PlainBatches",
    "SamplerOptions",
    "Samples",
    "Strategy",
    "create_sampler",
    "get_sampler",
    "list_samplers",
    "register",
    "sampler_options",
]
