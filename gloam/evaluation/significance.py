"""Is a difference between two models more than the choice of the people who were searched for?

Images of one person are not independent, so people are drawn and exchanged, never single queries (the cluster
bootstrap; Field and Welsh, "Bootstrapping clustered data", 2007). A query's weight is what it has in the published
score: one over the number of valid queries of its trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gloam.errors import GloamError

DRAWS = 10_000
# 2 ** 13 exchanges are fewer than the draws: all of them are tried then.
_EXACT = 13
_ROWS = 500  # draws at a time: 500 x people numbers


@dataclass(frozen=True)
class Difference:
    """One model's score minus another's on the same queries, as fractions.

    Attributes:
        value: the difference.
        low: lower end of the interval.
        high: upper end.
        p_value: two-sided, of the hypothesis that the two models are exchangeable for every person.
        people: number of identities.
    """

    value: float
    low: float
    high: float
    p_value: float
    people: int


def paired_difference(
    differences: ArrayLike,
    identities: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """Weighted mean of per-query differences, with an interval and a test over identities.

    Args:
        differences: ``(N,)`` score of one model minus score of the other, query by query.
        identities: ``(N,)`` whose query it is.
        weights: ``(N,)`` positive; equal if not given.
        level: share of repetitions whose interval should hold the truth.
        draws: bootstrap samples, and exchanges of the test.
        seed: of both.

    Raises:
        GloamError: lengths that do not fit, values that are not finite, or fewer than two identities.
    """
    values = np.asarray(differences, dtype=np.float64)
    share = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    names, people = np.unique(np.asarray(identities), return_inverse=True)
    if not len(values) == len(share) == len(people):
        raise GloamError(f"{len(values)} differences, {len(people)} identities, {len(share)} weights: one of each.")
    if not np.isfinite(values).all() or not (share > 0).all():
        raise GloamError("Differences must be finite and weights positive.")
    if len(names) < 2:
        raise GloamError("A comparison needs queries of at least two identities.")
    sums = np.bincount(people.reshape(-1), weights=share * values).astype(np.float64)
    totals = np.bincount(people.reshape(-1), weights=share).astype(np.float64)
    low, high = _interval(sums, totals, level, draws, seed)
    return Difference(float(sums.sum() / totals.sum()), low, high, sign_flip_test(sums, draws, seed), len(names))


def _interval(
    sums: NDArray[np.float64], totals: NDArray[np.float64], level: float, draws: int, seed: int
) -> tuple[float, float]:
    """Percentile interval over people drawn with replacement, widened for few people.

    *Source*: Hesterberg, "What Teachers Should Know About the Bootstrap" (2015), section 4.6: percentiles at
    ``Phi(-sqrt(n / (n - 1)) t(n - 1))`` undo that the bootstrap's spread is too small by ``sqrt((n - 1) / n)``.
    """
    from scipy import stats

    people = len(sums)
    tail = stats.norm.cdf(-np.sqrt(people / (people - 1)) * stats.t.ppf((1 + level) / 2, people - 1))
    generator = np.random.default_rng(seed)
    scores = np.empty(draws)
    for first in range(0, draws, _ROWS):
        count = min(_ROWS, draws - first)
        drawn = generator.integers(0, people, (count, people)) + people * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * people).reshape(count, people)
        scores[first : first + count] = (times @ sums) / (times @ totals)
    low, high = np.quantile(scores, (tail, 1 - tail))
    return float(low), float(high)


def sign_flip_test(sums: ArrayLike, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p-value: how often the sum is as far from 0 when each person's sign is drawn by chance.

    All ``2 ** n`` sign patterns are tried where these are fewer than the draws; else the observed pattern counts as one
    of the drawn ones, so that no p-value is 0 (Phipson and Smyth, 2010).

    Args:
        sums: ``(n,)`` difference of each person.
        draws: sign patterns.
        seed: of the patterns.
    """
    values = np.asarray(sums, dtype=np.float64)
    observed = abs(values.sum())
    # Rounding must not make an equal pattern unequal.
    least = observed - 1e-12 * np.abs(values).sum()
    if len(values) <= _EXACT and 2 ** len(values) <= draws:
        bits = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1
        return float(np.mean(np.abs((2 * bits - 1) @ values) >= least))
    generator = np.random.default_rng(seed)
    reached = 0
    for first in range(0, draws, _ROWS):
        count = min(_ROWS, draws - first)
        signs = 2.0 * generator.integers(0, 2, (count, len(values)), dtype=np.int8) - 1.0
        reached += int((np.abs(signs @ values) >= least).sum())
    return (reached + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for all comparisons made together (Holm, 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return [float(value) for value in corrected]
