"""What a method sees at the start of an epoch: the trainer's side of ``EpochContext``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gloam.clustering.correspondence import correspondence_quality
from gloam.methods.contract import Method
from gloam.seeds import mix_seed


class TrainingContext:
    """Labels a method may read and replace, features it may ask for, and numbers it may report.

    The hidden truth stays in closures of this object's reporters: no attribute hands it out.

    Args:
        method: the method in training.
        stage: stage name.
        epoch: 0-based epoch of the stage.
        num_epochs: epochs of the stage.
        labels: ``(N,)`` current labels.
        modalities: ``(N,)``.
        cams: ``(N,)``.
        seed: run seed.
        extract: computes a function over all training records or over those of a mask.
        score_labels: quality of pseudo-labels against the hidden ids.
        partners: hidden infrared partner of every visible label, or None.
    """

    def __init__(
        self,
        method: Method[Any],
        *,
        stage: str,
        epoch: int,
        num_epochs: int,
        labels: Tensor,
        modalities: Tensor,
        cams: Tensor,
        seed: int,
        extract: Callable[[Callable[[Tensor, Tensor], Tensor] | None, Tensor | None], Tensor],
        score_labels: Callable[[Tensor], dict[str, float]],
        partners: Tensor | None,
    ) -> None:
        self.stage, self.epoch, self.num_epochs = stage, epoch, num_epochs
        self.labels, self.modalities, self.cams = labels, modalities, cams
        self.generator = torch.Generator().manual_seed(mix_seed(seed, stage, epoch))
        self.logged: dict[str, float] = {}
        self._extract = extract
        self._score_labels = score_labels

        def score_pairs(visible: Tensor, infrared: Tensor) -> dict[str, float]:
            return correspondence_quality(visible, infrared, partners)

        self._score_pairs = score_pairs

    def extract(self, function: Callable[[Tensor, Tensor], Tensor] | None = None, rows: Tensor | None = None) -> Tensor:
        """See ``EpochContext.extract``."""
        return self._extract(function, rows)

    def set_labels(self, labels: Tensor) -> None:
        """See ``EpochContext.set_labels``."""
        if labels.shape != self.labels.shape:
            raise ValueError(f"{len(self.labels)} samples need as many labels, got {tuple(labels.shape)}")
        self.labels = labels.cpu().to(torch.int64)

    def log(self, name: str, value: float) -> None:
        """See ``EpochContext.log``."""
        self.logged[name] = float(value)

    def report_pseudo_labels(self, labels: Tensor) -> None:
        """See ``EpochContext.report_pseudo_labels``."""
        for name, value in self._score_labels(labels.cpu()).items():
            self.log(f"pseudo_labels_{name}", value)

    def report_correspondence(self, visible: Tensor, infrared: Tensor, name: str = "match") -> None:
        """See ``EpochContext.report_correspondence``."""
        for key, value in self._score_pairs(visible, infrared).items():
            self.log(f"{name}_{key}", value)


def pseudo_label_quality(labels: Tensor, truth: Tensor | None) -> dict[str, float]:
    """NMI, ARI and pair F-score of the clustered samples, and how many clusters and outliers there are.

    Args:
        labels: ``(N,)`` pseudo-labels; -1 marks outliers, which only count as such.
        truth: ``(N,)`` hidden identities; None: nobody knows them, and only clusters and outliers are counted.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import pair_confusion_matrix

    kept = labels >= 0
    if not bool(kept.any()):
        return {"clusters": 0.0, "outliers": float(len(labels))}
    counts = {"clusters": float(len(labels[kept].unique())), "outliers": float((~kept).sum())}
    if truth is None:
        return counts
    predicted, true = labels[kept].numpy(), truth[kept].numpy()
    (_, false_pairs), (missed, right) = pair_confusion_matrix(true, predicted)
    return {
        "clusters": counts["clusters"],
        "identities": float(len(truth.unique())),
        "outliers": counts["outliers"],
        "nmi": float(normalized_mutual_info_score(true, predicted)),
        "ari": float(adjusted_rand_score(true, predicted)),
        "pair_f": float(2 * right / max(2 * right + false_pairs + missed, 1)),
    }
