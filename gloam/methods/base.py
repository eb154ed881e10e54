"""Base: average pooling, identity loss and hard-mined triplet, across modalities or (``streams`` 1) within one.

*Source*: ``--method base`` of the AGW release (Ye et al., TPAMI 2021); with one stem BoT, the strong baseline of Luo
et al., CVPRW 2019 (recipes ``bot``).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator
from torch import Tensor
from torch.nn.functional import cross_entropy

from gloam import losses
from gloam.batches.batch import Batch
from gloam.losses.center import center_loss
from gloam.losses.triplet import fraction_correct, mine_hard
from gloam.methods import register
from gloam.methods.contract import LAST_STAGE, BaselineOptions, Method, OnlyWith, Pooling
from gloam.models.backbone import create_backbone
from gloam.models.class_centers import ClassCenters
from gloam.models.embedding import EmbeddingNet
from gloam.models.neck import unit
from gloam.models.pooling import create_pooling
from gloam.precision import at_least_float32


class BaseOptions(BaselineOptions):
    """Flags of Base; published names in brackets."""

    pooling: Pooling = "avg"
    triplet: Literal["hard"] | str = Field("hard", description="hard: batch-hard; or the name of a registered loss")
    weight_identity: float = Field(1.0, ge=0, description="weight of the identity loss")
    weight_triplet: float = Field(1.0, ge=0, description="weight of the triplet loss")

    together = (LAST_STAGE, OnlyWith(("margin",), "method.triplet hard", lambda o: o.triplet == "hard"))

    @field_validator("triplet")
    @classmethod
    def _known_triplet(cls, name: str) -> str:
        return losses.check_choice(name, ("hard",))


@register("base")
class BaseSoftmax(Method[BaseOptions]):
    """Identity loss on the neck, hard triplet on the pooled feature.

    Args:
        num_classes: C.
        options: flags.
    """

    Options = BaseOptions
    features = ("fc", "pool")

    def __init__(self, num_classes: int, options: BaseOptions) -> None:
        super().__init__(num_classes, options)
        backbone = create_backbone(options.arch, streams=options.streams, last_stride=options.last_stride)
        self.net = EmbeddingNet(backbone, create_pooling(options.pooling), num_classes)
        self.centers = (
            ClassCenters(num_classes, self.net.width, options.center_lr) if options.weight_center > 0 else None
        )

    @classmethod
    def needs_both_modalities(cls, options: BaseOptions) -> bool:
        """A network with one stem learns from any images."""
        return options.streams == 2

    @property
    def feature_dim(self) -> int:
        return self.net.width

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        out = self.net(batch.images, batch.modalities)
        logits = at_least_float32(out.logits)
        identity = cross_entropy(logits, batch.pids, label_smoothing=self.options.label_smoothing)
        positive, negative = mine_hard(out.pooled, batch.pids)
        if self.options.triplet == "hard":
            triplet = (positive - negative + self.options.margin).clamp_min(0).mean()
        else:
            triplet = losses.get(self.options.triplet)(at_least_float32(out.pooled), batch.pids)
        parts = {
            "identity": identity,
            "triplet": triplet,
            "triplet_correct": fraction_correct(positive, negative),
            "identity_correct": (logits.detach().argmax(dim=1) == batch.pids).float().mean(),
        }
        loss = self.options.weight_identity * identity + self.options.weight_triplet * triplet
        if self.centers is not None:
            parts["center"] = center_loss(out.pooled, batch.pids, self.centers(out.pooled, batch.pids))
            loss = loss + self.options.weight_center * parts["center"]
        return {"loss": loss, **parts}

    def after_step(self) -> None:
        """Centres follow the batch."""
        if self.centers is not None:
            self.centers.move()

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """``fc``: unit feature after the neck; ``pool``: unit pooled feature."""
        out = self.net(images, modalities)
        return unit(out.pooled if self.test_feature == "pool" else out.bn)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Backbone at ``trunk_factor * lr``, neck and classifier at ``lr``."""
        return self.net.parameter_groups(lr, self.options.trunk_factor)

    def to_published(self) -> dict[str, Any] | None:
        """The release saves its state under ``net``."""
        state = self.net.to_published()
        return None if state is None else {"net": state}
