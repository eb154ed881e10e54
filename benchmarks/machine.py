"""What every row of a benchmark says about where it was measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "numpy", "numba")


def machine_info(threads: int | None = None, packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Columns ``machine`` (processor, threads; no host name), ``load`` and ``versions``.

    Args:
        threads: threads used; all usable cores if not given.
        packages: distributions whose versions matter.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    cores = threads or os.cpu_count() or 1
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    return {"machine": f"{model}, {cores} threads", "load": load, "versions": ", ".join(versions)}


def peak_megabytes(reset: bool = False) -> float:
    """Peak resident memory of this process (Linux); ``reset`` starts the peak anew and gives what is resident now."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    key = "VmRSS" if reset else "VmHWM"
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
