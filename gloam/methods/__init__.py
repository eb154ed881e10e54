"""Published methods, one file each. ``create_method("agw", num_classes=395)`` builds one."""

from __future__ import annotations

from typing import Any

from gloam.errors import GloamError
from gloam.methods.contract import EpochContext, Method, MethodOptions, create_options
from gloam.registry import Registry

__all__ = ["EpochContext", "Method", "MethodOptions", "create_method", "list_methods", "register"]


def _check(name: str, entry: Any) -> None:
    if not (isinstance(entry, type) and issubclass(entry, Method)):
        raise GloamError(f"The method {name!r} must be a subclass of gloam.methods.Method, not {entry!r}.")


registry: Registry[type[Method[Any]]] = Registry("method", __name__, check=_check)
register = registry.register
get_method = registry.get


def list_methods(pattern: str = "*") -> list[str]:
    """Names of all methods that match a shell wildcard."""
    return registry.names(pattern)


def create_method(name: str, num_classes: int, **options: Any) -> Method[Any]:
    """Build a method with fresh weights.

    Args:
        name: registered name, e.g. ``"agw"``.
        num_classes: number of training identities.
        **options: the method's flags (``create_method("agw", 395, wrt="exact")``).

    Raises:
        GloamError: unknown method or option, or an option that acts only with another that is not set.
    """
    cls = get_method(name)
    checked = create_options(cls, options)
    checked.refuse_idle()
    return cls(num_classes, checked)
