"""Scores to probabilities, and how good probabilities are. Plain arrays; pairs come as counts or one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gloam.errors import GloamError

ECE_BINS = 15


def fit_logistic(scores: ArrayLike, genuine: ArrayLike, impostor: ArrayLike) -> tuple[float, float]:
    """Slope and intercept of the log odds at equal priors: genuine and impostor pairs weigh the same in all.

    So the log odds are the logarithm of the likelihood ratio, and any prior can be added later.

    *Source*: Platt, "Probabilistic outputs for support vector machines" (1999), section 2.2, with its targets
    ``(n + 1) / (n + 2)`` for n pairs, which keep the fit finite where the scores separate perfectly; Newton's method
    with halved steps as in Lin, Lin and Weng (2007).

    Args:
        scores: ``(n,)``.
        genuine: ``(n,)`` pairs of one identity with this score.
        impostor: ``(n,)`` pairs of two identities with this score.

    Raises:
        GloamError: one kind of pairs is missing.
    """
    x, positive, negative = (np.asarray(values, dtype=np.float64) for values in (scores, genuine, impostor))
    many, others = positive.sum(), negative.sum()
    if many <= 0 or others <= 0:
        raise GloamError("A probability needs scores of pairs of one identity and of two identities.")
    high, low = (many + 1) / (many + 2), 1 / (others + 2)
    weight = positive / (2 * many) + negative / (2 * others)
    target = (positive * high / (2 * many) + negative * low / (2 * others)) / np.where(weight > 0, weight, 1)
    middle = float(weight @ x)
    spread = float(np.sqrt(weight @ (x - middle) ** 2)) or 1.0
    design = np.stack([(x - middle) / spread, np.ones_like(x)], axis=1)
    found, loss = np.zeros(2), _cross_entropy(design @ np.zeros(2), target, weight)
    for _ in range(100):
        p = sigmoid(design @ found)
        gradient = design.T @ (weight * (p - target))
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (new := _cross_entropy(design @ (found - size * step), target, weight)) > loss and size > 1e-10:
            size /= 2
        found, gain, loss = found - size * step, loss - new, new
        if gain < 1e-14:
            break
    return float(found[0] / spread), float(found[1] - found[0] * middle / spread)


def fit_isotonic(
    scores: ArrayLike, genuine: ArrayLike, impostor: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Knots of the best rising curve from scores to probabilities at equal priors; straight lines join them.

    Args:
        scores: see :func:`fit_logistic`.
        genuine: see there.
        impostor: see there.

    Returns:
        ``(k,)`` ascending scores and ``(k,)`` probabilities in [0, 1].

    Raises:
        GloamError: one kind of pairs is missing.
    """
    from sklearn.isotonic import IsotonicRegression

    x, positive, negative = (np.asarray(values, dtype=np.float64) for values in (scores, genuine, impostor))
    if positive.sum() <= 0 or negative.sum() <= 0:
        raise GloamError("A probability needs scores of pairs of one identity and of two identities.")
    one, two = positive / positive.sum(), negative / negative.sum()
    used = np.flatnonzero(one + two > 0)
    used = used[np.argsort(x[used], kind="stable")]
    share = one[used] / (one[used] + two[used])
    fitted = np.asarray(IsotonicRegression().fit(x[used], share, sample_weight=(one + two)[used]).predict(x[used]))
    # Of every flat part its two ends.
    changes = np.flatnonzero(np.diff(fitted) > 1e-12)
    ends = np.unique(np.r_[0, changes, changes + 1, len(fitted) - 1])
    return x[used][ends], fitted[ends]


def brier_score(probabilities: ArrayLike, genuine: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean squared distance between probability and truth.

    *Source*: Brier (1950), in the form for two outcomes.

    Args:
        probabilities: ``(n,)`` in [0, 1].
        genuine: ``(n,)`` 1 where both images show one identity; shares of such pairs are fine.
        weights: ``(n,)``; all the same if not given.

    Raises:
        GloamError: lengths that differ, nothing, or numbers that are no probabilities.
    """
    p, y, w = _checked(probabilities, genuine, weights)
    return float(w @ (y * (1 - p) ** 2 + (1 - y) * p**2) / w.sum())


def expected_calibration_error(
    probabilities: ArrayLike, genuine: ArrayLike, weights: ArrayLike | None = None, *, bins: int = ECE_BINS
) -> float:
    """Mean distance between stated probability and observed share over bins of equal width.

    *Source*: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning" (2015).

    Args:
        probabilities: see :func:`brier_score`.
        genuine: see there.
        weights: see there.
        bins: of the probabilities; each is open below, the first one holds 0 too.

    Raises:
        GloamError: see :func:`brier_score`.
    """
    p, y, w = _checked(probabilities, genuine, weights)
    place = np.clip(np.ceil(p * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(place, w * (p - y), minlength=bins)
    return float(np.abs(gaps).sum() / w.sum())


def sigmoid(log_odds: Any) -> NDArray[np.float64]:
    """Log odds to probabilities without overflow."""
    x = np.asarray(log_odds, dtype=np.float64)
    decay = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, decay) / (1 + decay))


def logit(probability: Any) -> NDArray[np.float64]:
    """Probabilities to log odds; 0 and 1 become infinite."""
    p = np.asarray(probability, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p) - np.log1p(-p))


def _cross_entropy(log_odds: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    return float(weight @ (np.logaddexp(0, log_odds) - target * log_odds))


def _checked(
    probabilities: ArrayLike, genuine: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(genuine, dtype=np.float64)
    w = np.ones_like(p) if weights is None else np.asarray(weights, dtype=np.float64)
    if p.ndim != 1 or not p.shape == y.shape == w.shape:
        raise GloamError(
            f"Probabilities {p.shape}, truth {y.shape} and weights {w.shape} must be vectors of one length."
        )
    if not (len(p) and ((p >= 0) & (p <= 1)).all() and ((y >= 0) & (y <= 1)).all() and w.sum() > 0):
        raise GloamError("Probabilities and truth lie between 0 and 1, and there must be some.")
    return p, y, w
