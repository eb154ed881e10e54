"""CGRNet: similarity of channels inside a modality and graph reasoning inside an image, on a two-stream network.

*Source*: Feng et al., "Efficient Cross-modality Graph Reasoning for RGB-Infrared Person Re-identification", IEEE SPL
2021, through its release (docs/methods/cgrnet.md). The released training never runs the similarity and graph modules:
their lines are commented out. ``cgrnet`` recipes run them; ``cgrnet_released`` recipes switch both off, which is
exactly what the release trains.
"""

from __future__ import annotations

import re
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from gloam.batches.batch import Batch
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.losses.triplet import fraction_correct, mine_hard
from gloam.methods import register
from gloam.methods.contract import Method, OnlyWith, Pooling, TripletOptions
from gloam.models.backbone import create_backbone
from gloam.models.channel_similarity import ChannelSimilarity, similarity_gap
from gloam.models.embedding import Embedded, EmbeddingNet
from gloam.models.graph_reasoning import GraphReasoning
from gloam.models.neck import unit
from gloam.models.pooling import create_pooling
from gloam.models.two_stream import TwoStreamBackbone
from gloam.precision import at_least_float32


class CGRNetOptions(TripletOptions):
    """Flags of CGRNet; published names in brackets (the release has none for its modules and weights)."""

    pooling: Pooling = "avg"
    independent_stages: Literal[0, 1, 2] = Field(
        1,
        description="residual stages of each stream's own; released: 1. The similarity module follows them; "
        "2 leaves no stage for the graph",
    )
    similarity: bool = Field(True, description="channel similarity after the streams' own layers")
    similarity_loss_weight: float = Field(
        10.0, ge=0, description="weight of the difference between the modalities' channel similarities"
    )
    similarity_energy_scale: Literal["none", "root", "mean"] = Field(
        "none", description="divides the energies by nothing (released), the root of the positions, their number"
    )
    graph: bool = Field(True, description="graph reasoning over positions and their mean, after the second stage")
    graph_fusion: Literal["sum", "residual"] = Field(
        "sum", description="sum: 3 x + mean + messages (released); residual: x + messages"
    )
    triplet_weight: float = Field(2.0, ge=0, description="weight of the hard triplet")

    together = (
        OnlyWith(("similarity_loss_weight",), "method.similarity", lambda o: o.similarity, off=0.0),
        OnlyWith(("similarity_energy_scale",), "method.similarity", lambda o: o.similarity),
        OnlyWith(("graph_fusion",), "method.graph", lambda o: o.graph),
        OnlyWith(
            ("independent_stages",),
            "two streams, or method.similarity, which follows those stages",
            lambda o: o.streams == 2 or o.similarity,
        ),
    )


