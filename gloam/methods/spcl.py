"""SpCL without labels: an instance memory, a softmax over clusters and un-clustered images, self-paced clusters.

*Source*: Ge et al., "Self-paced Contrastive Learning with Hybrid Memory", NeurIPS 2020, and its
release, unsupervised mode (``examples/spcl_train_usl.py``; docs/methods/spcl.md). Identities of training images are
never seen; camera numbers are, by the sampler ``camera_identity``.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from gloam.batches.batch import Batch
from gloam.clustering.jaccard import near_pairs
from gloam.clustering.pseudo_labels import check_clusters, dbscan, outliers_alone
from gloam.clustering.reliability import self_paced_labels
from gloam.errors import GloamError
from gloam.losses.cluster_nce import hybrid_memory_loss
from gloam.methods import register
from gloam.methods.contract import ClusterOptions, EpochContext, MemoryMomentum, Method
from gloam.models.memory import InstanceMemory, resize_buffers
from gloam.models.unit_embedding import UnitEmbedding, rename_released, to_released


class SpCLOptions(ClusterOptions):
    """Flags of SpCL; published names in brackets."""

    momentum: MemoryMomentum = 0.2
    eps_gap: float = Field(0.02, ge=0, lt=1, description="tighter and looser clusters: eps -+ gap [--eps-gap]")


@register("spcl")
class SpCL(Method[SpCLOptions]):
    """Hybrid memory loss over clusters and un-clustered images; the memory itself is clustered every epoch.

    Args:
        num_classes: not used: identities are hidden.
        options: flags.
    """

    Options = SpCLOptions
    is_unsupervised = True
    is_cross_modal = False

    # nan until the first epoch has set it
    independence_threshold: Tensor
    bank_labels: Tensor

    def __init__(self, num_classes: int, options: SpCLOptions) -> None:
        super().__init__(num_classes, options)
        if not 0 < options.eps - options.eps_gap < options.eps + options.eps_gap + 1e-12 < 1:
            raise GloamError(f"eps {options.eps} -+ eps_gap {options.eps_gap} must stay between 0 and 1.")
        self.net = UnitEmbedding(options.arch, options.pooling, width=options.width, drop=options.dropout)
        self.bank = InstanceMemory(self.net.width, options.momentum)
        self.register_buffer("independence_threshold", torch.tensor(float("nan"), dtype=torch.float64))
        self.register_buffer("bank_labels", torch.empty(0, dtype=torch.int64))
        self._pending: tuple[Tensor, Tensor] | None = None

    @property
    def feature_dim(self) -> int:
        return self.net.width

    def on_epoch_start(self, context: EpochContext) -> None:
        """Cluster the memory (filled by extraction before the first epoch) at three radii, keep reliable clusters."""
        options = self.options
        # Not whatever a weight file of another run brought along.
        first = context.epoch == 0
        if first:
            self.bank.replace(context.extract())
        limit = options.eps + options.eps_gap
        pairs = near_pairs(self.bank.rows, limit=limit, k1=options.k1, k2=options.k2)
        found = [dbscan(pairs, eps=eps, min_samples=options.min_samples) for eps in self._radii()]
        check_clusters(found[0], f"eps {options.eps}, min_samples {options.min_samples}, k1 {options.k1}")
        labels_at, tight, loose = (outliers_alone(labels) for labels in found)
        known = None if first else float(self.independence_threshold)
        reliable, threshold = self_paced_labels(labels_at, tight, loose, known)
        self.independence_threshold.fill_(threshold)
        labels = torch.from_numpy(reliable)
        self.bank_labels = labels.to(self.bank.rows.device)
        self._pending = None
        context.set_labels(labels)
        # For the report a class of one is an outlier.
        alone = torch.bincount(labels)[labels] == 1
        context.report_pseudo_labels(torch.where(alone, -1, labels))

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        features = self.net(batch.images, batch.modalities)
        self._pending = (features.detach(), batch.indices)
        loss = hybrid_memory_loss(features, self.bank.rows, self.bank_labels, batch.pids, self.options.temperature)
        return {"loss": loss, "hybrid_memory": loss}

    def after_step(self) -> None:
        """Move the memory rows of the batch's images."""
        if self._pending is not None:
            self.bank.update(*self._pending)
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

    def _radii(self) -> tuple[float, float, float]:
        eps, gap = self.options.eps, self.options.eps_gap
        return eps, eps - gap, eps + gap

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        resize_buffers(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *more)
