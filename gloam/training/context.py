"""What a method sees at the start of an epoch: the trainer's side of ``EpochContext``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gloam.clustering.correspondence import correspondence_quality
from gloam.methods.contract import Method
from gloam.seeds import mix_seed


class LoggedNumber(NamedTuple):
    """A number that a method wants recorded."""

    name: str
    value: float


class ReportedLabels(NamedTuple):
    """``(N,)`` pseudo-labels that a method wants judged."""

    labels: Tensor


class ReportedPairs(NamedTuple):
    """``(M,)`` visible and ``(M,)`` infrared labels that a method takes for the same people."""

    name: str
    visible: Tensor
    infrared: Tensor


class TrainingContext:
    """Labels a method may read and replace, features it may ask for, and numbers it may report.

    The hidden truth is not in this object: it keeps what the method says, and :func:`epoch_numbers` judges that where
    no method sees the result.

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

    Attributes:
        said: what the method has logged and reported, in order.
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
    ) -> None:
        self.stage, self.epoch, self.num_epochs = stage, epoch, num_epochs
        self.labels, self.modalities, self.cams = labels, modalities, cams
        self.generator = torch.Generator().manual_seed(mix_seed(seed, stage, epoch))
        self.said: list[LoggedNumber | ReportedLabels | ReportedPairs] = []
        self._extract = extract

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
        self.said.append(LoggedNumber(name, float(value)))

    def report_pseudo_labels(self, labels: Tensor) -> None:
        """See ``EpochContext.report_pseudo_labels``."""
        if labels.shape != self.labels.shape:
            raise ValueError(f"{len(self.labels)} samples need as many labels, got {tuple(labels.shape)}")
        self.said.append(ReportedLabels(_copy(labels)))

    def report_correspondence(self, visible: Tensor, infrared: Tensor, name: str = "match") -> None:
        """See ``EpochContext.report_correspondence``."""
        if visible.ndim != 1 or visible.shape != infrared.shape:
            raise ValueError(f"Pairs need two equally long lists, got {tuple(visible.shape)}, {tuple(infrared.shape)}")
        self.said.append(ReportedPairs(name, _copy(visible), _copy(infrared)))


def epoch_numbers(context: TrainingContext, truth: Tensor | None, partners: Tensor | None) -> dict[str, float]:
    """What a method logged and how good its reports are, for the epoch's row of numbers.

    Args:
        context: the epoch's.
        truth: ``(N,)`` hidden identities; None: nobody knows them.
        partners: hidden infrared partner of every visible label, or None.
    """
    numbers: dict[str, float] = {}
    for entry in context.said:
        if isinstance(entry, LoggedNumber):
            numbers[entry.name] = entry.value
        elif isinstance(entry, ReportedLabels):
            quality = pseudo_label_quality(entry.labels, truth)
            numbers |= {f"pseudo_labels_{key}": value for key, value in quality.items()}
        else:
            quality = correspondence_quality(entry.visible, entry.infrared, partners)
            numbers |= {f"{entry.name}_{key}": value for key, value in quality.items()}
    return numbers


def _copy(labels: Tensor) -> Tensor:
    """Plain numbers: the method cannot change them later, nor watch what is done with them."""
    return torch.tensor(labels.tolist(), dtype=torch.int64)


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
