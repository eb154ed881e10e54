"""Tensors that remember which names of a file they were made from, through any renaming and arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class _Traced(Tensor):
    """A tensor with names; results of operations carry the names of all that went in."""

    file_names: frozenset[str]

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        made = [value for value in _tensors(result) if isinstance(value, _Traced)]
        if made:
            names = origins(_tensors((args, kwargs)))
            for value in made:
                value.file_names = names
        return result


def trace(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each of which knows its name."""
    traced: dict[str, Tensor] = {}
    for name, value in state.items():
        tensor = value.detach().as_subclass(_Traced)
        tensor.file_names = frozenset((name,))
        traced[name] = tensor
    return traced


def origins(values: Iterable[Tensor]) -> frozenset[str]:
    """Every name that went into any of the tensors; tensors that were never traced have none."""
    return frozenset(name for value in values for name in getattr(value, "file_names", ()))


def plain(value: Tensor) -> Tensor:
    """The tensor without its names."""
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(Tensor)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
