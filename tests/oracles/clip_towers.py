"""CLIP's two kinds of image tower, written plainly under the names of OpenAI's release, as feature maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class _Bottleneck(nn.Module):
    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample = None
        if stride > 1 or inside != 4 * width:
            self.downsample = nn.ModuleDict(
                {"0": nn.Conv2d(inside, 4 * width, 1, bias=False), "1": nn.BatchNorm2d(4 * width)}
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out)).relu()
        out = self.bn3(self.conv3(self.pool(out)))
        if self.downsample is not None:
            x = self.downsample["1"](self.downsample["0"](self.pool(x)))
        return (out + x).relu()


class ClipResNet(nn.Module):
    """RN50 with the stride of the last stage removed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        inside = 64
        for number, (depth, width, stride) in enumerate(((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 1)), start=1):
            blocks = []
            for index in range(depth):
                blocks.append(_Bottleneck(inside, width, stride if index == 0 else 1))
                inside = 4 * width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.attnpool = nn.ModuleDict({n: nn.Linear(2048, 2048) for n in ("q_proj", "k_proj", "v_proj", "c_proj")})
        self.attnpool.register_parameter("positional_embedding", nn.Parameter(torch.zeros(50, 2048)))

    def forward(self, images: Tensor) -> Tensor:
        x = self.bn1(self.conv1(images)).relu()
        x = self.bn2(self.conv2(x)).relu()
        x = nn.functional.avg_pool2d(self.bn3(self.conv3(x)).relu(), 2)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class _QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        self.act = _QuickGelu()

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp["c_proj"](self.act(self.mlp["c_fc"](self.ln_2(x))))


class ClipViT(nn.Module):
    """ViT-B/32 tower (QuickGELU) on any image size; positions are interpolated bicubically with antialiasing."""

    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12, patch: int = 32, grid: int = 7) -> None:
        super().__init__()
        self.patch, self.grid = patch, grid
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(grid * grid + 1, width))
        self.proj = nn.Parameter(torch.randn(width, 16))
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*[_Block(width, heads) for _ in range(depth)])})

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv1(images)
        size = maps.shape[2:]
        square = self.positional_embedding[1:].T.reshape(1, -1, self.grid, self.grid)
        square = interpolate(square, size, mode="bicubic", antialias=True, align_corners=False)
        tokens = (maps + square).flatten(2).transpose(1, 2)
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(tokens), 1, -1)
        tokens = self.transformer["resblocks"](self.ln_pre(torch.cat([first, tokens], dim=1)))
        return self.ln_post(tokens)[:, 1:].transpose(1, 2).unflatten(2, size)
