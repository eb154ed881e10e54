"""PCC written with loops over stripes, exactly as the formulas read."""

from __future__ import annotations

import math

import numpy as np


def cycle_contrastive(visible, infrared, temperature, scope, target, negatives, center, orders, infrared_orders):
    """Mean of both directions for arrays (B, P, D); a query competes with stripes of its own modality."""
    batch, parts, _ = visible.shape
    sets = []
    for features in (visible, infrared):
        if center:
            features = features - features.mean(axis=0, keepdims=True)
        sets.append([_unit(features[b, k]) for b in range(batch) for k in range(parts)])
    part, other_part = ([int(o[b][k]) for b in range(batch) for k in range(parts)] for o in (orders, infrared_orders))
    return (_direction(sets[0], sets[1], parts, part, temperature, scope, target, negatives)
            + _direction(sets[1], sets[0], parts, other_part, temperature, scope, target, negatives)) / 2  # fmt: skip


def neighbour_masses(visible, infrared, temperature, orders, infrared_orders):
    """Weight of visible stripes' soft neighbours on the same original stripe, and on the same place."""
    batch, parts, _ = visible.shape
    part = place = 0.0
    for b in range(batch):
        for k in range(parts):
            weights = {
                (c, m): math.exp(float(_unit(visible[b, k]) @ _unit(infrared[c, m])) / temperature)
                for c in range(batch) if c != b for m in range(parts)
            }  # fmt: skip
            total = sum(weights.values())
            part += sum(w for (c, m), w in weights.items() if infrared_orders[c][m] == orders[b][k]) / total
            place += sum(w for (c, m), w in weights.items() if m == k) / total
    return part / (batch * parts), place / (batch * parts)


def _direction(own, other, parts, part, temperature, scope, target, negatives):
    n = len(own)
    across, home = [], []
    for i in range(n):
        reach = [j for j in range(n) if scope == "batch" or j // parts == i // parts]
        across.append(_soft(own[i], [other[j] for j in reach], temperature))
        home.append(_soft(own[i], [own[j] for j in reach], temperature) if target == "soft" else own[i])
    total = 0.0
    for i in range(n):
        terms = {}
        for j in range(n):
            if (
                j == i
                or negatives == "all"
                or (negatives == "img" and j // parts == i // parts)
                or (negatives == "part" and part[j] != part[i])
            ):
                terms[j] = float(across[i] @ home[j]) / temperature
        top = max(terms.values())
        total += top + math.log(sum(math.exp(s - top) for s in terms.values())) - terms[i]
    return total / n


def _soft(query, keys, temperature):
    scores = np.array([query @ key for key in keys]) / temperature
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    return _unit(sum(w * key for w, key in zip(weights, keys, strict=True)))


def _unit(vector):
    return vector / max(np.linalg.norm(vector), 1e-12)
