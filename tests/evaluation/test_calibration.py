"""Calibration: error rates against slow counts, promises kept on unseen people, honest refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from benchmarks.calibration import PAIRS, Truth, draw_features, measure
from gloam.datasets.records import CameraRule, Modality
from gloam.errors import GloamError
from gloam.evaluation import pair_scores
from gloam.evaluation.calibrate import fit_calibration
from gloam.evaluation.calibration import Calibration, DataStamp, ModelStamp, one_in
from gloam.evaluation.calibration_tables import calibration_tables, score_for
from gloam.evaluation.pairs import pair_name
from gloam.evaluation.probabilities import (
    brier_score,
    expected_calibration_error,
    fit_isotonic,
    fit_logistic,
    sigmoid,
)

MODEL = ModelStamp(digest="d" * 64, name="drawn")
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(2000, visible_cams=2)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fit_calibration(*draw_features(120, 5, visible_cams=2), model=MODEL)


def slow_scores(features: Drawn, pair: str, rule: CameraRule) -> tuple[list[float], list[float]]:
    """Genuine and impostor scores, pair after pair."""
    vectors, ids, cams, kinds = features
    genuine, impostor = [], []
    first, second = PAIRS[pair]
    for i in range(len(ids)):
        for j in range(i + 1, len(ids)):
            if sorted((kinds[i], kinds[j])) != [first, second]:
                continue
            if rule != "none" and ids[i] == ids[j] and cams[i] == cams[j]:
                continue
            if rule == "sysu" and {cams[i], cams[j]} == {2, 3}:
                continue
            score = float(vectors[i].astype(np.float64) @ vectors[j])
            (genuine if ids[i] == ids[j] else impostor).append(score)
    return genuine, impostor


@pytest.mark.parametrize("rule", ["none", "same_id_same_cam", "sysu"])
@pytest.mark.parametrize("block", [4_000_000, 40])
def test_rates_equal_counting_every_pair(rule: CameraRule, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_scores, "_BLOCK_SCORES", block)
    features = draw_features(25, 3, images=2, visible_cams=2)
    shuffled = np.random.default_rng(0).permutation(len(features[1]))
    found = fit_calibration(
        *(column[shuffled] for column in features), model=MODEL, camera_rule=rule, targets=(0.3, 0.05), resamples=20
    )
    for name, pair in found.pairs.items():
        genuine, impostor = slow_scores(features, name, rule)
        assert (pair.genuine_pairs, pair.impostor_pairs) == (len(genuine), len(impostor))
        assert pair.identity_pairs == 25 * 24 // 2
        for known in pair.thresholds:
            assert known.fmr == pytest.approx(np.mean(np.array(impostor) >= known.score), abs=1.5 / len(impostor))
            assert known.fnmr == pytest.approx(np.mean(np.array(genuine) < known.score), abs=1.5 / len(genuine))
            assert known.fmr <= known.target
            # The next lower impostor score would be one false match too many.
            below = max(score for score in impostor if score < known.score - 1e-6)
            assert np.mean(np.array(impostor) >= below) > known.target - 1.5 / len(impostor)
        rates = np.array([np.mean(np.array(impostor) >= t) - np.mean(np.array(genuine) < t) for t in sorted(genuine)])
        crossing = sorted(genuine)[int(np.argmin(np.abs(rates)))]
        assert pair.eer == pytest.approx(np.mean(np.array(impostor) >= crossing), abs=2 / len(genuine))


@pytest.mark.parametrize("block", [4_000_000, 60])
def test_draws_equal_weighing_every_pair(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_scores, "_BLOCK_SCORES", block)
    monkeypatch.setattr(pair_scores, "_BLOCK_COUNTS", 16_000_000 if block > 60 else 200)
    vectors, ids, cams, kinds = draw_features(9, 1, images=2, visible_cams=2)
    order = np.argsort(ids, kind="stable")
    people = pair_scores.People(
        vectors[order], ids[order], cams[order], kinds[order], np.zeros(9, np.int64), "same_id_same_cam"
    )
    weights = np.random.default_rng(0).multinomial(9, np.full(9, 1 / 9), size=5).T.astype(np.float32)
    smallest, _ = pair_scores.bin_scores()
    bins = np.searchsorted(-smallest, -np.array([0.1, 0.3, 0.5]))[::1]
    for name, (first, second) in PAIRS.items():
        fmr, fnmr, paired = pair_scores.resample_rates(people, name, np.sort(bins)[::-1], weights)
        assert paired == 9
        for draw in range(5):
            for step, last in enumerate(np.sort(bins)[::-1]):
                sums = np.zeros((2, 2))
                for i in range(len(ids)):
                    for j in range(i + 1, len(ids)):
                        if sorted((kinds[i], kinds[j])) != [first, second]:
                            continue
                        same = ids[i] == ids[j]
                        if same and cams[i] == cams[j]:
                            continue
                        weight = weights[ids[i], draw] * (1 if same else weights[ids[j], draw])
                        reached = vectors[i] @ vectors[j] >= smallest[last]
                        sums[int(same)] += weight * reached, weight
                assert fmr[draw, step] == pytest.approx(sums[0, 0] / sums[0, 1], abs=1e-6)
                assert fnmr[draw, step] == pytest.approx(1 - sums[1, 0] / sums[1, 1], abs=1e-6)


def test_promised_rates_hold_on_unseen_people_in_each_pair_and_one_pooled_threshold_does_not(truth: Truth) -> None:
    factors: dict[tuple[str, str, float], list[float]] = {}
    for seed in range(8):
        vectors, ids, cams, kinds = draw_features(150, 100 + seed, visible_cams=2)
        found = fit_calibration(vectors, ids, cams, kinds, model=MODEL, resamples=20)
        together = fit_calibration(vectors, ids, cams, 0 * kinds, model=MODEL, resamples=20)
        for name in PAIRS:
            for target in (1e-2, 1e-3):
                for kind, score in (
                    ("pair", found.threshold(target, name)),
                    ("pooled", together.threshold(target, "visible-visible")),
                ):
                    factor = truth.fmr(name, score) / target
                    factors.setdefault((kind, name, target), []).append(max(factor, 1 / max(factor, 1e-9)))
    for name in PAIRS:
        assert np.median(factors["pair", name, 1e-2]) < 1.5
        assert np.median(factors["pair", name, 1e-3]) < 2
        assert np.quantile(factors["pair", name, 1e-2], 0.9) < 1.5 * 1.5
        assert np.median(factors["pooled", name, 1e-2]) > 2
        assert np.median(factors["pooled", name, 1e-3]) > 2


def test_intervals_hold_the_truth_in_nine_draws_of_ten(truth: Truth) -> None:
    covered: dict[str, list[bool]] = {"fmr": [], "fnmr": [], "score": [], "eer": []}
    for seed in range(50):
        found = fit_calibration(
            *draw_features(100, 300 + seed, visible_cams=2), model=MODEL, targets=(1e-2, 1e-3), resamples=100
        )
        for name, pair in found.pairs.items():
            for known in pair.thresholds:
                for kind, interval, real in (
                    ("fmr", known.fmr_interval, truth.fmr(name, known.score)),
                    ("fnmr", known.fnmr_interval, truth.fnmr(name, known.score)),
                    ("score", known.score_interval, truth.threshold(name, known.target)),
                ):
                    covered[kind].append(interval[0] <= real <= interval[1])
            crossing = min(
                (abs(truth.fmr(name, t) - truth.fnmr(name, t)), truth.fmr(name, t)) for t in np.linspace(0, 0.8, 400)
            )[1]
            covered["eer"].append(pair.eer_interval[0] - 1e-3 <= crossing <= pair.eer_interval[1] + 1e-3)
    shares = {kind: np.mean(held) for kind, held in covered.items()}
    assert all(share >= 0.9 for share in shares.values()), shares


def test_intervals_narrow_with_more_people() -> None:
    widths = []
    for count in (60, 240):
        pair = fit_calibration(*draw_features(count, 1, visible_cams=2), model=MODEL, targets=(1e-2,)).pairs
        low, high = pair["visible-infrared"].thresholds[0].fmr_interval
        widths.append(high / low)
    assert widths[1] < widths[0]


def test_targets_that_the_data_cannot_support_are_refused_with_what_they_need(calibration: Calibration) -> None:
    pair = calibration.of_pair("visible-visible")
    assert [known.target for known in pair.thresholds] == [1e-1, 1e-2, 1e-3]
    (refusal,) = pair.refused
    assert (refusal.target, refusal.impostor_pairs_needed, refusal.identities_needed) == (1e-4, 100_000, 246)
    # 245 identities make 29,890 pairs: 2.99 of ten thousand, 246 make 3.01.
    assert 245 * 244 / 2 * 1e-4 < 3 <= 246 * 245 / 2 * 1e-4
    with pytest.raises(GloamError, match=r"1e-04|0\.0001.*100,000 impostor pairs of about 246 identities"):
        calibration.threshold(1e-4, "visible-visible")
    with pytest.raises(GloamError, match="between 0 and 1"):
        calibration.threshold(2, "visible-visible")
    with pytest.raises(GloamError, match="no pair of modalities"):
        calibration.threshold(1e-2, "visible-thermal")


def test_rates_between_the_measured_ones_are_interpolated(calibration: Calibration) -> None:
    scores = [calibration.threshold(rate, "visible-infrared") for rate in (0.1, 0.03, 0.01, 0.003, 0.001)]
    assert scores == sorted(scores)
    order_free = calibration.threshold(0.03, ("infrared", "visible"))
    assert order_free == calibration.threshold(0.03, (Modality.VISIBLE, Modality.INFRARED)) == scores[1]


def test_probabilities_follow_bayes_and_need_a_prior(calibration: Calibration) -> None:
    ratio = math.exp(float(calibration.log_likelihood_ratio(0.4, "visible-infrared")))
    for prior in (0.5, 0.01, one_in(1000)):
        odds = ratio * prior / (1 - prior)
        found = calibration.probability(0.4, "visible-infrared", prior=prior)
        assert float(found) == pytest.approx(odds / (1 + odds), rel=1e-12)
    rising = calibration.probability(np.linspace(-1, 1, 50), "visible-infrared", prior=0.01)
    assert (np.diff(rising) >= 0).all()
    with pytest.raises(TypeError):
        calibration.probability(0.4, "visible-infrared")  # type: ignore[call-arg]
    for wrong in (0, 1, 1000, math.nan, True):
        with pytest.raises(GloamError, match="prior"):
            calibration.probability(0.4, "visible-infrared", prior=wrong)
    for wrong_count in (1, 0, -3, math.inf):
        with pytest.raises(GloamError, match="one in so many"):
            one_in(wrong_count)
    with pytest.raises(GloamError, match="cosines"):
        calibration.probability(np.array([0.1, math.nan]), "visible-infrared", prior=0.5)


def test_no_probability_claims_more_than_the_pairs_could_show(calibration: Calibration) -> None:
    pair = calibration.of_pair("visible-visible")
    ratio = math.exp(float(calibration.log_likelihood_ratio(1.0, "visible-visible")))
    assert ratio == pytest.approx(pair.identity_pairs)
    assert score_for(pair, 0.99, one_in(10)) != "never"
    assert score_for(pair, 0.99, one_in(1_000_000)) == "never"


def test_probabilities_are_true_on_unseen_people(truth: Truth, calibration: Calibration) -> None:
    for name in PAIRS:
        scores = truth.genuine[name], truth.impostor[name][::20]
        p = np.concatenate([calibration.probability(part, name, prior=0.5) for part in scores])
        true = np.repeat([1.0, 0.0], [len(part) for part in scores])
        weights = np.repeat([0.5 / len(part) for part in scores], [len(part) for part in scores])
        assert expected_calibration_error(p, true, weights) < 0.03
        quality = calibration.of_pair(name).quality["logistic"]
        assert quality.brier == pytest.approx(brier_score(p, true, weights), abs=0.015)


def test_isotonic_above_a_thousand_identities_and_on_request() -> None:
    vectors, ids, cams, kinds = draw_features(1000, 1, visible_cams=2)
    infrared = kinds == Modality.INFRARED
    found = fit_calibration(*(c[infrared] for c in (vectors, ids, cams, kinds)), model=MODEL, resamples=20)
    pair = found.pairs["infrared-infrared"]
    assert pair.probability is not None
    assert pair.probability.kind == "isotonic"
    assert set(pair.quality) == {"logistic", "isotonic"}
    assert [known.target for known in pair.thresholds] == [1e-1, 1e-2, 1e-3, 1e-4]
    few = fit_calibration(*draw_features(60, 1), model=MODEL, probability="isotonic", resamples=20)
    assert all(p.probability is not None and p.probability.kind == "isotonic" for p in few.pairs.values())


def test_the_logistic_equals_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    scores = np.concatenate([generator.normal(0.6, 0.15, 300), generator.normal(0.2, 0.1, 5000)])
    genuine, impostor = np.repeat([1.0, 0.0], [300, 5000]), np.repeat([0.0, 1.0], [300, 5000])
    slope, intercept = fit_logistic(scores, genuine, impostor)
    high, low = 301 / 302, 1 / 5002  # Platt's targets, as weights of both answers
    share = genuine * high + impostor * low
    weight = genuine / 300 + impostor / 5000
    fitted = LogisticRegression(C=1e12, tol=1e-12, max_iter=10_000).fit(
        np.r_[scores, scores][:, None],
        np.repeat([1, 0], len(scores)),
        sample_weight=np.r_[weight * share, weight * (1 - share)],
    )
    assert slope == pytest.approx(fitted.coef_[0, 0], rel=1e-3)
    assert intercept == pytest.approx(fitted.intercept_[0], rel=1e-3)


def test_the_fit_stays_finite_where_scores_separate() -> None:
    slope, intercept = fit_logistic([0.1, 0.9], [0, 50], [50, 0])
    assert np.isfinite([slope, intercept]).all()
    assert sigmoid(slope * 0.9 + intercept) == pytest.approx(51 / 52, abs=1e-6)
    x, p = fit_isotonic([0.1, 0.4, 0.5, 0.9], [0, 5, 1, 4], [6, 2, 2, 0])
    assert (np.diff(x) > 0).all()
    assert (np.diff(p) >= 0).all()
    assert (p[0], p[-1]) == (0, 1)
    with pytest.raises(GloamError, match="of one identity and of two"):
        fit_logistic([0.1], [0], [5])


def test_brier_and_calibration_error_against_slow_forms() -> None:
    generator = np.random.default_rng(3)
    p, y = generator.random(500), generator.integers(0, 2, 500)
    w = generator.random(500)
    assert brier_score(p, y) == pytest.approx(brier_score_loss(y, p))
    assert brier_score(p, y, w) == pytest.approx(brier_score_loss(y, p, sample_weight=w))
    total = 0.0
    for number in range(15):
        inside = [i for i in range(500) if number / 15 < p[i] <= (number + 1) / 15]
        if inside:
            weight = sum(w[i] for i in inside)
            total += abs(sum(w[i] * p[i] for i in inside) / weight - sum(w[i] * y[i] for i in inside) / weight) * weight
    assert expected_calibration_error(p, y, w) == pytest.approx(total / w.sum())
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0
    with pytest.raises(GloamError, match="one length"):
        brier_score([0.1], [0, 1])
    with pytest.raises(GloamError, match="between 0 and 1"):
        brier_score([1.1], [1])


def test_few_people_are_told_and_missing_modalities_have_a_reason() -> None:
    vectors, ids, cams, kinds = draw_features(40, 1)
    visible = kinds == Modality.VISIBLE
    found = fit_calibration(*(c[visible] for c in (vectors, ids, cams, kinds)), model=MODEL, resamples=20)
    assert any("40 identities" in warning for warning in found.warnings)
    with pytest.raises(GloamError, match="visible-infrared pairs are uncalibrated: there are no infrared images"):
        found.threshold(1e-1, "visible-infrared")
    one_camera = np.ones_like(cams)
    with pytest.raises(GloamError, match="two cameras"):
        fit_calibration(vectors, ids, one_camera, kinds, model=MODEL)
    assert fit_calibration(vectors, ids, one_camera, kinds, model=MODEL, camera_rule="none", resamples=20).pairs


def test_scores_that_say_nothing_have_no_probability() -> None:
    vectors, ids, cams, kinds = draw_features(40, 1)
    generator = np.random.default_rng(0)
    # Images of one person point away from each other in two cameras.
    direction = generator.standard_normal((40, vectors.shape[1]))
    turned = direction[ids] * np.where(cams % 2, 1, -1)[:, None] + 0.1 * generator.standard_normal(vectors.shape)
    found = fit_calibration(turned, ids, cams, kinds, model=MODEL, resamples=20)
    assert any("no probabilities" in warning for warning in found.warnings)
    with pytest.raises(GloamError, match="say nothing about"):
        found.probability(0.5, "visible-infrared", prior=0.5)
    with pytest.raises(GloamError, match="have the score 1"):
        fit_calibration(np.ones_like(vectors), ids, cams, kinds, model=MODEL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ()}, "False match rates"),
        ({"targets": (0.9,)}, "False match rates"),
        ({"confidence": 1.5}, "confidence"),
        ({"resamples": 3}, "resamples"),
        ({"camera_rule": "other"}, "camera rule"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(GloamError, match=message):
        fit_calibration(*draw_features(10, 1), model=MODEL, **changes)  # type: ignore[arg-type]


def test_arrays_that_do_not_fit_are_refused() -> None:
    vectors, ids, cams, kinds = draw_features(10, 1)
    with pytest.raises(GloamError, match="one of each per image"):
        fit_calibration(vectors, ids[:-1], cams, kinds, model=MODEL)
    with pytest.raises(GloamError, match="1 identities"):
        fit_calibration(vectors, 0 * ids, cams, kinds, model=MODEL)


@pytest.mark.parametrize("most", [200, 50])
def test_too_many_images_are_thinned_evenly_and_told(most: int) -> None:
    features = draw_features(60, 1, images=3)
    found = fit_calibration(*features, model=MODEL, max_images=most, resamples=20, targets=(0.1,))
    assert found.data.images == len(features[0])
    assert most / 2 <= found.data.images_used <= most
    assert found.data.identities == (60 if most == 200 else 25)


def test_files_hold_everything_and_damaged_ones_are_told(calibration: Calibration, tmp_path: Path) -> None:
    file = calibration.save(tmp_path / "calibration.json")
    assert Calibration.load(file) == calibration
    first = file.read_bytes()
    assert fit_calibration(*draw_features(120, 5, visible_cams=2), model=MODEL).save(file).read_bytes() == first
    content = json.loads(first)
    for change, message in (
        ({"format": 2}, "Update gloam"),
        ({"format": "x"}, "no calibration"),
        ({"pairs": 3}, "pairs"),
        ({"extra": 3}, "extra"),
    ):
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises(GloamError, match=message):
            Calibration.load(file)
    file.write_bytes(first[:500])
    with pytest.raises(GloamError, match="damaged"):
        Calibration.load(file)
    with pytest.raises(GloamError, match="gloam calibrate writes it"):
        Calibration.load(tmp_path / "none.json")
    with pytest.raises(GloamError, match="belongs to drawn"):
        calibration.require_model("e" * 64, "another")
    calibration.require_model(MODEL.digest)


def test_tables_say_what_is_refused_and_at_which_prior(calibration: Calibration) -> None:
    from rich.console import Console

    screen = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in calibration_tables(calibration, prior=one_in(1000)):
        screen.print(part)
    shown = screen.export_text()
    assert "one in 1,000" in shown
    assert "needs 100,000 impostor pairs" in shown
    assert "not known whether they were trained on" in shown
    assert "never" in shown or "0." in shown


def test_names_of_pairs() -> None:
    assert pair_name(("infrared", "visible")) == pair_name("infrared-visible") == "visible-infrared"
    for wrong in ("visible", "", ("visible",), ("a", "b")):
        with pytest.raises(GloamError, match="no pair"):
            pair_name(wrong)  # type: ignore[arg-type]


def test_the_benchmark_measures_all_three_fits(truth: Truth) -> None:
    rows = measure(truth, 80, 1, visible_cams=2)
    assert {(row["pair"], row["fit"]) for row in rows} == {
        (p, f) for p in PAIRS for f in ("pair", "pooled", "isotonic")
    }


def test_a_stamp_of_data_is_kept() -> None:
    stamp = DataStamp(name="mine", part="test", identities=0, images=240, images_used=0, disjoint="checked")
    found = fit_calibration(*draw_features(60, 1), model=MODEL, data=stamp, resamples=20, targets=(0.1,))
    assert (found.data.name, found.data.identities, found.data.disjoint) == ("mine", 60, "checked")
