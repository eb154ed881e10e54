"""Thresholds and probabilities per pair of modalities, against one threshold for all: what they do to unseen people.

Features are drawn, so the truth is known: identities around some styles of clothing, an offset of each camera and of
the infrared modality, and a part of each identity that only one modality shows. Calibrations of ``people`` identities
are held against ``UNSEEN`` fresh ones. ``fmr_ratio`` is the real false match rate of a threshold over its target (1: as
promised): median and extremes over the draws. ``covered`` is the share of draws whose 95 % interval of FMR holds the
real one. ``fit`` says what is measured: ``pair`` (threshold and logistic per pair of modalities), ``pooled`` (one of
each from the pairs of all modalities together), ``isotonic`` (per pair). ``brier`` and ``ece`` judge probabilities of
unseen pairs at equal priors, mean over the draws; ``ece`` of a rough fit is what it misses by.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine_info
from gloam.datasets.records import Modality
from gloam.evaluation.calibrate import fit_calibration
from gloam.evaluation.calibration import ModelStamp, Probability
from gloam.evaluation.probabilities import brier_score, expected_calibration_error, sigmoid

UNSEEN, WIDTH, LATENT, STYLES = 3000, 64, 48, 60
VISIBLE_CAMS, INFRARED_CAMS = (1, 2, 4, 5), (3, 6)
TARGETS = (1e-2, 1e-3)
Drawn = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
PAIRS = {
    "visible-visible": (Modality.VISIBLE, Modality.VISIBLE),
    "visible-infrared": (Modality.VISIBLE, Modality.INFRARED),
    "infrared-infrared": (Modality.INFRARED, Modality.INFRARED),
}


def draw_features(people: int, seed: int, *, images: int = 1, visible_cams: int = 4, noise: float = 0.8) -> Drawn:
    """Unit features of people, their ids, cameras and modalities: ``images`` in each of the cameras."""
    world = np.random.default_rng(20_240_101)  # cameras and styles are the same for everybody
    basis = np.linalg.qr(world.standard_normal((WIDTH, LATENT)))[0].T
    styles = world.standard_normal((STYLES, LATENT))
    camera_offsets = 0.35 * world.standard_normal((7, WIDTH)) / np.sqrt(WIDTH) * np.sqrt(LATENT)
    infrared = world.standard_normal(WIDTH) / np.sqrt(WIDTH) * np.sqrt(LATENT) * 0.9
    generator = np.random.default_rng(seed)
    identity = 0.45 * styles[generator.integers(0, STYLES, people)] + 0.9 * generator.standard_normal((people, LATENT))
    own = 0.6 * generator.standard_normal((2, people, LATENT))  # what one modality alone shows
    parts, ids, cams, kinds = [], [], [], []
    for cam in (*VISIBLE_CAMS[:visible_cams], *INFRARED_CAMS):
        kind = Modality.INFRARED if cam in INFRARED_CAMS else Modality.VISIBLE
        for _ in range(images):
            latent = identity + own[int(kind)] + noise * generator.standard_normal((people, LATENT))
            parts.append(latent @ basis + camera_offsets[cam] + (infrared if kind else 0))
            ids.append(np.arange(people))
            cams.append(np.full(people, cam))
            kinds.append(np.full(people, int(kind)))
    vectors = np.concatenate(parts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.concatenate(ids), np.concatenate(cams), np.concatenate(kinds)


class Truth:
    """Sorted scores of unseen people, by pair: what thresholds and probabilities really do."""

    def __init__(self, people: int = UNSEEN, seed: int = 999_999, **options: Any) -> None:
        vectors, ids, cams, kinds = draw_features(people, seed, **options)
        self.impostor: dict[str, NDArray[np.float32]] = {}
        self.genuine: dict[str, NDArray[np.float32]] = {}
        for name, (first, second) in PAIRS.items():
            rows, columns = np.flatnonzero(kinds == first), np.flatnonzero(kinds == second)
            same: list[NDArray[np.float32]] = []
            other: list[NDArray[np.float32]] = []
            for start in range(0, len(rows), 500):
                part = rows[start : start + 500]
                scores = vectors[part] @ vectors[columns].T
                equal = ids[part][:, None] == ids[columns][None]
                counts = part[:, None] < columns[None] if first == second else np.ones_like(equal)
                same.append(scores[equal & counts & (cams[part][:, None] != cams[columns][None])])
                other.append(scores[~equal & counts])
            self.genuine[name] = np.sort(np.concatenate(same))
            self.impostor[name] = np.sort(np.concatenate(other))

    def fmr(self, pair: str, threshold: float) -> float:
        """Share of impostor scores at or above a threshold."""
        scores = self.impostor[pair]
        return 1 - np.searchsorted(scores, np.float32(threshold), side="left") / len(scores)

    def fnmr(self, pair: str, threshold: float) -> float:
        """Share of genuine scores below a threshold."""
        scores = self.genuine[pair]
        return np.searchsorted(scores, np.float32(threshold), side="left") / len(scores)

    def threshold(self, pair: str, target: float) -> float:
        """The score that a share ``target`` of impostor scores reach."""
        scores = self.impostor[pair]
        return float(scores[-max(int(target * len(scores)), 1)])


def pooled(features: Drawn) -> tuple[dict[float, float], Probability]:
    """One threshold per target and one logistic from all pairs, whatever their modalities."""
    vectors, ids, cams, kinds = features
    found = fit_calibration(vectors, ids, cams, np.zeros_like(kinds), model=ModelStamp(digest="drawn"), resamples=20)
    pair = found.pairs["visible-visible"]
    if pair.probability is None:
        raise RuntimeError("drawn scores separate")
    return {known.target: known.score for known in pair.thresholds}, pair.probability


def judge(truth: Truth, pair: str, probability: Probability) -> tuple[float, float]:
    """Brier score and calibration error on unseen pairs at equal priors."""
    scores = truth.genuine[pair], truth.impostor[pair][:: max(len(truth.impostor[pair]) // 200_000, 1)]
    p = np.concatenate([sigmoid(probability.log_likelihood_ratio(part)) for part in scores])
    true = np.repeat([1.0, 0.0], [len(part) for part in scores])
    weights = np.repeat([0.5 / len(part) for part in scores], [len(part) for part in scores])
    return brier_score(p, true, weights), expected_calibration_error(p, true, weights)


def measure(truth: Truth, people: int, draws: int, **options: Any) -> list[dict[str, Any]]:
    """Rows of one number of calibration people."""
    ratios: dict[tuple[str, str, float], list[float]] = {}
    covered: dict[tuple[str, float], list[bool]] = {}
    marks: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for seed in range(draws):
        features = draw_features(people, seed, **options)
        thresholds, one = pooled(features)
        found = fit_calibration(*features, model=ModelStamp(digest="drawn"), targets=TARGETS, probability="isotonic")
        for name, pair in found.pairs.items():
            if pair.probability is None:
                raise RuntimeError("drawn scores separate")
            for known in pair.thresholds:
                real = truth.fmr(name, known.score)
                ratios.setdefault((name, "pair", known.target), []).append(real / known.target)
                covered.setdefault((name, known.target), []).append(
                    known.fmr_interval[0] <= real <= known.fmr_interval[1]
                )
                single = truth.fmr(name, thresholds[known.target]) / known.target
                ratios.setdefault((name, "pooled", known.target), []).append(single)
            for fit, probability in (
                ("pair", pair.probability.model_copy(update={"kind": "logistic"})),
                ("isotonic", pair.probability),
                ("pooled", one),
            ):
                marks.setdefault((name, fit), []).append(judge(truth, name, probability))
    rows = []
    for (name, fit), quality in marks.items():
        row: dict[str, Any] = {"people": people, "draws": draws, "pair": name, "fit": fit}
        for target in TARGETS:
            if found_ratios := ratios.get((name, fit, target)):
                low, middle, high = np.quantile(found_ratios, [0, 0.5, 1])
                row[f"fmr_ratio {target:.0e}"] = f"{middle:.2f} ({low:.2f}..{high:.2f})"
            if fit == "pair" and (name, target) in covered:
                row[f"covered {target:.0e}"] = f"{np.mean(covered[name, target]):.2f}"
        brier, ece = np.mean(quality, axis=0)
        rows.append({**row, "brier": f"{brier:.4f}", "ece": f"{ece:.4f}"})
    return rows


def run(sizes: tuple[tuple[int, int], ...] = ((100, 20), (300, 10), (1000, 2))) -> list[dict[str, Any]]:
    """Rows for several numbers of calibration people, each with its number of draws."""
    truth = Truth(visible_cams=2)
    rows = [row for people, draws in sizes for row in measure(truth, people, draws, visible_cams=2)]
    return [{**row, **machine_info(threads=1, packages=("numpy", "scikit-learn"))} for row in rows]
