"""What an unfinished epoch needs, besides network and optimiser, to go on between two batches with the same bits.

Batches, frames and augmentation depend on (seed, epoch, batch number) and private generators, so a resume only skips
the batches that are done. What a method set up at the epoch's start (a plan, a generator, a flag) lives in plain
attributes; they are kept too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gloam.errors import GloamError

# Attributes that torch gives every module; parameters and buffers among them are in the state dict.
_OF_TORCH = {*vars(nn.Module()), "training"}
_SCALARS = (bool, int, float, str)


class UnsavableError(Exception):
    """A method holds something that no checkpoint can: the run then goes back to the start of the epoch."""


@dataclass
class EpochState:
    """The running numbers of an epoch.

    Attributes:
        step: batches that are done.
        sums: running sum of every number of the training step.
        images: images that went through this process.
        seconds: time spent in the epoch by earlier calls.
        losses: of the batches that are done.
        logged: numbers that the method reported at the epoch's start.
        generators: states of the private generators and of torch's own, by name.
        plain: plain attributes of the method (:func:`plain_attributes`).
    """

    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    logged: dict[str, float] = field(default_factory=dict)
    generators: dict[str, Tensor] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)

    def keep(
        self, method: nn.Module, before: Mapping[str, Any], generator: torch.Generator, device: torch.device
    ) -> None:
        """Note the generators and the method's plain attributes as they are between two batches.

        Args:
            method: in training.
            before: its :func:`baseline`.
            generator: of the augmentation.
            device: where training runs.

        Raises:
            UnsavableError: the method holds what no checkpoint can.
        """
        self.plain = plain_attributes(method, before)
        self.generators = {"augment": generator.get_state(), "torch": torch.get_rng_state()}
        if device.type == "cuda":
            self.generators["cuda"] = torch.cuda.get_rng_state(device)

    def put_back(self, method: nn.Module, generator: torch.Generator, device: torch.device) -> None:
        """The inverse of :meth:`keep`; a GPU's generator is left out where the run moved to a CPU.

        Raises:
            GloamError: states of another method, or damaged ones.
        """
        set_plain_attributes(method, self.plain, device)
        try:
            generator.set_state(self.generators["augment"])
            torch.set_rng_state(self.generators["torch"])
            if device.type == "cuda" and "cuda" in self.generators:
                torch.cuda.set_rng_state(self.generators["cuda"], device)
        except (KeyError, TypeError, RuntimeError) as error:
            raise GloamError(
                f"The checkpoint's random state is damaged ({error!r}). Use another checkpoint of the run."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors on the CPU, for a checkpoint."""
        return {
            "step": self.step,
            "sums": {name: value.detach().cpu() for name, value in self.sums.items()},
            "images": self.images,
            "seconds": self.seconds,
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "logged": dict(self.logged),
            "generators": dict(self.generators),
            "plain": self.plain,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], device: torch.device) -> EpochState:
        """The inverse of :meth:`to_dict`; sums go to the device.

        Raises:
            GloamError: values that no ``to_dict`` wrote.
        """
        try:
            return cls(
                step=_whole(values["step"]),
                sums={str(name): value.to(device) for name, value in values["sums"].items()},
                images=_whole(values["images"]),
                seconds=float(values["seconds"]),
                losses=[float(loss) for loss in values["losses"].tolist()],
                logged={str(name): float(value) for name, value in values["logged"].items()},
                generators={str(name): value for name, value in values["generators"].items()},
                plain=dict(values["plain"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GloamError(
                f"The checkpoint's state inside an epoch is damaged ({error!r}). Use another checkpoint of the run."
            ) from error


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def baseline(method: nn.Module) -> dict[str, Any]:
    """Every attribute of a method's modules before training: what changes later is state."""
    return {name: value for name, _, _, value in _attributes(method)}


def plain_attributes(method: nn.Module, before: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that are neither parameters nor buffers and may have changed since :func:`baseline`.

    Args:
        method: between two batches.
        before: its baseline.

    Returns:
        ``module.attribute`` -> an encoded value: numbers, strings, tensors, generators, and lists of these.

    Raises:
        UnsavableError: an attribute holds anything else and is not the object it was.
    """
    found: dict[str, Any] = {}
    for name, _, _, value in _attributes(method):
        known = before.get(name)
        if name in before and (value is known and not isinstance(value, Tensor | torch.Generator | list | dict)):
            continue
        if name in before and type(value) is type(known) and isinstance(value, _SCALARS) and value == known:
            continue
        try:
            found[name] = _encode(value, name)
        except UnsavableError:
            if name not in before or value is not known:
                raise
    return found


def set_plain_attributes(method: nn.Module, values: Mapping[str, Any], device: torch.device) -> None:
    """Give a method the attributes that :func:`plain_attributes` found.

    Raises:
        GloamError: attributes of another method, or damaged values.
    """
    modules = dict(method.named_modules())
    try:
        for name, value in values.items():
            place, _, attribute = name.rpartition(".")
            setattr(modules[place], attribute, _decode(value, device))
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise GloamError(
            f"The checkpoint's state inside an epoch does not fit {type(method).__name__} ({error!r}). "
            "Use another checkpoint of the run."
        ) from error


def _attributes(method: nn.Module) -> list[tuple[str, nn.Module, str, Any]]:
    return [
        (f"{place}.{attribute}", module, attribute, value)
        for place, module in method.named_modules()
        for attribute, value in vars(module).items()
        # Fabric puts a module's own `forward` back as an attribute: it holds nothing.
        if attribute not in _OF_TORCH and getattr(value, "__self__", None) is not module
    ]


def _encode(value: Any, name: str) -> list[Any]:
    """A tagged value that ``torch.load(weights_only=True)`` reads."""
    if value is None or isinstance(value, _SCALARS):
        return ["value", value]
    if isinstance(value, Tensor):
        return ["tensor", value.detach().cpu().clone(), value.device.type != "cpu"]
    if isinstance(value, torch.Generator):
        return ["generator", value.get_state(), value.device.type != "cpu"]
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return [type(value).__name__, [_encode(item, name) for item in value]]
    if type(value) is dict:
        return ["dict", [[_encode(key, name), _encode(item, name)] for key, item in value.items()]]
    raise UnsavableError(f"{name} is a {type(value).__name__}")


def _decode(coded: Any, device: torch.device) -> Any:
    kind, value = coded[0], coded[1]
    if kind == "value":
        return value
    if kind == "tensor":
        return value.to(device) if coded[2] else value
    if kind == "generator":
        generator = torch.Generator(device if coded[2] else "cpu")
        generator.set_state(value)
        return generator
    if kind in ("list", "tuple"):
        items = [_decode(item, device) for item in value]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {_decode(key, device): _decode(item, device) for key, item in value}
    raise ValueError(f"unknown kind {kind!r}")
