"""AGW: non-local blocks, generalised-mean pooling and the weighted regularised triplet, on the Base network; and CAJ.

*Source*: Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021, across modalities
and (``streams`` 1) within one; channel-augmented joint learning (CAJ), ICCV 2021, and its TPAMI 2023 extension for the
two-view options.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator
from torch import Tensor
from torch.nn.functional import cross_entropy

from gloam import losses
from gloam.batches.batch import Batch
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.losses.center import center_loss
from gloam.losses.consistency import soft_cross_entropy, softened_divergence
from gloam.losses.triplet import hard_triplet, squared_difference_triplet, weighted_regularized_triplet
from gloam.methods import register
from gloam.methods.contract import LAST_STAGE, BaselineOptions, Blocks, Method, OnlyWith, Pooling
from gloam.models.backbone import create_backbone, is_timm
from gloam.models.class_centers import ClassCenters
from gloam.models.embedding import EmbeddingNet
from gloam.models.neck import unit
from gloam.models.nonlocal_block import NonLocalBlock
from gloam.models.pooling import create_pooling
from gloam.precision import at_least_float32


class AGWOptions(BaselineOptions):
    """Flags of AGW and CAJ; published names in brackets."""

    pooling: Pooling = "gem"  # released: p = 3, across modalities not learned
    nonlocal_blocks: tuple[Blocks, Blocks, Blocks, Blocks] = Field(
        (0, 2, 3, 0), description="non-local blocks per stage; timm backbones take 0 0 0 0"
    )
    nonlocal_width: Literal["released", "half"] = Field("released", description="inner width: 1 as released, or C/2")
    triplet: Literal["wrt", "hard", "adp"] | str = Field(
        "wrt", description="wrt: AGW; hard: Base; adp: CAJ; or the name of a registered loss [--method]"
    )
    wrt: Literal["reference", "exact"] = Field(
        "reference", description="weights as released, or the exact softmax (needed from random weights)"
    )
    alpha: float = Field(1.0, gt=0, description="adp: factor inside the weights [--alpha]")
    gamma: float = Field(1.0, gt=0, description="adp: factor on the gap [--gamma]")
    square: bool = Field(True, description="adp: squared gap [--square]")
    consistency: Literal["none", "caj", "weak_from_strong", "strong_from_weak", "all_from_strong"] = Field(
        "none",
        description="caj: view 0 against infrared; CAJ+: view 0 from view 1 (default), view 1 from view 0 [--S2], "
        "view 0 and infrared from view 1 [--S]",
    )
    kl: float = Field(0.0, ge=0, description="weight of the consistency loss, which method.consistency names [--kl]")

    together = (
        LAST_STAGE,
        OnlyWith(("nonlocal_blocks",), "a ResNet", lambda o: not is_timm(o.arch), off=(0, 0, 0, 0)),
        OnlyWith(("nonlocal_width",), "non-local blocks", lambda o: any(o.nonlocal_blocks) and not is_timm(o.arch)),
        OnlyWith(("wrt",), "method.triplet wrt or adp", lambda o: o.triplet != "hard"),
        OnlyWith(("margin",), "method.triplet hard", lambda o: o.triplet == "hard"),
        OnlyWith(("alpha", "gamma", "square"), "method.triplet adp", lambda o: o.triplet == "adp"),
        OnlyWith(("consistency",), "method.kl above 0, its weight", lambda o: o.kl > 0),
        OnlyWith(("kl",), "a method.consistency other than none", lambda o: o.consistency != "none"),
    )

    @field_validator("triplet")
    @classmethod
    def _known_triplet(cls, name: str) -> str:
        return losses.check_choice(name, ("wrt", "hard", "adp"))


@register("agw")
class AGW(Method[AGWOptions]):
    """Base with attention, GeM and WRT; with a second visible view it trains as CAJ.

    Args:
        num_classes: C.
        options: flags.
    """

    Options = AGWOptions
    features = ("fc", "pool")

    def __init__(self, num_classes: int, options: AGWOptions) -> None:
        super().__init__(num_classes, options)
        counts = (0, 0, 0, 0) if is_timm(options.arch) else options.nonlocal_blocks
        backbone = create_backbone(
            options.arch,
            streams=options.streams,
            last_stride=options.last_stride,
            insert=lambda channels: NonLocalBlock(
                channels, 1 if options.nonlocal_width == "released" else channels // 2
            ),
            insert_counts=counts,
        )
        self.net = EmbeddingNet(backbone, create_pooling(options.pooling), num_classes)
        self.centers = (
            ClassCenters(num_classes, self.net.width, options.center_lr) if options.weight_center > 0 else None
        )

    @classmethod
    def needs_both_modalities(cls, options: AGWOptions) -> bool:
        """A network with one stem learns from any images, unless its loss compares the modalities."""
        return options.streams == 2 or options.consistency in ("caj", "all_from_strong")

    @property
    def feature_dim(self) -> int:
        return self.net.width

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        out = self.net(batch.images, batch.modalities)
        logits = at_least_float32(out.logits)
        identity = cross_entropy(logits, batch.pids, label_smoothing=self.options.label_smoothing)
        triplet = self._triplet(out.pooled, batch.pids)
        parts = {
            "identity": identity,
            "triplet": triplet,
            "identity_correct": (logits.detach().argmax(dim=1) == batch.pids).float().mean(),
        }
        loss = identity + triplet
        if self.options.consistency != "none" and self.options.kl:
            parts["consistency"] = self._consistency(logits, batch)
            loss = loss + self.options.kl * parts["consistency"]
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

    def _triplet(self, pooled: Tensor, pids: Tensor) -> Tensor:
        options = self.options
        if options.triplet == "hard":
            return hard_triplet(pooled, pids, options.margin)
        if options.triplet == "adp":
            return squared_difference_triplet(
                pooled, pids, alpha=options.alpha, gamma=options.gamma, square=options.square, form=options.wrt
            )
        if options.triplet == "wrt":
            return weighted_regularized_triplet(pooled, pids, options.wrt)
        return losses.get(options.triplet)(at_least_float32(pooled), pids)

    def _consistency(self, logits: Tensor, batch: Batch) -> Tensor:
        visible = batch.modalities == Modality.VISIBLE
        first, second = logits[visible & (batch.views == 0)], logits[visible & (batch.views == 1)]
        infrared = logits[(batch.modalities == Modality.INFRARED) & (batch.views == 0)]
        if not len(first) == len(second) == len(infrared):
            raise GloamError(
                "The consistency loss needs two views of every visible image and as many infrared ones. "
                "Set augment.visible_views to 2 and use a cross-modality sampler."
            )
        kind = self.options.consistency
        if kind == "caj":
            return softened_divergence(first, infrared)
        if kind == "weak_from_strong":
            return soft_cross_entropy(first, second)
        if kind == "strong_from_weak":
            return soft_cross_entropy(second, first)
        return soft_cross_entropy(first, second) + soft_cross_entropy(infrared, second)
