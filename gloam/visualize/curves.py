"""Training curves of a run from its metrics.csv."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gloam.errors import GloamError

# Okabe-Ito palette without yellow, told apart with every kind of colour vision; then Tol's muted one.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"),
    *("#332288", "#882255", "#999933", "#44AA99", "#CC6677", "#117733", "#AA4499", "#88CCEE", "#DDCC77"),
)
_PALETTE = 7  # a new line style from here on
STYLES = ("-", "--", ":", "-.")
_SKIPPED = ("stage", "epoch", "seconds")
# Panels of several numbers, and a word that the names of these numbers have.
_SHARED = {
    "learning rate": {"lr"},
    "scores (%)": {"rank1", "rank5", "rank10", "rank20", "mAP", "mINP"},
    "share correct": {"correct", "accuracy", "exact", "precision", "recall"},
    "clusters and people": {"clusters", "identities"},
    "agreement with the hidden ids": {"nmi", "ari", "f"},
    "pairs made": {"count"},
    "mass of soft neighbours": {"mass"},
    "gates": {"gate"},
}


def draw_curves(run: str | Path) -> Figure:
    """The numbers of a run over its epochs, stages one after the other.

    Panels: losses, learning rate, scores (percent), one for every other kind of number that a run can have several of,
    and one for each number besides.

    Args:
        run: run folder with ``metrics.csv``.

    Returns:
        The figure; :func:`gloam.visualize.figure_files.save_figure` writes it.

    Raises:
        GloamError: the run has no finished epoch.
    """
    table = Path(run) / "metrics.csv"
    rows = []
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    if not rows:
        raise GloamError(f"{run} has no metrics.csv with an epoch in it: no epoch has finished yet.")
    series = {name: _points(rows, name) for name in rows[0] if name not in _SKIPPED}
    panels = _panels({name: points for name, points in series.items() if points})
    columns = min(3, max(len(panels), 1))
    lines = max(-(-len(panels) // columns), 1)
    figure = Figure(figsize=(4.4 * columns, 3.1 * lines), layout="constrained", dpi=110)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    starts = [i for i in range(1, len(rows)) if rows[i].get("stage") != rows[i - 1].get("stage")]
    for panel, (title, names) in zip(axes, panels.items(), strict=False):
        _draw_panel(panel, title, {name: series[name] for name in names}, [start + 0.5 for start in starts])
    for panel in axes[len(panels) :]:
        panel.axis("off")
    figure.supxlabel("epoch", fontsize=9)
    return figure


def _points(rows: list[dict[str, str]], name: str) -> list[tuple[int, float]]:
    """(epoch counted over all stages from 1, value) where the run wrote a number."""
    points = []
    for epoch, row in enumerate(rows, start=1):
        try:
            points.append((epoch, float(row.get(name) or "")))
        except ValueError:  # this stage or epoch has no such number
            continue
    return points


def _panels(series: dict[str, list[tuple[int, float]]]) -> dict[str, list[str]]:
    """Titles and the numbers they share a panel with."""
    panels: dict[str, list[str]] = {"loss": [], "learning rate": [], "scores (%)": []}
    for name in series:
        title = next((title for title, words in _SHARED.items() if words & set(name.split("_"))), None)
        if title is not None:
            panels.setdefault(title, []).append(name)
        elif name == "loss" or name.endswith("_loss") or ("loss" in series and _is_part(name, series)):
            panels["loss"].append(name)
        else:
            panels[name.replace("_", " ")] = [name]
    return {title: names for title, names in panels.items() if names}


def _is_part(name: str, series: dict[str, list[tuple[int, float]]]) -> bool:
    """Whether a number can be a summand of the loss: never far above it, and no rate or count by name."""
    if any(word in name for word in ("per_second", "number", "outliers", "rate", "share")):
        return False
    totals = dict(series["loss"])
    return all(value <= 1.05 * abs(totals.get(epoch, value)) + 1e-6 for epoch, value in series[name])


def _colours(count: int) -> list[str]:
    """As many different colours."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    import matplotlib
    from matplotlib.colors import to_hex

    more = count - len(COLOURS)
    return [*COLOURS, *(to_hex(matplotlib.colormaps["turbo"]((n + 0.5) / more)) for n in range(more))]


def _parts(points: list[tuple[int, float]], borders: list[float]) -> list[tuple[float, float]]:
    """The points with a gap at every border: the last number of a stage leads to none of the next."""
    found: list[tuple[float, float]] = []
    for before, point in zip([None, *points], points, strict=False):
        found += [(b, math.nan) for b in borders if before is not None and before[0] < b < point[0]]
        found.append(point)
    return found


def _draw_panel(axes: Axes, title: str, series: dict[str, list[tuple[int, float]]], borders: list[float]) -> None:
    scale = 100 if title == "scores (%)" else 1
    for number, ((name, points), colour) in enumerate(zip(series.items(), _colours(len(series)), strict=True)):
        parts = _parts(points, borders)
        axes.plot(
            [x for x, _ in parts],
            [scale * y for _, y in parts],
            color=colour,
            linestyle=STYLES[number // _PALETTE % len(STYLES)],
            marker="o" if len(points) < 30 else None,
            markersize=3,
            linewidth=1.6,
            label=name.replace("_", " "),
        )
    for border in borders:
        axes.axvline(border, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_title(title, fontsize=10, loc="left", fontweight="bold")
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    if title in ("loss", *_SHARED) and title != "learning rate":
        axes.legend(fontsize=7.5, framealpha=0.75, edgecolor="none")
