"""MetaPRD: Cluster Contrast with hard sample deduction, positive pair alignment and an optional graph network.

*Source*: Ji et al., "Meta Pairwise Relationship Distillation for Unsupervised Person Re-identification", ICCV 2021 and
its TNNLS 2024 version, of which the released code is the source here (docs/methods/metaprd.md). Identities of training
images are never seen; camera numbers are, by the sampler ``camera_identity``.

A recipe needs ``sampler.partners: true`` (the second image of a positive pair). The graph network is pre-trained in
stages called ``gcn_meta`` (a few images in many views) and ``gcn`` (all images), and goes on learning at the end of
every epoch. Deliberate differences from the release: it is kept over epochs; fixed subgraphs, exact gradients,
own-cluster fallback; meta features come from the network in evaluation mode, like all others.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gloam.batches.batch import Batch
from gloam.clustering.pseudo_labels import check_clusters, cluster, outliers_alone
from gloam.errors import GloamError
from gloam.losses.pair_distillation import (
    draw_one,
    hard_sample_deduction,
    mix_memory,
    pair_sets,
    positive_pair_alignment,
    positives_or_cluster,
)
from gloam.methods import register
from gloam.methods.contract import ClusterOptions, EpochContext, Method, OnlyWith
from gloam.models.memory import ClusterMemory, InstanceMemory, gather_rows, resize_buffers
from gloam.models.pair_graph import PairGraphNetwork
from gloam.models.unit_embedding import UnitEmbedding, rename_released, to_released
from gloam.precision import dot_products

META_STAGE, GCN_STAGE = "gcn_meta", "gcn"
META_IMAGES = 5  # labels of stage gcn_meta; the sampler draws the views


class MetaPRDOptions(ClusterOptions):
    """Flags of MetaPRD; published names in brackets."""

    eps: float = Field(
        0.4, gt=0, lt=1, description="largest Jaccard distance; Market 0.4, Duke 0.6, MSMT17 0.7 [--eps]"
    )
    memory_update: Literal["mean", "hard"] = Field("hard", description="the release always uses hard")
    hsd: bool = Field(True, description="hard sample deduction; off: ClusterNCE")
    hsd_alpha: float = Field(0.2, ge=0, le=1, description="weight of a hard positive in a prototype")
    hsd_negative_weight: float = Field(0.05, gt=0, description="lambda: weight of hard negatives in the denominator")
    hsd_positive: Literal["random", "hardest"] = Field("random", description="which hard positive is mixed in")
    hsd_fallback: Literal["own_cluster", "previous_image"] = Field(
        "own_cluster", description="positives of an image without hard ones; previous_image is the release's slip"
    )
    ppa: bool = Field(True, description="positive pair alignment; needs sampler.partners: true")
    ppa_rate: float = Field(0.1, ge=0, le=1, description="rho: weight of a hard sample in the mixed memories")
    ppa_temperature: float = Field(0.05, gt=0, description="temperature of the cluster distributions")
    ppa_weight: float = Field(1.0, ge=0, description="weight of the alignment")
    gcn: bool = Field(False, description="a graph network must confirm changed pairs [--use-gcn]")
    gcn_neighbours: int = Field(8, ge=2, description="K: each image of a pair and its K - 1 nearest make the graph")
    gcn_hidden: int = Field(512, ge=1, description="width of the graph convolutions; the head has twice as many")
    gcn_sort_k: int | None = Field(
        16, ge=10, description="nodes kept by sort pooling; none: the release's percentile over the graphs of a call"
    )
    gcn_inner_steps: int = Field(3, ge=1, description="R: inner steps per batch of pairs")
    gcn_inner_lr: float = Field(0.02, gt=0, description="learning rate of the inner steps")
    gcn_weight_decay: float = Field(5e-4, ge=0, description="weight decay of the inner steps")
    gcn_reptile_eps: float = Field(1.0, gt=0, description="outer step; 1 keeps the result of the inner steps")
    gcn_meta_eps: float = Field(0.02, gt=0, description="outer step of stage gcn_meta; 1 makes the meta images count")
    gcn_labelled: str = Field(
        "",
        description="stage gcn_meta with labelled people instead of augmented images: positions of their images in "
        "the training list, '12,15,19;40,44'",
    )
    gcn_batch: int = Field(128, ge=2, description="pairs per batch at the end of an epoch")

    together = (
        OnlyWith(("hsd_alpha", "hsd_negative_weight"), "method.hsd", lambda o: o.hsd),
        OnlyWith(("hsd_positive",), "method.hsd and method.hsd_alpha above 0", lambda o: o.hsd and o.hsd_alpha > 0),
        OnlyWith(("hsd_fallback",), "method.hsd, ppa or gcn", lambda o: o.hsd or o.ppa or o.gcn),
        OnlyWith(("ppa_weight",), "method.ppa", lambda o: o.ppa, off=0.0),
        OnlyWith(("ppa_rate", "ppa_temperature"), "method.ppa", lambda o: o.ppa),
        OnlyWith(
            (
                "gcn_neighbours",
                "gcn_hidden",
                "gcn_sort_k",
                "gcn_inner_steps",
                "gcn_inner_lr",
                "gcn_weight_decay",
                "gcn_reptile_eps",
                "gcn_meta_eps",
                "gcn_labelled",
                "gcn_batch",
            ),
            "method.gcn",
            lambda o: o.gcn,
        ),
    )


@register("metaprd")
class MetaPRD(Method[MetaPRDOptions]):
    """Pseudo-labels of two consecutive epochs tell hard positives and hard negatives.

    Args:
        num_classes: not used: identities are hidden.
        options: flags.
    """

    Options = MetaPRDOptions
    is_unsupervised = True
    is_cross_modal = False

    # (N,) classes of this epoch and of the one before, every outlier alone; empty before the first epoch.
    current: Tensor
    previous: Tensor
    # (P, 3) pairs collected in this epoch: two image numbers, and 1 same, 0 different, -1 void.
    collected: Tensor

    def __init__(self, num_classes: int, options: MetaPRDOptions) -> None:
        super().__init__(num_classes, options)
        self.net = UnitEmbedding(options.arch, options.pooling, width=options.width, drop=options.dropout)
        self.memory = ClusterMemory(self.net.width, options.momentum, options.memory_update)
        self.bank = InstanceMemory(self.net.width, 0.0)
        for name in ("current", "previous"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64))
        self.register_buffer("collected", torch.empty(0, 3, dtype=torch.int64))
        self.graphs: PairGraphNetwork | None = None
        if options.gcn:
            self.graphs = PairGraphNetwork(
                self.net.width,
                neighbours=options.gcn_neighbours,
                hidden=options.gcn_hidden,
                sort_k=options.gcn_sort_k,
                inner_steps=options.gcn_inner_steps,
                inner_lr=options.gcn_inner_lr,
                weight_decay=options.gcn_weight_decay,
                outer_step=options.gcn_reptile_eps,
            )
        self._stage = "train"
        self._pending: tuple[Tensor, Tensor] | None = None
        self._generator = torch.Generator().manual_seed(0)

    @property
    def feature_dim(self) -> int:
        return self.net.width

    def start_stage(self, stage: str) -> None:
        """In the ``gcn`` stages only the graph network learns, through the trainer; else it learns by itself."""
        self._stage = stage
        of_graphs = stage in (META_STAGE, GCN_STAGE)
        if of_graphs and self.graphs is None:
            raise GloamError(f"Stage {stage} trains the graph network of MetaPRD: set method.gcn to true.")
        if self.graphs is not None:
            for name, parameter in self.net.named_parameters():
                parameter.requires_grad_(not of_graphs and name != "bottleneck.bias")
            self.graphs.requires_grad_(of_graphs)

    def on_epoch_start(self, context: EpochContext) -> None:
        """End the epoch before (graph network), then extract, cluster and rebuild memory and bank."""
        options = self.options
        seed = int(torch.randint(2**62, (1,), generator=context.generator))
        self._generator = torch.Generator().manual_seed(seed)
        self._pending = None
        if self._stage == META_STAGE:
            context.set_labels(self._meta_labels(len(context.labels)))
            return
        if self._stage == GCN_STAGE:
            self.bank.replace(context.extract())
            context.set_labels(torch.arange(len(context.labels)))
            return
        if self.graphs is not None:
            loss = self.graphs.learn(self.collected, self.bank.rows, options.gcn_batch, self._generator)
            self.collected = self.collected[:0]
            if loss is not None:
                context.log("gcn_loss", loss)
        features = context.extract().to(self.bank.rows.device)  # neighbours are found where training runs
        found = cluster(features, eps=options.eps, min_samples=options.min_samples, k1=options.k1, k2=options.k2)
        check_clusters(found, f"eps {options.eps}, min_samples {options.min_samples}, k1 {options.k1}")
        labels, device = torch.from_numpy(found), features.device
        # Before the first epoch every image is alone.
        known = len(self.current) == len(labels)
        self.previous = self.current if known else torch.arange(len(labels), device=device)
        self.current = torch.from_numpy(outliers_alone(found)).to(device)
        self.memory.initialise(features, labels.to(device))
        self.bank.replace(features)
        context.set_labels(labels)
        context.report_pseudo_labels(labels)

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        if self._stage in (META_STAGE, GCN_STAGE):
            return self._graph_step(batch)
        batch, partners = self._split(batch)
        options, memory, bank = self.options, self.memory.rows, self.bank
        features = self.net(batch.images, batch.modalities)
        units = features.detach()
        became_positive, is_negative = pair_sets(self.current, self.previous, batch.indices)
        if self.graphs is not None:
            became_positive, is_negative = self.graphs.confirm(became_positive, is_negative, batch.indices, bank.rows)
        positives = positives_or_cluster(
            became_positive,
            self.current,
            batch.indices,
            from_previous_image=options.hsd_fallback == "previous_image",
        )
        columns = torch.nonzero(is_negative.any(dim=0)).flatten()
        negatives, whose = bank.rows[columns], is_negative[:, columns]
        if options.hsd:
            chosen = (
                self._hardest(units, positives)
                if options.hsd_positive == "hardest"
                else draw_one(positives, self._generator)
            )
            drawn, of_batch = bank.rows[chosen], (negatives, whose)
        else:
            drawn, of_batch = memory[batch.pids], (negatives[:0], whose[:, :0])
        contrast = hard_sample_deduction(
            features,
            memory,
            batch.pids,
            drawn,
            *of_batch,
            alpha=options.hsd_alpha if options.hsd else 0.0,
            negative_weight=options.hsd_negative_weight,
            temperature=options.temperature,
        )
        if self.graphs is not None:
            self.collected = torch.cat([self.collected, self._collect(positives, is_negative, batch)])
        # The bank holds the new vectors before the alignment looks for hard positives.
        bank.update(units, batch.indices)
        self._pending = (units, batch.pids)
        parts = {
            "contrast": contrast,
            "hard_positives": became_positive.sum(dim=1).float().mean(),
            "hard_negatives": is_negative.sum(dim=1).float().mean(),
        }
        if partners is None:
            return {"loss": contrast, **parts}
        others = self.net(partners.images, partners.modalities)
        mixed, others_mixed = (
            mix_memory(
                memory,
                batch.pids,
                bank.rows[self._hardest(x.detach(), positives)],
                negatives,
                whose,
                self.current[columns],
                options.ppa_rate,
            )
            for x in (features, others)
        )
        parts["alignment"] = positive_pair_alignment(features, others, mixed, others_mixed, options.ppa_temperature)
        return {"loss": contrast + options.ppa_weight * parts["alignment"], **parts}

    def after_step(self) -> None:
        """Move the prototypes of the batch's clusters; in the ``gcn`` stages finish the inner steps."""
        if self._stage in (META_STAGE, GCN_STAGE) and self.graphs is not None:
            self.graphs.finish_steps()
        elif self._pending is not None:
            self.memory.update(*self._pending)
            self._pending = None

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Unit vector after the neck."""
        features: Tensor = self.net(images, modalities)
        return features

    def rename_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The release numbers the layers of its network (``base.4`` is layer1) and calls the neck ``feat_bn``."""
        return rename_released(state, "net")

    def to_published(self) -> dict[str, Any] | None:
        """See :meth:`rename_published`."""
        state = to_released(self.net)
        return None if state is None else {"state_dict": state}

    def _split(self, batch: Batch) -> tuple[Batch, Batch | None]:
        """The batch and the second images of its pairs."""
        if not self.options.ppa:
            return batch, None
        half = len(batch) // 2
        rows = torch.arange(len(batch), device=batch.pids.device)
        first, second = batch.select(rows[:half]), batch.select(rows[half:])
        if len(batch) % 2 or not torch.equal(first.pids, second.pids):
            raise GloamError(
                "Positive pair alignment needs a second image for every row. Set sampler.partners to true, or "
                "method.ppa to false."
            )
        return first, second

    def _hardest(self, units: Tensor, choices: Tensor) -> Tensor:
        """The least similar of each row's choices: ``(B, D), (B, N)`` -> ``(B,)``."""
        return dot_products(units, self.bank.rows).masked_fill(~choices, torch.inf).argmin(dim=1)

    def _collect(self, positives: Tensor, is_negative: Tensor, batch: Batch) -> Tensor:
        """Two pairs per image that teach the graph network: ``(2 B, 3)``."""
        indices, rows = batch.indices, torch.arange(len(batch), device=batch.indices.device)
        own = positives.clone()
        own[rows, indices] = True
        first = draw_one(own, self._generator)
        rest = own.clone()
        rest[rows, first] = False
        second = draw_one(rest, self._generator)
        anchor = draw_one(own, self._generator)
        of_batch = torch.zeros_like(own)
        of_batch[:, indices] = batch.pids[:, None] != batch.pids
        candidates = torch.where(is_negative.any(dim=1, keepdim=True), is_negative, of_batch)
        bank = self.bank.rows
        hardest = dot_products(bank[anchor], bank).masked_fill(~candidates, -torch.inf).argmax(dim=1)
        same = torch.where(rest.any(dim=1), 1, -1)
        different = torch.where(candidates.any(dim=1), 0, -1)
        pairs = torch.cat([torch.stack([first, second, same], dim=1), torch.stack([anchor, hardest, different], dim=1)])
        return gather_rows(pairs)[0]

    def _graph_step(self, batch: Batch) -> dict[str, Tensor]:
        """Pairs of clean images and augmented views, or in stage ``gcn_meta`` of the views of the meta images."""
        if self.graphs is None:
            raise RuntimeError("start_stage has checked that there is a graph network")
        self.net.eval()
        with torch.no_grad():
            views = self.net(batch.images, batch.modalities).to(self.bank.rows.dtype)
        if self._stage == META_STAGE:
            if len(batch.pids.unique()) < 2 or len(batch.pids.unique()) == len(batch):
                raise GloamError(
                    "Stage gcn_meta needs several views of several images in a batch: use the sampler "
                    "{name: identity, identities: 5, instances: 8}."
                )
            step = self.options.gcn_meta_eps
            return {"loss": self.graphs.meta_loss(views, batch.pids, self._generator, outer_step=step)}
        return {"loss": self.graphs.view_loss(batch.indices, views, self.bank.rows)}

    def _meta_labels(self, count: int) -> Tensor:
        """``(N,)``: five random images, each a label of its own, or the people whose labels the user has given."""
        labels = torch.full((count,), -1)
        if not self.options.gcn_labelled:
            chosen = torch.randperm(count, generator=self._generator)[:META_IMAGES]
            labels[chosen] = torch.arange(len(chosen))
            return labels
        for number, group in enumerate(self.options.gcn_labelled.split(";")):
            places = [int(word) if word.strip().isdecimal() else count for word in group.split(",")]
            if max(places) >= count:
                raise GloamError(
                    f"method.gcn_labelled has the group {group!r}; it must hold positions from 0 to {count - 1}, "
                    "separated by commas, one group per identity separated by semicolons."
                )
            labels[places] = number
        return labels

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        resize_buffers(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *more)
