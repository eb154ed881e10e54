"""Proof that an exported file computes what the model computes, and what a variant of it costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from gloam.augmentation.augmenter import normalize
from gloam.batches.clips import choose_frames
from gloam.datasets.records import DatasetSplits, Modality
from gloam.errors import GloamError
from gloam.evaluation.evaluator import evaluate
from gloam.inference.export import example
from gloam.inference.model import Model
from gloam.inference.scoring import embed_test
from gloam.inference.sources import ModalityName, modality_numbers, open_records

BATCHES = (1, 2, 7, 33)
LEAST_COSINE, LARGEST_DIFFERENCE = 0.99999, 1e-4
REAL_IMAGES = 64
_TIMED = 3  # forward passes whose shortest counts


@dataclass(frozen=True)
class Proof:
    """How far an exported file's features are from the model's.

    Attributes:
        rows: images that were compared.
        least_cosine: the smallest cosine between a feature and its counterpart.
        largest_difference: of any number of any feature.
        mean_difference: of all numbers.
        same_top1: share of rows whose nearest other row is the same.
        milliseconds: of one image, for the model and for the file, in batches of 33 on this machine.
        real_images: how many of the rows are images of the run's test set.
        scores: protocol -> rank-1 and mAP of both, where the test set is at hand.
    """

    rows: int
    least_cosine: float
    largest_difference: float
    mean_difference: float
    same_top1: float
    milliseconds: dict[str, float]
    real_images: int
    scores: dict[str, dict[str, dict[str, float]]]

    @property
    def holds(self) -> bool:
        """Cosine at least 0.99999, no difference above 1e-4, every nearest row the same."""
        return (
            self.least_cosine >= LEAST_COSINE
            and self.largest_difference <= LARGEST_DIFFERENCE
            and self.same_top1 == 1.0
        )

    def require(self) -> None:
        """Raises GloamError, with the numbers, unless the proof holds."""
        if not self.holds:
            raise GloamError(
                f"The exported file does not compute what the model computes: least cosine {self.least_cosine:.6f} "
                f"(wanted {LEAST_COSINE}), largest difference {self.largest_difference:.1e} (wanted "
                f"{LARGEST_DIFFERENCE:.0e}), {100 * self.same_top1:.1f} % of nearest rows the same. "
                "Nothing was written; please report the method, its flags and your versions (gloam doctor)."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for proof.json."""
        return {**asdict(self), "holds": self.holds}


def prove(
    model: Model, exported: Model, *, modality: ModalityName | None = None, splits: DatasetSplits | None = None
) -> Proof:
    """Compare a file with the model it was made from.

    Batches of 1, 2, 7 and 33; visible, infrared and mixed; black, white and random images, and up to 64 real ones;
    clips of other lengths. The model's side is what ``embed`` computes, not the graph that was exported.

    Args:
        model: the model.
        exported: the file, read back.
        modality: the only modality that the file takes.
        splits: the run's dataset, if it is at hand: its test set is scored with both, and images of it are compared.
    """
    takes_pixels = exported.method.takes_pixels

    def ours_of(images: Tensor, modalities: Tensor) -> Tensor:
        normalised = normalize(images)
        features = model.extract(normalised, modalities)
        if not model.mirror:
            return features
        return unit_length(features + model.extract(normalised.flip(-1), modalities), dim=1, eps=1e-12)

    def theirs_of(images: Tensor, modalities: Tensor) -> Tensor:
        return exported.extract(images if takes_pixels else normalize(images), modalities)

    kinds = None if modality is None else Modality[modality.upper()]
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    spent = {"model": np.inf, "file": np.inf}
    real = _real_images(model, splits, kinds) if splits is not None else None
    was_training = model.method.training
    model.method.eval()
    with torch.no_grad():
        for images, modalities in [*_drawn(model, kinds), *([real] if real is not None else [])]:
            for side, compute, found in (("model", ours_of, ours), ("file", theirs_of, theirs)):
                best = np.inf
                for _ in range(_TIMED if len(images) == max(BATCHES) else 1):
                    started = time.perf_counter()
                    features = compute(images.to(model.device), modalities.to(model.device))
                    best = min(best, time.perf_counter() - started)
                found.append(features.cpu())
                if len(images) == max(BATCHES):
                    spent[side] = min(spent[side], 1000 * best / len(images))
    model.method.train(was_training)
    left, right = torch.cat(ours).double(), torch.cat(theirs).double()
    gap = (left - right).abs()
    return Proof(
        rows=len(left),
        least_cosine=float(torch.nn.functional.cosine_similarity(left, right).min()),
        largest_difference=float(gap.max()),
        mean_difference=float(gap.mean()),
        same_top1=_same_nearest(left, right),
        milliseconds=spent,
        real_images=0 if real is None else len(real[0]),
        scores={} if splits is None or modality is not None else _scores(model, exported, splits),
    )


