"""The doors of all numeric functions: what a caller hands in becomes an array that compiled code can trust.

Accepted are NumPy arrays of any order, stride and byte order, memory maps, lists, and tensors of any device that can
copy to NumPy. Whatever cannot be meant is a ``GloamError`` that says what to give instead.
"""

from __future__ import annotations

import math
import numbers
import operator
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gloam.errors import GloamError, did_you_mean

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_numbers(values: Any, name: str, shape: str) -> NDArray[Any] | Tensor:
    """An array or tensor of plain numbers: booleans, integers, or floats of 16, 32 or 64 bits (bfloat16 in tensors).

    Object arrays of numbers and long doubles become float64; nothing is copied where that is not needed.

    Args:
        values: anything array-like.
        name: for messages.
        shape: the shape wanted in words, for messages, e.g. ``(N, D)``.

    Raises:
        GloamError: no array, text, dates, complex numbers, masked or sparse values.
    """
    if isinstance(values, Tensor):
        return _as_dense_tensor(values, name)
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise GloamError(f"{name} has masked values. Fill them or drop those rows first.")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise GloamError(f"{name} must be an array of shape {shape}; this one has rows of different kinds.") from error
    if array.dtype.kind == "O" and array.ndim:
        try:
            array = array.astype(np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            raise GloamError(f"{name} must be numbers of shape {shape}, not objects: {error}.") from error
    if array.dtype.kind not in "fiub":
        raise GloamError(f"{name} must be numbers of shape {shape}, not {_kind(array)}.")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return array


def as_features(values: Any, name: str = "features") -> Tensor:
    """A matrix of features as a tensor where it lies, without a copy where possible.

    Args:
        values: ``(N, D)`` NumPy (also a memory map), torch on any device, or nested lists; any number type.
        name: for messages.

    Returns:
        ``(N, D)`` tensor of a float type.

    Raises:
        GloamError: not a matrix of numbers, or rows without a number.
    """
    found = as_numbers(values, name, "(N, D)")
    if found.ndim != 2:
        raise GloamError(f"{name} must be a matrix of shape (N, D), not of shape {tuple(found.shape)}.")
    if found.shape[1] == 0:
        raise GloamError(f"{name} have shape {tuple(found.shape)}: no number per row. Extract the features again.")
    if isinstance(found, np.ndarray):
        if found.dtype.kind != "f":
            found = found.astype(np.float32)
        if min(found.strides) < 0:
            found = np.ascontiguousarray(found)
        with warnings.catch_warnings():
            # A read-only memory map is fine: nothing here writes into its input.
            warnings.filterwarnings("ignore", message=".*not writable.*")
            found = torch.from_numpy(found)
    return found if found.dtype in _FLOATS else found.to(torch.float32)


def as_distances(values: Any, name: str, shape: tuple[int | None, int | None] = (None, None)) -> NDArray[Any] | Tensor:
    """A matrix of distances where it lies: float64 for float64 and integers, float32 for all other types.

    Args:
        values: ``(n, m)`` NumPy, torch or nested lists; may be read-only.
        name: for messages.
        shape: what it must be, None for any number.

    Raises:
        GloamError: not a matrix of numbers of this shape.
    """
    wanted = f"({', '.join('?' if size is None else str(size) for size in shape)})"
    found = as_numbers(values, name, wanted)
    if found.ndim != 2 or any(size not in (None, have) for size, have in zip(shape, found.shape, strict=True)):
        raise GloamError(f"{name} must have shape {wanted}, not {tuple(found.shape)}.")
    return found


def comparable(part: NDArray[Any] | Tensor) -> NDArray[Any] | Tensor:
    """Some rows of :func:`as_distances` as float32 or float64, so that no two different numbers become equal."""
    if isinstance(part, Tensor):
        double = part.dtype == torch.float64 or not part.is_floating_point()
        return part.to(torch.float64 if double else torch.float32)
    double = part.dtype.kind != "f" or part.dtype.itemsize > 4
    return part.astype(np.float64 if double else np.float32, copy=False)


def as_ids(values: Any, name: str) -> NDArray[np.int64]:
    """A vector of ids or camera numbers.

    Args:
        values: ``(N,)`` integers; objects that are integers are fine.
        name: for messages.

    Raises:
        GloamError: no vector, no integers, or integers beyond 64 bits.
    """
    if isinstance(values, Tensor):
        tensor = _as_dense_tensor(values, name)
        if tensor.is_floating_point():
            raise GloamError(f"{name} must be integers, not {tensor.dtype}. Map other ids to integers first.")
        values = tensor.cpu().numpy()
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise GloamError(f"{name} must be a vector of integers; this one has entries of different kinds.") from error
    if array.ndim != 1:
        raise GloamError(f"{name} must be a vector, not of shape {array.shape}.")
    if array.dtype.kind == "O" and all(isinstance(v, numbers.Integral) for v in array):
        limits = np.iinfo(np.int64)
        beyond = [v for v in array if not limits.min <= v <= limits.max]
        if beyond:
            raise _too_large(name, beyond[0])
        array = array.astype(np.int64)
    if array.size and array.dtype.kind not in "iub":
        raise GloamError(f"{name} must be integers, not {_kind(array)}. Map other ids to integers first.")
    if array.size and array.dtype.kind == "u" and array.max() > np.iinfo(np.int64).max:
        raise _too_large(name, array.max())
    return np.ascontiguousarray(array, dtype=np.int64)


def as_whole_number(value: Any, name: str, smallest: int = 1, largest: int | None = None) -> int:
    """A whole number in a range; neither a boolean nor a float.

    Args:
        value: what was given.
        name: for messages; may go on to say what it counts.
        smallest: smallest number allowed.
        largest: largest number allowed.

    Raises:
        GloamError: anything else.
    """
    limits = f"at least {smallest}" if largest is None else f"between {smallest} and {largest}"
    try:
        if isinstance(value, bool | np.bool_) or (isinstance(value, Tensor) and value.dtype == torch.bool):
            raise TypeError
        number = operator.index(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GloamError(f"{name} must be a whole number, {limits}, not {_shown(value)}.") from error
    if number < smallest:
        raise GloamError(f"{name} must be at least {smallest}, not {_shown(number)}.")
    if largest is not None and number > largest:
        raise GloamError(f"{name} must be at most {largest}, not {_shown(number)}.")
    return number


def as_number(value: Any, name: str) -> float:
    """A finite number; neither a boolean nor text.

    Raises:
        GloamError: anything else.
    """
    try:
        if isinstance(value, bool | np.bool_ | str | bytes):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise GloamError(f"{name} must be a number, not {_shown(value)}.") from error
    if not math.isfinite(number):
        raise GloamError(f"{name} must be a finite number, not {number}.")
    return number


def as_choice(value: Any, known: tuple[str, ...], name: str) -> str:
    """One of some words.

    Raises:
        GloamError: another word, with the nearest ones.
    """
    if not isinstance(value, str) or value not in known:
        raise GloamError(f"{name} {_shown(value)} is unknown. {did_you_mean(str(value), known)}")
    return value


def check_same_width(query: Tensor, gallery: Tensor) -> None:
    """Refuse features of two kinds.

    Raises:
        GloamError: rows of different lengths.
    """
    if query.shape[1] != gallery.shape[1]:
        raise GloamError(
            f"Query features have {query.shape[1]} numbers, gallery features {gallery.shape[1]}. Both must come from "
            "one model and one of its features."
        )


def check_finite(sizes: Tensor, name: str, first: int = 0) -> None:
    """Refuse rows with NaN or infinity.

    Args:
        sizes: ``(n,)`` some number per row that is finite exactly where all of the row's entries are.
        name: of the features, for messages.
        first: number of the first row.

    Raises:
        GloamError: names the first bad row.
    """
    bad = ~torch.isfinite(sizes)
    if bool(bad.any()):
        row = first + int(bad.to(torch.uint8).argmax())
        raise GloamError(
            f"{name}: row {row} contains NaN or infinite numbers, so it is at no distance from anything. The network "
            "has probably diverged: lower the learning rate, or train and extract with precision 32."
        )


def _as_dense_tensor(values: Tensor, name: str) -> Tensor:
    tensor = values.detach()
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise GloamError(f"{name} must be a dense tensor with values, not {tensor.layout} on {tensor.device}.")
    if tensor.is_complex():
        raise GloamError(f"{name} must be real numbers, not {tensor.dtype}.")
    return tensor.resolve_neg()


def _kind(array: NDArray[Any]) -> str:
    words = {"U": "text", "S": "bytes", "O": "objects", "c": "complex numbers", "M": "dates", "m": "durations"}
    return words.get(array.dtype.kind, str(array.dtype))


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 200:  # Python refuses to print very long integers
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _too_large(name: str, value: Any) -> GloamError:
    return GloamError(
        f"{name} holds {_shown(value)}, which does not fit into 64 bits. Number the ids first, for example with "
        "numpy.unique(ids, return_inverse=True)."
    )
