"""Stopping a run that has gone wrong, with what to try."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from gloam.errors import GloamError
from gloam.methods.contract import Plateau

_CURES = (
    "Try a lower optimizer.lr, a longer schedule.warmup_epochs or train.clip_norm; from random weights use the exact "
    "weights of the regularised triplet (method.wrt exact) or a hard triplet."
)

_NEAR = 1e-4
# A part rests at its plateau above this share of it, is looked at this often per stage, and not before so many epochs.
_PLATEAU, _LOOKS, _EARLIEST = 0.98, 5, 3


class CollapseGuard:
    """Watches losses and features of an epoch.

    Args:
        stage: for messages.
        epochs: epochs of the stage.
        plateaus: where loss parts rest while nothing is learned (``Method.plateaus``).
    """

    def __init__(self, stage: str, epochs: int = 0, plateaus: Mapping[str, Plateau] | None = None) -> None:
        self._stage = stage
        self._plateaus = dict(plateaus or {})
        # After each fifth of training, a function of the epoch alone: a resumed run says the same.
        self._looks = {math.ceil(epochs * part / _LOOKS) for part in range(1, _LOOKS + 1)}
        self._losses: list[float] = []

    @property
    def losses(self) -> list[float]:
        """Losses of the running epoch so far; an epoch that goes on after a stop gets them back."""
        return list(self._losses)

    @losses.setter
    def losses(self, losses: list[float]) -> None:
        self._losses = list(losses)

    def check_loss(self, value: float, epoch: int, step: int) -> float:
        """Stop at a loss that is no number; give back any other.

        Raises:
            GloamError: NaN or infinity.
        """
        if not math.isfinite(value):
            raise GloamError(
                f"The loss became {value} in stage {self._stage!r}, epoch {epoch + 1}, batch {step + 1}; the last "
                f"checkpoint is intact. {_CURES}"
            )
        self._losses.append(value)
        return value

    def check_epoch(self, features: Tensor, means: Mapping[str, float], epoch: int) -> str | None:
        """Stop when every image gets the same feature, or the loss does not move at all.

        Args:
            features: ``(n, D)`` unit features of different images.
            means: mean of every loss part over the epoch.
            epoch: counted from 0, as everywhere inside; messages count from 1.

        Returns:
            A hint where a triplet term rests at ln 2, its value when all distances are equal, or
            where after a fifth of training (two fifths, ...) a part is still at its plateau; else None.

        Raises:
            GloamError: collapse.
        """
        losses, self._losses = self._losses, []
        if len(features) > 1 and float(features.std(dim=0).max()) < 1e-6:
            raise GloamError(
                f"Training collapsed in stage {self._stage!r}, epoch {epoch + 1}: all images have the same feature. "
                f"{_CURES}"
            )
        if len(losses) >= 20 and max(losses) - min(losses) < 1e-7:
            raise GloamError(
                f"The loss stayed at {losses[0]:.6f} throughout epoch {epoch + 1} of stage {self._stage!r}: nothing is "
                f"being learned. {_CURES}"
            )
        if any("triplet" in name and abs(value - math.log(2)) < _NEAR for name, value in means.items()):
            return (
                f"The triplet term rests at ln 2 = 0.693 in epoch {epoch + 1} of stage {self._stage!r}: all distances "
                f"are alike, which usually comes before a collapse. {_CURES}"
            )
        if epoch + 1 >= _EARLIEST and epoch + 1 in self._looks:
            for name, plateau in self._plateaus.items():
                if means.get(name, 0.0) >= _PLATEAU * plateau.value:
                    return (
                        f"After {epoch + 1} epochs of stage {self._stage!r} the part {name!r} of the loss is "
                        f"{means[name]:.4f}; without any learning it is {plateau.value:.4f}. {plateau.cure}"
                    )
        return None
