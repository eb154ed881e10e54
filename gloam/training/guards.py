"""Stopping a run that has gone wrong, with what to try."""

from __future__ import annotations

import math

from torch import Tensor

from gloam.errors import GloamError

_CURES = (
    "Try a lower optimizer.lr, a longer schedule.warmup_epochs or train.clip_norm; from random weights use the exact "
    "weights of the regularised triplet (method.wrt exact) or a hard triplet."
)


class CollapseGuard:
    """Watches losses and features of an epoch.

    Args:
        stage: for messages.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._losses: list[float] = []

    def check_loss(self, value: float, epoch: int, step: int) -> None:
        """Stop at a loss that is no number.

        Raises:
            GloamError: NaN or infinity.
        """
        if not math.isfinite(value):
            raise GloamError(
                f"The loss became {value} in stage {self._stage!r}, epoch {epoch}, batch {step}; the last checkpoint "
                f"is intact. {_CURES}"
            )
        self._losses.append(value)

    def check_epoch(self, features: Tensor, epoch: int) -> None:
        """Stop when every picture gets the same feature, or the loss does not move at all.

        Args:
            features: ``(n, D)`` unit features of different pictures.
            epoch: for the message.

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
