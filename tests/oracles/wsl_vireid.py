"""Second phase of WSL-VIReID with loops over images, as ``wsl.py`` of the release reads (float64)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.oracles import triplet


def losses(pooled: Tensor, features: Tensor, pids, modalities, experts, prototypes, relations) -> dict[str, float]:
    """Parts of a step.

    Args:
        pooled: ``(n, D)`` features before the neck.
        features: ``(n, D)`` features behind it.
        pids: labels, numbered per modality.
        modalities: 0 or 1.
        experts: weights W of visible, infrared and shared classifier.
        prototypes: ``(2, N, D)`` after this step's update.
        relations: consistent, trusted and contradictory (visible, infrared) pairs.
    """
    w_visible, w_infrared, w_shared = (w.double() for w in experts)
    f, prototypes = features.double(), prototypes.double()
    consistent, trusted, contradictory = relations
    visible = [i for i, m in enumerate(modalities) if m == 0]
    infrared = [i for i, m in enumerate(modalities) if m == 1]
    partner = {(0, v): r for v, r in consistent} | {(1, r): v for v, r in consistent}
    agreed_visible = [i for i in visible if (0, pids[i]) in partner]
    agreed_infrared = [i for i in infrared if (1, pids[i]) in partner]

    def names(rows, spectrum):
        return [pids[i] if modalities[i] == spectrum else partner[modalities[i], pids[i]] for i in rows]

    def wrt(rows, labels):
        pairs = triplet.weighted(pooled[rows].double().tolist(), labels, "reference")
        return sum(triplet.softplus(a - b) for a, b in pairs) / len(pairs)

    def classify(weight, rows, labels):
        return -sum(float((weight @ f[i]).log_softmax(0)[y]) for i, y in zip(rows, labels, strict=True)) / len(rows)

    def doubt(weight, rows):
        p = torch.stack([(weight @ f[i]).softmax(0) for i in rows]).flatten().tolist()
        return -sum(x * math.log2(x) for x in p if x > 0) / len(p)

    def gap(weight, rows, spectrum):
        squares = [
            (weight @ f[i] - weight @ prototypes[spectrum, y]).square().mean()
            for i, y in zip(rows, names(rows, spectrum), strict=True)
        ]
        return float(sum(squares)) / len(squares)

    h_visible, h_infrared = doubt(w_infrared, visible), doubt(w_visible, infrared)
    target = dict(trusted)
    strong = [i for i in visible if pids[i] in target]
    weak = []
    for i in visible:
        p = (w_shared @ f[i]).softmax(0).tolist()
        doubtful = [p[r] for v, r in contradictory if v == pids[i]]
        if doubtful:
            weak.append(sum(-math.log(1 - x + 1e-10) for x in p if x < min(doubtful)))
    return {
        "experts": classify(w_visible, visible, names(visible, 0)) + classify(w_infrared, infrared, names(infrared, 1)),
        "triplet": wrt(agreed_visible + infrared, names(agreed_visible + infrared, 1))
        + wrt(visible + agreed_infrared, names(visible + agreed_infrared, 0)),
        "agreement": h_visible / (h_visible + h_infrared) * gap(w_infrared, agreed_infrared, 0)
        + h_infrared / (h_visible + h_infrared) * gap(w_visible, agreed_visible, 1),
        "strong": classify(w_shared, infrared, names(infrared, 1))
        + classify(w_shared, strong, [target[pids[i]] for i in strong]),
        "weak": sum(weak) / len(weak),
    }


def updated(prototypes: Tensor, features: Tensor, pids, modalities, sigma: float) -> Tensor:
    """``(1 - sigma) old + sigma mean of the batch`` for every identity in it."""
    moved = prototypes.double().clone()
    for spectrum, label in set(zip(modalities, pids, strict=True)):
        rows = [f.double() for f, m, y in zip(features, modalities, pids, strict=True) if (m, y) == (spectrum, label)]
        moved[spectrum, label] = (1 - sigma) * moved[spectrum, label] + sigma * sum(rows) / len(rows)
    return moved
