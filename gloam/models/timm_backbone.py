"""Networks of the timm library (ViT, Swin, ConvNeXt, CLIP towers, ...) as ReID backbones with feature maps."""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from gloam.errors import GloamError
from gloam.models.single_network import SingleNetworkBackbone

# Attribute that holds the first layer in timm's families; with two streams there are two of it.
_STEM_ATTRIBUTES = ("patch_embed", "stem", "conv_stem", "conv1")
# Names that a CLIP image tower has when it was saved without the model around it.
_CLIP_TOWER = ("class_embedding", "attnpool.positional_embedding")

_log = logging.getLogger(__name__)


class TimmBackbone(SingleNetworkBackbone):
    """Any timm network with ``forward_features``, returning ``(N, C, h, w)`` maps.

    Token outputs lose their class and register tokens and are folded back into a map. With two streams each modality
    has a first layer, drawn for itself; where timm's network has no separable first layer, both share it and a warning
    says so.

    Args:
        name: timm model name.
        streams: 1 or 2.
        image_size: (height, width) the positions are built for; None: dynamic size.
        last_stride: 1 keeps the resolution in the last stage of timm's ResNet and ByobNet families (the CLIP ResNets
            are of the latter); other families ignore it.
    """

    def __init__(
        self, name: str, *, streams: int = 2, image_size: tuple[int, int] | None = None, last_stride: int = 2
    ) -> None:
        def create() -> Any:
            return _create(name, image_size, last_stride)

        network = create()
        first = next((a for a in _STEM_ATTRIBUTES if isinstance(getattr(network, a, None), nn.Module)), None)
        channels = cast(int, network.num_features)
        super().__init__(name, network, create, streams=streams, out_channels=channels, first_layer=first)

    def _maps(self, images: Tensor, modalities: Tensor) -> Tensor:
        try:
            features: Tensor = self.network.forward_features(images)
        except (AssertionError, RuntimeError) as error:
            if not _is_about_size(error):
                raise
            raise _wrong_size(self.name, images.shape[-2:], error) from error
        if features.ndim == 3:
            return self._tokens_to_map(features, images)
        # Swin-like networks put channels last.
        if features.shape[1] != self.out_channels and features.shape[-1] == self.out_channels:
            return features.permute(0, 3, 1, 2)
        return features

    def imagenet_state(self) -> dict[str, Tensor]:
        """timm's default weights of this network."""
        import timm

        return dict(timm.create_model(self.name, pretrained=True, num_classes=0).state_dict())

    def _convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What timm does to a downloaded file before it loads it.

        Among others it knows OpenAI's and open_clip's ``visual.*`` (with or without that prefix, fp16 or not).
        """
        if any(name in state for name in _CLIP_TOWER):
            state = {f"visual.{name}": value for name, value in state.items()}
        convert = getattr(importlib.import_module(type(self.network).__module__), "checkpoint_filter_fn", None)
        if convert is None:
            return state
        try:
            return dict(convert(dict(state), self.network))
        except (KeyError, AttributeError, RuntimeError, ValueError, AssertionError) as error:
            # A file of another network; the caller says how little of it fits.
            _log.debug("timm cannot convert this file: %s", error)
            return state

    def _tokens_to_map(self, tokens: Tensor, images: Tensor) -> Tensor:
        prefix = int(getattr(self.network, "num_prefix_tokens", 0))
        tokens = tokens[:, prefix:]
        height, width = images.shape[-2:]
        # The patches are square: h / w equals H / W up to rounding.
        rows = max(round((tokens.shape[1] * height / width) ** 0.5), 1)
        while tokens.shape[1] % rows:
            rows -= 1
        return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, tokens.shape[1] // rows)


def strides_can_change(name: str) -> bool:
    """Whether a timm network is of the families whose last stage can keep its resolution.

    Raises:
        GloamError: timm has no such network.
    """
    from timm.models import ByobNet, ResNet

    return isinstance(_create(name, None, 2), ByobNet | ResNet)


def check_image_size(name: str, size: tuple[int, int]) -> None:
    """Find out, without computing anything, whether a timm network takes images of a size.

    Args:
        name: timm model name.
        size: (height, width).

    Raises:
        GloamError: timm has no such network, or it refuses the size.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            network: Any = _create(name, None, 2)
            network.eval().forward_features(torch.empty(1, 3, *size))
    except (AssertionError, RuntimeError, TypeError) as error:
        if _is_about_size(error):
            raise _wrong_size(name, size, error) from error
        # Not every network can be built without memory; such a one is asked by its first batch.
        _log.debug("timm:%s cannot be tried without memory: %s", name, error)


def _is_about_size(error: Exception) -> bool:
    """timm's own check, or positions of one size added to a map of another (PyTorch says that in two ways)."""
    words = ("must match the size", "Attempting to broadcast a dimension")
    return isinstance(error, AssertionError) or any(part in str(error) for part in words)


def _wrong_size(name: str, size: Sequence[int], error: Exception) -> GloamError:
    cause = str(error).strip().removesuffix(".") or "no reason given"
    return GloamError(
        f"timm:{name} does not take images of {size[0]} x {size[1]} pixels ({cause}). Set data.height and data.width "
        "to sizes that it takes, or choose another method.arch."
    )


def _create(name: str, image_size: tuple[int, int] | None, last_stride: int) -> nn.Module:
    import timm
    from timm.models import ByobNet, ResNet

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise GloamError(f"timm has no network {name!r}. Did you mean {' or '.join(near) or 'another one'}?")
    sizes: list[dict[str, Any]] = [{"img_size": image_size}] if image_size else [{"dynamic_img_size": True}]
    # Windowed transformers take a size only, convolutional networks neither: try from the most to the least specific.
    sizes += [{"img_size": image_size or (256, 128), "strict_img_size": False}, {}]
    for options in sizes:
        try:
            network: Any = timm.create_model(name, pretrained=False, num_classes=0, **options)
        except TypeError:
            continue
        break
    else:
        raise GloamError(f"timm could not build {name!r}.")
    if isinstance(network, ByobNet | ResNet) and last_stride == 1:
        network = timm.create_model(name, pretrained=False, num_classes=0, output_stride=16)
        _undo_dilation(network.stages[-1] if isinstance(network, ByobNet) else network.layer4)
    if isinstance(network, ByobNet):
        # CLIP's attention pooling has 15 million parameters that a feature map does not need.
        network.head = cast(Any, nn.Identity())
    return cast(nn.Module, network)


def _undo_dilation(stage: nn.Module) -> None:
    """timm widens the filters of a stage whose stride it removes; ReID networks keep them as they were trained."""
    for layer in stage.modules():
        if isinstance(layer, nn.Conv2d) and max(layer.dilation) > 1:
            layer.padding = tuple((size - 1) // 2 for size in layer.kernel_size)
            layer.dilation = (1, 1)
