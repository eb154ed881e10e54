"""A calibration for people: error rates, and what scores mean at a stated prior."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from gloam.evaluation.calibration import Calibration, PairCalibration, explain_refusal
from gloam.evaluation.probabilities import logit

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_PROBABILITIES = (0.5, 0.9, 0.99)


def calibration_tables(calibration: Calibration, *, prior: float) -> Iterator[Table | Text]:
    """Tables and sentences in the order to print them.

    Args:
        calibration: of a model.
        prior: probability before images are compared, for the scores that reach a probability.
    """
    from rich.text import Text

    data = calibration.data
    thinned = "" if data.images_used == data.images else f" ({data.images_used:,} used)"
    people = {
        "checked": "none of them was trained on (checked)",
        "stated": "stated to be no training people",
        "unknown": "not known whether they were trained on",
    }
    yield Text(
        f"{data.identities:,} identities, {data.images:,} images{thinned} of {data.name}; {people[data.disjoint]}; "
        f"camera rule {calibration.camera_rule}; {calibration.confidence:.0%} intervals from {calibration.resamples} "
        "draws of identities"
    )
    yield _rates(calibration)
    yield _probabilities(calibration, prior)
    for name, pair in calibration.pairs.items():
        for refusal in pair.refused:
            yield Text(f"{name}: {explain_refusal(refusal.target, pair)}")
    for name, reason in calibration.missing.items():
        yield Text(f"{name}: uncalibrated, {reason}")


def _rates(calibration: Calibration) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in ("pair", "FMR", "threshold", "real FMR between", "FNMR", "between"):
        table.add_column(head, justify="left" if head == "pair" else "right")
    for name, pair in calibration.pairs.items():
        for number, known in enumerate(pair.thresholds):
            table.add_row(
                name if not number else "",
                f"{known.target:.0e}",
                f"{known.score:.3f}",
                f"{known.fmr_interval[0]:.1e} {known.fmr_interval[1]:.1e}",
                f"{known.fnmr:.1%}",
                f"{known.fnmr_interval[0]:.1%} {known.fnmr_interval[1]:.1%}",
            )
        low, high = pair.eer_interval
        table.add_row("" if pair.thresholds else name, "equal", "", "", f"{pair.eer:.1%}", f"{low:.1%} {high:.1%}")
        table.add_section()
    return table


def _probabilities(calibration: Calibration, prior: float) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"score that makes one person that probable, if one in {1 / prior:,.0f} is meant",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    heads = ["pair", *(f"{p:.0%}" for p in _PROBABILITIES), "Brier", "ECE", "fit"]
    for head in heads:
        table.add_column(head, justify="left" if head == "pair" else "right")
    for name, pair in calibration.pairs.items():
        if pair.probability is None:
            table.add_row(name, *["-"] * (len(heads) - 1))
            continue
        quality = pair.quality.get(pair.probability.kind)
        table.add_row(
            name,
            *(score_for(pair, p, prior) for p in _PROBABILITIES),
            "-" if quality is None else f"{quality.brier:.4f}",
            "-" if quality is None else f"{quality.ece:.4f}",
            pair.probability.kind,
        )
    table.caption = "Brier score and calibration error (ECE) at equal priors, on identities left out of the fit"
    table.caption_justify = "left"
    return table


def score_for(pair: PairCalibration, probability: float, prior: float) -> str:
    """The smallest score with a probability, or that no score reaches it."""
    if pair.probability is None:
        return "-"
    scores = np.linspace(-1, 1, 4001)
    reached = pair.probability.log_likelihood_ratio(scores) + logit(prior) >= logit(probability)
    return f"{scores[int(np.argmax(reached))]:.3f}" if bool(reached.any()) else "never"
