"""Matching of ids between modalities written with lists and loops."""

from __future__ import annotations

from collections import Counter


def count_priority(probabilities, labels, num_labels):
    """Partner of every own id, or -1."""
    entries = [(-p, i, j) for i, row in enumerate(probabilities) for j, p in enumerate(row)]
    entries.sort()
    votes = [(int(labels[i]), j) for _, i, j in entries[: len(probabilities)]]
    counts = Counter(votes)
    partner, taken = [-1] * num_labels, set()
    for label, column in sorted(counts, key=lambda pair: (-counts[pair], votes.index(pair))):
        if partner[label] == -1 and column not in taken:
            partner[label] = column
            taken.add(column)
    return partner


def relations(forward, backward):
    """Sets of (visible, infrared) pairs: consistent, single, contradictory, by the paper's rule."""
    a = {(v, r) for v, r in enumerate(forward) if r >= 0}
    b = {(v, r) for r, v in enumerate(backward) if v >= 0}
    consistent = a & b

    def free(pair, others):
        return all(pair[0] != v and pair[1] != r for v, r in others)

    single = {p for p in a - consistent if free(p, b)} | {p for p in b - consistent if free(p, a)}
    return consistent, single, (a | b) - consistent - single
