"""The ranking core: worked examples, a sorting oracle on many random sets, and the properties of the protocols."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from gloam.errors import GloamError
from gloam.evaluation.ranking import RankingPlan, rank_features, rank_metrics
from tests.oracles import ranking as oracle

GALLERY_PIDS = [1, 1, 1, 2, 2, 3, 3, 4]
DISTANCES = np.array(
    [
        [0.4, 0.1, 0.6, 0.2, 0.5, 0.3, 0.7, 0.8],
        [0.3, 0.4, 0.5, 0.7, 0.6, 0.1, 0.2, 0.8],
        [0.3, 0.4, 0.7, 0.6, 0.8, 0.5, 0.1, 0.2],
        [0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.5],
    ]
)
SYSU = ([1, 2, 3, 9], [3, 6, 3, 6], [1, 2, 4, 2, 5, 1, 4, 5])
MARKET = ([1, 2, 3, 4], [2, 3, 1, 2], [1, 2, 3, 2, 3, 1, 3, 2])
# (ids and cameras, rule, cmc, ap) -> first hits, CMC, AP, mAP, INP, mINP
EXAMPLES = [
    (SYSU, "sysu", "unique_id", "standard",
     [2, 3, 1, None], "1/3 2/3 1 1 1 1", "1/2 19/84 3/4", "31/63", "1/2 2/7 1/2", "3/7"),
    (MARKET, "same_id_same_cam", "standard", "standard",
     [3, 6, 1, None], "1/3 1/3 2/3 2/3 2/3 1", "11/30 1/6 1", "23/45", "2/5 1/6 1", "47/90"),
    (MARKET, "same_id_same_cam", "unique_id", "standard",
     [3, 3, 1, None], "1/3 1/3 1 1 1 1", "11/30 1/6 1", "23/45", "2/5 1/6 1", "47/90"),
    (MARKET, "none", "standard", "standard",
     [1, 6, 1, 5], "1/2 1/2 1/2 1/2 3/4 1", "2/3 19/84 7/10 1/5", "251/560", "1/2 2/7 2/5 1/5", "97/280"),
    (MARKET, "same_id_same_cam", "standard", "trapezoid",
     [3, 6, 1, None], "1/3 1/3 2/3 2/3 2/3 1", "59/240 1/12 1", "319/720", "2/5 1/6 1", "47/90"),
]  # fmt: skip


def _fractions(text: str) -> list[float]:
    return [float(Fraction(word)) for word in text.split()]


@pytest.mark.parametrize("example", EXAMPLES, ids=["sysu", "market", "llcm", "regdb", "trapezoid"])
def test_worked_examples(example) -> None:
    (pids, cams, gallery_cams), rule, cmc, ap, hits, curve, aps, mean_ap, inps, mean_inp = example
    result = rank_metrics(
        DISTANCES, pids, GALLERY_PIDS, cams, gallery_cams, camera_rule=rule, cmc=cmc, ap=ap, max_rank=6
    )
    assert result.valid.tolist() == [hit is not None for hit in hits]
    assert result.first_hit.tolist() == [hit or 0 for hit in hits]
    np.testing.assert_allclose(result.cmc, _fractions(curve), atol=1e-12)
    np.testing.assert_allclose(result.average_precision[result.valid], _fractions(aps), atol=1e-12)
    np.testing.assert_allclose(result.inverse_negative_penalty[result.valid], _fractions(inps), atol=1e-12)
    assert result.mAP == pytest.approx(float(Fraction(mean_ap)), abs=1e-12)
    assert result.mINP == pytest.approx(float(Fraction(mean_inp)), abs=1e-12)
    assert result.num_valid == sum(hit is not None for hit in hits)


@pytest.mark.parametrize(("ap", "expected"), [("standard", 0.5), ("grouped", 5 / 12)])
def test_ties_are_broken_by_gallery_index_or_grouped(ap: str, expected: float) -> None:
    result = rank_metrics([[0.2, 0.2, 0.2, 0.5]], [1], [0, 1, 0, 1], [0], [1] * 4, ap=ap)
    assert result.first_hit.tolist() == [2]
    assert result.mAP == pytest.approx(expected)
    assert result.mINP == pytest.approx(0.5)


def _random_case(seed: int, dtype: type) -> tuple:
    generator = np.random.default_rng(seed)
    queries, gallery = int(generator.integers(1, 12)), int(generator.integers(1, 60))
    ids = int(generator.integers(1, 8))
    levels = int(generator.choice([3, 10, 1000]))
    distances = (generator.integers(0, levels, (queries, gallery)) / levels).astype(dtype)
    return (
        distances,
        generator.integers(0, ids, queries),
        generator.integers(0, ids, gallery),
        generator.integers(1, 4, queries),
        generator.integers(1, 4, gallery),
    )


@pytest.fixture(params=["compiled", "tensor"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both implementations; the tensor one runs on accelerators, here on the CPU."""
    if request.param == "tensor":
        monkeypatch.setattr("gloam.evaluation.ranking_plan._compiled", lambda distances: False)
    return request.param


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("rule", ["none", "same_id_same_cam", "sysu"])
def test_equals_the_stable_sort(seed: int, rule: str, way: str) -> None:
    case = _random_case(seed, np.float32 if seed % 2 else np.float64)
    if way == "tensor":
        case = (torch.from_numpy(case[0]), *case[1:])
    for cmc, ap in itertools.product(("standard", "unique_id"), ("standard", "grouped", "trapezoid")):
        options = {"camera_rule": rule, "cmc": cmc, "ap": ap, "max_rank": 15}
        results, curve, mean_ap, mean_inp = (
            oracle.rank(*case, **options) if _any_match(case, rule) else (None, None, None, None)
        )
        if results is None:
            with pytest.raises(GloamError, match="No query has a match"):
                rank_metrics(*case, **options)
            continue
        found = rank_metrics(*case, **options)
        assert found.first_hit.tolist() == [r[0] if r else 0 for r in results]
        np.testing.assert_allclose(found.cmc, curve, atol=1e-12)
        assert found.mAP == pytest.approx(mean_ap, abs=1e-9)
        assert found.mINP == pytest.approx(mean_inp, abs=1e-12)


