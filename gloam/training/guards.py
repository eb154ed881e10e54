"""Stopping a run that has gone wrong, with what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from gloam.errors import GloamError

_CURES = (
    "Try a lower optimizer.lr, a longer schedule.warmup_epochs or train.clip_norm; from random weights use the exact "
    "weights of the regularised triplet (method.wrt exact) or a hard triplet."
)

_NEAR = 1e-4


class CollapseGuard:
    """Watches losses and features of an epoch.

    Args:
        stage: for messages.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._losses: list[float] = []

    def check_loss(self, value: float, epoch: int, step: int) -> float:
        """Stop at a loss that is no number; give back any other.

        Raises:
            GloamError: NaN or infinity.
        """
        if not math.isfinite(value):
            raise GloamError(
                f"The loss became {value} in stage {self._stage!r}, epoch {epoch}, batch {step}; the last checkpoint "
                f"is intact. {_CURES}"
            )
        self._losses.append(value)
        return value

    def check_epoch(self, features: Tensor, means: Mapping[str, float], epoch: int) -> str | None:
        """Stop when every picture gets the same feature, or the loss does not move at all.

        Args:
            features: ``(n, D)`` unit features of different pictures.
            means: mean of every loss part over the epoch.
            epoch: for the message.

        Returns:
            A hint where a triplet term rests at ln 2, its value when all distances are equal
            (agw-and-ddag.md 1.8); else None.

        Raises:
            GloamError: collapse.
        """
        losses, self._losses = self._losses, []
        if len(features) > 1 and float(features.std(dim=0).max()) < 1e-6:
            raise GloamError(
                f"Training collapsed in stage {self._stage!r}, epoch {epoch}: all pictures have the same feature. "
                f"{_CURES}"
            )
        if len(losses) >= 20 and max(losses) - min(losses) < 1e-7:
            raise GloamError(
                f"The loss stayed at {losses[0]:.6f} throughout epoch {epoch} of stage {self._stage!r}: nothing is "
                f"being learned. {_CURES}"
            )
        if any("triplet" in name and abs(value - math.log(2)) < _NEAR for name, value in means.items()):
            return (
                f"The triplet term rests at ln 2 = 0.693 in epoch {epoch} of stage {self._stage!r}: all distances are "
                f"alike, which usually comes before a collapse. {_CURES}"
            )
        return None
