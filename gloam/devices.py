"""Which devices this machine has, and how much memory."""

from __future__ import annotations

import os

import torch

from gloam.errors import GloamError


def available_devices() -> list[str]:
    """Names of all devices that torch can use here, the fastest kind first."""
    names = []
    if torch.cuda.is_available():
        names += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device that a user names; ``auto``: a GPU where there is one.

    Raises:
        GloamError: this machine has no such device; those it has are listed.
    """
    if isinstance(name, torch.device):
        return name
    known, wanted = available_devices(), name.strip().lower()
    if wanted == "auto":
        return torch.device("cuda" if "cuda" in known else "cpu")
    if wanted not in known:
        hint = " (torch sees no GPU: gloam doctor)" if wanted.startswith("cuda") and "cuda" not in known else ""
        raise GloamError(f"There is no device {name[:40]!r} here{hint}. Choose auto, {' or '.join(known)}.")
    return torch.device(wanted)


def largest_memory() -> int | None:
    """Bytes of the machine's memory, or of its largest GPU if that has more; None where the system does not say."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        return None
    if torch.cuda.is_available():
        found += [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    return max(found)
