"""Ranking and re-ranking of any distances are those of sorting and of the dense definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gloam.errors import GloamError
from gloam.evaluation.ranking import rank_features, rank_metrics
from gloam.evaluation.rerank import k_reciprocal
from tests.oracles import ranking as ranking_oracle
from tests.oracles import reranking as reranking_oracle

EXAMPLES = settings(max_examples=50, derandomize=True, deadline=None, database=None)
KIND = st.sampled_from([np.float32, np.float64, np.int16])


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
    """Distances with many ties, ids and cameras, and rules."""
    queries, gallery = draw(st.integers(1, 6)), draw(st.integers(1, 30))
    levels = draw(st.sampled_from([1, 4, 1000]))
    distances = draw(arrays(np.int16, (queries, gallery), elements=st.integers(-levels, levels)))
    ids = {
        f"{side}_{what}": draw(arrays(np.int64, size, elements=st.integers(1, limit)))
        for side, size in (("query", queries), ("gallery", gallery))
        for what, limit in (("pids", draw(st.integers(1, 5))), ("cams", 4))
    }
    rules = {
        "camera_rule": draw(st.sampled_from(["none", "same_id_same_cam", "sysu"])),
        "cmc": draw(st.sampled_from(["standard", "unique_id"])),
        "ap": draw(st.sampled_from(["standard", "grouped", "trapezoid"])),
    }
    return distances.astype(draw(KIND)), ids, rules


@pytest.mark.parametrize("way", ["compiled", "tensor"])
def test_metrics_are_those_of_sorting(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "tensor":  # the way of accelerators, here on the CPU
        monkeypatch.setattr("gloam.evaluation.ranking_plan._compiled", lambda distances: False)

    @EXAMPLES
    @given(rankings())
    def check(case: tuple[np.ndarray, dict[str, Any], dict[str, Any]]) -> None:
        distances, ids, rules = case
        given_ = torch.from_numpy(distances) if way == "tensor" else distances
        visible = [
            q == g and not ranking_oracle._removed(rules["camera_rule"], q, c, g, d)
            for q, c in zip(ids["query_pids"], ids["query_cams"], strict=True)
            for g, d in zip(ids["gallery_pids"], ids["gallery_cams"], strict=True)
        ]
        if not any(visible):
            with pytest.raises(GloamError, match="No query has a match"):
                rank_metrics(given_, **ids, **rules)
            return
        results, curve, mean_ap, mean_inp = ranking_oracle.rank(distances, **ids, **rules, max_rank=12)
        found = rank_metrics(given_, **ids, **rules, max_rank=12)
        assert found.first_hit.tolist() == [r[0] if r else 0 for r in results]
        np.testing.assert_allclose(found.cmc, curve, atol=1e-12)
        assert found.mAP == pytest.approx(mean_ap, abs=1e-9)
        assert found.mINP == pytest.approx(mean_inp, abs=1e-12)

    check()


@EXAMPLES
@given(rankings(), st.integers(-40, 40))
def test_features_rank_as_their_distances_at_any_scale(
    case: tuple[np.ndarray, dict[str, Any], dict[str, Any]], power: int
) -> None:
    distances, ids, rules = case
    # On a line: the distance of a query at 0 to a gallery entry at x is |x|; other queries see the same gallery.
    query = np.zeros((len(distances), 1))
    gallery = distances[:1].T.astype(np.float64)
    table = np.repeat(np.abs(distances[:1]).astype(np.float64), len(distances), axis=0)
    try:
        expected = rank_metrics(table, **ids, **rules)
    except GloamError:
        return
    found = rank_features(np.ldexp(query, power), np.ldexp(gallery, power), **ids, **rules, metric="euclidean")
    assert found.first_hit.tolist() == expected.first_hit.tolist()
    np.testing.assert_allclose(found.average_precision, expected.average_precision, atol=1e-12)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole distances: ties are ties in float32 and float64, and neighbours the same."""
    queries, gallery = draw(st.integers(1, 8)), draw(st.integers(1, 20))
    count = queries + gallery
    largest = draw(st.sampled_from([3, 40, 2000]))
    whole = draw(arrays(np.int64, (count, count), elements=st.integers(1, largest)))
    whole = np.minimum(whole, whole.T)
    np.fill_diagonal(whole, 0)
    return whole[:queries, queries:], whole[:queries, :queries], whole[queries:, queries:]


@EXAMPLES
@given(
    tables(), st.integers(1, 12), st.integers(1, 8), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([1e-25, 1, 1e25])
)
def test_reranking_is_that_of_the_dense_definition(
    distances: tuple[np.ndarray, np.ndarray, np.ndarray], k1: int, k2: int, weight: float, scale: float
) -> None:
    expected = reranking_oracle.k_reciprocal(*distances, k1=k1, k2=k2, weight=weight)
    found = k_reciprocal(*(scale * part for part in distances), k1=k1, k2=k2, weight=weight)
    np.testing.assert_allclose(found, expected, atol=3e-6)
