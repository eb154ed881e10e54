"""Proof that an exported file computes what the model computes, and what a variant of it costs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from gloam.augmentation.augmenter import normalize
from gloam.batches.clips import choose_frames
from gloam.datasets.records import DatasetSplits, Modality, Record
from gloam.errors import GloamError
from gloam.evaluation.evaluator import evaluate
from gloam.inference.comparison import search
from gloam.inference.export import example
from gloam.inference.model import Model
from gloam.inference.scoring import embed_test
from gloam.inference.sources import ModalityName, modality_numbers, open_records

BATCHES = (1, 2, 7, 33)
LEAST_COSINE, LARGEST_DIFFERENCE = 0.99999, 1e-4
REAL_IMAGES = 64
USEFUL_COSINE = 0.9  # of a variant's features with the model's, in the mean over real (else drawn) images
_TIMED = 3  # forward passes whose shortest counts


@dataclass(frozen=True)
class Proof:
    """How far an exported file's features are from the model's.

    Attributes:
        rows: images that were compared.
        least_cosine: the smallest cosine between a feature and its counterpart.
        largest_difference: of any number of any feature.
        mean_difference: of all numbers.
        mean_cosine: over real images where there are any, else over all rows.
        same_top1: share of rows whose nearest other row is the same.
        milliseconds: of one image, for the model and for the file, in batches of 33 on this machine.
        real_images: how many of the rows are images of the run's test set.
        scores: protocol -> rank-1 and mAP of both, where the test set is at hand.
        top1_changed: share of the test set's queries whose nearest gallery image is another one, where it is at hand.
        precision: what the file computes in. ``fp16`` and ``int8`` files say what they cost: they need not be equal.
    """

    rows: int
    least_cosine: float
    largest_difference: float
    mean_difference: float
    mean_cosine: float
    same_top1: float
    milliseconds: dict[str, float]
    real_images: int
    scores: dict[str, dict[str, dict[str, float]]]
    top1_changed: float | None = None
    precision: str = "32"

    @property
    def holds(self) -> bool:
        """Cosine at least 0.99999, no difference above 1e-4, every nearest row the same; of variants: usable at all."""
        if self.precision != "32":
            return self.mean_cosine >= USEFUL_COSINE  # NaN compares false
        return (
            self.least_cosine >= LEAST_COSINE
            and self.largest_difference <= LARGEST_DIFFERENCE
            and self.same_top1 == 1.0
        )

    def require(self) -> None:
        """Raises GloamError, with the numbers, unless the proof holds."""
        if not self.holds and self.precision != "32":
            raise GloamError(
                f"In {self.precision} the file's features have a mean cosine of {self.mean_cosine:.3f} with the "
                f"model's: below {USEFUL_COSINE} they are of no use. Nothing was written; export it in precision 32."
            )
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
    model: Model,
    exported: Model,
    *,
    modality: ModalityName | None = None,
    splits: DatasetSplits | None = None,
    precision: str = "32",
) -> Proof:
    """Compare a file with the model it was made from.

    Batches of 1, 2, 7 and 33; visible, infrared and mixed; black, white and random images, and up to 64 real ones;
    clips of other lengths. The model's side is what ``embed`` computes, not the graph that was exported.

    Args:
        model: the model.
        exported: the file, read back.
        modality: the only modality that the file takes.
        splits: the run's dataset, if it is at hand: its test set is scored with both, and images of it are compared.
        precision: of the file.
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
    test = () if splits is None else (*splits.query, *splits.gallery)
    real = None if splits is None else read_records(model, test, splits, kinds, REAL_IMAGES)
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
    cosines = torch.nn.functional.cosine_similarity(left, right)
    scores, changed = ({}, None) if splits is None or modality is not None else _scores(model, exported, splits)
    return Proof(
        rows=len(left),
        least_cosine=float(cosines.min()),
        largest_difference=float(gap.max()),
        mean_difference=float(gap.mean()),
        mean_cosine=float(cosines[0 if real is None else -len(real[0]) :].mean()),
        same_top1=_same_nearest(left, right),
        milliseconds=spent,
        real_images=0 if real is None else len(real[0]),
        scores=scores,
        top1_changed=changed,
        precision=precision,
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


def read_records(
    model: Model, choice: Sequence[Record], splits: DatasetSplits, only: Modality | None, most: int
) -> tuple[Tensor, Tensor] | None:
    """Images or clips of a dataset as the model's pipeline reads them, spread over the records.

    Args:
        model: whose size and clip rule count.
        choice: records of the dataset.
        splits: the dataset.
        only: records of this modality alone.
        most: how many at most.

    Returns:
        uint8 ``(N, 3, H, W)`` or ``(N, T, 3, H, W)``, and modalities ``(N,)``; None if there are none.
    """
    records = [r for r in choice if only is None or r.modality is only]
    if not records:
        return None
    places = np.unique(np.linspace(0, len(records) - 1, min(most, len(records))).astype(int))
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


def _scores(
    model: Model, exported: Model, splits: DatasetSplits
) -> tuple[dict[str, dict[str, dict[str, float]]], float | None]:
    """Scores of both, and how many queries find another nearest gallery image."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    nearest = []
    for name, one in (("model", model), ("file", exported)):
        query, gallery = embed_test(one, splits)
        if not len(query) or not len(gallery):
            return {}, None
        nearest.append(search(query, gallery, top=1).rows[:, 0])
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
    return found, float((nearest[0] != nearest[1]).mean())
