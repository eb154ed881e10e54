"""A method that learns almost nothing and remembers everything that the trainer does to it."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from gloam.batches.batch import Batch
from gloam.methods.contract import EpochContext, Method, MethodOptions


class SpyOptions(MethodOptions):
    """How to misbehave, and from which epoch on."""

    arch: str = "none"
    trouble: Literal["none", "nan", "constant", "collapse", "ln2"] = "none"
    from_epoch: int = 0

    @property
    def label_spaces(self) -> Literal["either"]:
        return "either"


class Spy(Method[SpyOptions]):
    """A linear layer on a 4 x 2 thumbnail."""

    Options = SpyOptions
    is_cross_modal = False
    events: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, num_classes: int, options: SpyOptions) -> None:
        super().__init__(num_classes, options)
        self.layer = nn.Linear(24, 64)
        self.events.append(("init", num_classes))
        self.epoch = 0

    @property
    def feature_dim(self) -> int:
        return 64

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        self.events.append(("step", batch.indices.tolist(), batch.pids.tolist(), batch.modalities.tolist()))
        logits = self.layer(_thumbnails(batch.images))
        loss = cross_entropy(logits, batch.pids % 64)
        trouble = self.options.trouble if self.epoch >= self.options.from_epoch else "none"
        if trouble == "nan":
            loss = loss * math.nan
        elif trouble == "constant":
            loss = loss * 0 + 1.25
        parts = {"triplet": loss.detach() * 0 + math.log(2)} if trouble == "ln2" else {}
        return {"loss": loss, **parts}

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        if self.options.trouble == "collapse" and self.epoch >= self.options.from_epoch:
            return torch.ones(len(images), 64) / 8
        return normalize(self.layer(_thumbnails(images)), dim=1)

    def start_stage(self, stage: str) -> None:
        self.events.append(("stage", stage))

    def on_epoch_start(self, context: EpochContext) -> None:
        self.epoch = context.epoch
        self.events.append(("epoch", context.epoch, context.labels.clone()))

    def after_step(self) -> None:
        self.events.append(("after",))


class UnsupervisedSpy(Spy):
    """Makes its own labels: groups of three neighbours, shifted every epoch; the last ten samples are left out."""

    is_unsupervised = True

    def on_epoch_start(self, context: EpochContext) -> None:
        super().on_epoch_start(context)
        labels = (torch.arange(len(context.labels)) + context.epoch) // 3
        labels[-10:] = -1
        context.set_labels(labels)
        context.report_pseudo_labels(labels)


class WeakSpy(Spy):
    """Reports every visible label as the partner of the infrared label with the same number."""

    is_cross_modal = True

    def on_epoch_start(self, context: EpochContext) -> None:
        super().on_epoch_start(context)
        labels = torch.arange(self.num_classes)
        context.report_correspondence(labels, labels)


def _thumbnails(images: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(images.float(), (4, 2)).flatten(1)
