"""PF-MGCD: part-based fine-grained multi-granularity cross-modal distillation, weakly or fully supervised.

*Source*: README and code history of PF-MGCD; no paper and no published score exist. The default design repairs the
parts of the release that cannot work; ``docs/methods/pf_mgcd.md`` lists every repair and the option that undoes it.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from gloam.batches.batch import Batch
from gloam.clustering.correspondence import mutual_assignment
from gloam.datasets.records import Modality
from gloam.losses.part_distillation import (
    graph_distillation_loss,
    known_pairs_triplet,
    orthogonality_loss,
    part_identity_loss,
    part_modality_loss,
)
from gloam.methods import register
from gloam.methods.contract import BackboneOptions, EpochContext, Method, OnlyWith
from gloam.models.backbone import create_backbone
from gloam.models.isg_dm import IdPool, IsgVariant, MultiPartISGDM, split_stripes
from gloam.models.modality_discriminator import PartDiscriminators
from gloam.models.neck import unit
from gloam.models.part_memory import PartMemory, propagate

_ADVERSARIAL_FROM = 5  # epoch from which the features follow the reversed gradient of the discriminators


class PFMGCDOptions(BackboneOptions):
    """Flags of PF-MGCD; published names in brackets."""

    relabel: bool = Field(True, description="weak: ids are numbered per modality; off: one label space [--relabel]")
    num_parts: int = Field(6, ge=1, description="horizontal stripes [--num-parts]")
    feature_dim: int = Field(256, ge=1, description="width of identity and modality features [--feature-dim]")
    isg: IsgVariant = Field("restitution", description="disentanglement: repaired default or a released form")
    id_pool: IdPool = Field("gem", description="pooling of the restituted map")
    style_hidden: int | None = Field(None, ge=1, description="hidden width of the style head; released: channels")
    match: bool = Field(True, description="weak: match infrared to visible identities; off: they are never joined")
    memory_momentum: float = Field(0.9, ge=0, lt=1, description="weight of the old prototype [--memory-momentum]")
    init_memory: bool = Field(True, description="fill the memory from the teacher after warm-up [--init-memory]")
    teacher: Literal["frozen", "ema", "none"] = Field("frozen", description="who fills the memory")
    top_k: int = Field(5, ge=1, description="prototypes a soft label is spread over [--top-k]")
    temperature: float = Field(3.0, gt=0, description="temperature of the soft labels [--temperature]")
    sim_scale: float = Field(30.0, gt=0, description="factor on the cosine; 1 is the first release")
    lambda_graph: float = Field(1.0, ge=0, description="weight of graph distillation [--lambda-graph]")
    lambda_orth: float = Field(0.1, ge=0, description="weight of orthogonality [--lambda-orth]")
    lambda_mod: float = Field(0.5, ge=0, description="weight of modality classification [--lambda-mod]")
    lambda_triplet: float = Field(
        0.0, ge=0, description="weight of the hard triplet of later versions [--lambda-triplet]"
    )
    lambda_adv: float = Field(0.0, ge=0, description="weight of the adversarial modality loss [--lambda-adv]")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing [--label-smoothing]")
    warmup_epochs: int = Field(10, ge=0, description="epochs before memory and graph start [--warmup-epochs]")
    pool_parts: bool = Field(True, description="test feature: all parts side by side; off: their mean [--pool-parts]")

    together = (
        OnlyWith(("id_pool",), "method.isg restitution", lambda o: o.isg == "restitution"),
        OnlyWith(("style_hidden",), "a method.isg other than attention-v2", lambda o: o.isg != "attention-v2"),
        OnlyWith(("pool_parts",), "method.num_parts above 1", lambda o: o.num_parts > 1),
        OnlyWith(
            ("memory_momentum", "init_memory", "teacher", "top_k", "temperature", "sim_scale", "warmup_epochs"),
            "what reads the memory: method.lambda_graph above 0, or matching (method.relabel and method.match)",
            lambda o: o.uses_memory,
        ),
        OnlyWith(("temperature", "sim_scale"), "method.top_k above 1", lambda o: o.top_k > 1),
    )

    @property
    def label_spaces(self) -> Literal["one", "two"]:
        return "two" if self.relabel else "one"

    @property
    def uses_memory(self) -> bool:
        """Whether distillation or matching reads the memory; without both each modality learns alone."""
        return self.lambda_graph > 0 or (self.relabel and self.match)


@register("pf_mgcd")
class PFMGCD(Method[PFMGCDOptions]):
    """PCB stripes, disentangled features, a modality-agnostic part memory and soft labels that propagate from it.

    Args:
        num_classes: identities per modality (weak) or in all (paired).
        options: flags.
    """

    Options = PFMGCDOptions
    features = ("parts",)
    one_process = "its prototypes move with the batch of one process only, so that the other processes' steps are lost"

    matches: Tensor
    warm: Tensor

    def __init__(self, num_classes: int, options: PFMGCDOptions) -> None:
        super().__init__(num_classes, options)
        parts, width = options.num_parts, options.feature_dim
        self.student = _Student(num_classes, options)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False) if options.teacher == "ema" else None
        self.memory = PartMemory(parts, num_classes, width, options.memory_momentum)
        self.discriminators = PartDiscriminators(parts, width) if options.lambda_adv else None
        self._reversal = 0.0
        # Visible partner of every infrared identity, -1 where it is unknown; only used in weak mode.
        self.register_buffer("matches", torch.full((num_classes,), -1, dtype=torch.int64))
        self.register_buffer("warm", torch.tensor(False))
        self._pending: tuple[Tensor, Tensor] | None = None
        self._images: tuple[Tensor, Tensor] | None = None

    @property
    def feature_dim(self) -> int:
        options = self.options
        return options.feature_dim * (options.num_parts if options.pool_parts else 1)

    def on_epoch_start(self, context: EpochContext) -> None:
        """After warm-up: fill the memory once, then match infrared to visible identities at every epoch."""
        self._reversal = 0.1 if context.epoch >= _ADVERSARIAL_FROM else 0.0
        if self.teacher is not None and context.epoch == 0:
            # A weight file need not hold the averaged network; it starts as the student.
            self.teacher.load_state_dict(self.student.state_dict())
        self.warm.fill_(self.options.uses_memory and context.epoch >= self.options.warmup_epochs)
        if not self.warm:
            return
        if context.epoch == self.options.warmup_epochs and self.options.init_memory and self.options.teacher != "none":
            self._initialise_memory(context)
        if self.options.relabel and self.options.match and bool(self.memory.initialised.any()):
            self._match_identities(context)

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        options = self.options
        output = self.student(batch.images)
        visible = batch.modalities == Modality.VISIBLE
        infrared = ~visible
        # Label in the memory's label space, -1 for infrared identities without a known partner.
        shared = torch.where(infrared, self.matches[batch.pids], batch.pids) if options.relabel else batch.pids
        known = shared >= 0
        losses = {
            "identity": part_identity_loss(output.logits[known], shared[known], options.label_smoothing),
            "orthogonality": orthogonality_loss(output.identity, output.modality),
            "modality": part_modality_loss(output.modality_logits, batch.modalities),
        }
        if output.infrared_logits is not None:
            own = part_identity_loss(output.infrared_logits[infrared], batch.pids[infrared], options.label_smoothing)
            losses["infrared_identity"] = own
        loss = losses["identity"] + losses.get("infrared_identity", output.logits.new_zeros(()))
        loss = loss + options.lambda_orth * losses["orthogonality"] + options.lambda_mod * losses["modality"]
        if options.lambda_triplet:
            losses["triplet"] = self._triplet(output.identity, batch.pids, shared, visible)
            loss = loss + options.lambda_triplet * losses["triplet"]
        if self.discriminators is not None:
            guesses = self.discriminators(output.identity, self._reversal)
            losses["adversarial"] = part_modality_loss(guesses, batch.modalities)
            loss = loss + options.lambda_adv * losses["adversarial"]
        if self.warm and bool(self.memory.initialised.any()):
            similarities = self.memory.similarities(output.identity.detach().float())
            soft, confidence = propagate(
                similarities,
                self.memory.initialised,
                top_k=options.top_k,
                temperature=options.temperature,
                scale=options.sim_scale,
            )
            losses["graph"] = graph_distillation_loss(output.logits, soft, confidence / confidence.mean(dim=0))
            loss = loss + options.lambda_graph * losses["graph"]
        if self.warm:
            self._pending = (output.identity.detach().float(), shared)
            self._images = (batch.images, batch.modalities) if self.teacher is not None else None
        return {"loss": loss, **losses}

    def after_step(self) -> None:
        """Move the averaged teacher, then the prototypes of this batch."""
        if self.teacher is not None:
            self._average_teacher(self.teacher)
        if self._pending is not None:
            features, labels = self._pending
            if self.teacher is not None and self._images is not None:
                with torch.no_grad():
                    features = self.teacher(self._images[0]).identity.float()
            self.memory.update(features, labels)
            self._pending = self._images = None

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Unit part features side by side ``(N, K D)``, or their normalised mean ``(N, D)``, in either modality."""
        parts = self.part_features(images, modalities)
        joined = parts.flatten(1) if self.options.pool_parts else parts.mean(dim=1)
        return normalize(joined, dim=1, eps=1e-12)

    def part_features(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Unit identity features of every stripe ``(N, K, D)``, float32."""
        return normalize(self.student(images).identity.float(), dim=2, eps=1e-12)

    def _initialise_memory(self, context: EpochContext) -> None:
        """The student of this moment is the frozen teacher; it is not needed again once the prototypes are stored."""
        rows = context.labels >= 0
        if self.options.relabel:
            rows &= context.modalities == Modality.VISIBLE
        device = self.memory.memory.device
        features = context.extract(self.part_features, rows)
        self.memory.initialise(features.to(device), context.labels[rows].to(device))

    def _match_identities(self, context: EpochContext) -> None:
        """Votes of every infrared identity for the prototypes, then the mutual best pairs."""
        slots = self.memory.initialised.shape[0]

        def vote(images: Tensor, modalities: Tensor) -> Tensor:
            similarities = self.memory.similarities(self.part_features(images, modalities))
            soft, confidence = propagate(
                similarities,
                self.memory.initialised,
                top_k=self.options.top_k,
                temperature=self.options.temperature,
                scale=self.options.sim_scale,
            )
            return (confidence[:, :, None] * soft).mean(dim=1)

        infrared = (context.modalities == Modality.INFRARED) & (context.labels >= 0)
        labels = context.labels[infrared]
        sums = torch.zeros(self.num_classes, slots).index_add_(0, labels, context.extract(vote, infrared))
        counts = torch.bincount(labels, minlength=self.num_classes).clamp_min(1)
        matches = mutual_assignment(sums / counts[:, None])
        self.matches.copy_(matches)
        found = torch.nonzero(matches >= 0).flatten()
        context.log("matched_identities", float(len(found)))
        context.report_correspondence(matches[found], found)

    def _triplet(self, identity: Tensor, pids: Tensor, shared: Tensor, visible: Tensor) -> Tensor:
        """Hard triplet on the joined parts, between the modalities only where both identities are known."""
        return known_pairs_triplet(unit(identity.flatten(1)), pids, shared, visible)

    @torch.no_grad()
    def _average_teacher(self, teacher: nn.Module) -> None:
        teacher.eval()
        own = dict(self.student.named_parameters()) | dict(self.student.named_buffers())
        for name, value in (*teacher.named_parameters(), *teacher.named_buffers()):
            if value.is_floating_point():
                value.lerp_(own[name].to(value.dtype), 0.001)
            else:
                value.copy_(own[name])


class _Output:
    """What the student computes for a batch: features ``(B, K, D)`` and logits ``(B, K, classes)``."""

    def __init__(self, identity: Tensor, modality: Tensor, heads: tuple[Tensor, Tensor, Tensor | None]) -> None:
        self.identity, self.modality = identity, modality
        self.logits, self.modality_logits, self.infrared_logits = heads


class _Student(nn.Module):
    """Backbone, disentanglement and the heads of every part."""

    def __init__(self, num_classes: int, options: PFMGCDOptions) -> None:
        super().__init__()
        parts, width = options.num_parts, options.feature_dim
        self.num_parts = parts
        self.backbone = create_backbone(options.arch, streams=1, last_stride=1)
        self.disentangle = MultiPartISGDM(
            parts,
            self.backbone.out_channels,
            width,
            variant=options.isg,
            id_pool=options.id_pool,
            style_hidden=options.style_hidden,
        )
        self.identity_heads = _heads(parts, width, num_classes)
        self.infrared_heads = _heads(parts, width, num_classes) if options.relabel else None
        self.modality_heads = _heads(parts, width, len(Modality))

    def forward(self, images: Tensor) -> _Output:
        modalities = torch.zeros(images.shape[0], dtype=torch.int64, device=images.device)
        maps = self.backbone(images, modalities)
        identity, modality = self.disentangle(split_stripes(maps, self.num_parts))
        infrared = _apply(self.infrared_heads, identity) if self.infrared_heads is not None else None
        heads = (_apply(self.identity_heads, identity), _apply(self.modality_heads, modality), infrared)
        return _Output(identity, modality, heads)


def _heads(parts: int, width: int, classes: int) -> nn.ModuleList:
    heads = [nn.Linear(width, classes) for _ in range(parts)]
    for head in heads:
        nn.init.normal_(head.weight, std=0.001)
        nn.init.zeros_(head.bias)
    return nn.ModuleList(heads)


def _apply(heads: nn.ModuleList, features: Tensor) -> Tensor:
    """``(B, K, D)`` through one linear head per part: ``(B, K, classes)``."""
    return torch.stack([head(part) for head, part in zip(heads, features.unbind(1), strict=True)], dim=1)
