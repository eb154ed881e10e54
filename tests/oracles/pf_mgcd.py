"""Losses and memory of PF-MGCD with loops over images and stripes, as docs/methods/pf_mgcd.md says (float64)."""

from __future__ import annotations

import math

from torch import Tensor


def losses(
    output, memory: Tensor, pids, modalities, shared, *, top_k, temperature, scale, smoothing
) -> dict[str, float]:
    """Parts of the weak second stage; ``shared[i]`` is the label in visible numbers, -1 where it is unknown."""
    images, stripes = output.identity.shape[:2]
    known = [i for i in range(images) if shared[i] >= 0]
    infrared = [i for i in range(images) if modalities[i] == 1]
    parts = dict.fromkeys(("identity", "infrared_identity", "orthogonality", "modality", "graph"), 0.0)
    for k in range(stripes):
        units = [_unit(output.identity[i, k]) for i in range(images)]
        for i in known:
            parts["identity"] += _cross_entropy(output.logits[i, k], shared[i], smoothing) / len(known)
        for i in infrared:
            parts["infrared_identity"] += _cross_entropy(output.infrared_logits[i, k], pids[i], smoothing) / len(
                infrared
            )
        certainty, divergence = [], []
        for i in range(images):
            parts["orthogonality"] += float(units[i] @ _unit(output.modality[i, k])) ** 2 / images
            parts["modality"] += _cross_entropy(output.modality_logits[i, k], modalities[i], 0.0) / images
            cosines = [float(units[i] @ slot.double()) for slot in memory[k]]
            nearest = sorted(range(len(cosines)), key=lambda n: -cosines[n])[:top_k]
            masses = [math.exp(cosines[n] * scale / temperature) for n in nearest]
            q = [mass / sum(masses) for mass in masses]
            certainty.append(math.exp(sum(x * math.log(x) for x in q)))
            student = _log_softmax(output.logits[i, k])
            divergence.append(sum(x * (math.log(x) - float(student[n])) for x, n in zip(q, nearest, strict=True)))
        mean = sum(certainty) / images
        parts["graph"] += sum(w / mean * d for w, d in zip(certainty, divergence, strict=True)) / images
    return {name: value / stripes for name, value in parts.items()}


def updated(memory: Tensor, features: Tensor, shared, momentum: float) -> Tensor:
    """Every initialised slot of the batch moved towards the mean of its identity's unit features."""
    moved = memory.double().clone()
    for k in range(memory.shape[0]):
        for y in {label for label in shared if label >= 0}:
            rows = [_unit(features[i, k]) for i, label in enumerate(shared) if label == y]
            moved[k, y] = _unit(momentum * moved[k, y] + (1 - momentum) * sum(rows) / len(rows))
    return moved


def _unit(vector: Tensor) -> Tensor:
    return vector.double() / vector.double().norm()


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.double() - logits.double().exp().sum().log()


def _cross_entropy(logits: Tensor, label: int, smoothing: float) -> float:
    log_p = _log_softmax(logits)
    return -float((1 - smoothing) * log_p[label] + smoothing * log_p.mean())
