"""Augmentation and normalisation of a whole uint8 batch with tensor operations, on the batch's device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gloam.augmentation.config import AugmentConfig, ViewConfig, ViewOverrides
from gloam.augmentation.draws import Drawer, Draws
from gloam.batches.batch import Batch

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "AugmentConfig",
    "Augmenter",
    "Draws",
    "ViewConfig",
    "ViewOverrides",
    "normalize",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMINANCE = (0.2989, 0.5870, 0.1140)  # the weights of the CAJ release


def normalize(images: Tensor) -> Tensor:
    """The test transform: ``(x / 255 - mean) / std`` with the ImageNet statistics.

    Args:
        images: ``(..., 3, H, W)`` uint8.

    Returns:
        float32 of the same shape.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"normalize expects uint8 images, not {images.dtype}: they are normalised already")
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).mul(255).view(3, 1, 1)
    gain = torch.tensor(IMAGENET_STD, device=images.device).mul(255).reciprocal().view(3, 1, 1)
    # Three passes over fresh memory; a single mixed-dtype operation is many times slower on a CPU.
    return images.to(torch.float32).sub_(mean).mul_(gain)


class Augmenter:
    """Turns a loaded batch into a training batch.

    Steps, in this order: greys (uint8), pad and crop, flip, style jitter, normalisation, random erasing, channel
    operations, style variation. See ``ViewConfig`` for their sources.

    Args:
        config: the augmentation.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config
        self._drawer = Drawer(config)
        self._moves = self._drawer.any(lambda v: v.pad > 0 or v.flip > 0)
        self._jitters = self._drawer.any(lambda v: v.style_jitter)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draw and apply.

        Args:
            batch: uint8 ``(B, 3, H, W)`` or ``(B, T, 3, H, W)``; every frame of a clip gets the same treatment.
            generator: CPU generator of the numbers.

        Returns:
            float32 batch; second views are extra rows with ``views == 1``: first all first views in batch order, then
            the second views in batch order.
        """
        return self.apply(batch, self.draw(batch, generator))

    def draw(self, batch: Batch, generator: torch.Generator) -> Draws:
        """The random numbers for a batch. Costs no synchronisation when the batch is (still) on the CPU."""
        height, width = batch.images.shape[-2:]
        return self._drawer(batch.modalities.cpu(), height, width, generator)

    def apply(self, batch: Batch, draws: Draws) -> Batch:
        """Carry out what ``draw`` decided, on the batch's device."""
        images = batch.images
        if images.dtype != torch.uint8:
            raise TypeError(f"the augmenter expects uint8 images, not {images.dtype}")
        device = images.device

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        clips = images if images.dim() == 5 else images[:, None]
        weighted = draws.weighted_grey.any(1)
        greyed = weighted | draws.random_grey
        luminance = draws.channel == 3
        copied = (draws.channel >= 0) & ~luminance
        # Copying a normalised channel into all three equals reading its uint8 plane three times and normalising each
        # with that channel's statistics. So the copy costs nothing: it is part of the gather.
        channel = torch.where(copied[:, None], draws.channel[:, None], torch.arange(3))
        jittered = draws.jitter_order.gather(1, channel)
        plane = torch.where(greyed[:, None], torch.arange(3), jittered)

        pixels = self._gather(clips, draws, plane, move)
        if weighted.any():
            rows = move(weighted.nonzero()[:, 0])
            weights = move(draws.weighted_grey[weighted])[:, None, :, None, None]
            # 1e-4: three weights that sum to one in exact arithmetic must not turn 255 into 254.
            grey = (pixels[rows] * weights).sum(2, keepdim=True).add_(1e-4).floor_()
            pixels[rows] = grey.to(torch.uint8).expand(-1, -1, 3, -1, -1)
        if draws.random_grey.any():
            rows = move(draws.random_grey.nonzero()[:, 0])
            pixels[rows] = _pillow_luminance(pixels[rows])

        x = pixels.to(torch.float32)
        if self._jitters:
            x.mul_(move(draws.jitter_gain.gather(1, jittered))[:, None, :, None, None]).clamp_(max=255)
        # Style factors follow the luminance mix where there is one; elsewhere they join the normalisation's factor.
        style = torch.where(luminance[:, None], 1.0, draws.style)
        mean = torch.tensor(IMAGENET_MEAN).mul(255)[channel]
        gain = torch.tensor(IMAGENET_STD).mul(255).reciprocal()[channel] * style
        x.sub_(move(mean)[:, None, :, None, None]).mul_(move(gain)[:, None, :, None, None])
        _erase(x, draws.box, draws.fill.gather(1, channel) * style)
        if luminance.any():
            rows = move(luminance.nonzero()[:, 0])
            weights = torch.tensor(LUMINANCE, device=device)[:, None, None]
            mixed = (x[rows] * weights).sum(2, keepdim=True)
            x[rows] = mixed * move(draws.style[luminance])[:, None, :, None, None]

        if images.dim() == 4:
            x = x[:, 0]
        if len(draws.rows) == len(batch):
            return dataclasses.replace(batch, images=x, views=torch.zeros_like(batch.views))
        rows = move(draws.rows)
        fields = {name: getattr(batch, name)[rows] for name in ("pids", "cams", "modalities", "indices")}
        return Batch(images=x, views=move(draws.views), **fields)

    def _gather(self, clips: Tensor, draws: Draws, plane: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
        """Padded crops, flips, channel choice and second views in one copy of bytes: ``(R, T, 3, H, W)`` uint8."""
        _, frames, _, height, width = clips.shape
        identity = bool((plane == torch.arange(3)).all())
        if not self._moves and identity:
            return clips.clone() if len(draws.rows) == len(clips) else clips[move(draws.rows)]
        y = draws.top[:, None] + torch.arange(height)
        x = draws.left[:, None] + torch.arange(width)
        x = torch.where(draws.flip[:, None], x.flip(1), x)
        if self.config.pad_mode == "replicate":
            y, x = (y - draws.pad).clamp_(0, height - 1), (x - draws.pad).clamp_(0, width - 1)
        elif draws.pad > 0:
            clips = F.pad(clips, (draws.pad,) * 4)
        rows, columns = clips.shape[-2:]
        # Two steps, whole image rows first: copying rows is a memcpy, and a gather inside rows stays in the cache.
        first = (draws.rows[:, None, None] * frames + torch.arange(frames)[:, None]) * 3 + plane[:, None, :]
        lines = move(first)[..., None] * rows + move(y)[:, None, None, :]
        taken = clips.reshape(-1, columns).index_select(0, lines.reshape(-1)).view(len(y), -1, columns)
        index = move(x)[:, None, :].expand(-1, taken.shape[1], -1)
        return taken.gather(2, index).view(len(y), frames, 3, height, width)


def _pillow_luminance(pixels: Tensor) -> Tensor:
    """Grey as Pillow's ``convert("L")`` makes it (fixed point), in three channels. ``(..., 3, H, W)`` uint8."""
    red, green, blue = pixels.to(torch.int32).unbind(-3)
    grey = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return grey.to(torch.uint8).unsqueeze(-3).expand_as(pixels)


def _erase(x: Tensor, box: Tensor, fill: Tensor) -> None:
    """Write ``fill (R, 3)`` into the rectangles ``box (R, 4)`` of ``x (R, T, 3, H, W)``, in place.

    Touches only the image rows that a rectangle crosses. Their list is made from the numbers on the CPU, so that the
    device is not waited for.
    """
    top, left, height, width = box.unbind(1)
    rows = torch.repeat_interleave(torch.arange(len(box)), height)
    if len(rows) == 0:
        return
    start = torch.cumsum(height, 0) - height
    lines = torch.arange(len(rows)) - start[rows] + top[rows]
    columns = torch.arange(x.shape[-1])
    inside = (columns >= left[rows, None]) & (columns < (left + width)[rows, None])
    rows, lines, inside, fill = (t.to(x.device, non_blocking=True) for t in (rows, lines, inside, fill[rows]))
    x[rows, :, :, lines] = torch.where(inside[:, None, None, :], fill[:, None, :, None], x[rows, :, :, lines])
