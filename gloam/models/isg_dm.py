"""Instance-statistics-guided disentanglement (ISG-DM): split a stripe into identity and modality features.

*Source*: README of PF-MGCD, repaired: averaging an instance-normalised map gives exactly zero, so the default pools it
with GeM (docs/methods/pf_mgcd.md, bug B1). The released variants stay available by name.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gloam.errors import GloamError
from gloam.precision import at_least_float32

IsgVariant = Literal["restitution", "readme-v0", "attention-v2", "residual-v3"]
IdPool = Literal["gem", "avg"]


class ISGDM(nn.Module):
    """Identity and modality features of one stripe.

    Args:
        channels: C of the incoming map.
        width: D of both features.
        variant: ``restitution`` (default) or a released form.
        id_pool: pooling of the restituted map; ``avg`` reduces it to the gated channel means.
        reduction: channel reduction of the squeeze-and-excitation gate.
        style_hidden: hidden width of the style head (None: C, as released).
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        variant: IsgVariant = "restitution",
        id_pool: IdPool = "gem",
        reduction: int = 16,
        style_hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.variant = variant
        self.gate = nn.Sequential(
            nn.Linear(channels, max(channels // reduction, 1)),
            nn.ReLU(inplace=True),
            nn.Linear(max(channels // reduction, 1), channels),
            nn.Sigmoid(),
        )
        self.style = _style_head(channels, width, variant, style_hidden or channels)
        self.project = _identity_head(channels, width, variant)
        self.exponent = nn.Parameter(torch.tensor(3.0)) if variant == "restitution" and id_pool == "gem" else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Disentangle.

        Args:
            maps: ``(B, C, h, w)`` one stripe of every image.

        Returns:
            identity feature ``(B, D)`` and modality feature ``(B, D)``.
        """
        # As instance norm does under autocast: a rounded mean would leave an offset in channels that hardly vary.
        maps = at_least_float32(maps)
        mean = maps.mean(dim=(2, 3))
        if self.variant == "attention-v2":
            return self.project(mean * self.gate(mean)), self.style(mean)
        variance = maps.var(dim=(2, 3), unbiased=self.variant == "readme-v0")
        deviation = (variance + 1e-5).sqrt()
        style = self.style(torch.cat([mean, deviation], dim=1))
        normalised = (maps - mean[:, :, None, None]) / deviation[:, :, None, None]
        return self.project(self._content(maps, normalised, mean)), style

    def _content(self, maps: Tensor, normalised: Tensor, mean: Tensor) -> Tensor:
        """Pooled content ``(B, C)`` before the projection."""
        if self.variant == "readme-v0":
            pooled = normalised.mean(dim=(2, 3))
            gate: Tensor = self.gate(pooled)
            return pooled * gate
        if self.variant == "residual-v3":
            gate = self.gate(normalised.mean(dim=(2, 3)))
            return (maps + normalised * gate[:, :, None, None]).mean(dim=(2, 3))
        # What normalisation removed has the mean of the map itself, because the normalised map has mean zero.
        gate = self.gate(mean)
        if self.exponent is None:
            return gate * mean
        restituted = normalised + gate[:, :, None, None] * (maps - normalised)
        pooled = restituted.clamp_min(1e-6).pow(self.exponent).mean(dim=(2, 3))
        return pooled.pow(1 / self.exponent)


def _style_head(channels: int, width: int, variant: IsgVariant, hidden: int) -> nn.Sequential:
    if variant == "attention-v2":
        return nn.Sequential(
            nn.Linear(channels, channels // 2),
            nn.BatchNorm1d(channels // 2),
            nn.ReLU(inplace=True),
            nn.Dropout(0.3),
            nn.Linear(channels // 2, width),
            nn.BatchNorm1d(width),
        )
    first = nn.Linear(2 * channels, hidden)
    norm = [] if variant == "readme-v0" else [nn.BatchNorm1d(hidden)]
    return nn.Sequential(first, *norm, nn.ReLU(inplace=True), nn.Linear(hidden, width), nn.BatchNorm1d(width))


def _identity_head(channels: int, width: int, variant: IsgVariant) -> nn.Module:
    if variant == "attention-v2":
        return nn.Sequential(
            nn.Linear(channels, channels // 2),
            nn.BatchNorm1d(channels // 2),
            nn.ReLU(inplace=True),
            nn.Dropout(0.3),
            nn.Linear(channels // 2, channels // 4),
            nn.BatchNorm1d(channels // 4),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Linear(channels // 4, width),
            nn.BatchNorm1d(width),
        )
    head: list[nn.Module] = [nn.Linear(channels, width), nn.BatchNorm1d(width)]
    # The first release rectified the identity feature, so its cosines could never be negative.
    return nn.Sequential(*head, nn.ReLU()) if variant == "readme-v0" else nn.Sequential(*head)


class MultiPartISGDM(nn.Module):
    """One independent :class:`ISGDM` per stripe.

    Args:
        num_parts: K stripes.
        channels: C of the incoming maps.
        width: D of the features.
        variant: see :class:`ISGDM`.
        id_pool: see :class:`ISGDM`.
        style_hidden: see :class:`ISGDM`.
    """

    def __init__(
        self,
        num_parts: int,
        channels: int,
        width: int,
        *,
        variant: IsgVariant = "restitution",
        id_pool: IdPool = "gem",
        style_hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            ISGDM(channels, width, variant=variant, id_pool=id_pool, style_hidden=style_hidden)
            for _ in range(num_parts)
        )

    def forward(self, stripes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """K maps ``(B, C, h, w)`` to identity and modality features, each ``(B, K, D)``."""
        features = [part(stripe) for part, stripe in zip(self.parts, stripes, strict=True)]
        return torch.stack([f[0] for f in features], dim=1), torch.stack([f[1] for f in features], dim=1)


def split_stripes(maps: Tensor, num_parts: int) -> list[Tensor]:
    """Cut maps ``(B, C, H, W)`` into K equal horizontal stripes.

    A height that K does not divide is resized bilinearly (corners aligned) to the next smaller multiple.

    Raises:
        GloamError: fewer rows than stripes.
    """
    height, width = maps.shape[2:]
    if height < num_parts:
        raise GloamError(
            f"A feature map of {height} rows cannot be cut into {num_parts} stripes. Raise data.height to at least "
            f"{16 * num_parts} or lower method.num_parts."
        )
    if height % num_parts:
        size = (num_parts * (height // num_parts), width)
        maps = nn.functional.interpolate(maps, size=size, mode="bilinear", align_corners=True)
    return list(maps.chunk(num_parts, dim=2))