@register("cgrnet")
class CGRNet(Method[CGRNetOptions]):
    """Identity loss, doubled hard triplet, and the gap between the modalities' channel similarities.

    Args:
        num_classes: C.
        options: flags.

    Raises:
        GloamError: a backbone without residual stages, or a graph in a stage that the streams do not share.
    """

    Options = CGRNetOptions
    features = ("fc", "pool")

    def __init__(self, num_classes: int, options: CGRNetOptions) -> None:
        super().__init__(num_classes, options)
        backbone = create_backbone(
            options.arch,
            streams=options.streams,
            last_stride=options.last_stride,
            independent_stages=options.independent_stages,
            insert=lambda channels: GraphReasoning(channels, options.graph_fusion),
            insert_counts=(0, int(options.graph), 0, 0),
        )
        if not isinstance(backbone, TwoStreamBackbone):
            raise GloamError(f"{options.arch} has no first stage whose channels CGRNet could compare. Choose a ResNet.")
        self.net = EmbeddingNet(backbone, create_pooling(options.pooling), num_classes)
        self.similarity = (
            ChannelSimilarity(options.streams, options.similarity_energy_scale) if options.similarity else None
        )

    @property
    def feature_dim(self) -> int:
        return self.net.width

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        out, attention = self._embed(batch.images, batch.modalities)
        logits = at_least_float32(out.logits)
        positive, negative = mine_hard(out.pooled, batch.pids)
        parts = {
            "identity": cross_entropy(logits, batch.pids),
            "triplet": (positive - negative + self.options.margin).clamp_min(0).mean(),
            "triplet_correct": fraction_correct(positive, negative),
            "identity_correct": (logits.detach().argmax(dim=1) == batch.pids).float().mean(),
        }
        loss = parts["identity"] + self.options.triplet_weight * parts["triplet"]
        if attention is not None and self.options.similarity_loss_weight:
            parts["similarity"] = similarity_gap(attention, *_paired_rows(batch))
            loss = loss + self.options.similarity_loss_weight * parts["similarity"]
        return {"loss": loss, **parts, **self._gates()}

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """``fc``: unit feature after the neck; ``pool``: unit pooled feature."""
        out, _ = self._embed(images, modalities)
        return unit(out.pooled if self.test_feature == "pool" else out.bn)

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Backbone, graph and gates at a tenth of ``lr``; neck and classifier at ``lr``."""
        groups = self.net.parameter_groups(lr)
        if self.similarity is not None:
            groups[0]["params"].extend(self.similarity.parameters())
        return groups

    def rename_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The release keeps one gate per similarity module; here they are the two numbers of one parameter."""
        found, gates = dict(state), ("cam1.gamma", "cam2.gamma")
        if self.similarity is not None and all(name in found for name in gates):
            gamma = torch.cat([found.pop(name).reshape(1) for name in gates])
            found["similarity.gamma"] = gamma[: len(self.similarity.gamma)]
        relations = ("local2local.", "local2global.", "global2local.")
        return {f"net.backbone.trunk.NL_2.0.{k}" if k.startswith(relations) else k: v for k, v in found.items()}

    def to_published(self) -> dict[str, Any] | None:
        """See :meth:`rename_published`; of a module that is switched off nothing is written.

        The queries and keys of *mean to positions*, which cannot act and are not built here, are written as zeros.
        """
        state = self.net.to_published()
        if state is None:
            return None
        state = {re.sub(r"^NL_2\.0\.", "", name): value for name, value in state.items()}
        if self.similarity is not None:
            gamma = self.similarity.gamma.detach().cpu()
            state |= {"cam1.gamma": gamma[:1].clone(), "cam2.gamma": gamma[-1:].clone()}
        for part in ("query_conv", "key_conv"):
            for kind in ("weight", "bias"):
                if (like := state.get(f"local2local.{part}.{kind}")) is not None:
                    state[f"global2local.{part}.{kind}"] = torch.zeros_like(like)
        return {"net": state}

    def _embed(self, images: Tensor, modalities: Tensor) -> tuple[Embedded, Tensor | None]:
        """The network, the same in training and evaluation, and its channel similarities."""
        backbone = cast(TwoStreamBackbone, self.net.backbone)
        maps, attention = backbone.early(images, modalities), None
        if self.similarity is not None:
            attention = self.similarity.attention(maps)
            maps = self.similarity(maps, modalities, attention)
        return self.net.head(backbone.trunk(maps)), attention

    def _gates(self) -> dict[str, Tensor]:
        """Values of all gates, for the log: while they stay at 0 nothing of the modules is used."""
        gates: dict[str, Tensor] = {}
        if self.similarity is not None:
            names = ("gate_visible", "gate_infrared") if len(self.similarity.gamma) == 2 else ("gate_similarity",)
            gates |= dict(zip(names, self.similarity.gamma.detach(), strict=True))
        for graph in self._graphs():
            gates |= {f"gate_{name}": gate.detach().squeeze() for name, gate in graph.gates.items()}
        return gates

    def _graphs(self) -> list[GraphReasoning]:
        return [module for module in self.net.backbone.modules() if isinstance(module, GraphReasoning)]


def _paired_rows(batch: Batch) -> tuple[Tensor, Tensor]:
    """Rows of the visible and of the infrared images; the i-th of both show one identity."""
    visible, infrared = (torch.nonzero(batch.modalities == m).flatten() for m in (Modality.VISIBLE, Modality.INFRARED))
    if len(visible) != len(infrared) or bool((batch.pids[visible] != batch.pids[infrared]).any()):
        raise GloamError(
            "CGRNet's similarity loss pairs the i-th visible with the i-th infrared image of a batch, but they show "
            "different people. Use the sampler cross_modality_identity, or set method.similarity_loss_weight to 0."
        )
    return visible, infrared
