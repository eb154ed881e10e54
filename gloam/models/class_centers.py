"""The centres of the centre loss, which move by a rule of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gloam.models.memory import gather_rows


class ClassCenters(nn.Module):
    """One centre per identity, first drawn from N(0, 1); :meth:`move` is SGD without momentum on the unweighted loss.

    *Source*: ``engine/trainer.py`` and ``layers/center_loss.py`` of the BoT release: a second optimiser (SGD) whose
    gradients are divided by the loss's weight. Its step needs no second optimiser: c - rate (2 / B) sum (c - x) over
    the rows x of the centre. With several processes the rows of all count.

    Args:
        num_classes: C.
        width: D.
        rate: learning rate of the centres.
    """

    rows: Tensor

    def __init__(self, num_classes: int, width: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("rows", torch.randn(num_classes, width))
        self._batch: tuple[Tensor, Tensor] | None = None

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The centres ``(C, D)`` for the loss of ``(B, D), (B,)``, which are kept for :meth:`move`."""
        self._batch = features.detach(), labels
        return self.rows

    @torch.no_grad()
    def move(self) -> None:
        """One step towards the rows of the last batch; to be called after the optimiser's."""
        if self._batch is None:
            return
        features, labels = gather_rows(*self._batch)
        self._batch = None
        gaps = self.rows[labels] - features.to(self.rows.dtype)
        self.rows.index_add_(0, labels, gaps, alpha=-2 * self.rate / len(labels))
