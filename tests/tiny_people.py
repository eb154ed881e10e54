"""Batches of a few very small images, for tests that need many of them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from gloam.batches.batch import Batch
from gloam.datasets.records import Modality

HEIGHT, WIDTH, FRAMES = 48, 24, 2


def tiny_people(
    *,
    ids: int = 4,
    images: int = 3,
    video: bool = False,
    both_modalities: bool = True,
    noise: float = 0.5,
    seed: int = 0,
) -> Batch:
    """``images`` per identity and modality, visible block first: a pattern per identity plus noise, two cameras."""
    generator = torch.Generator().manual_seed(seed)
    blocks = 2 if both_modalities else 1
    pids = torch.arange(ids).repeat_interleave(images).repeat(blocks)
    modalities = torch.arange(blocks).repeat_interleave(ids * images)
    frames = (FRAMES,) if video else ()
    patterns = torch.randn((ids, *[1] * len(frames), 3, HEIGHT, WIDTH), generator=generator)
    grain = torch.randn((len(pids), *frames, 3, HEIGHT, WIDTH), generator=generator)
    return Batch(
        images=patterns[pids] + noise * grain,
        pids=pids,
        cams=2 * modalities + torch.arange(len(pids)) % 2,
        modalities=modalities,
        indices=torch.arange(len(pids)),
        views=torch.zeros_like(pids),
    )


def joined(first: Batch, second: Batch) -> Batch:
    """The rows of both."""
    pairs = {f.name: (getattr(first, f.name), getattr(second, f.name)) for f in dataclasses.fields(Batch)}
    return Batch(**{name: torch.cat(pair) for name, pair in pairs.items()})


def second_views(batch: Batch, rows: Tensor | None = None, seed: int = 1) -> Batch:
    """The batch, and a noisy second view of the given rows (all, if not given) behind it."""
    chosen = batch if rows is None else batch.select(rows)
    noise = torch.randn(chosen.images.shape, generator=torch.Generator().manual_seed(seed))
    again = dataclasses.replace(chosen, images=chosen.images + 0.5 * noise, views=torch.ones_like(chosen.views))
    return joined(batch, again)


def visible_twice(batch: Batch) -> Batch:
    """What CAJ trains on: two views of every visible image, one of every infrared image."""
    return second_views(batch, batch.modalities == Modality.VISIBLE)
