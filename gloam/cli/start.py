"""Commands for a first look: ``gloam demo`` and ``gloam doctor``."""

from __future__ import annotations

from pathlib import Path

from gloam.console import console


def demo(output: Path | None = None, seed: int = 0, serve: bool = False, port: int = 8000) -> None:
    """Draw people, train a small AGW, evaluate it, compare it, search a gallery (below four minutes on two cores).

    Example:
        gloam demo --output demo

    Args:
        output: folder for the drawn data, the run, the table, the rank-list figure, the gallery and its hits; demo,
            demo_2 ... if not given.
        seed: seed of the drawing and of the training.
        serve: open the gallery on a page at the end (needs the extra serve); one that an earlier demo made is opened
            at once.
        port: of the page.
    """
    from gloam.cli.serve import open_page, require_packages
    from gloam.demo import free_folder, run_demo

    if serve:
        require_packages()
    place = output or Path("demo")
    if not serve or not (place / "gallery").is_dir():
        place = output or free_folder(place)
        run_demo(place, seed=seed)
    if serve:
        open_page(str(place / "gallery"), port=port)


def doctor() -> None:
    """Versions, devices, cache folder and optional packages: what to paste into a bug report.

    Example:
        gloam doctor
    """
    from gloam.doctor import doctor_table

    console().print(doctor_table())
