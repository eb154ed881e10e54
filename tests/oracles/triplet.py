"""Triplet losses with loops over anchors, as the formulas read (float64 lists)."""

from __future__ import annotations

import math


def distance(a, b):
    """sqrt(max(|a|^2 + |b|^2 - 2 a.b, 1e-12))"""
    squared = sum(x * x for x in a) + sum(y * y for y in b) - 2 * sum(x * y for x, y in zip(a, b, strict=True))
    return math.sqrt(max(squared, 1e-12))


def hard(rows, labels, margin):
    """Farthest positive (itself included) against nearest negative."""
    return sum(max(0.0, gap + margin) for gap in hardest_gaps(rows, labels)) / len(rows)


def hardest_gaps(rows, labels):
    """Of every anchor: distance to the farthest positive minus that to the nearest negative."""
    gaps = []
    for a, la in zip(rows, labels, strict=True):
        positives = [distance(a, b) for b, lb in zip(rows, labels, strict=True) if lb == la]
        negatives = [distance(a, b) for b, lb in zip(rows, labels, strict=True) if lb != la]
        gaps.append(max(positives) - min(negatives))
    return gaps


def weighted(rows, labels, form, alpha=1.0):
    """Pairs (a_i, b_i) of weighted positive and negative distances."""
    pairs = []
    for a, la in zip(rows, labels, strict=True):
        d = [distance(a, b) for b in rows]
        positive = [lb == la for lb in labels]
        shift = max(alpha * x if p else 0.0 for x, p in zip(d, positive, strict=True)) if form == "reference" else 0.0
        pairs.append(
            (
                _mean([x for x, p in zip(d, positive, strict=True) if p], alpha, shift, form),
                _mean([x for x, p in zip(d, positive, strict=True) if not p], -alpha, 0.0, form),
            )
        )
    return pairs


def _mean(values, sign, shift, form):
    if form == "exact":
        top = max(sign * v for v in values)
        weights = [math.exp(sign * v - top) for v in values]
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    weights = [math.exp(sign * v - shift) for v in values]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / (sum(weights) + 1e-6)


def softplus(x):
    """log(1 + exp(x)) for moderate x."""
    return math.log1p(math.exp(x)) if x < 30 else x
