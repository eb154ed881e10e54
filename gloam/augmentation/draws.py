"""All random numbers of one batch's augmentation, drawn at once as small CPU tensors.

Drawing and pixel work are separate so that the numbers can be drawn while the batch is still on the CPU (no
synchronisation with the device) and so that a slow per-image implementation can be given the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gloam.augmentation.config import AugmentConfig, ViewConfig

# Per-row values of a field, looked up by modality and view.
_Table = Callable[[Callable[[ViewConfig], float | tuple[float, ...]]], Tensor]
_rand = partial(torch.rand, dtype=torch.float64)


@dataclass
class Draws:
    """What happens to each of R output rows. All tensors are on the CPU.

    Attributes:
        rows: ``(R,)`` int64 row of the loaded batch.
        views: ``(R,)`` int64, 0 or 1.
        pad: width of the border around the whole batch (rows that pad less never see its outer part).
        top, left: ``(R,)`` int64 corner of the crop inside the padded image.
        flip: ``(R,)`` bool.
        weighted_grey: ``(R, 3)`` float32 weights of R, G, B; all zero where the image keeps its colour.
        random_grey: ``(R,)`` bool.
        jitter_order: ``(R, 3)`` int64: channel that goes to each place before normalisation.
        jitter_gain: ``(R, 3)`` float32: factor of the *source* channels.
        box: ``(R, 4)`` int64 top, left, height, width of the erased rectangle; height 0 erases nothing.
        fill: ``(R, 3)`` float32 value per channel.
        channel: ``(R,)`` int64: -1 leaves the channels, 0..2 copies one into all, 3 mixes them to luminance.
        style: ``(R, 3)`` float32 final factors.
    """

    rows: Tensor
    views: Tensor
    pad: int
    top: Tensor
    left: Tensor
    flip: Tensor
    weighted_grey: Tensor
    random_grey: Tensor
    jitter_order: Tensor
    jitter_gain: Tensor
    box: Tensor
    fill: Tensor
    channel: Tensor
    style: Tensor


class Drawer:
    """Draws the numbers for whole batches.

    Args:
        config: the augmentation.
    """

    def __init__(self, config: AugmentConfig) -> None:
        # Indexed by modality + 2 * view.
        self.views: list[ViewConfig] = [
            config.view("visible"),
            config.view("infrared"),
            config.view("visible", second=True),
            config.view("infrared", second=True),
        ]
        self._two_views = torch.tensor([config.visible_views == 2, config.infrared_views == 2])
        used = [*self.views[:2], *([self.views[2]] if config.visible_views == 2 else [])]
        self.used = [*used, *([self.views[3]] if config.infrared_views == 2 else [])]

    def any(self, test: Callable[[ViewConfig], bool]) -> bool:
        """True when a view that can occur passes the test."""
        return any(test(view) for view in self.used)

    def __call__(self, modalities: Tensor, height: int, width: int, generator: torch.Generator) -> Draws:
        """Draw for a batch.

        Args:
            modalities: ``(B,)`` int64 on the CPU.
            height: rows of the images.
            width: columns of the images.
            generator: CPU generator.

        Returns:
            Numbers for R rows: all first views in batch order, then the second views in batch order.
        """
        second = self._two_views[modalities].nonzero()[:, 0]
        rows = torch.cat([torch.arange(len(modalities)), second])
        views = torch.cat([torch.zeros(len(modalities), dtype=torch.int64), torch.ones_like(second)])
        kind = modalities[rows] + 2 * views
        count = len(rows)
        rand = partial(_rand, generator=generator)

        def table(get: Callable[[ViewConfig], float | tuple[float, ...]]) -> Tensor:
            return torch.tensor([get(view) for view in self.views], dtype=torch.float64)[kind]

        pads = table(lambda v: v.pad).long()
        pad = max(view.pad for view in self.used)
        top, left = (_below(rand(count), 2 * pads + 1) + pad - pads for _ in range(2))
        flip = rand(count) < table(lambda v: v.flip)

        weighted_grey = torch.zeros(count, 3, dtype=torch.float64)
        if self.any(lambda v: v.weighted_grey > 0):
            weights = rand(count, 3)
            chosen = rand(count) < table(lambda v: v.weighted_grey)
            weighted_grey = weights / weights.sum(1, keepdim=True).clamp_min(1e-12) * chosen[:, None]
        random_grey = torch.zeros(count, dtype=torch.bool)
        if self.any(lambda v: v.random_grey > 0):
            random_grey = rand(count) < table(lambda v: v.random_grey)

        low, high = table(lambda v: v.style_range).unbind(1)
        jitter_order = torch.arange(3).expand(count, 3)
        jitter_gain = torch.ones(count, 3, dtype=torch.float64)
        if self.any(lambda v: v.style_jitter):
            chosen = table(lambda v: v.style_jitter)[:, None] > 0
            jitter_gain = torch.where(chosen, _between(rand(count, 3), low, high), 1.0)
            jitter_order = torch.where(chosen, rand(count, 3).argsort(1), jitter_order)

        box = torch.zeros(count, 4, dtype=torch.int64)
        if self.any(lambda v: v.erase > 0):
            box = self._boxes(table, height, width, count, rand)

        return Draws(
            rows=rows,
            views=views,
            pad=pad,
            top=top,
            left=left,
            flip=flip,
            weighted_grey=weighted_grey.float(),
            random_grey=random_grey,
            jitter_order=jitter_order,
            jitter_gain=jitter_gain.float(),
            box=box,
            fill=table(lambda v: v.erase_fill).float(),
            channel=self._channel(table, count, rand),
            style=self._style(table, low, high, count, rand).float(),
        )

    def _boxes(
        self,
        table: _Table,
        height: int,
        width: int,
        count: int,
        rand: Callable[..., Tensor],
    ) -> Tensor:
        """Random erasing: all attempts at once, the first that fits counts."""
        tries = max(view.erase_tries for view in self.used)
        area = _between(rand(count, tries), *table(lambda v: v.erase_area).unbind(1)) * (height * width)
        low, high = table(lambda v: v.erase_aspect).unbind(1)
        uniform = rand(count, tries)
        logarithmic = torch.exp(_between(uniform, low.clamp_min(1e-12).log(), high.clamp_min(1e-12).log()))
        is_log = table(lambda v: v.erase_aspect_draw == "log_uniform")[:, None] > 0
        aspect = torch.where(is_log, logarithmic, _between(uniform, low, high))
        heights = (area * aspect).sqrt().round().long()
        widths = (area / aspect).sqrt().round().long()
        fits = (heights < height) & (widths < width)
        fits &= torch.arange(tries) < table(lambda v: v.erase_tries)[:, None]
        chosen = (rand(count) < table(lambda v: v.erase)) & fits.any(1)
        first = fits.int().argmax(1, keepdim=True)
        h, w = heights.gather(1, first)[:, 0], widths.gather(1, first)[:, 0]
        box = torch.stack([_below(rand(count), height - h + 1), _below(rand(count), width - w + 1), h, w], 1)
        return torch.where(chosen[:, None], box, 0)

    def _channel(
        self,
        table: _Table,
        count: int,
        rand: Callable[..., Tensor],
    ) -> Tensor:
        if not self.any(lambda v: v.channels != "none"):
            return torch.full((count,), -1)
        outcomes = {"none": 1, "exchange": 3, "exchange_or_grey": 4, "adaptive_grey": 4}
        drawn = _below(rand(count), table(lambda v: outcomes[v.channels]).long())
        grey = rand(count) < table(lambda v: v.grey_probability)
        adaptive = table(lambda v: v.channels == "adaptive_grey") > 0
        drawn = torch.where(adaptive & (drawn == 3) & ~grey, -1, drawn)
        return torch.where(table(lambda v: v.channels == "none") > 0, -1, drawn)

    def _style(
        self,
        table: _Table,
        low: Tensor,
        high: Tensor,
        count: int,
        rand: Callable[..., Tensor],
    ) -> Tensor:
        style = torch.ones(count, 3, dtype=torch.float64)
        if self.any(lambda v: v.style != "none"):
            factors = _between(rand(count, 3), low, high)
            one = table(lambda v: v.style == "one")[:, None] > 0
            every = table(lambda v: v.style == "all")[:, None] > 0
            style = torch.where(every, factors, torch.where(one, factors[:, :1], 1.0))
        return style


def _below(uniform: Tensor, limit: Tensor) -> Tensor:
    """Integers 0..limit-1 from numbers in [0, 1)."""
    return torch.minimum((uniform * limit).long(), limit - 1)


def _between(uniform: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``(R, k)`` numbers in [low, high) from ``(R, k)`` in [0, 1) and ``(R,)`` limits."""
    return low[:, None] + uniform * (high - low)[:, None]
