"""MMA and the separation loss with loops."""

from __future__ import annotations

import math

import numpy as np


def cosine(a, b):
    """Cosine with a floor of 1e-8 on each length."""
    return float(a @ b) / (max(np.linalg.norm(a), 1e-8) * max(np.linalg.norm(b), 1e-8))


def alignment(rows, labels, modalities):
    """Mean over modalities of the soft margin between mean distances; 0 when nothing compares."""
    means = []
    for modality in sorted(set(modalities)):
        losses = []
        for i in range(len(rows)):
            if modalities[i] != modality:
                continue
            same = [
                (1 - cosine(rows[i], rows[j])) / 2
                for j in range(len(rows))
                if modalities[j] != modality and labels[j] == labels[i]
            ]
            others = [
                (1 - cosine(rows[i], rows[j])) / 2
                for j in range(len(rows))
                if modalities[j] != modality and labels[j] != labels[i]
            ]
            if same and others:
                losses.append(math.log1p(math.exp(-(np.mean(others) - np.mean(same)))))
        if losses:
            means.append(np.mean(losses))
    return float(np.mean(means)) if means else 0.0


def separation(groups):
    """Mean squared off-diagonal cosine."""
    count = groups.shape[1]
    if count == 1:
        return 0.0
    values = [cosine(group[a], group[b]) ** 2 for group in groups for a in range(count) for b in range(count) if a != b]
    return float(np.mean(values))
