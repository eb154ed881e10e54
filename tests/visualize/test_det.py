"""DET figures: normal deviates on both axes, bands and unsupported parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks.calibration import draw_features
from gloam.evaluation.calibrate import fit_calibration
from gloam.evaluation.calibration import ModelStamp
from gloam.visualize.det import deviates, draw_det
from gloam.visualize.figure_files import save_figure


def test_axes_are_normal_deviates() -> None:
    rates = np.array([1e-4, 0.02, 0.5, 0.9])
    np.testing.assert_allclose(norm.cdf(deviates(rates)), rates, rtol=1e-9)
    assert np.isfinite(deviates([0.0, 1.0])).all()


def test_every_pair_has_a_line_its_thresholds_and_a_band(tmp_path: Path) -> None:
    found = fit_calibration(*draw_features(60, 1, visible_cams=2), model=ModelStamp(digest="x"), resamples=20)
    axes = draw_det(found).axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == list(found.pairs)
    assert len(axes.collections) == 3
    pair = found.pairs["visible-infrared"]
    whole = next(line for line in axes.lines if len(line.get_xdata()) == len(pair.curve.fmr))
    assert whole.get_alpha() == pytest.approx(0.35)
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert norm.cdf(points[1].get_xdata()) == pytest.approx([known.fmr for known in pair.thresholds])
    assert norm.cdf(points[1].get_ydata()) == pytest.approx(
        [max(known.fnmr, 1e-7) for known in pair.thresholds], abs=1e-9
    )
    first = save_figure(draw_det(found), tmp_path / "a.svg").read_bytes()
    assert save_figure(draw_det(found), tmp_path / "b.svg").read_bytes() == first
