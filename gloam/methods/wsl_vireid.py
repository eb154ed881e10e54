"""WSL-VIReID (HECCL): two experts learn inside their modality, then agree on who is who across modalities.

*Source*: Zhang et al., "Weakly Supervised Visible-Infrared Person Re-Identification via Heterogeneous Expert
Collaborative Consistency Learning", ICCV 2025. The released training loop is followed except where it is plainly broken
(docs/methods/wsl_vireid.md).

Two stages: ``experts`` (phase 1) and ``collaboration`` (phase 2). A recipe without stages runs phase 2 from the start.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from gloam.batches.batch import Batch
from gloam.clustering.correspondence import RelationRule, count_priority_selection, relate, sinkhorn_assignment
from gloam.datasets.records import Modality
from gloam.losses.collaborative_consistency import expert_agreement, prediction_entropy, weak_identity_loss
from gloam.losses.triplet import weighted_regularized_triplet
from gloam.methods import register
from gloam.methods.contract import BackboneOptions, EpochContext, Method, OnlyWith
from gloam.models.backbone import create_backbone, is_timm
from gloam.models.consensus_propagation import consensus_share, propagate_consensus
from gloam.models.neck import Classifier
from gloam.models.pooling import GeM
from gloam.models.released_names import rename_prefixes, restore_prefixes
from gloam.models.two_stream import TwoStreamBackbone
from gloam.precision import at_least_float32

# Names in the released checkpoints -> names here.
_PUBLISHED = {
    **{
        f"backbone.{theirs}.{number}.": f"backbone.{stem}.{layer}."
        for theirs, stem in (("rgb_layers", "stem_visible"), ("ir_layers", "stem_infrared"))
        for number, layer in ((0, "conv1"), (1, "bn1"))
    },
    **{f"backbone.common_layers.{stage - 1}.": f"backbone.trunk.layer{stage}." for stage in (1, 2, 3, 4)},
    "backbone.GAP.p": "pool.p",
    "backbone.BN.": "bottleneck.",
    "classifier1.classifier.": "visible_expert.",
    "classifier2.classifier.": "infrared_expert.",
    "classifier3.classifier.": "shared_classifier.",
}


class WSLVIReIDOptions(BackboneOptions):
    """Flags of WSL-VIReID; published names in brackets."""

    supervision: Literal["weak", "baseline", "supervised"] = Field(
        "weak", description="weak: the method; baseline: phase-1 loss throughout; supervised: upper bound [--debug]"
    )
    tri_weight: float = Field(0.25, ge=0, description="weight of the triplets [--tri-weight]")
    weak_weight: float = Field(0.25, ge=0, description="weight of the weak identity loss [--weak-weight]")
    weak_from_epoch: int = Field(30, ge=0, description="phase-2 epoch at which the weak identity loss starts")
    sigma: float = Field(0.8, gt=0, le=1, description="weight of the new feature in the prototypes [--sigma]")
    temperature: float = Field(3.0, gt=0, description="factor on the cross-modal logits [--temperature]")
    triplet: Literal["reference", "exact"] = Field("reference", description="form of the weighted triplet")
    relation_rule: RelationRule = Field("paper", description="how one-sided relations are judged")
    extract_stem: Literal["own", "released"] = Field("own", description="released: infrared through the visible stem")
    matcher: Literal["count_priority", "sinkhorn"] = Field("count_priority", description="how ids are matched")
    smoothing: float = Field(0.0, ge=0, le=1, description="largest share of look-alikes in a guess; derivative: 0.3")
    smoothing_neighbours: int = Field(5, ge=1, description="look-alikes per image, itself included")
    smoothing_from_epoch: int = Field(10, ge=0, description="phase-2 epoch at which smoothing starts to rise")
    strong_weight: float = Field(1.0, ge=0, description="weight of the strong identity loss; derivative: 0.25")
    stem_relu: bool = Field(False, description="ReLU between the first norm and the max-pool; released: none")

    together = (
        OnlyWith(("stem_relu",), "a ResNet", lambda o: not is_timm(o.arch)),
        OnlyWith(("weak_weight", "smoothing"), "method.supervision weak", lambda o: o.supervision == "weak", off=0.0),
        OnlyWith(
            ("sigma", "relation_rule", "extract_stem", "matcher", "strong_weight", "weak_from_epoch"),
            "method.supervision weak",
            lambda o: o.supervision == "weak",
        ),
        OnlyWith(
            ("temperature",),
            "method.supervision weak and method.matcher count_priority",
            lambda o: o.supervision == "weak" and o.matcher == "count_priority",
        ),
        OnlyWith(
            ("smoothing",),
            "method.matcher count_priority and method.smoothing_neighbours above 1",
            lambda o: o.matcher == "count_priority" and o.smoothing_neighbours > 1,
        ),
        OnlyWith(
            ("smoothing_neighbours", "smoothing_from_epoch"),
            "method.smoothing above 0",
            lambda o: o.smoothing > 0,
        ),
    )

    @property
    def label_spaces(self) -> Literal["one", "two"]:
        return "one" if self.supervision == "supervised" else "two"


@register("wsl_vireid")
class WSLVIReID(Method[WSLVIReIDOptions]):
    """A visible and an infrared expert, a shared classifier, and relations that are rebuilt at every epoch.

    Args:
        num_classes: identities N per modality; the two numberings are unrelated.
        options: flags.
    """

    Options = WSLVIReIDOptions
    features = ("fc",)
    one_process = "its prototypes move with the batch of one process only, so that the other processes' steps are lost"

    prototypes: Tensor
    consistent: Tensor
    trusted: Tensor
    contradictory: Tensor
    weak_on: Tensor

    def __init__(self, num_classes: int, options: WSLVIReIDOptions) -> None:
        super().__init__(num_classes, options)
        self.backbone = create_backbone(options.arch, streams=2, last_stride=1, stem_relu=options.stem_relu)
        width = self.backbone.out_channels
        self.pool = GeM(learnable=True)
        self.bottleneck = nn.BatchNorm1d(width)
        self.visible_expert = Classifier(width, num_classes)
        self.infrared_expert = Classifier(width, num_classes)
        self.shared_classifier = Classifier(width, num_classes)
        self.phase = "collaboration"
        empty = torch.zeros(num_classes, num_classes, dtype=torch.bool)
        # Mean features of every identity, per modality number: (2, N, D).
        self.register_buffer("prototypes", torch.zeros(len(Modality), num_classes, width))
        # (V, R) relation matrices; `trusted` = consistent or single.
        self.register_buffer("consistent", empty)
        self.register_buffer("trusted", empty.clone())
        self.register_buffer("contradictory", empty.clone())
        self.register_buffer("weak_on", torch.tensor(False))

    @property
    def feature_dim(self) -> int:
        return int(self.backbone.out_channels)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Backbone at ``lr``, classifiers at twice the rate; the shared one joins in phase 2, where it learns."""
        classifiers = [*self.visible_expert.parameters(), *self.infrared_expert.parameters()]
        if self.phase == "collaboration" and self.options.supervision == "weak":
            classifiers += self.shared_classifier.parameters()
        own = [*self.backbone.parameters(), *self.pool.parameters(), *self.bottleneck.parameters()]
        return [{"params": own, "lr": lr}, {"params": classifiers, "lr": 2 * lr}]

    def start_stage(self, stage: str) -> None:
        """``experts`` runs phase 1; every other stage name runs phase 2."""
        self.phase = "experts" if stage == "experts" else "collaboration"

    def on_epoch_start(self, context: EpochContext) -> None:
        """Phase 2: extract once, match both ways, sort the relations, rebuild the prototypes."""
        if self.phase == "experts" or self.options.supervision != "weak":
            return
        self.weak_on.fill_(context.epoch >= self.options.weak_from_epoch)
        outputs = context.extract(self._features_and_guesses)
        width = self.feature_dim
        features, guesses = outputs[:, :width], outputs[:, width:]
        visible = context.modalities == Modality.VISIBLE
        for modality, rows in ((Modality.VISIBLE, visible), (Modality.INFRARED, ~visible)):
            self.prototypes[modality] = self._means(features[rows], context.labels[rows])
        if self.options.matcher == "sinkhorn":
            forward, backward = sinkhorn_assignment(*(self.prototypes[m].cpu() for m in Modality))
        else:
            share = consensus_share(context.epoch, self.options.smoothing, self.options.smoothing_from_epoch)
            forward, backward = (
                count_priority_selection(
                    self._smoothed(guesses[rows], features[rows], share).masked_fill(
                        # A number that the other modality does not use is nobody's partner.
                        torch.bincount(context.labels[~rows], minlength=self.num_classes) == 0,
                        -torch.inf,
                    ),
                    context.labels[rows],
                    self.num_classes,
                )
                for rows in (visible, ~visible)
            )
        relations = relate(forward, backward, self.options.relation_rule)
        self.consistent.copy_(relations.consistent)
        self.trusted.copy_(relations.consistent | relations.single)
        self.contradictory.copy_(relations.contradictory)
        established = torch.nonzero(self.trusted.cpu())
        context.report_correspondence(established[:, 0], established[:, 1])
        for name in ("consistent", "single", "contradictory"):
            pairs = torch.nonzero(getattr(relations, name))
            context.report_correspondence(pairs[:, 0], pairs[:, 1], name)

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        maps = self.backbone(batch.images, batch.modalities)
        pooled = self.pool(maps)
        bn = self.bottleneck(pooled)
        if self.options.supervision == "supervised":
            return self._supervised(pooled, bn, batch)
        if self.phase == "experts" or self.options.supervision == "baseline":
            return self._expert_phase(pooled, bn, batch)
        return self._collaboration_phase(pooled, bn, batch)

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Unit batch-normalised features ``(N, D)`` through each image's own stem."""
        return normalize(self._bn_features(images, modalities), dim=1, eps=1e-12)

    def rename_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The release saves a backbone of numbered layers and three classifiers as dictionaries of their own."""
        if "backbone.common_layers.0.0.conv1.weight" not in state:
            return state
        return rename_prefixes(state, _PUBLISHED)

    def to_published(self) -> dict[str, Any] | None:
        """See :meth:`rename_published`: a dictionary for the backbone and for each classifier."""
        if not isinstance(self.backbone, TwoStreamBackbone):
            return None
        parts: dict[str, Any] = {}
        for name, value in restore_prefixes(self.state_dict(), _PUBLISHED).items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
        return parts

    def _bn_features(self, images: Tensor, modalities: Tensor) -> Tensor:
        return at_least_float32(self.bottleneck(self.pool(self.backbone(images, modalities))))

    def _features_and_guesses(self, images: Tensor, modalities: Tensor) -> Tensor:
        """``(n, D + N)``: features, and sharpened probabilities over the identities of the other modality."""
        released = self.options.extract_stem == "released"
        features = self._bn_features(images, torch.zeros_like(modalities) if released else modalities)
        visible = (modalities == Modality.VISIBLE)[:, None]
        logits = torch.where(visible, self.infrared_expert(features), self.visible_expert(features))
        return torch.cat([features, (self.options.temperature * logits).softmax(dim=1)], dim=1)

    def _smoothed(self, guesses: Tensor, features: Tensor, share: float) -> Tensor:
        """Guesses of one modality mixed with those of look-alikes, which are searched for on the training device."""
        features = features.to(self.prototypes.device) if share else features
        return propagate_consensus(guesses, features, share, self.options.smoothing_neighbours)

    def _means(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean feature of every identity ``(N, D)``; zeros for identities that do not occur."""
        sums = torch.zeros(self.num_classes, features.shape[1]).index_add_(0, labels, features)
        return (sums / torch.bincount(labels, minlength=self.num_classes).clamp_min(1)[:, None]).to(self.prototypes)

    def _triplet(self, pooled: Tensor, labels: Tensor) -> Tensor:
        return weighted_regularized_triplet(pooled, labels, form=self.options.triplet)

    def _expert_phase(self, pooled: Tensor, bn: Tensor, batch: Batch) -> dict[str, Tensor]:
        visible = batch.modalities == Modality.VISIBLE
        identity = self._expert_loss(bn, batch.pids, visible)
        triplet = self._triplet(pooled[visible], batch.pids[visible]) + self._triplet(
            pooled[~visible], batch.pids[~visible]
        )
        return {"loss": identity + self.options.tri_weight * triplet, "experts": identity, "triplet": triplet}

    def _supervised(self, pooled: Tensor, bn: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Upper bound: one label space for both modalities."""
        identity = cross_entropy(self.visible_expert(bn).float(), batch.pids)
        triplet = self._triplet(pooled, batch.pids)
        return {"loss": identity + self.options.tri_weight * triplet, "identity": identity, "triplet": triplet}

    def _collaboration_phase(self, pooled: Tensor, bn: Tensor, batch: Batch) -> dict[str, Tensor]:
        visible = batch.modalities == Modality.VISIBLE
        labels = batch.pids
        # Translated label of every row whose identity has a consistent partner, else -1.
        translated = torch.where(visible, _partner(self.consistent)[labels], _partner(self.consistent.T)[labels])
        agreed = translated >= 0
        detached = bn.detach()
        self._update_prototypes(detached, labels, batch.modalities)

        parts = {"experts": self._expert_loss(detached, labels, visible)}
        in_infrared = (visible & agreed) | ~visible
        in_visible = (~visible & agreed) | visible
        infrared_names = torch.where(visible, translated, labels)
        visible_names = torch.where(visible, labels, translated)
        parts["triplet"] = self._triplet(pooled[in_infrared], infrared_names[in_infrared]) + self._triplet(
            pooled[in_visible], visible_names[in_visible]
        )
        parts["agreement"] = self._agreement(detached, translated, visible)
        # Full precision under autocast: the weak loss compares classes with a threshold.
        with torch.autocast(device_type=bn.device.type, enabled=False):
            logits = self.shared_classifier(at_least_float32(bn))
        parts["strong"] = cross_entropy(logits[~visible].float(), labels[~visible])
        trusted = _partner(self.trusted)[labels]
        rows = visible & (trusted >= 0)
        if bool(rows.any()):
            parts["strong"] = parts["strong"] + cross_entropy(logits[rows].float(), trusted[rows])
        loss = parts["experts"] + self.options.tri_weight * parts["triplet"] + parts["agreement"]
        loss = loss + self.options.strong_weight * parts["strong"]
        if self.weak_on:
            parts["weak"] = weak_identity_loss(logits[visible], self.contradictory[labels[visible]])
            loss = loss + self.options.weak_weight * parts["weak"]
        return {"loss": loss, **parts}

    def _expert_loss(self, features: Tensor, labels: Tensor, visible: Tensor) -> Tensor:
        own = cross_entropy(self.visible_expert(features[visible]).float(), labels[visible])
        return own + cross_entropy(self.infrared_expert(features[~visible]).float(), labels[~visible])

    @torch.no_grad()
    def _update_prototypes(self, features: Tensor, labels: Tensor, modalities: Tensor) -> None:
        for modality in Modality:
            rows = modalities == modality
            present, inverse, counts = torch.unique(labels[rows], return_inverse=True, return_counts=True)
            means = torch.zeros(len(present), features.shape[1], device=features.device)
            means.index_add_(0, inverse, features[rows].float())
            self.prototypes[modality, present] = torch.lerp(
                self.prototypes[modality, present], means / counts[:, None], self.options.sigma
            )

    def _agreement(self, features: Tensor, translated: Tensor, visible: Tensor) -> Tensor:
        """Each expert judges the other modality's samples as it judges their partners' prototypes; doubt is weight."""
        doubt_visible = prediction_entropy(self.infrared_expert(features[visible]))
        doubt_infrared = prediction_entropy(self.visible_expert(features[~visible]))
        total = (doubt_visible + doubt_infrared).clamp_min(1e-12)
        loss = features.new_zeros(())
        for rows, expert, other, weight in (
            (~visible & (translated >= 0), self.infrared_expert, Modality.VISIBLE, doubt_visible),
            (visible & (translated >= 0), self.visible_expert, Modality.INFRARED, doubt_infrared),
        ):
            prototypes = self.prototypes[other, translated[rows]]
            loss = loss + weight / total * expert_agreement(expert(features[rows]), expert(prototypes))
        return loss


def _partner(relation: Tensor) -> Tensor:
    """First related column of every row of a bool matrix, or -1."""
    return torch.where(relation.any(dim=1), relation.int().argmax(dim=1), -1)