def _drawn(model: Model, only: Modality | None) -> Iterator[tuple[Tensor, Tensor]]:
    shape = example(model)[0].shape[1:]
    generator = torch.Generator().manual_seed(1)
    lengths = [] if len(shape) == 3 else [1, shape[0] + 3]
    for length in lengths:
        clips = torch.randint(0, 256, (3, length, *shape[1:]), generator=generator, dtype=torch.uint8)
        yield clips, torch.tensor([0, 1, 0]) if only is None else torch.full((3,), int(only))
    for size in BATCHES:
        mixtures = (
            torch.zeros(size, dtype=torch.int64),
            torch.ones(size, dtype=torch.int64),
            torch.randint(0, 2, (size,), generator=generator),
        )
        for mixture in mixtures if only is None else (torch.full((size,), int(only)),):
            images = torch.randint(0, 256, (size, *shape), generator=generator, dtype=torch.uint8)
            if size > 2:
                images[0], images[1] = 0, 255
            yield images, mixture


def _real_images(model: Model, splits: DatasetSplits, only: Modality | None) -> tuple[Tensor, Tensor] | None:
    """Up to 64 test images or clips, spread over query and gallery."""
    records = [r for r in (*splits.query, *splits.gallery) if only is None or r.modality is only]
    if not records:
        return None
    places = np.unique(np.linspace(0, len(records) - 1, min(REAL_IMAGES, len(records))).astype(int))
    data = model.recipe.data
    kept, store = open_records([records[place] for place in places], splits.root, data, progress=False)
    starts = np.cumsum([0, *(len(record.paths) for record in kept)])[:-1]
    if data.frames is None:
        pixels = store.read(starts)
    else:
        rule: Any = "evenly" if data.test_clip == "all" else data.test_clip  # one clip of each is compared
        clips = [
            start + choose_frames(len(record.paths), data.frames, rule)
            for start, record in zip(starts, kept, strict=True)
        ]
        frames = store.read(np.concatenate(clips))
        pixels = frames.reshape(len(kept), data.frames, *frames.shape[1:])
    return torch.from_numpy(pixels), modality_numbers(kept)


def _same_nearest(left: Tensor, right: Tensor) -> float:
    """Share of rows whose nearest other row agrees, or is as near within the tolerance (copies of one image tie)."""
    similarities = left @ left.T
    similarities.fill_diagonal_(-torch.inf)
    others = right @ right.T
    others.fill_diagonal_(-torch.inf)
    chosen = others.argmax(dim=1)
    lost = similarities.max(dim=1).values - similarities.gather(1, chosen[:, None])[:, 0]
    return float((lost <= 2 * LARGEST_DIFFERENCE).double().mean())


def _scores(model: Model, exported: Model, splits: DatasetSplits) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, one in (("model", model), ("file", exported)):
        query, gallery = embed_test(one, splits)
        result = evaluate(
            splits,
            query.vectors,
            gallery.vectors,
            protocols=model.recipe.evaluation.protocols,
            metric=model.recipe.evaluation.metric,
        )
        for protocol in result.trials:
            mean = result.mean(protocol)
            found.setdefault(protocol, {})[name] = {"rank1": mean["rank1"], "mAP": mean["mAP"]}
    return found
