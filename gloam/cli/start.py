"""Commands for a first look: ``gloam demo`` and ``gloam doctor``."""

from __future__ import annotations

from pathlib import Path

from gloam.console import console


def demo(output: Path | None = None, seed: int = 0) -> None:
    """Draw people, train a small AGW, evaluate it and compare it with two baselines (below four minutes on two cores).

    Example:
        gloam demo --output demo

    Args:
        output: folder for the drawn data, the run, the table and the rank-list figure; demo, demo_2 ... if not given.
        seed: seed of the drawing and of the training.
    """
    from gloam.demo import free_folder, run_demo

    run_demo(output or free_folder(Path("demo")), seed=seed)


def doctor() -> None:
    """Versions, devices, cache folder and optional packages: what to paste into a bug report.

    Example:
        gloam doctor
    """
    from gloam.doctor import doctor_table

    console().print(doctor_table())
