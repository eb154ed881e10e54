"""Weights to start from where no ImageNet file of a backbone is at hand: the features of a network whose file is.

A ReID backbone learns to predict the feature maps of a pre-trained timm network (the teacher) on the images of
dataset folders. No label is read and no two images are compared, so nothing about who is who can enter the weights.
The teacher sees grey images at twice the height and width; the student sees what the augmentation of visible-infrared
ReID would show it: colour, grey or one channel in all three. Of the teacher's stages those at a 16th and a 32nd of its
image's size are predicted, standardised per channel, both with the same weight, by one 1 x 1 convolution on the
student's last map (last stride 1). AdamW, 0.002 with 50 steps of warm-up and a cosine to 0, batches of 64.

    python -m benchmarks.distilled_start r18.pth DIR [DIR ...] --weights efficientnet_lite0.pth --steps 1600

Memory: both sizes of every image as bytes, and 2 bytes per feature of the teacher (290 MB for 23,600 images).
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any, cast

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from gloam import load_dataset
from gloam.atomic import atomic_path
from gloam.augmentation.augmenter import normalize
from gloam.models.resnet import ResNet
from gloam.models.weights import read_state
from gloam.pixels.store import image_paths, open_store

BATCH, RATE, WARMUP = 64, 2e-3, 50


def load_teacher(name: str, weights: str | None) -> nn.Module:
    """A timm network that returns its stages at a 16th and a 32nd of the image; ``None``: random weights.

    The file may use other names than timm's if it holds the same tensors in the same order.
    """
    import timm

    # The last two of timm's five stages.
    teacher: Any = timm.create_model(name, features_only=True, out_indices=(-2, -1))
    if teacher.feature_info.reduction() != [16, 32]:
        raise SystemExit(f"{name}: its last stages are at {teacher.feature_info.reduction()} of the image, not 16, 32.")
    if weights is not None:
        # The stages alone lack the network's last layers, so the whole network gives the names in their order.
        names = timm.create_model(name).state_dict()
        state = dict(zip(names, read_state(weights).values(), strict=True))
        missing = teacher.load_state_dict(state, strict=False).missing_keys
        if missing:
            raise SystemExit(f"{name}: the stages have tensors that the network has not: {missing[:3]}")
    return cast(nn.Module, teacher.eval())


@torch.inference_mode()
def teach(teacher: nn.Module, images: Tensor) -> Tensor:
    """What the student has to predict: ``(N, 3, 2H, 2W)`` bytes to ``(N, 4 C16 + C32, H / 16, W / 16)``, float16.

    The finer map is folded onto the grid of the coarser one.
    """
    targets = []
    for part in track(images.split(128), "teacher"):
        grey = part.float().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
        fine, coarse = teacher((grey - 127) / 128)
        targets.append(torch.cat([pixel_unshuffle(fine, 2), coarse], dim=1).half())
    return torch.cat(targets)


def one_channel(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every image, as bytes, in colour (1 in 5), grey (1 in 5) or as one of its channels (3 in 5)."""
    pick = torch.randint(5, (len(images), 1, 1, 1), generator=generator)
    channel = images.gather(1, pick.clamp(max=2).expand(-1, 1, *images.shape[2:]))
    grey = images.float().mean(dim=1, keepdim=True).byte()
    return torch.where(pick == 4, images, torch.where(pick == 3, grey, channel))


def distil(images: Tensor, targets: Tensor, *, arch: str, fine: int, steps: int, seed: int = 0) -> nn.Module:
    """Train a backbone from random weights.

    Args:
        images: ``(N, 3, H, W)`` bytes.
        targets: of :func:`teach`.
        arch: name of the student.
        fine: channels of the finer stage, which come first in ``targets``.
        steps: optimiser steps.
        seed: of weights and batches.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    student = ResNet(arch, last_stride=1).train()
    head = nn.Conv2d(student.out_channels, targets.shape[1], 1)
    optimizer = torch.optim.AdamW([*student.parameters(), *head.parameters()], lr=RATE, weight_decay=0.05)
    mean = targets.float().mean(dim=(0, 2, 3), keepdim=True)
    std = targets.float().std(dim=(0, 2, 3), keepdim=True) + 1e-3
    for step in track(range(steps), "student"):
        rate = RATE * min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        maps = head(student(normalize(one_channel(images[rows], generator))))
        errors = (maps - (targets[rows].float() - mean) / std).square().mean(dim=(0, 2, 3))
        loss = errors[:fine].mean() + errors[fine:].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: unexplained variance {float(loss.detach()) / 2:.3f}", flush=True)
    return student


def main(arguments: list[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="file to write: a state dict under torchvision's names")
    parser.add_argument("roots", nargs="+", help="dataset folders whose training images are used")
    parser.add_argument("--dataset", default="sysu_mm01", help="layout of the folders")
    parser.add_argument("--teacher", default="tf_efficientnet_lite0", help="timm network")
    parser.add_argument("--weights", help="file of the teacher; random weights if not given")
    parser.add_argument("--arch", default="resnet18", help="student")
    parser.add_argument("--height", type=int, default=64, help="of the student's images")
    parser.add_argument("--width", type=int, default=32, help="of the student's images")
    parser.add_argument("--steps", type=int, default=1600)
    options = parser.parse_args(arguments)
    teacher: Any = load_teacher(options.teacher, options.weights)
    images, targets = [], []
    for root in options.roots:
        paths = image_paths(load_dataset(options.dataset, root).train)
        large, small = (
            torch.from_numpy(
                open_store(root, paths, height=k * options.height, width=k * options.width, cache="off").read(
                    range(len(paths))
                )
            )
            for k in (2, 1)
        )
        images.append(small)
        targets.append(teach(teacher, large))
    fine = 4 * teacher.feature_info.channels()[0]
    student = distil(torch.cat(images), torch.cat(targets), arch=options.arch, fine=fine, steps=options.steps)
    with atomic_path(options.out) as temporary:
        torch.save(student.state_dict(), temporary)


if __name__ == "__main__":
    main(sys.argv[1:])
