"""Detection error trade-off of a calibration: how many matches are missed at each false match rate."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gloam.evaluation.calibration import Calibration, PairCalibration, smallest_rate
from gloam.evaluation.pairs import PAIRS
from gloam.visualize.curves import COLOURS, STYLES

_LEAST, _MOST = 1e-7, 0.999


def draw_det(calibration: Calibration) -> Figure:
    """FNMR over FMR, one curve for each pair of modalities, with the interval of FNMR.

    *Source*: Martin et al., "The DET curve in assessment of detection task performance" (Eurospeech 1997): both axes
    are in normal deviates, so that scores of two normal distributions give a straight line; FNMR over FMR as in NIST
    FRTE. Pale: false match rates that the data do not support.

    Args:
        calibration: of a model.

    Returns:
        The figure; :func:`gloam.visualize.figure_files.save_figure` writes it.
    """
    figure = Figure(figsize=(6.4, 5.4), layout="constrained", dpi=110)
    axes = figure.subplots()
    for number, name in enumerate(PAIRS):
        if name in calibration.pairs:
            _draw_pair(axes, name, calibration.pairs[name], COLOURS[number], STYLES[number])
    rates = [rate for pair in calibration.pairs.values() for rate in pair.curve.fmr]
    misses = [rate for pair in calibration.pairs.values() for rate in pair.curve.fnmr if rate > 0]
    _set_axis(axes, "x", min(rates, default=1e-3), 0.5)
    _set_axis(axes, "y", min([*misses, 0.05]) / 1.5, min(max([*misses, 0.5]) * 1.05, 0.98))
    axes.axline((0, 0), slope=1, color="0.75", linewidth=0.8, linestyle=":")
    axes.set_xlabel("false match rate (share of pairs of two identities that match)", fontsize=9)
    axes.set_ylabel("false non-match rate (share of pairs of one identity that do not)", fontsize=9)
    data = calibration.data
    axes.set_title(
        f"Detection error trade-off: {data.identities:,} identities of {data.name}\n"
        f"bands: {calibration.confidence:.0%} of {calibration.resamples} draws of identities; pale: too few pairs",
        fontsize=9,
        loc="left",
    )
    axes.legend(fontsize=8, framealpha=0.8, edgecolor="none")
    axes.grid(alpha=0.25)
    return figure


def deviates(rates: object) -> NDArray[np.float64]:
    """Rates as normal deviates; 0 and 1 are moved to where they can be drawn."""
    from scipy.special import ndtri

    return np.asarray(ndtri(np.clip(np.asarray(rates, dtype=np.float64), _LEAST, _MOST)))


def _draw_pair(axes: Axes, name: str, pair: PairCalibration, colour: str, style: str) -> None:
    curve = pair.curve
    x, y = deviates(curve.fmr), deviates(curve.fnmr)
    supported = np.array(curve.fmr) >= smallest_rate(pair)
    axes.plot(x, y, color=colour, linestyle=style, linewidth=1.0, alpha=0.35)
    label = f"{name}: equal error {pair.eer:.1%} ({pair.identities:,} identities)"
    axes.plot(x[supported], y[supported], color=colour, linestyle=style, linewidth=1.8, label=label)
    low, high = deviates(curve.fnmr_low), deviates(curve.fnmr_high)
    banded = supported & (np.array(curve.fnmr) > 0)
    axes.fill_between(x[banded], low[banded], high[banded], color=colour, alpha=0.15, linewidth=0)
    points = pair.thresholds
    axes.plot(
        deviates([point.fmr for point in points]),
        deviates([point.fnmr for point in points]),
        color=colour,
        marker="o",
        markersize=4,
        linestyle="none",
    )


def _set_axis(axes: Axes, which: str, low: float, high: float) -> None:
    """Marks at round rates, in percent."""
    marks = [
        rate for rate in (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95) if low <= rate <= high
    ]
    names = [f"{100 * rate:g}%" for rate in marks]
    if which == "x":
        axes.set_xlim(*deviates([low, high]))
        axes.set_xticks(deviates(marks), names, fontsize=8)
    else:
        axes.set_ylim(*deviates([low, high]))
        axes.set_yticks(deviates(marks), names, fontsize=8)
