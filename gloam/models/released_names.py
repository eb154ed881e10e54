"""Names of published checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def rename_prefixes(state: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Replace the first prefix that fits each name; names without one stay.

    Args:
        state: flat state of a weight file.
        prefixes: prefix in the file -> prefix here.
    """
    renamed = {}
    for name, value in state.items():
        theirs = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
        renamed[prefixes.get(theirs, "") + name.removeprefix(theirs)] = value
    return renamed


def restore_prefixes(state: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """The reverse of :func:`rename_prefixes`: names here to names of the file; what has no such name is left out."""
    found = {}
    for name, value in state.items():
        theirs = next((theirs for theirs, own in prefixes.items() if name.startswith(own)), None)
        if theirs is not None:
            found[theirs + name.removeprefix(prefixes[theirs])] = value.detach().cpu()
    return found
