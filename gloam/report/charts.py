"""Charts of a report as SVG text: readable without scripts, the same bytes every time, colours left to the page."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gloam.report.ranking_analysis import RECALLS, ScoreHistograms
from gloam.visualize.curves import COLOURS, STYLES

INK = "#333333"  # replaced by the page's own colour, light or dark
_SIZE = (5.6, 3.3)
_BOX = (0.115, 0.15, 0.865, 0.81)  # of the axes in the figure: the page's script finds points by it
_FONT: dict[Any, Any] = {"font.family": "sans-serif", "svg.fonttype": "none", "text.color": INK, "axes.labelcolor": INK}
_AXES: dict[Any, Any] = {"axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "font.size": 10}


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: unique in the page.
        svg: the drawing.
        label: what it shows, for people who do not see it.
        lines: label -> colour, style and values where a script reads values off; empty otherwise.
        x: first and last value of the horizontal axis.
        box: left and right end of the axes, as shares of the width.
    """

    name: str
    svg: str
    label: str
    lines: Mapping[str, Line]
    x: tuple[float, float] = (0.0, 1.0)
    box: tuple[float, float] = (_BOX[0], _BOX[0] + _BOX[2])


@dataclass(frozen=True)
class Line:
    """One curve: its colour, whether it is dashed, and percent at evenly spaced points."""

    colour: str
    style: str
    values: list[float]


def cmc_chart(name: str, curves: Mapping[str, NDArray[np.float64]]) -> Chart:
    """Share of queries found up to a rank; the curves start at rank 1 and are of one length."""
    length = max(len(curve) for curve in curves.values())
    figure, axes = _figure("rank", "queries with a match up to this rank (%)")
    lines = _lines(axes, np.arange(1, length + 1), curves, name)
    axes.set(xlim=(1, max(length, 2)), ylim=(0, 101))
    return Chart(name, svg_text(figure, name), _told("Cumulative matching", lines), lines, (1, length))


def precision_chart(name: str, curves: Mapping[str, NDArray[np.float64]]) -> Chart:
    """Mean interpolated precision over recall."""
    figure, axes = _figure("recall (%)", "precision (%)")
    lines = _lines(axes, 100 * RECALLS, curves, name)
    axes.set(xlim=(0, 100), ylim=(0, 101))
    return Chart(name, svg_text(figure, name), _told("Precision over recall", lines), lines, (0, 100))


def histogram_chart(name: str, histograms: ScoreHistograms, *, bins: int = 80) -> Chart:
    """Densities of right and wrong pairs over their score, and the threshold of equal error."""
    total = histograms.right + histograms.wrong
    inside = np.flatnonzero(total)
    low, high = int(inside[0]), int(inside[-1]) + 1
    step = max(-(-(high - low) // bins), 1)
    figure, axes = _figure("score (larger: more alike)", "density")
    width = float(histograms.edges[1] - histograms.edges[0]) * step
    for counts, colour, label in ((histograms.wrong, COLOURS[1], "two people"), (histograms.right, COLOURS[0], "one")):
        some = counts[low:high]
        some = np.pad(some, (0, -len(some) % step)).reshape(-1, step).sum(axis=1)
        density = some / max(some.sum(), 1) / width
        left = histograms.edges[low] + width * np.arange(len(some))
        axes.stairs(density, np.append(left, left[-1] + width), fill=True, alpha=0.35, color=colour)
        axes.stairs(density, np.append(left, left[-1] + width), color=colour, linewidth=1.5, label=label)
    rate, threshold = histograms.equal_error()
    axes.axvline(threshold, color=INK, linestyle="--", linewidth=1)
    axes.margins(y=0.15)
    label = f"Scores of right and wrong pairs; equal error rate {100 * rate:.2f} % at {threshold:.3f}"
    return Chart(name, svg_text(figure, name), label, {})


def matches_chart(name: str, groups: Mapping[tuple[int, int], tuple[float, int]]) -> Chart:
    """Mean average precision by number of matches."""
    figure, axes = _figure("right entries in the gallery", "mAP (%)")
    values = [100 * mean for mean, _ in groups.values()]
    axes.bar(np.arange(len(groups)), values, color=COLOURS[0], alpha=0.75, width=0.7)
    words = [f"{least}" if least == most else f"{least}-{most}" for least, most in groups]
    for place, (value, (_, count)) in enumerate(zip(values, groups.values(), strict=True)):
        axes.text(place, value + 1, f"{value:.1f}\n({count:,})", ha="center", fontsize=8, color=INK)
    axes.set_xticks(np.arange(len(groups)), words)
    axes.set(ylim=(0, max(*values, 10) * 1.25), xlim=(-0.6, max(len(groups), 4) - 0.4))
    told = ", ".join(f"{word}: {value:.1f} %" for word, value in zip(words, values, strict=True))
    return Chart(name, svg_text(figure, name), f"Mean average precision by number of matches: {told}", {})


def svg_text(figure: Figure, name: str) -> str:
    """A figure as SVG without a date, a document head, or ids that nothing refers to."""
    text = io.StringIO()
    with rc_context({"svg.hashsalt": name, **_FONT}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"[\"(]#([^\")]+)[\")]", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used or "-line" in found[1] else "", svg)
    # Equal marks of two charts must not share an id: the first could be hidden.
    own = hashlib.sha256(name.encode()).hexdigest()[:6]
    for identity in sorted(used):
        svg = re.sub(rf'([#"]){re.escape(identity)}([")])', rf"\g<1>{own}{identity}\g<2>", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    return re.sub(r' width="[^"]*pt" height="[^"]*pt"| height="[^"]*pt"| width="[^"]*pt"', "", svg, count=2)


def _figure(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    with rc_context({**_FONT, **_AXES}):
        figure = Figure(figsize=_SIZE)
        axes = figure.add_axes(_BOX)
        axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(color="#888888", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _lines(
    axes: Axes, points: NDArray[np.float64] | NDArray[np.int64], curves: Mapping[str, NDArray[np.float64]], name: str
) -> dict[str, Line]:
    lines = {}
    for number, (label, curve) in enumerate(curves.items()):
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
        colour = INK if colour == "#000000" else colour
        values = 100 * curve
        axes.plot(
            points[: len(curve)], values, color=colour, linestyle=style, linewidth=1.8, gid=f"{name}-line{number}"
        )
        lines[label] = Line(colour, style, [round(float(value), 2) for value in values])
    return lines


def _told(what: str, lines: Mapping[str, Line]) -> str:
    starts = [
        f"{label} begins at {line.values[0]:.1f} % and ends at {line.values[-1]:.1f} %" for label, line in lines.items()
    ]
    return f"{what}: {'; '.join(starts)}"