@pytest.mark.parametrize("rule", ["none", "same_id_same_cam"])
@pytest.mark.parametrize("levels", [5, 10**6])
@pytest.mark.parametrize("gallery", [700, 9000])
def test_many_matches_and_long_rows(rule: str, levels: int, gallery: int, way: str) -> None:
    """More matches than are counted one by one, and rows longer than a tile."""
    generator = np.random.default_rng(levels)
    pids = generator.choice([1, 2, 3], size=gallery, p=[0.9, 0.08, 0.02] if gallery < 1000 else [0.98, 0.01, 0.01])
    distances = generator.integers(0, levels, (3, gallery)).astype(np.float32)
    ids = ([1, 2, 3], pids, [0, 1, 2], generator.integers(0, 4, gallery))
    for cmc, ap in itertools.product(("standard", "unique_id"), ("standard", "grouped")):
        options = {"camera_rule": rule, "cmc": cmc, "ap": ap, "max_rank": 20}
        results, *_ = oracle.rank(distances, *ids, **options)
        found = rank_metrics(torch.from_numpy(distances) if way == "tensor" else distances, *ids, **options)
        assert found.first_hit.tolist() == [r[0] for r in results]
        np.testing.assert_allclose(found.average_precision, [r[1] for r in results], atol=1e-9)
        np.testing.assert_allclose(found.inverse_negative_penalty, [r[2] for r in results], atol=1e-12)


def test_infinite_distances_are_ranked_last_in_index_order(way: str) -> None:
    rows = [[np.inf, 0.5, np.inf, np.inf], [np.inf] * 4]
    found = rank_metrics(torch.tensor(rows) if way == "tensor" else rows, [1, 1], [0, 2, 1, 1], [0, 0], [1] * 4)
    assert found.first_hit.tolist() == [3, 3]
    np.testing.assert_allclose(found.inverse_negative_penalty, [0.5, 0.5])


def test_distances_of_any_type_and_layout() -> None:
    ids = (*MARKET[:1], GALLERY_PIDS, *MARKET[1:])
    expected = rank_metrics(DISTANCES, *ids).mAP
    tenths = np.round(10 * DISTANCES).astype(np.int64)
    whole = [tenths, tenths.astype(np.int8), torch.from_numpy(tenths), tenths.tolist()]
    broken = [DISTANCES.astype(np.float16), torch.from_numpy(DISTANCES).half(), np.asfortranarray(DISTANCES)]
    for distances in [*whole, *broken, torch.from_numpy(DISTANCES).T.contiguous().T, DISTANCES.astype(">f4")]:
        assert rank_metrics(distances, *ids).mAP == pytest.approx(expected)
    big = 2**40 + tenths  # float32 could not tell these apart
    assert rank_metrics(big, *ids).mAP == pytest.approx(expected)
    frozen = DISTANCES.copy()
    frozen.flags.writeable = False
    assert rank_metrics(frozen, *[np.asarray(i, dtype=np.int16) for i in ids]).mAP == pytest.approx(expected)


