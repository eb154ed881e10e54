"""SpCL's reliable clusters with label sets, cluster by cluster."""

from __future__ import annotations

from collections.abc import Sequence


def reliable(
    labels: Sequence[int], tight: Sequence[int], loose: Sequence[int], threshold: float | None
) -> tuple[list[int], float]:
    """Labels in which unreliable images are alone, numbered on, and the threshold."""
    items = range(len(labels))

    def away(others: Sequence[int], i: int) -> float:
        own, other = ({j for j in items if of[j] == of[i]} for of in (labels, others))
        return 1 - len(own & other) / len(own | other)

    members = {c: [i for i in items if labels[i] == c] for c in set(labels)}
    compact = {c: min(away(tight, i) for i in own) for c, own in members.items()}
    apart = {c: min(away(loose, i) for i in own) for c, own in members.items()}
    if threshold is None:
        scores = sorted(apart[c] for c, own in members.items() if len(own) > 1)
        threshold = scores[min(len(scores) - 1, round(0.9 * len(scores)))]
    result, following = [], max(labels) + 1
    for i in items:
        if apart[labels[i]] <= threshold and away(tight, i) <= compact[labels[i]]:
            result.append(labels[i])
        else:
            result.append(following)
            following += 1
    return result, threshold
