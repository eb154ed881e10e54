"""Reading files of tensors from strangers: no code of theirs runs, and what is wrong is said in words."""

from __future__ import annotations

import importlib
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gloam.errors import GloamError

_DEEPEST = 32
_FOLDER = 0x10  # among the attributes of a part of a ZIP archive
# How PyTorch names what a file asks for beyond tensors, containers and numbers.
_FOREIGN = re.compile(r"GLOBAL ([\w.]+)|(?:unsupported|class) ([\w]+(?:\.\w+)+)")


def load_torch_file(path: Path, *, numpy_values: bool = False, cure: str = "Copy it again.") -> object:
    """The content of a file that ``torch.save`` wrote, on the CPU: tensors, containers, texts and numbers only.

    Args:
        path: an existing file.
        numpy_values: also accept NumPy arrays and numbers, which some releases keep beside their tensors.
        cure: what to do about a damaged file, as a sentence.

    Raises:
        GloamError: an empty, damaged or foreign file, or one that asks for Python objects: building those could run a
            program, so they are never built.
    """
    if path.stat().st_size == 0:
        raise GloamError(f"{path} could not be read: it is empty. {cure}")
    try:
        damaged = _damaged_part(path)
    except MemoryError:
        raise
    except Exception as error:
        # zipfile raises several kinds for a file that is cut off or foreign; each means the same to a user.
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise GloamError(f"{path} could not be read: it is cut off or damaged ({reason}). {cure}") from None
    if damaged is not None:
        raise GloamError(f"{path} is damaged: the checksum of {damaged} is wrong. {cure}")
    try:
        # PyTorch warns about odd pickles, which a damaged file always is.
        with torch.serialization.safe_globals(_numpy_types() if numpy_values else []), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        # A dozen kinds for a file that is damaged or foreign; their texts advise to switch the safety off.
        found = _FOREIGN.search(str(error))
        if found:
            raise GloamError(
                f"{path} could not be read: it holds the Python object {found[1] or found[2]}, and building such "
                "objects could run a program, so nothing was built. Ask its author for the tensors alone (a plain "
                "state dict, or safetensors)."
            ) from None
        raise GloamError(f"{path} could not be read: it is cut off, damaged or no file of PyTorch. {cure}") from None


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        GloamError: an empty, damaged or foreign file.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except MemoryError:
        raise
    except Exception as error:  # of the library, of struct, of JSON: each means the same to a user
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GloamError(
            f"{path} could not be read: it is no complete safetensors file ({reason}). Copy it again."
        ) from None


def plain_tensors(content: Mapping[Any, Any], path: Path, prefix: str = "") -> dict[str, Tensor]:
    """All tensors of nested dictionaries under dotted names.

    Raises:
        GloamError: a tensor that no network can hold (sparse, quantised, nested, without values), something else under
            the name of a weight, or dictionaries without end.
    """
    found: dict[str, Tensor] = {}
    if prefix.count(".") > _DEEPEST:
        raise GloamError(f"{path} nests its content deeper than any file of weights. Export it as a state dict.")
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= plain_tensors(value, path, f"{name}.")
        elif isinstance(value, Tensor):
            if (kind := _odd_kind(value)) is not None:
                raise GloamError(
                    f"{path}: {name} is a {kind} tensor, but weights are plain tensors of numbers. Save it as one "
                    "(tensor.to_dense(), tensor.dequantize()) and export the file again."
                )
            found[name] = value
        elif name.endswith((".weight", ".bias", ".running_mean", ".running_var")) and value is not None:
            raise GloamError(
                f"{path}: {name} is a {type(value).__name__}, not a tensor. Export the file again as a state dict."
            )
    return found


def _damaged_part(path: Path) -> str | None:
    """The first part of a file of torch whose content is not what was written, or None.

    The files are ZIP archives (those of torch before 1.6 are not, and hold no checksums). torch writes a CRC-32 for
    every part and does not look at it; a flipped bit would be taken for a weight.
    """
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        # A part that is marked as a folder has no content: torch would give memory that nobody has filled.
        folders = (part.filename for part in archive.infolist() if part.is_dir() or part.external_attr & _FOLDER)
        return next(folders, None) or archive.testzip()


def _odd_kind(value: Tensor) -> str | None:
    if value.is_nested:
        return "nested"
    if value.is_meta:
        return "valueless (meta)"
    if value.is_quantized:
        return "quantised"
    return None if value.layout is torch.strided else "sparse"


def _numpy_types() -> list[Any]:
    internals = importlib.import_module("numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray")
    kinds = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32")]
    return [np.ndarray, np.dtype, internals.scalar, internals._reconstruct, *kinds]
