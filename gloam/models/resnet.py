"""Residual networks (v1: the stride sits in the 3x3 convolution) without pooling and classifier.

Blocks and state names are torchvision's, so its files load as they are. Source: He et al., CVPR 2016; IBN-a: Pan et
al., ECCV 2018.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torchvision.models.resnet import BasicBlock, Bottleneck

# depth -> (block, blocks per stage, base widths per stage)
_LAYOUTS: dict[str, tuple[Literal["basic", "bottleneck"], tuple[int, ...], tuple[int, ...]]] = {
    "resnet18": ("basic", (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet34": ("basic", (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet50": ("bottleneck", (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet101": ("bottleneck", (3, 4, 23, 3), (64, 128, 256, 512)),
    "resnet152": ("bottleneck", (3, 8, 36, 3), (64, 128, 256, 512)),
    # Small networks for tests and for the demo; no published weights exist.
    "small": ("basic", (1, 1, 1, 1), (32, 64, 128, 256)),
    "tiny": ("basic", (1, 1, 1, 1), (8, 16, 32, 64)),
}
ARCHITECTURES = tuple(_LAYOUTS)


class IBN(nn.Module):
    """Half instance norm, half batch norm, in this order (IBN-a).

    Args:
        channels: total channels; the first half (rounded down) is instance-normalised.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.split = channels // 2
        self.IN = nn.InstanceNorm2d(self.split, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.split)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to the same shape."""
        first, second = x[:, : self.split], x[:, self.split :]
        return torch.cat([self.IN(first.contiguous()), self.BN(second.contiguous())], dim=1)


class ResNet(nn.Module):
    """A residual network that returns its last feature map.

    Args:
        arch: one of :data:`ARCHITECTURES`.
        last_stride: stride of the last stage; 1 doubles the map's height and width (usual in ReID).
        ibn: use IBN-a in the first three stages.
    """

    def __init__(self, arch: str = "resnet50", *, last_stride: int = 1, ibn: bool = False) -> None:
        super().__init__()
        # Two seconds of processor time, mostly for parts of torch that nothing here uses: only when a network is built.
        from torchvision.models.resnet import BasicBlock, Bottleneck

        kind, depths, widths = _LAYOUTS[arch]
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if kind == "basic" else Bottleneck
        self.stage_channels = [width * block.expansion for width in widths]
        self.out_channels = self.stage_channels[-1]
        self.conv1 = nn.Conv2d(3, widths[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels = widths[0]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            stride = 1 if stage == 1 else last_stride if stage == 4 else 2
            layer = _stage(block, channels, width, depth, stride, ibn=ibn and stage < 4)
            self.add_module(f"layer{stage}", layer)
            channels = width * block.expansion
        draw_convolutions(self)

    @property
    def stages(self) -> list[nn.Sequential]:
        """layer1 to layer4."""
        return [cast(nn.Sequential, self.get_submodule(f"layer{number}")) for number in (1, 2, 3, 4)]

    def stem(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, 64, H/4, W/4)``."""
        return cast(Tensor, self.maxpool(self.relu(self.bn1(self.conv1(images)))))

    def trunk(self, x: Tensor) -> Tensor:
        """Stem output to the last feature map."""
        for stage in self.stages:
            x = stage(x)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, C, H/16, W/16)`` with last stride 1, ``H/32`` with 2."""
        return self.trunk(self.stem(images))


def draw_convolutions(network: nn.Module) -> None:
    """Fresh weights for every convolution inside a module: Kaiming fan-out as published, variance 2 / (k k out)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))


def _stage(
    block: type[BasicBlock] | type[Bottleneck], channels: int, width: int, depth: int, stride: int, *, ibn: bool
) -> nn.Sequential:
    out = width * block.expansion
    downsample = None
    if stride != 1 or channels != out:
        downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))
    blocks = [block(channels, width, stride, downsample), *(block(out, width) for _ in range(depth - 1))]
    if ibn:
        for residual in blocks:
            residual.bn1 = IBN(width)
    return nn.Sequential(*blocks)
