"""Cluster Contrast: DBSCAN or InfoMap pseudo-labels and a memory of one prototype per cluster.

*Source*: Dai et al., "Cluster Contrast for Unsupervised Person Re-Identification", ACCV 2022, and its release
(``clustercontrast/models/cm.py``; docs/methods/cluster_contrast.md). Identities of training images are never seen;
camera numbers are, by the sampler ``camera_identity`` (``sampler.use_cameras: false`` leaves them out).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from gloam.batches.batch import Batch
from gloam.clustering.infomap_clusters import cluster_by_infomap
from gloam.clustering.pseudo_labels import check_clusters, cluster
from gloam.losses.cluster_nce import cluster_nce_loss
from gloam.methods import register
from gloam.methods.contract import ClusterOptions, EpochContext, Method, OnlyWith, Pooling
from gloam.models.memory import ClusterMemory
from gloam.models.unit_embedding import UnitEmbedding, rename_released, to_released


class ClusterContrastOptions(ClusterOptions):
    """Flags of Cluster Contrast; published names in brackets."""

    pooling: Pooling = "gem_learnable"  # --pooling-type gem
    clustering: Literal["dbscan", "infomap"] = Field(
        "dbscan", description="dbscan on the Jaccard distance, or infomap on the neighbour graph (extra: infomap)"
    )
    eps: float = Field(
        0.6, gt=0, lt=1, description="dbscan: largest Jaccard distance; infomap: smallest similarity (0.5) [--eps]"
    )
    min_samples: int = Field(
        4, ge=1, description="dbscan: neighbours of a core point; infomap: modules of at most this size are outliers"
    )
    k1: int = Field(30, ge=1, description="neighbours, itself included (infomap: 15) [--k1]")
    memory_update: Literal["mean", "hard"] = Field(
        "mean", description="every sample in order, or the least similar of each cluster [--use-hard]"
    )

    together = (OnlyWith(("k2",), "method.clustering dbscan", lambda o: o.clustering == "dbscan"),)


@register("cluster_contrast")
class ClusterContrast(Method[ClusterContrastOptions]):
    """ClusterNCE on pseudo-labels that are made anew before every epoch.

    Args:
        num_classes: not used: identities are hidden.
        options: flags.
    """

    Options = ClusterContrastOptions
    is_unsupervised = True
    is_cross_modal = False

    def __init__(self, num_classes: int, options: ClusterContrastOptions) -> None:
        super().__init__(num_classes, options)
        self.net = UnitEmbedding(options.arch, options.pooling, width=options.width, drop=options.dropout)
        self.memory = ClusterMemory(self.net.width, options.momentum, options.memory_update)
        self._pending: tuple[Tensor, Tensor] | None = None

    @property
    def feature_dim(self) -> int:
        return self.net.width

    def on_epoch_start(self, context: EpochContext) -> None:
        """Features of all images, their clusters, and the memory of cluster means. Outliers are left out."""
        options = self.options
        features = context.extract().to(self.memory.rows.device)  # neighbours are found where training runs
        if options.clustering == "infomap":
            what = f"infomap, k1 {options.k1}, eps {options.eps}, min_samples {options.min_samples}"
            found = cluster_by_infomap(
                features, k=options.k1, min_similarity=options.eps, largest_outlier_module=options.min_samples
            )
        else:
            what = f"eps {options.eps}, min_samples {options.min_samples}, k1 {options.k1}, k2 {options.k2}"
            found = cluster(features, eps=options.eps, min_samples=options.min_samples, k1=options.k1, k2=options.k2)
        check_clusters(found, what)
        labels = torch.from_numpy(found)
        self.memory.initialise(features, labels.to(features.device))
        self._pending = None
        context.set_labels(labels)
        context.report_pseudo_labels(labels)

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        features = self.net(batch.images, batch.modalities)
        self._pending = (features.detach(), batch.pids)
        loss = cluster_nce_loss(features, self.memory.rows, batch.pids, self.options.temperature)
        return {"loss": loss, "cluster_nce": loss}

    def after_step(self) -> None:
        """Move the prototypes of the batch's clusters."""
        if self._pending is not None:
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