def test_a_plan_ranks_some_columns_of_a_block(way: str) -> None:
    generator = np.random.default_rng(0)
    block = generator.integers(0, 30, (10, 80)).astype(np.float32)
    pids, cams = generator.integers(0, 6, 90), generator.integers(1, 5, 90)
    columns = generator.permutation(80)[:50]
    for rule in ("none", "same_id_same_cam", "sysu"):
        ids = (pids[:10], pids[10:][columns], cams[:10], cams[10:][columns])
        expected = rank_metrics(block[:, columns], *ids, camera_rule=rule, cmc="unique_id")
        plan = RankingPlan(*ids, camera_rule=rule, cmc="unique_id", columns=columns)
        plan.rank_block(torch.from_numpy(block[:4]), 0)
        plan.rank_block(torch.from_numpy(block[4:]), 4)
        found = plan.metrics(20)
        assert found.first_hit.tolist() == expected.first_hit.tolist()
        np.testing.assert_allclose(found.average_precision, expected.average_precision, atol=1e-12)


def test_a_plan_knows_what_a_query_sees() -> None:
    plan = RankingPlan(SYSU[0], GALLERY_PIDS, *SYSU[1:], camera_rule="sysu")
    assert plan.visible_to(0).tolist() == [True, False, True, False, True, True, True, True]
    assert plan.visible_to(1).all()
    plan = RankingPlan(MARKET[0], GALLERY_PIDS, *MARKET[1:], camera_rule="same_id_same_cam")
    assert np.flatnonzero(~plan.visible_to(0)).tolist() == [1]


def _any_match(case: tuple, rule: str) -> bool:
    _, query_pids, gallery_pids, query_cams, gallery_cams = case
    return any(
        gallery_pids[j] == query_pids[i]
        and not oracle._removed(rule, query_pids[i], query_cams[i], gallery_pids[j], gallery_cams[j])
        for i in range(len(query_pids))
        for j in range(len(gallery_pids))
    )


def _features(seed: int = 0, queries: int = 40, gallery: int = 120, width: int = 16) -> tuple:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((15, width))
    query_pids, gallery_pids = generator.integers(0, 15, queries), generator.integers(0, 15, gallery)
    noise = 1.5 * generator.standard_normal((queries + gallery, width))
    features = (centres[np.concatenate([query_pids, gallery_pids])] + noise).astype(np.float32)
    cams = generator.integers(0, 3, queries + gallery)
    return features[:queries], features[queries:], query_pids, gallery_pids, cams[:queries], cams[queries:]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block_bytes", [4 * 120, 4 * 120 * 7, 2**26])
def test_features_in_blocks_equal_distances(
    metric: str, block_bytes: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gloam.search.distances.BLOCK_BYTES", block_bytes)
    query, gallery, *ids = _features()
    q, g = torch.from_numpy(query).double(), torch.from_numpy(gallery).double()
    if metric == "cosine":
        distances = -torch.nn.functional.normalize(q) @ torch.nn.functional.normalize(g).T
    else:
        distances = torch.cdist(q, g)
    expected = rank_metrics(distances, *ids, camera_rule="same_id_same_cam")
    for inputs in ((query, gallery), (torch.from_numpy(query), torch.from_numpy(gallery))):
        found = rank_features(*inputs, *ids, metric=metric, camera_rule="same_id_same_cam")
        np.testing.assert_allclose(found.average_precision, expected.average_precision, atol=1e-6)
        assert found.first_hit.tolist() == expected.first_hit.tolist()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_features_of_other_types(metric: str) -> None:
    query, gallery, *ids = _features()
    expected = rank_features(query, gallery, *ids, metric=metric)
    gallery.flags.writeable = False  # as a read-only memory map
    for inputs in (
        (query.astype(np.float64), gallery),
        (query, torch.from_numpy(gallery.copy()).requires_grad_()),
        (torch.from_numpy(query).double(), gallery.astype(np.float64)),
    ):
        found = rank_features(*inputs, *ids, metric=metric)
        np.testing.assert_allclose(found.average_precision, expected.average_precision, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = rank_features(query, gallery, *ids, metric=metric)
    np.testing.assert_array_equal(found.average_precision, expected.average_precision)


def test_a_zero_feature_has_cosine_distance_zero_to_everything() -> None:
    gallery = np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]], dtype=np.float32)
    found = rank_features(np.array([[2.0, 0.0], [0.0, 0.0]]), gallery, [2, 3], [1, 2, 3], [0, 0], [1, 1, 1])
    assert found.first_hit.tolist() == [2, 3]


