"""False match and false non-match rates along the scores, and their intervals from draws of identities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gloam.evaluation.pair_scores import BINS

STEPS_A_DECADE = 8  # of false match rates along a curve
LARGEST_RATE = 0.5
Interval = tuple[float, float]


def last_bin(fmr: NDArray[np.float64], target: float) -> int:
    """The last bin up to which the rate stays at most the target; the first one if even that exceeds it."""
    return max(int(np.searchsorted(fmr, target * (1 + 1e-12), side="right")) - 1, 0)


def curve_bins(fmr: NDArray[np.float64], impostors: int) -> NDArray[np.int64]:
    """Bins whose rates fall by even steps, from one half down to a single false match."""
    decades = np.log10(LARGEST_RATE * impostors)
    rates = LARGEST_RATE * 10.0 ** -np.arange(0, decades + 1e-9, 1 / STEPS_A_DECADE)
    found = np.unique([last_bin(fmr, rate) for rate in rates])[::-1]
    return found[fmr[found] > 0] if (fmr[found] > 0).any() else np.array([BINS - 1])


def equal_error_rate(fmr: NDArray[np.float64], fnmr: NDArray[np.float64]) -> float:
    """Where the two rates cross, on the line between the thresholds before and behind it; else the end next to it."""
    crossed = fmr >= fnmr
    behind = int(np.argmax(crossed)) if crossed.any() else -1
    if behind < 1:
        return float(fmr[behind] + fnmr[behind]) / 2
    before = behind - 1
    gap, next_gap = fnmr[before] - fmr[before], fnmr[behind] - fmr[behind]
    share = gap / (gap - next_gap) if gap != next_gap else 0.0
    return float(fmr[before] + share * (fmr[behind] - fmr[before]))


class DrawnRates:
    """Error rates of all draws along one curve, and the intervals that follow.

    Args:
        fmr: ``(T,)`` falling rates of all people.
        fnmr: ``(T,)`` rising rates of all people.
        scores: ``(T,)`` rising thresholds.
        drawn_fmr: ``(B, T)``.
        drawn_fnmr: ``(B, T)``.
        confidence: of the intervals.
        floor: rate that stands for none.
        identities: with genuine pairs.
        genuine_pairs: of them.
    """

    def __init__(
        self,
        fmr: NDArray[np.float64],
        fnmr: NDArray[np.float64],
        scores: NDArray[np.float64],
        drawn_fmr: NDArray[np.float64],
        drawn_fnmr: NDArray[np.float64],
        confidence: float,
        floor: float,
        identities: int,
        genuine_pairs: int,
    ) -> None:
        usable = np.isfinite(drawn_fmr).all(axis=1) & np.isfinite(drawn_fnmr).all(axis=1)
        self._fmr, self._scores = np.log(np.maximum(fmr, floor)), scores
        self._drawn, self._fnmr = np.log(np.maximum(drawn_fmr[usable], floor)), drawn_fnmr[usable]
        self._seen = fnmr
        self._identities, self._pairs = identities, genuine_pairs
        self._tails = [50 * (1 - confidence), 50 * (1 + confidence)]

    def intervals(self, target: float, score: float, fnmr: float) -> tuple[Interval, Interval, Interval]:
        """Of the threshold, of the real FMR and of the real FNMR at ``score``, where ``fnmr`` was seen.

        The real FMR: every draw chooses its own threshold for the target, and all people show what it then does. A draw
        is to all people as these are to everybody.
        """
        places = np.array([_place(rates, np.log(target)) for rates in self._drawn])
        steps = np.arange(len(self._scores))
        real = np.exp(np.interp(places, steps, self._fmr))
        drawn = [float(np.interp(score, self._scores, rates)) for rates in self._fnmr]
        return (
            self._percentiles(np.interp(places, steps, self._scores)),
            self._percentiles(real),
            self._of_share(fnmr, float(np.var(drawn)) if drawn else 0.0),
        )

    def fnmr_band(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Interval of FNMR at each rate of the curve."""
        steps = np.arange(len(self._scores))
        found = np.array(
            [
                np.interp([_place(rates, rate) for rate in self._fmr], steps, fnmr)
                for rates, fnmr in zip(self._drawn, self._fnmr, strict=True)
            ]
        )
        if not len(found):
            return np.zeros(len(steps)), np.ones(len(steps))
        bounds = np.array([self._of_share(*pair) for pair in zip(self._seen, found.var(axis=0), strict=True)])
        return bounds[:, 0], bounds[:, 1]

    def eer_interval(self, eer: float) -> Interval:
        """Of the equal error rate, where ``eer`` was seen."""
        # From the strict end on: rising false match rates.
        rates = [
            equal_error_rate(np.exp(log_fmr[::-1]), fnmr[::-1])
            for log_fmr, fnmr in zip(self._drawn, self._fnmr, strict=True)
        ]
        return self._of_share(eer, float(np.var(rates)) if rates else 0.0)

    def _of_share(self, share: float, variance: float) -> Interval:
        """Of a share of genuine pairs: exact for as many independent pairs as vary like the draws do.

        Percentiles of the draws would say that what never happened cannot happen. *Source*: Clopper and Pearson (1934);
        the number of pairs that count, between the identities and their pairs: Kish's effective sample size.
        """
        from scipy.stats import beta

        variance *= self._identities / max(self._identities - 1, 1)
        effective = share * (1 - share) / variance if variance > 0 else 0.0
        count = float(np.clip(effective, self._identities, self._pairs))
        misses, tails = share * count, np.array(self._tails) / 100
        low = beta.ppf(tails[0], misses, count - misses + 1) if misses > 0 else 0.0
        high = beta.ppf(tails[1], misses + 1, count - misses) if misses < count else 1.0
        return float(low), float(high)

    def _percentiles(self, values: Any) -> Interval:
        if not len(values):
            return 0.0, 1.0  # no draw had both kinds of pairs: nothing is known
        low, high = np.percentile(values, self._tails)
        return float(low), float(high)


def _place(rates: NDArray[np.float64], wanted: float) -> float:
    """Where falling ``rates`` pass ``wanted``, in steps; the ends where they never do."""
    behind = int(np.searchsorted(-rates, -wanted, side="left"))
    if behind == 0 or behind == len(rates):
        return float(min(behind, len(rates) - 1))
    before = behind - 1
    return before + float((rates[before] - wanted) / (rates[before] - rates[behind]))
