"""A network that knows nothing of modalities as a ReID backbone: its first layer, if it names one, per modality."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from gloam.errors import GloamError
from gloam.models.two_stream import route_rows, separate_draws

_log = logging.getLogger(__name__)


class SingleNetworkBackbone(nn.Module):
    """One network for both modalities; with two streams each modality has a first layer, drawn for itself.

    Args:
        name: what it is called in messages.
        network: ``(N, 3, H, W)`` to ``(N, C, h, w)``.
        create: builds another one, for the first layer of the second stream.
        streams: 1 or 2.
        out_channels: C.
        first_layer: attribute that holds the first layer; None: both modalities share it, and a warning says so.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        create: Callable[[], nn.Module],
        *,
        streams: int,
        out_channels: int,
        first_layer: str | None,
    ) -> None:
        super().__init__()
        self.name = name
        self.network: Any = network
        self.streams = streams
        self.out_channels = out_channels
        if streams == 2 and first_layer is None:
            _log.warning("%s has no separable first layer: both modalities share it.", name)
        # The name, not the module: a second reference would list its parameters twice in every checkpoint.
        self._stem = first_layer
        if streams == 2 and first_layer is not None:
            with separate_draws():
                other = create()
            stems = getattr(self.network, first_layer), getattr(other, first_layer)
            setattr(self.network, first_layer, RoutedStem(*stems))

    def forward(
        self, images: Tensor, modalities: Tensor, adapt: Callable[[nn.Module, Tensor], Tensor] | None = None
    ) -> Tensor:
        """``(N, 3, H, W)`` and ``(N,)`` to ``(N, C, h, w)``; ``adapt`` is unused (there are no inserted blocks)."""
        if (routed := self._routed) is not None:
            routed.modalities = modalities
        return self._maps(images, modalities)

    def _maps(self, images: Tensor, modalities: Tensor) -> Tensor:
        maps: Tensor = self.network(images)
        return maps

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters of every layer from the images up, as the network's ``group_matcher`` (timm's convention) says.

        Raises:
            GloamError: it has none.
        """
        if not hasattr(self.network, "group_matcher"):
            raise GloamError(
                f"{self.name} does not say which of its parameters are which layer (timm's group_matcher), so "
                "optimizer.layer_decay cannot act. Leave it at 1, or choose another method.arch."
            )
        from timm.models import group_parameters

        grouped: Any = group_parameters(self.network, self.network.group_matcher(coarse=False))
        parameters = dict(self.network.named_parameters())
        return [[parameters[name] for name in grouped[number]] for number in sorted(grouped)]

    def rename_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Names of the plain network to names of this module, the first layer copied to both modalities."""
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
        """Names of a file that holds this network, under whatever prefix, to names of this module.

        Understands files of this project (one or two streams) and the network's own names.
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
        return self.rename_state(self._strip_prefix(self._convert(state)))

    def imagenet_state(self) -> dict[str, Tensor]:
        """State of the plain network after its training on ImageNet."""
        raise NotImplementedError(f"{type(self).__name__} must say where its ImageNet weights come from")

    def _convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Foreign names to the network's own."""
        return state

    def _strip_prefix(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Remove what stands before the network's names (``backbone.``, ``model.visual.trunk.``)."""
        last = next(reversed(self.network.state_dict()), "")
        found = next((name for name in state if name.endswith(f".{last}")), None)
        if last in state or found is None:
            return state
        prefix = found.removesuffix(last)
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    @property
    def _routed(self) -> RoutedStem | None:
        stem = getattr(self.network, self._stem) if self._stem is not None else None
        return stem if isinstance(stem, RoutedStem) else None


class RoutedStem(nn.Module):
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


class RegisteredBackbone(SingleNetworkBackbone):
    """A network that a user registered (:func:`gloam.models.backbone.register`).

    What it must offer: ``out_channels``, and ``forward(images) -> (N, C, h, w)`` or, where it tells the modalities
    apart itself, ``forward(images, modalities)``. What it may offer: ``first_layer``, the attribute that each
    modality has for itself with two streams, and ``imagenet_weights() -> state dict``.

    Args:
        name: registered name.
        create: the registered class or function. It is called with those of the options that it accepts.
        **options: ``streams``, ``last_stride``, ``image_size``.

    Raises:
        GloamError: what it builds is no such network.
    """

    def __init__(self, name: str, create: Callable[..., nn.Module], *, streams: int, **options: Any) -> None:
        options["streams"] = streams
        accepted = inspect.signature(create).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
        known = {key: value for key, value in options.items() if takes_all or key in accepted}
        network: Any = create(**known)
        if not isinstance(network, nn.Module):
            raise GloamError(f"Backbone {name!r} built {type(network).__name__}, which is no torch.nn.Module.")
        channels = getattr(network, "out_channels", None)
        if not isinstance(channels, int) or channels < 1:
            raise GloamError(f"Backbone {name!r} needs the attribute out_channels, the channels C of its last map.")
        first = getattr(network, "first_layer", None)
        if first is not None and not isinstance(getattr(network, first, None), nn.Module):
            raise GloamError(f"Backbone {name!r} names {first!r} as its first layer, but has no such module.")
        routes_itself = "modalities" in inspect.signature(network.forward).parameters
        super().__init__(
            name,
            network,
            lambda: create(**known),
            streams=1 if routes_itself else streams,
            out_channels=channels,
            first_layer=None if routes_itself else first,
        )
        self.streams = streams
        self._routes_itself = routes_itself

    def imagenet_state(self) -> dict[str, Tensor]:
        """What the network's ``imagenet_weights()`` returns.

        Raises:
            GloamError: it has none.
        """
        offered = getattr(self.network, "imagenet_weights", None)
        if offered is None:
            raise GloamError(
                f"Backbone {self.name!r} offers no ImageNet weights. Give weights: none, a file of its weights or a "
                "run of yours (weights: PATH), or let the network define imagenet_weights() -> state dict."
            )
        return dict(offered())

    def fit_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """See the base class; a network may call a part of its own ``network`` too."""
        own = {name.removeprefix("network.") for name in self.state_dict()}
        stem = f"{self._stem}."
        plain = {name.replace(f"{stem}visible.", stem) for name in own if not name.startswith(f"{stem}infrared.")}
        return self.rename_state(state) if plain <= state.keys() else super().fit_state(state)

    def _maps(self, images: Tensor, modalities: Tensor) -> Tensor:
        maps = self.network(images, modalities) if self._routes_itself else self.network(images)
        wanted = (len(images), self.out_channels)
        if not isinstance(maps, Tensor) or maps.ndim != 4 or maps.shape[:2] != wanted:
            shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise GloamError(
                f"Backbone {self.name!r} returned {shape} for {len(images)} images; a method needs its last map, "
                f"({len(images)}, {self.out_channels}, h, w)."
            )
        return maps