def test_wrong_features_are_named() -> None:
    query, gallery, *ids = _features()
    with pytest.raises(GloamError, match="39 query features, but 40 query ids"):
        rank_features(query[:39], gallery, *ids)
    with pytest.raises(GloamError, match="119 gallery features"):
        rank_features(query, gallery[1:], *ids)
    with pytest.raises(GloamError, match="one model"):
        rank_features(query[:, :3], gallery, *ids)
    with pytest.raises(GloamError, match="shape"):
        rank_features(query[0], gallery, *ids)
    with pytest.raises(GloamError, match="euclidean"):
        rank_features(query, gallery, *ids, metric="euclid")
    gallery[5] = np.nan
    with pytest.raises(GloamError, match="NaN"):
        rank_features(query, gallery, *ids)


def test_metrics_ignore_monotone_changes_gallery_order_and_far_strangers() -> None:
    generator = np.random.default_rng(3)
    distances, *ids = _random_case(1, np.float64)
    distances = generator.permutation(distances.size).reshape(distances.shape).astype(np.float64)
    query_pids, gallery_pids, query_cams, gallery_cams = ids
    base = rank_metrics(distances, *ids)
    assert rank_metrics(2 * distances + 5, *ids).mAP == pytest.approx(base.mAP)
    order = generator.permutation(distances.shape[1])
    shuffled = rank_metrics(distances[:, order], query_pids, gallery_pids[order], query_cams, gallery_cams[order])
    assert shuffled.mAP == pytest.approx(base.mAP)
    np.testing.assert_allclose(shuffled.cmc, base.cmc)
    longer = np.hstack([distances, np.full((len(distances), 1), 1e9)])
    stranger = rank_metrics(longer, query_pids, [*gallery_pids, 99], query_cams, [*gallery_cams, 1])
    assert stranger.mAP == pytest.approx(base.mAP)
    assert (np.diff(base.cmc) >= 0).all()
    unique = rank_metrics(distances, *ids, cmc="unique_id")
    assert (unique.cmc >= base.cmc - 1e-12).all()


def test_one_gallery_image_that_matches_gives_ones_beyond_the_end_of_the_list() -> None:
    result = rank_metrics([[0.3]], [5], [5], [0], [1], max_rank=20)
    assert result.cmc.tolist() == [1.0] * 20
    assert (result.mAP, result.mINP) == (1, 1)


def test_inverse_negative_penalty_may_exceed_average_precision() -> None:
    distances = np.arange(101.0)[None]
    pids = [0] * 99 + [1, 1]
    result = rank_metrics(distances, [1], pids, [0], [1] * 101)
    assert result.mINP == pytest.approx(0.0198, abs=1e-4)
    assert result.mAP == pytest.approx(0.0149, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[np.nan, 1.0]], [1], [1, 2], [0], [1, 1]), "NaN"),
        (([[0.5, np.nan]], [1], [1, 2], [0], [1, 1]), "NaN"),
        (([[0.5, np.nan]], [7], [1, 2], [0], [1, 1]), "NaN"),
        (([[0.5, 0.6]], [7], [1, 2], [0], [1, 1]), "share no id"),
        (([[0.5]], [1], [1, 2], [0], [1, 1]), "shape"),
        (([[0.5, 0.6]], [1], [1, 2], [0, 0], [1, 1]), "cameras"),
        ((np.zeros((1, 0)), [1], [], [0], []), "Nothing to rank"),
        (([[0.5]], ["a"], ["a"], [0], [1]), "integers"),
    ],
)
def test_bad_input_is_named(arguments: tuple, message: str, way: str) -> None:
    if way == "tensor":
        arguments = (torch.as_tensor(np.asarray(arguments[0])), *arguments[1:])
    with pytest.raises(GloamError, match=message):
        rank_metrics(*arguments)


def test_one_camera_data_say_which_rule_to_use() -> None:
    with pytest.raises(GloamError, match="one-camera data"):
        rank_metrics([[0.1, 0.2]], [1], [1, 2], [4], [4, 4], camera_rule="same_id_same_cam")


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(GloamError, match="unique_id"):
        rank_metrics([[0.1]], [1], [1], [0], [1], cmc="unique")


def test_metrics_print_and_write(tmp_path) -> None:
    result = rank_metrics(DISTANCES, *(MARKET[0], GALLERY_PIDS, *MARKET[1:]), camera_rule="same_id_same_cam")
    assert "mAP 51.11" in str(result)
    result.to_json(tmp_path / "metrics.json")
    result.to_csv(tmp_path / "metrics.csv")
    assert "rank1" in (tmp_path / "metrics.json").read_text()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2
