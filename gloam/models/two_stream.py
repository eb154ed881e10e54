"""Backbones for two modalities: a stem each (and early stages, if asked), one shared trunk, any mixture of rows."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gloam.datasets.records import Modality
from gloam.models.resnet import ResNet, draw_convolutions


@contextmanager
def separate_draws() -> Iterator[None]:
    """Draws of their own: they follow from the state of the CPU's global generator and leave it as it is."""
    digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        yield


class Stem(nn.Module):
    """What a modality has for itself: conv1, bn1, (ReLU), max-pool, and the first stages if they are not shared.

    Args:
        network: its layers are copied.
        relu: WSL-VIReID's release has none between the norm and the pool.
        stages: how many residual stages follow (CGRNet: 1).
    """

    def __init__(self, network: ResNet, relu: bool = True, stages: int = 0) -> None:
        super().__init__()
        self.conv1 = copy.deepcopy(network.conv1)
        self.bn1 = copy.deepcopy(network.bn1)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.stages = stages
        for number in range(1, stages + 1):
            self.add_module(f"layer{number}", copy.deepcopy(network.stages[number - 1]))

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, 64, H/4, W/4)``, or the map of the last own stage."""
        x: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x


class Trunk(nn.Module):
    """The shared stages, with an optional block after chosen residual blocks.

    Args:
        network: its stages are taken over.
        inserts: blocks after the last q residual blocks of each stage, as one list per stage.
        first: number of the first shared stage.
    """

    def __init__(self, network: ResNet, inserts: list[list[nn.Module]] | None = None, first: int = 1) -> None:
        super().__init__()
        self.first = first
        for number, stage in enumerate(network.stages, start=1):
            if number >= first:
                self.add_module(f"layer{number}", stage)
        for number, blocks in enumerate(inserts or [], start=1):
            self.add_module(f"NL_{number}", nn.ModuleList(blocks))
        self._has_inserts = any(inserts or [])

    def forward(self, x: Tensor, adapt: Callable[[nn.Module, Tensor], Tensor] | None = None) -> Tensor:
        """Stem output to the last map.

        Args:
            x: ``(B, C, h, w)``.
            adapt: how an inserted block is applied (video reshapes frames to clips); default: as it is.
        """
        for number in range(self.first, 5):
            stage = self.get_submodule(f"layer{number}")
            if not self._has_inserts:
                x = stage(x)
                continue
            blocks = list(self.get_submodule(f"NL_{number}").children())
            residuals = list(stage.children())
            for position, residual in enumerate(residuals, start=len(blocks) - len(residuals)):
                x = residual(x)
                if position >= 0:
                    x = adapt(blocks[position], x) if adapt else blocks[position](x)
        return x


class TwoStreamBackbone(nn.Module):
    """Separate stems and a shared trunk.

    Stem statistics are per modality, trunk statistics over the mixed batch, as in the reference. With one stream both
    modalities share a stem. Rows keep their order; a batch of one modality never touches the other stem. Without
    published weights the two stems start from different draws, as the released networks do.

    Args:
        network: a fresh network whose parts are used.
        streams: 1 or 2.
        inserts: see :class:`Trunk`.
        stem_relu: see :class:`Stem`.
        independent_stages: residual stages that each stream has for itself.
        arch: the name it was built from.
    """

    def __init__(
        self,
        network: ResNet,
        *,
        streams: int = 2,
        inserts: list[list[nn.Module]] | None = None,
        stem_relu: bool = True,
        independent_stages: int = 0,
        arch: str = "",
    ) -> None:
        super().__init__()
        self.arch = arch
        self.streams = streams
        self.out_channels = network.out_channels
        self.stem_visible = Stem(network, stem_relu, independent_stages)
        self.stem_infrared = copy.deepcopy(self.stem_visible) if streams == 2 else None
        if self.stem_infrared is not None:
            with separate_draws():
                draw_convolutions(self.stem_infrared)
        self.trunk = Trunk(network, inserts, first=independent_stages + 1)

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters of every layer from the images up: the stems, then one residual block after the other."""
        stems = [stem for stem in (self.stem_visible, self.stem_infrared) if stem is not None]
        found = [[p for stem in stems for part in (stem.conv1, stem.bn1) for p in part.parameters()]]
        for number in range(1, 5):
            owners: list[nn.Module] = [*stems] if number < self.trunk.first else [self.trunk]
            stages = [list(owner.get_submodule(f"layer{number}").children()) for owner in owners]
            inserts = list(getattr(self.trunk, f"NL_{number}", []))
            for position, blocks in enumerate(zip(*stages, strict=True), start=len(inserts) - len(stages[0])):
                own = [*blocks, *inserts[position : position + 1]] if position >= 0 else blocks
                found.append([p for block in own for p in block.parameters()])
        return found

    def early(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Every row through its modality's own layers: the input of the shared trunk, ``(B, c, h, w)``."""
        return route_rows(images, modalities, self.stem_visible, self.stem_infrared)

    def forward(
        self, images: Tensor, modalities: Tensor, adapt: Callable[[nn.Module, Tensor], Tensor] | None = None
    ) -> Tensor:
        """Feature maps of any mixture of rows.

        Args:
            images: ``(B, 3, H, W)``.
            modalities: ``(B,)`` int64.
            adapt: see :class:`Trunk`.

        Returns:
            ``(B, C, h, w)``.
        """
        maps: Tensor = self.trunk(self.early(images, modalities), adapt)
        return maps


def route_rows(images: Tensor, modalities: Tensor, visible: nn.Module, infrared: nn.Module | None) -> Tensor:
    """Send visible rows through one module and infrared rows through the other, keeping their order.

    Args:
        images: ``(B, ...)``.
        modalities: ``(B,)`` int64.
        visible: module for visible rows.
        infrared: module for infrared rows; None: the visible one takes every row.
    """
    if infrared is None:
        return torch.as_tensor(visible(images))
    if torch.compiler.is_exporting():
        # A graph has no shapes that depend on data: both stems see every row. The same values row by row.
        chosen = (modalities == Modality.INFRARED).view(-1, *[1] * (images.ndim - 1))
        return torch.where(chosen, infrared(images), visible(images))
    rows = [torch.nonzero(modalities == m).flatten() for m in (Modality.VISIBLE, Modality.INFRARED)]
    if len(rows[1]) == 0:
        return torch.as_tensor(visible(images))
    if len(rows[0]) == 0:
        return torch.as_tensor(infrared(images))
    joined = torch.cat([module(images[r]) for module, r in zip((visible, infrared), rows, strict=True)])
    order = torch.cat(rows)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return joined[inverse]
