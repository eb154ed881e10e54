"""Networks of the timm library (ViT, Swin, ConvNeXt, ...) as ReID backbones with feature maps."""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from gloam.errors import GloamError
from gloam.models.two_stream import route_rows

# Attribute that holds the first layer in timm's families; it is copied for the second spectrum.
_STEM_ATTRIBUTES = ("patch_embed", "stem", "conv_stem", "conv1")

_log = logging.getLogger(__name__)


class TimmBackbone(nn.Module):
    """Any timm network with ``forward_features``, returning ``(N, C, h, w)`` maps.

    Token outputs lose their class and register tokens and are folded back into a map. With two streams the first layer
    is copied per spectrum; where timm's network has no separable first layer, both spectra share it and a warning says
    so.

    Args:
        name: timm model name.
        streams: 1 or 2.
        image_size: (height, width) the positions are built for; None: dynamic size.
    """

    def __init__(self, name: str, *, streams: int = 2, image_size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.name = name
        self.network: Any = _create(name, image_size)
        self.streams = streams
        self.out_channels = cast(int, self.network.num_features)
        attribute = next((a for a in _STEM_ATTRIBUTES if isinstance(getattr(self.network, a, None), nn.Module)), None)
        if streams == 2 and attribute is None:
            _log.warning("%s has no separable first layer: both spectra share it.", name)
        if streams == 2 and attribute is not None:
            stem = _RoutedStem(getattr(self.network, attribute))
            setattr(self.network, attribute, stem)
            self._routed: _RoutedStem | None = stem
        else:
            self._routed = None

    def forward(
        self, images: Tensor, modalities: Tensor, adapt: Callable[[nn.Module, Tensor], Tensor] | None = None
    ) -> Tensor:
        """``(N, 3, H, W)`` and ``(N,)`` to ``(N, C, h, w)``; ``adapt`` is unused (there are no inserted blocks)."""
        if self._routed is not None:
            self._routed.modalities = modalities
        features: Tensor = self.network.forward_features(images)
        if features.ndim == 3:
            return self._tokens_to_map(features, images)
        # Swin-like networks put channels last.
        if features.shape[1] != self.out_channels and features.shape[-1] == self.out_channels:
            return features.permute(0, 3, 1, 2)
        return features

    def rename_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of timm's plain network to names of this module, the first layer copied to both spectra."""
        renamed: dict[str, Tensor] = {}
        stem = next((a for a in _STEM_ATTRIBUTES if getattr(self.network, a, None) is self._routed), None)
        for name, value in state.items():
            if self._routed is not None and stem is not None and name.startswith(f"{stem}."):
                rest = name.removeprefix(f"{stem}.")
                renamed |= {f"network.{stem}.{which}.{rest}": value for which in ("visible", "infrared")}
            else:
                renamed[f"network.{name}"] = value
        return renamed

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
    """First layer per spectrum; the modality vector is set just before each forward."""

    modalities: Tensor | None = None

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.visible = stem
        self.infrared = copy.deepcopy(stem)

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


def _create(name: str, image_size: tuple[int, int] | None) -> nn.Module:
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise GloamError(f"timm has no network {name!r}. Did you mean {' or '.join(near) or 'another one'}?")
    sizes: list[dict[str, Any]] = [{"img_size": image_size}] if image_size else [{"dynamic_img_size": True}]
    # Windowed transformers take a size only, convolutional networks neither: try from the most to the least specific.
    sizes += [{"img_size": image_size or (256, 128), "strict_img_size": False}, {}]
    for options in sizes:
        try:
            network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
        except TypeError:
            continue
        return network
    raise GloamError(f"timm could not build {name!r}.")
