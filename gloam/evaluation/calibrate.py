"""From features of known identities to a calibration: error rates, intervals, probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gloam import __version__
from gloam.datasets.records import CameraRule
from gloam.errors import GloamError
from gloam.evaluation.calibration import (
    FEW_IDENTITIES,
    Calibration,
    Curve,
    DataStamp,
    ModelStamp,
    PairCalibration,
    Probability,
    Quality,
    Threshold,
    refuse,
    supports,
)
from gloam.evaluation.error_rates import LARGEST_RATE, DrawnRates, curve_bins, equal_error_rate, last_bin
from gloam.evaluation.pair_scores import (
    People,
    ScoreCounts,
    bin_scores,
    count_pairs,
    identity_pairs,
    resample_rates,
)
from gloam.evaluation.pairs import PAIRS
from gloam.evaluation.probabilities import brier_score, expected_calibration_error, fit_isotonic, fit_logistic, sigmoid
from gloam.search.arrays import as_choice, as_features, as_ids, as_whole_number
from gloam.search.distances import unit_rows

TARGETS = (1e-1, 1e-2, 1e-3, 1e-4)
MANY_IDENTITIES = 1000  # from here on the isotonic curve is better than two parameters
_FOLDS = 4
Fit = Literal["auto", "logistic", "isotonic"]


def fit_calibration(
    features: Any,
    pids: Any,
    cams: Any,
    modalities: Any,
    *,
    model: ModelStamp,
    data: DataStamp | None = None,
    camera_rule: CameraRule = "same_id_same_cam",
    targets: Sequence[float] = TARGETS,
    probability: Fit = "auto",
    resamples: int = 200,
    confidence: float = 0.95,
    max_images: int = 12_000,
    seed: int = 0,
) -> Calibration:
    """Measure what cosines of these features mean, for each pair of modalities.

    Every pair of images counts once; FMR(t) is the share of impostor scores at or above t, FNMR(t) that of genuine
    scores below t. Intervals come from drawing identities, not pairs, with replacement. Thresholds are the smallest
    whose false match rate is at most the target.

    *Source*: terms of ISO/IEC 19795-1 and of NIST FRTE 1:1; intervals: percentiles of a bootstrap over identities.

    Args:
        features: ``(N, D)``, of any scale.
        pids: ``(N,)`` integer identities.
        cams: ``(N,)`` cameras.
        modalities: ``(N,)`` values of ``Modality``.
        model: whose features these are.
        data: whom they show; made from the arrays if not given.
        camera_rule: which pairs do not count, see ``Calibration.camera_rule``; ``none``: all do.
        targets: false match rates.
        probability: ``auto``: the two-parameter logistic below 1,000 identities, isotonic from there on.
        resamples: draws of identities.
        confidence: of the intervals.
        max_images: more images than this are thinned evenly over identities; time grows with their square.
        seed: of the draws.

    Returns:
        The calibration. Memory: a copy of the features and blocks of pairs, never all pairs.

    Raises:
        GloamError: arrays that do not fit, or no pair of modalities with both kinds of pairs.
    """
    as_whole_number(resamples, "resamples", 20)
    as_whole_number(max_images, "max_images", 4)
    as_choice(camera_rule, ("none", "same_id_same_cam", "sysu"), "camera rule")
    if not 0.5 <= confidence < 1:
        raise GloamError(f"The confidence of intervals lies between 0.5 and 1, not {confidence:g}.")
    if not targets or not all(0 < target <= LARGEST_RATE for target in targets):
        raise GloamError(f"False match rates lie between 0 and {LARGEST_RATE:g}, for example 1e-3.")
    generator = np.random.default_rng(seed)
    people, given = _prepare(features, pids, cams, modalities, camera_rule, max_images, generator)
    if data is None:
        data = DataStamp(name="given", identities=people.count, images=given, images_used=len(people.ids))
    weights = _draw_identities(people.count, resamples, generator)
    pairs: dict[str, PairCalibration] = {}
    missing: dict[str, str] = {}
    for name in PAIRS:
        counts = count_pairs(people, name)
        reason = _why_not(people, name, counts)
        if reason:
            missing[name] = reason
            continue
        pairs[name] = _calibrate_pair(people, name, counts, targets, probability, weights, confidence)
    if not pairs:
        reasons = " ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise GloamError(f"Nothing can be calibrated. {reasons}")
    return Calibration(
        gloam=__version__,
        model=model,
        data=data.model_copy(update={"images_used": len(people.ids), "identities": people.count}),
        camera_rule=camera_rule,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        pairs=pairs,
        missing=missing,
        warnings=tuple(_warnings(pairs)),
    )


def _prepare(
    features: Any,
    pids: Any,
    cams: Any,
    modalities: Any,
    rule: CameraRule,
    most: int,
    generator: np.random.Generator,
) -> tuple[People, int]:
    """Images sorted by identity, thinned where there are too many, and how many there were."""
    vectors = as_features(features)
    columns = [as_ids(values, name) for values, name in ((pids, "pids"), (cams, "cams"), (modalities, "modalities"))]
    if any(len(column) != len(vectors) for column in columns):
        sizes = ", ".join(str(len(column)) for column in columns)
        raise GloamError(
            f"{len(vectors)} features for {sizes} ids, cameras and modalities. Give one of each per image."
        )
    names, ids = np.unique(columns[0], return_inverse=True)
    if len(names) < 2:
        raise GloamError(f"Scores of {len(names)} identities cannot be calibrated. Give images of at least 100 people.")
    rows = _thin(ids, columns[2], most, generator)
    rows = rows[np.argsort(ids[rows], kind="stable")]
    names, ids = np.unique(columns[0][rows], return_inverse=True)
    people = People(
        vectors=np.ascontiguousarray(unit_rows(vectors[rows.tolist()]).cpu().numpy()),
        ids=ids.astype(np.int64),
        cams=columns[1][rows],
        modalities=columns[2][rows],
        folds=generator.permutation(len(names)) % min(_FOLDS, len(names)),
        camera_rule=rule,
    )
    return people, len(vectors)


def _thin(
    ids: NDArray[np.int64], kinds: NDArray[np.int64], most: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """At most ``most`` rows: as many per identity and modality as fit, drawn; then fewer identities."""
    if len(ids) <= most:
        return np.arange(len(ids))
    order = generator.permutation(len(ids))
    order = order[np.lexsort((kinds[order], ids[order]))]
    group = np.r_[0, np.cumsum((np.diff(ids[order]) != 0) | (np.diff(kinds[order]) != 0))]
    place = np.arange(len(order)) - np.searchsorted(group, group)
    kept_by_cap = np.cumsum(np.bincount(place))
    cap = int(np.searchsorted(kept_by_cap, most, side="right"))
    if cap:
        return np.asarray(order[place < cap])
    single = order[place == 0]
    lot = generator.permutation(int(ids.max()) + 1)[ids[single]]
    return np.asarray(single[np.lexsort((kinds[single], lot))][:most])


def _draw_identities(count: int, resamples: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """``(P, B)`` how often each identity is drawn."""
    return generator.multinomial(count, np.full(count, 1 / count), size=resamples).T.astype(np.float32)


def _why_not(people: People, name: str, counts: ScoreCounts) -> str:
    first, second = PAIRS[name]
    for kind in (first, second):
        if not (people.modalities == kind).any():
            return f"there are no {kind.name.lower()} images."
    if not counts.genuine.sum():
        unless = "" if people.camera_rule == "none" else " in two cameras (pairs of one camera do not count)"
        return f"nobody has two such images{unless}."
    if not counts.impostor.sum():
        return "there are no images of two identities."
    if counts.impostor[0] > 0.01 * counts.impostor.sum():
        share = counts.impostor[0] / counts.impostor.sum()
        return (
            f"{share:.0%} of the impostor pairs have the score 1. The model has collapsed, or images of one person "
            "carry the names of several."
        )
    return ""


def _calibrate_pair(
    people: People,
    name: str,
    counts: ScoreCounts,
    targets: Sequence[float],
    kind: Fit,
    weights: NDArray[np.float32],
    confidence: float,
) -> PairCalibration:
    smallest_scores, _ = bin_scores()
    impostors, genuine = int(counts.impostor.sum()), int(counts.genuine.sum())
    fmr, fnmr = np.cumsum(counts.impostor) / impostors, 1 - np.cumsum(counts.genuine) / genuine
    identities, between = identity_pairs(people, name)
    supported = [
        target for target in sorted(targets, reverse=True) if supports(target, impostors, between) and fmr[0] <= target
    ]
    bins = curve_bins(fmr, impostors)
    drawn_fmr, drawn_fnmr, paired = resample_rates(people, name, bins, weights)
    drawn = DrawnRates(
        fmr[bins],
        fnmr[bins],
        smallest_scores[bins],
        drawn_fmr,
        drawn_fnmr,
        confidence=confidence,
        floor=0.1 / impostors,
        identities=paired,
        genuine_pairs=genuine,
    )
    thresholds = []
    for target in supported:
        last = last_bin(fmr, target)
        score_interval, fmr_interval, fnmr_interval = drawn.intervals(
            target, float(smallest_scores[last]), float(fnmr[last])
        )
        thresholds.append(
            Threshold(
                target=target,
                score=float(smallest_scores[last]),
                score_interval=score_interval,
                fmr=float(fmr[last]),
                fmr_interval=fmr_interval,
                fnmr=float(fnmr[last]),
                fnmr_interval=fnmr_interval,
            )
        )
    low, high = drawn.fnmr_band()
    eer = equal_error_rate(fmr, fnmr)
    probability, quality = _fit_probability(counts, kind, identities, between)
    return PairCalibration(
        identities=identities,
        identity_pairs=between,
        genuine_pairs=genuine,
        impostor_pairs=impostors,
        thresholds=tuple(thresholds),
        refused=tuple(refuse(target) for target in sorted(targets, reverse=True) if target not in supported),
        curve=Curve(
            fmr=tuple(map(float, fmr[bins])),
            score=tuple(map(float, smallest_scores[bins])),
            fnmr=tuple(map(float, fnmr[bins])),
            fnmr_low=tuple(map(float, low)),
            fnmr_high=tuple(map(float, high)),
        ),
        eer=eer,
        eer_interval=drawn.eer_interval(eer),
        probability=probability,
        quality=quality,
    )


def _fit_probability(
    counts: ScoreCounts, kind: Fit, identities: int, between: int
) -> tuple[Probability | None, dict[str, Quality]]:
    """The fit on all identities, and its quality on identities that a fit had not seen."""
    _, scores = bin_scores()
    genuine, impostor = counts.genuine_by_fold.sum(axis=(0, 1)), counts.impostor_by_fold.sum(axis=(0, 1))
    slope, intercept = fit_logistic(scores, genuine, impostor)
    if slope <= 0:
        return None, {}
    isotonic = kind == "isotonic" or (kind == "auto" and identities >= MANY_IDENTITIES)
    knots = fit_isotonic(scores, genuine, impostor) if isotonic else (np.zeros(0), np.zeros(0))
    probability = Probability(
        kind="isotonic" if isotonic else "logistic",
        slope=slope,
        intercept=intercept,
        knot_scores=tuple(map(float, knots[0])),
        knot_probabilities=tuple(map(float, knots[1])),
        lowest=-float(np.log(genuine.sum())),
        highest=float(np.log(max(between, 1))),
    )
    return probability, _quality(counts, scores, probability)


def _quality(counts: ScoreCounts, scores: NDArray[np.float64], whole: Probability) -> dict[str, Quality]:
    """Brier score and calibration error at equal priors; every fold is judged by a fit on the other folds."""
    folds = counts.genuine_by_fold.shape[0]
    found: dict[str, list[tuple[NDArray[np.float64], ...]]] = {}
    for fold in range(folds):
        others = np.flatnonzero(np.arange(folds) != fold)
        inside = np.ix_(others, others)
        genuine, impostor = counts.genuine_by_fold[inside].sum((0, 1)), counts.impostor_by_fold[inside].sum((0, 1))
        seen, unseen = counts.genuine_by_fold[fold, fold], counts.impostor_by_fold[fold, fold]
        if not (genuine.sum() and impostor.sum() and seen.sum() and unseen.sum()):
            continue
        slope, intercept = fit_logistic(scores, genuine, impostor)
        changes: dict[str, Any] = {"slope": slope, "intercept": intercept}
        if whole.knot_scores:
            x, p = fit_isotonic(scores, genuine, impostor)
            changes |= {"knot_scores": tuple(x), "knot_probabilities": tuple(p)}
        fitted = whole.model_copy(update=changes)
        weights = seen / seen.sum(), unseen / unseen.sum()
        found.setdefault("logistic", []).append((sigmoid(fitted.log_likelihood_ratio(scores, "logistic")), *weights))
        if whole.knot_scores:
            found.setdefault("isotonic", []).append(
                (sigmoid(fitted.log_likelihood_ratio(scores, "isotonic")), *weights)
            )
    quality = {}
    for kind, parts in found.items():
        p = np.concatenate([part[0] for part in parts for _ in range(2)])
        truth = np.concatenate([np.full(len(scores), value) for _ in parts for value in (1.0, 0.0)])
        weight = np.concatenate([weights for part in parts for weights in part[1:]])
        quality[kind] = Quality(brier=brier_score(p, truth, weight), ece=expected_calibration_error(p, truth, weight))
    return quality


def _warnings(pairs: dict[str, PairCalibration]) -> list[str]:
    told = []
    for name, pair in pairs.items():
        if pair.identities < FEW_IDENTITIES:
            told.append(
                f"{name}: {pair.identities} identities. Thresholds of fewer than {FEW_IDENTITIES} are rough: calibrate "
                "on more people before you rely on them."
            )
        if pair.probability is None:
            told.append(f"{name}: scores of one identity are no higher than those of two; there are no probabilities.")
    return told
