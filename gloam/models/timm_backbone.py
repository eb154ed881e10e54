"""Networks of the timm library (ViT, Swin, ConvNeXt, CLIP towers, ...) as ReID backbones with feature maps."""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from gloam.errors import GloamError
from gloam.models.two_stream import route_rows, separate_draws

# Attribute that holds the first layer in timm's families; with two streams there are two of it.
_STEM_ATTRIBUTES = ("patch_embed", "stem", "conv_stem", "conv1")
# Names that a CLIP image tower has when it was saved without the model around it.
_CLIP_TOWER = ("class_embedding", "attnpool.positional_embedding")

_log = logging.getLogger(__name__)


class TimmBackbone(nn.Module):
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
        super().__init__()
        self.name = name
        self.network: Any = _create(name, image_size, last_stride)
        self.streams = streams
        self.out_channels = cast(int, self.network.num_features)
        attribute = next((a for a in _STEM_ATTRIBUTES if isinstance(getattr(self.network, a, None), nn.Module)), None)
        if streams == 2 and attribute is None:
            _log.warning("%s has no separable first layer: both modalities share it.", name)
        # The name, not the module: a second reference would list its parameters twice in every checkpoint.
        self._stem = attribute
        if streams == 2 and attribute is not None:
            with separate_draws():
                other = _create(name, image_size, last_stride)
            stems = getattr(self.network, attribute), getattr(other, attribute)
            setattr(self.network, attribute, _RoutedStem(*stems))

    def forward(
        self, images: Tensor, modalities: Tensor, adapt: Callable[[nn.Module, Tensor], Tensor] | None = None
    ) -> Tensor:
        """``(N, 3, H, W)`` and ``(N,)`` to ``(N, C, h, w)``; ``adapt`` is unused (there are no inserted blocks)."""
        if (routed := self._routed) is not None:
            routed.modalities = modalities
        features: Tensor = self.network.forward_features(images)
        if features.ndim == 3:
            return self._tokens_to_map(features, images)
        # Swin-like networks put channels last.
        if features.shape[1] != self.out_channels and features.shape[-1] == self.out_channels:
            return features.permute(0, 3, 1, 2)
        return features

    def rename_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of timm's plain network to names of this module, the first layer copied to both modalities."""
        renamed: dict[str, Tensor] = {}
        stem = f"{self._stem}."
        for name, value in state.items():
            if self._routed is not None and name.startswith(stem):
                rest = name.removeprefix(stem)
                renamed |= {f"network.{stem}{which}.{rest}": value for which in ("visible", "infrared")}
            else:
                renamed[f"network.{name}"] = value
        return renamed

    def fit_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of a file that holds this network, under whatever names, to names of this module.

        Understands files of this project (one or two streams), timm's names, and what timm itself converts: among
        others OpenAI's and open_clip's ``visual.*`` (with or without that prefix, fp16 or not).
        """
        own = next((name[: name.index("network.")] for name in state if "network." in name), None)
        if own is not None:
            stem = f"{self._stem}."
            start = f"{own}network."
            part = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
            # One stem of this file feeds both of ours, unless it has both and so have we.
            if self._routed is not None and any(name.startswith(f"{stem}visible.") for name in part):
                return {f"network.{name}": value for name, value in part.items()}
            plain = {name.replace(f"{stem}visible.", stem): value for name, value in part.items()}
            return self.rename_state({k: v for k, v in plain.items() if not k.startswith(f"{stem}infrared.")})
        if any(name in state for name in _CLIP_TOWER):
            state = {f"visual.{name}": value for name, value in state.items()}
        return self.rename_state(self._strip_prefix(self._convert(state)))

    def _convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What timm does to a downloaded file before it loads it."""
        convert = getattr(importlib.import_module(type(self.network).__module__), "checkpoint_filter_fn", None)
        if convert is None:
            return state
        try:
            return dict(convert(dict(state), self.network))
        except (KeyError, AttributeError, RuntimeError, ValueError, AssertionError) as error:
            # A file of another network; the caller says how little of it fits.
            _log.debug("timm cannot convert this file: %s", error)
            return state

    def _strip_prefix(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Remove what stands before timm's names (``backbone.``, ``model.visual.trunk.``)."""
        last = list(self.network.state_dict())[-1]
        found = next((name for name in state if name.endswith(f".{last}")), None)
        if last in state or found is None:
            return state
        prefix = found.removesuffix(last)
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    @property
    def _routed(self) -> _RoutedStem | None:
        stem = getattr(self.network, self._stem) if self._stem is not None else None
        return stem if isinstance(stem, _RoutedStem) else None

    def _tokens_to_map(self, tokens: Tensor, images: Tensor) -> Tensor:
        prefix = int(getattr(self.network, "num_prefix_tokens", 0))
        tokens = tokens[:, prefix:]
        height, width = images.shape[-2:]
        # The patches are square: h / w equals H / W up to rounding.
        rows = max(round((tokens.shape[1] * height / width) ** 0.5), 1)
        while tokens.shape[1] % rows:
            rows -= 1
        return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, tokens.shape[1] // rows)


class _RoutedStem(nn.Module):
    """First layer per modality; the modality vector is set just before each forward."""

    modalities: Tensor | None = None

    def __init__(self, visible: nn.Module, infrared: nn.Module) -> None:
        super().__init__()
        self.visible = visible
        self.infrared = infrared

    def forward(self, images: Tensor) -> Tensor:
        if self.modalities is None:
            raise RuntimeError("set modalities before calling the stem")
        return route_rows(images, self.modalities, self.visible, self.infrared)

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        # timm asks its patch embedding for sizes and formats.
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("visible"), name)  # type: ignore[no-any-return]


def strides_can_change(name: str) -> bool:
    """Whether a timm network is of the families whose last stage can keep its resolution.

    Raises:
        GloamError: timm has no such network.
    """
    from timm.models import ByobNet, ResNet

    return isinstance(_create(name, None, 2), ByobNet | ResNet)


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
