"""Devices by name."""

from __future__ import annotations

import torch


def choose_device(name: str | torch.device) -> torch.device:
    """A device by name; ``auto`` is the first GPU, or the CPU."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
