"""Figures to files: the suffix decides the format."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from gloam.atomic import atomic_path
from gloam.errors import GloamError

FORMATS = (".jpg", ".pdf", ".png", ".svg")


def check_figure_format(path: Path) -> None:
    """Raises GloamError for a suffix that no format has: before a figure is computed, not after."""
    if path.suffix.lower() not in FORMATS:
        raise GloamError(f"{path} must end in one of {', '.join(FORMATS)}.")


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, JPEG, PDF or SVG, atomically, at the resolution it was drawn for.

    The same figure gives the same bytes: no date is written, and SVG ids are fixed.

    Returns:
        The path.

    Raises:
        GloamError: another suffix.
    """
    import matplotlib

    target = Path(path)
    check_figure_format(target)
    kind = target.suffix.lower()[1:]
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with (
        atomic_path(target) as temporary,
        matplotlib.rc_context({"svg.hashsalt": "gloam", "svg.fonttype": "none"}),
    ):
        # Not into the file: Pillow takes no notice of a disk that accepts only a part of an image.
        content = io.BytesIO()
        figure.savefig(content, format=kind, dpi=figure.dpi, metadata=dates.get(kind))
        temporary.write_bytes(content.getvalue())
    return target
