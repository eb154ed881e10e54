"""The one object that travels from the loaders through augmentation into a method."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """B samples of any mixture of visible and infrared images.

    Attributes:
        images: ``(B, 3, H, W)`` images or ``(B, T, 3, H, W)`` clips. uint8 as loaded; float32, augmented and
            normalised once the trainer's augmenter has run on the device.
        pids: ``(B,)`` int64 training labels; pseudo-labels where a method sets them.
        cams: ``(B,)`` int64 camera numbers.
        modalities: ``(B,)`` int64, values of :class:`gloam.datasets.records.Modality`.
        indices: ``(B,)`` int64 positions in the training records; memories and pseudo-labels are addressed by them.
        views: ``(B,)`` int64, 0 for the first view of a sample, 1 for the second where the augmentation adds one
            (a second view is an extra row that repeats pid, cam, modality and index).
    """

    images: Tensor
    pids: Tensor
    cams: Tensor
    modalities: Tensor
    indices: Tensor
    views: Tensor

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """A copy of the batch with every tensor on ``device``."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Batch(**{name: tensor.to(device, non_blocking=non_blocking) for name, tensor in fields.items()})

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory, for asynchronous transfers."""
        return Batch(**{f.name: getattr(self, f.name).pin_memory() for f in dataclasses.fields(self)})

    def select(self, rows: Tensor) -> Batch:
        """The rows named by an index or boolean tensor ``(B,)``."""
        return Batch(**{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})
