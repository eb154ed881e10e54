"""DDAG: dynamic dual-attentive aggregation of parts inside an image and of images inside a batch.

*Source*: Ye et al., "Dynamic Dual-Attentive Aggregation Learning for Visible-Infrared Person Re-Identification", ECCV
2020, and its release.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss

from gloam.batches.batch import Batch
from gloam.losses.triplet import hard_triplet
from gloam.methods import register
from gloam.methods.contract import LAST_STAGE, EpochContext, Method, OnlyWith, TripletOptions
from gloam.models.backbone import create_backbone
from gloam.models.embedding import EmbeddingNet
from gloam.models.graph_attention import CrossModalityGraph, dynamic_weight
from gloam.models.neck import unit
from gloam.models.part_attention import WeightedPartAttention
from gloam.models.pooling import create_pooling
from gloam.precision import at_least_float32


class DDAGOptions(TripletOptions):
    """Flags of DDAG; published names in brackets."""

    wpa: bool = Field(True, description="part attention; off: only the main feature [--wpa]")
    graph: bool = Field(True, description="graph attention over the batch while training [--graph]")
    num_parts: int = Field(3, ge=1, description="stripes of the part attention [--part]")
    heads: int = Field(4, ge=1, description="heads of the graph; the release has 4")
    hidden: int = Field(512, ge=1, description="width of a graph head [--low-dim]")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout of the graph branch [--drop]")
    slope: float = Field(0.2, ge=0, description="slope of the graph's leaky ReLU; the release has 0.2")

    together = (
        LAST_STAGE,
        OnlyWith(("num_parts",), "method.wpa", lambda o: o.wpa),
        OnlyWith(("heads", "hidden", "dropout", "slope"), "method.graph", lambda o: o.graph),
    )


@register("ddag")
class DDAG(Method[DDAGOptions]):
    """Base plus part attention and a training-only graph over the batch, blended by how well training goes.

    Args:
        num_classes: C.
        options: flags.
    """

    Options = DDAGOptions
    features: tuple[str, ...] = ("fc_att", "fc")

    graph_weight: Tensor
    epoch_loss: Tensor
    epoch_steps: Tensor

    def __init__(self, num_classes: int, options: DDAGOptions) -> None:
        super().__init__(num_classes, options)
        backbone = create_backbone(options.arch, streams=options.streams, last_stride=options.last_stride)
        self.net = EmbeddingNet(backbone, create_pooling("avg"), num_classes)
        self.wpa = WeightedPartAttention(self.net.width, options.num_parts) if options.wpa else None
        self.graph = (
            CrossModalityGraph(
                self.net.width,
                options.hidden,
                num_classes,
                heads=options.heads,
                dropout_rate=options.dropout,
                slope=options.slope,
            )
            if options.graph
            else None
        )
        self.register_buffer("graph_weight", torch.zeros((), dtype=torch.float64))
        # Sum and number of this epoch's losses without the graph; they give the next epoch's weight.
        self.register_buffer("epoch_loss", torch.zeros((), dtype=torch.float64))
        self.register_buffer("epoch_steps", torch.zeros((), dtype=torch.int64))
        if self.wpa is None:
            self.features, self.test_feature = ("fc",), "fc"

    @property
    def feature_dim(self) -> int:
        return self.net.width

    def on_epoch_start(self, context: EpochContext) -> None:
        """Set the graph's weight from the mean loss of the epoch before; 0 in a stage's first, whatever was loaded."""
        if self.graph is None:
            return
        steps = int(self.epoch_steps) if context.epoch else 0
        weight = dynamic_weight(float(self.epoch_loss) / steps if steps else None)
        self.graph_weight.fill_(weight)
        self.epoch_loss.zero_()
        self.epoch_steps.zero_()
        context.log("graph_weight", weight)

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        out = self.net(batch.images, batch.modalities)
        parts = {
            "identity": cross_entropy(at_least_float32(out.logits), batch.pids),
            "triplet": hard_triplet(out.pooled, batch.pids, self.options.margin),
        }
        if self.wpa is not None:
            attended = self.net.classifier(self.wpa(out.maps, out.bn))
            parts["part"] = cross_entropy(at_least_float32(attended), batch.pids)
        loss = torch.stack(list(parts.values())).sum()
        self.epoch_loss += loss.detach().double()
        self.epoch_steps += 1
        if self.graph is not None:
            parts["graph"] = nll_loss(self.graph(at_least_float32(out.pooled), batch.pids), batch.pids)
            loss = loss + self.graph_weight.to(loss.dtype) * parts["graph"]
        return {"loss": loss, **parts}

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """``fc_att``: unit feature after the part attention; ``fc``: unit feature after the main neck."""
        out = self.net(images, modalities)
        if self.wpa is None or self.test_feature == "fc":
            return unit(out.bn)
        return unit(self.wpa(out.maps, out.bn))

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Backbone at a tenth of ``lr``; neck, classifier, part attention and every graph head at ``lr``."""
        groups = self.net.parameter_groups(lr)
        if self.wpa is not None:
            groups.append({"params": list(self.wpa.parameters()), "lr": lr})
        if self.graph is not None:
            heads = [*self.graph.heads, self.graph.out_att]
            groups += [{"params": list(head.parameters()), "lr": lr} for head in heads]
        return groups

    def rename_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The release keeps its graph heads at the top level: ``attention_0`` .. and ``out_att``."""
        return {re.sub(r"^attention_(\d+)\.|^(out_att)\.", _graph_name, name): value for name, value in state.items()}

    def to_published(self) -> dict[str, Any] | None:
        """See :meth:`rename_published`; the release's dead convolution and its unused classifiers are not written."""
        state = self.net.to_published()
        if state is None:
            return None
        for name, value in self.state_dict().items():
            if name.startswith("wpa."):
                state[name] = value.detach().cpu()
            elif name.startswith("graph."):
                published = re.sub(r"^graph\.heads\.(\d+)\.", r"attention_\1.", name).removeprefix("graph.")
                state[published] = value.detach().cpu()
        return {"net": state}


def _graph_name(published: re.Match[str]) -> str:
    return f"graph.heads.{published[1]}." if published[1] else "graph.out_att."
