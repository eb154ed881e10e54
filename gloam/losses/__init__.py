"""Losses: pure functions first, one file per family. ``get("name")`` finds a registered one, ``register`` adds one."""

from __future__ import annotations

from gloam.losses.registry import check_choice, get, names, register

__all__ = ["check_choice", "get", "names", "register"]
