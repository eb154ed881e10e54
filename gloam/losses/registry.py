"""Losses by name: what a recipe can choose where a method offers a choice, users' own among them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gloam.errors import GloamError
from gloam.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

# Feature rows (n, D) as the network gives them and labels (n,) to a scalar.
Loss = Callable[["Tensor", "Tensor"], "Tensor"]


def _check(name: str, entry: Any) -> None:
    if isinstance(entry, type) or not callable(entry):
        raise GloamError(
            f"The loss {name!r} must be a function of features (n, D) and labels (n,). What has parameters of its own "
            "belongs into a method."
        )
    try:
        inspect.signature(entry).bind(None, None)
    except TypeError as error:
        raise GloamError(f"The loss {name!r} cannot be called as loss(features, labels): {error}.") from error


registry: Registry[Loss] = Registry("loss", "gloam.losses", group="gloam.losses", check=_check)
register = registry.register
get = registry.get
names = registry.names


def check_choice(name: str, own: tuple[str, ...]) -> str:
    """A method's option that takes words of its own or a registered loss; returns it.

    Raises:
        GloamError: it is neither, or two packages claim the name.
    """
    if name not in own:
        if name not in registry:
            raise registry.unknown(name, own)
        get(name)
    return name
