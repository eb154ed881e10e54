"""One door to every backbone: ``create_backbone("resnet50", streams=2)``. Users add their own with ``register``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from gloam.errors import GloamError
from gloam.models.resnet import ARCHITECTURES, ResNet
from gloam.models.single_network import RegisteredBackbone, SingleNetworkBackbone
from gloam.models.timm_backbone import TimmBackbone, check_image_size, strides_can_change
from gloam.models.two_stream import TwoStreamBackbone
from gloam.registry import Registry

_IBN_SUFFIX = "_ibn_a"
_TIMM = "timm:"


def is_timm(arch: str) -> bool:
    """Whether a name means a network of the timm library."""
    return arch.startswith(_TIMM)


def has_residual_stages(arch: str) -> bool:
    """Whether ``last_stride`` has a stage to act on: all networks of our own, and timm's residual ones.

    Raises:
        GloamError: timm has no such network.
    """
    return not is_timm(arch) or strides_can_change(arch.removeprefix(_TIMM))


def check_size(arch: str, size: tuple[int, int]) -> None:
    """Whether a network takes images of a size (height, width); only timm's may not.

    Raises:
        GloamError: it does not.
    """
    if is_timm(arch):
        check_image_size(arch.removeprefix(_TIMM), size)


def _check(name: str, entry: Any) -> None:
    if not callable(entry):
        raise GloamError(f"The backbone {name!r} must be a class or function that builds a torch.nn.Module.")


registry: Registry[Callable[..., nn.Module]] = Registry(
    "backbone",
    check=_check,
    reserved=[*ARCHITECTURES, *(f"{arch}{_IBN_SUFFIX}" for arch in ARCHITECTURES), "timm:<name>"],
)
register = registry.register


def backbone_layers(network: nn.Module) -> list[list[list[nn.Parameter]]]:
    """Of every backbone inside a network its layers' parameters, from the images up.

    Raises:
        GloamError: there is no backbone, or one that does not tell its layers.
    """
    found = [m.layers() for m in network.modules() if isinstance(m, TwoStreamBackbone | SingleNetworkBackbone)]
    if not found:
        raise GloamError(
            f"{type(network).__name__} has no backbone of create_backbone, so optimizer.layer_decay has no layers to "
            "act on. Leave it at 1."
        )
    return found


def create_backbone(
    arch: str,
    *,
    streams: int = 2,
    last_stride: int = 1,
    stem_relu: bool = True,
    insert: Callable[[int], nn.Module] | None = None,
    insert_counts: Sequence[int] = (0, 0, 0, 0),
    independent_stages: int = 0,
    image_size: tuple[int, int] | None = None,
) -> TwoStreamBackbone | SingleNetworkBackbone:
    """A network called as ``backbone(images, modalities) -> (N, C, h, w)``, with ``out_channels``; fresh weights.

    Args:
        arch: ``resnet18``, ``resnet34``, ``resnet50``, ``resnet101``, ``resnet152``, ``small``, ``tiny``, any of them
            with the suffix ``_ibn_a``, ``timm:<name>`` for a network of the timm library
            (``timm:vit_small_patch16_224``), or a registered name.
        streams: 2: a stem per modality; 1: one stem.
        last_stride: stride of the last residual stage.
        stem_relu: False drops the ReLU of the stem.
        insert: builds a block for a number of channels, placed after the last residual blocks of a stage.
        insert_counts: how many such blocks per stage (a stage has at most one per residual block).
        independent_stages: residual stages that each stream has for itself; 0: only the stem.
        image_size: (height, width) that a timm transformer or a registered network is built for; None: any size
            (positions are interpolated).

    Raises:
        GloamError: unknown architecture, inserts in a network without residual stages, or inserts in a stage that is
            not shared.
    """
    if is_timm(arch):
        if independent_stages:
            raise GloamError(f"{arch} has no residual stages to keep apart. Choose a ResNet.")
        if insert is not None and any(insert_counts):
            raise GloamError(f"{arch} has no residual stages to insert blocks into. Set the number of blocks to 0.")
        return TimmBackbone(arch.removeprefix(_TIMM), streams=streams, image_size=image_size, last_stride=last_stride)
    name = arch.removesuffix(_IBN_SUFFIX)
    if name not in ARCHITECTURES:
        create = registry.get(arch)
        if independent_stages or (insert is not None and any(insert_counts)):
            raise GloamError(
                f"{arch} has no residual stages to keep apart or to insert blocks into. Set the number of blocks to 0, "
                "or choose a ResNet."
            )
        return RegisteredBackbone(arch, create, streams=streams, image_size=image_size, last_stride=last_stride)
    if insert is not None and any(insert_counts[:independent_stages]):
        raise GloamError(
            f"With {independent_stages} residual stages of each stream's own there is no shared stage "
            f"{next(n for n, count in enumerate(insert_counts, start=1) if count)} to insert a block into. "
            "Lower independent_stages or switch the inserted block off."
        )
    network = ResNet(name, last_stride=last_stride, ibn=arch.endswith(_IBN_SUFFIX))
    inserts: list[list[nn.Module]] = []
    if insert is not None:
        for stage, channels, count in zip(network.stages, network.stage_channels, insert_counts, strict=True):
            inserts.append([insert(channels) for _ in range(min(count, len(stage)))])
    return TwoStreamBackbone(
        network,
        streams=streams,
        inserts=inserts,
        stem_relu=stem_relu,
        independent_stages=independent_stages,
        arch=arch,
    )
