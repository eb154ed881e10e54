"""Training curves of a run from its metrics.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

from gloam.atomic import atomic_path
from gloam.errors import GloamError

_SKIPPED = {"stage", "epoch", "seconds", "images_per_second"}


def draw_curves(run: Path, output: Path) -> Path:
    """Draw every number of a run over its epochs, one panel each, stages one after the other.

    Args:
        run: run folder.
        output: PNG file.

    Raises:
        GloamError: the run has no finished epoch.
    """
    table = run / "metrics.csv"
    if not table.is_file():
        raise GloamError(f"{run} has no metrics.csv: no epoch has finished yet.")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in _SKIPPED]
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.3 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, name in zip(axes, names, strict=False):
        points = [(epoch, float(row[name])) for epoch, row in enumerate(rows, start=1) if row.get(name)]
        panel.plot([x for x, _ in points], [y for _, y in points], marker="." if len(points) < 30 else None)
        panel.set_title(name.replace("_", " "), fontsize=9)
        panel.grid(alpha=0.3)
        panel.tick_params(labelsize=7)
    for panel in axes[len(names) :]:
        panel.axis("off")
    figure.supxlabel("epoch", fontsize=9)
    with atomic_path(output) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    return output
