"""Every numeric function takes any array that means numbers, and says what to do about everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from gloam.clustering.infomap_clusters import cluster_by_infomap
from gloam.clustering.jaccard import jaccard_distance, near_pairs
from gloam.clustering.pseudo_labels import cluster, dbscan
from gloam.errors import GloamError
from gloam.evaluation.ranking import rank_features, rank_metrics
from gloam.evaluation.rerank import k_reciprocal, rerank_blocks
from gloam.search.nearest import nearest
from gloam.search.neighbours import nearest_neighbours
from tests.oracles.jaccard import neighbours_dense


def _unit(seed: int, rows: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((rows, 4))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


QUERY, GALLERY = _unit(0, 5), _unit(1, 9)
IDS = {
    "query_pids": np.arange(5) % 3,
    "gallery_pids": np.arange(9) % 3,
    "query_cams": np.zeros(5, dtype=np.int64),
    "gallery_cams": np.ones(9, dtype=np.int64),
}


def _table(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a[:, None] - b[None], axis=2)


@dataclass(frozen=True)
class Door:
    """A function with arguments that it takes, and what each of them is."""

    call: Callable[..., Any]
    arguments: dict[str, Any]
    matrices: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def _listed(call: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
    return lambda **options: list(call(**options))


RANK = {"ids": tuple(IDS), "counts": ("max_rank",), "words": ("camera_rule", "cmc", "ap")}
RULES = {"max_rank": 5, "camera_rule": "same_id_same_cam", "cmc": "standard", "ap": "standard"}
DOORS = {
    "rank_metrics": Door(rank_metrics, {"distances": _table(QUERY, GALLERY), **IDS, **RULES}, ("distances",), **RANK),
    "rank_features": Door(
        rank_features,
        {"query_features": QUERY, "gallery_features": GALLERY, **IDS, **RULES},
        ("query_features", "gallery_features"),
        **RANK,
    ),
    "k_reciprocal": Door(
        k_reciprocal,
        {
            "query_gallery": _table(QUERY, GALLERY),
            "query_query": _table(QUERY, QUERY),
            "gallery_gallery": _table(GALLERY, GALLERY),
            "k1": 4,
            "k2": 2,
            "weight": 0.3,
        },
        ("query_gallery", "query_query", "gallery_gallery"),
        counts=("k1", "k2"),
        shares=("weight",),
    ),
    "rerank_blocks": Door(
        _listed(rerank_blocks),
        {"query_features": QUERY, "gallery_features": GALLERY, "k1": 4, "k2": 2, "weight": 0.3, "metric": "cosine"},
        ("query_features", "gallery_features"),
        counts=("k1", "k2"),
        shares=("weight",),
        words=("metric",),
    ),
    "jaccard_distance": Door(
        jaccard_distance, {"features": GALLERY, "k1": 4, "k2": 2}, ("features",), counts=("k1", "k2")
    ),
    "near_pairs": Door(
        near_pairs,
        {"features": GALLERY, "limit": 0.5, "k1": 4, "k2": 2},
        ("features",),
        counts=("k1", "k2"),
        shares=("limit",),
    ),
    "cluster": Door(
        cluster,
        {"features": GALLERY, "eps": 0.5, "min_samples": 2, "k1": 4, "k2": 2},
        ("features",),
        counts=("k1", "k2", "min_samples"),
        shares=("eps",),
    ),
    "dbscan": Door(
        partial(dbscan, csr_array(np.eye(4, dtype=np.float32))),
        {"eps": 0.5, "min_samples": 1},
        counts=("min_samples",),
        shares=("eps",),
    ),
    "nearest_neighbours": Door(nearest_neighbours, {"features": GALLERY, "k": 3}, ("features",), counts=("k",)),
    "nearest": Door(
        nearest,
        {"query": QUERY, "gallery": GALLERY, "top": 3, "metric": "cosine"},
        ("query", "gallery"),
        counts=("top",),
        words=("metric",),
    ),
    "cluster_by_infomap": Door(cluster_by_infomap, {"features": GALLERY, "k": 3}, ("features",), counts=("k",)),
}


def _every(kind: str) -> list[Any]:
    return [pytest.param(door, name, id=f"{key}-{name}") for key, door in DOORS.items() for name in getattr(door, kind)]


def _values(result: Any) -> list[np.ndarray]:
    """Numbers of any result, to compare."""
    if hasattr(result, "average_precision"):
        return [result.first_hit, result.average_precision]
    if isinstance(result, csr_array):
        return [result.toarray()]
    if isinstance(result, tuple | list):
        return [array for part in result for array in _values(part)]
    return [np.asarray(result)]


def _same(found: Any, expected: Any) -> None:
    for one, other in zip(_values(found), _values(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("door", "name"), _every("matrices"))
def test_numbers_in_any_form_give_the_same(door: Door, name: str) -> None:
    plain = door.arguments[name].astype(np.float32)
    expected = door.call(**door.arguments | {name: plain})
    frozen = plain.copy()
    frozen.flags.writeable = False
    forms = {
        "list": plain.tolist(),
        "objects": plain.astype(object),
        "long double": plain.astype(np.longdouble),
        "big-endian": plain.astype(">f4"),
        "big-endian double": plain.astype(">f8"),
        "negative strides": np.ascontiguousarray(plain[::-1, ::-1])[::-1, ::-1],
        "Fortran order": np.asfortranarray(plain),
        "every other column": np.repeat(plain, 2, axis=1)[:, ::2],
        "read-only": frozen,
        "double": plain.astype(np.float64),
        "tensor": torch.from_numpy(plain),
        "transposed tensor": torch.from_numpy(plain).T.contiguous().T,
        "tensor with gradient": torch.from_numpy(plain).requires_grad_(),
        "double tensor": torch.from_numpy(plain).double(),
    }
    for form in forms.values():
        _same(door.call(**door.arguments | {name: form}), expected)


@pytest.mark.parametrize(("door", "name"), _every("matrices"))
def test_whole_numbers_and_halves_are_numbers(door: Door, name: str) -> None:
    plain = door.arguments[name]
    signs = np.zeros(plain.shape)
    signs[np.arange(len(plain)), np.arange(len(plain)) % plain.shape[1]] = 1
    expected = door.call(**door.arguments | {name: signs})
    for form in (bool, np.int8, np.uint16, np.int64, np.float16, np.uint64):
        _same(door.call(**door.arguments | {name: signs.astype(form)}), expected)
    for form in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.uint16):
        _same(door.call(**door.arguments | {name: torch.from_numpy(signs).to(form)}), expected)


VERY_LONG = pytest.param(-(10**5000), id="very long")  # Python refuses to print it
HOSTILE_MATRICES = {
    "nothing": None,
    "a number": 3.0,
    "text": "features",
    "a vector": np.ones(4),
    "a cube": np.ones((2, 2, 2)),
    "no rows": np.zeros((0, 4)),
    "no columns": np.zeros((5, 0)),
    "rows of text": np.array([["a", "b"], ["c", "d"]]),
    "bytes": np.array([[b"a"]]),
    "objects": np.array([[object(), 1], [2, 3]], dtype=object),
    "nothing inside": np.array([[None, 1.0]], dtype=object),
    "huge objects": np.array([[10**400, 1.0]], dtype=object),
    "ragged": [[1.0, 2.0], [3.0]],
    "complex": np.ones((5, 4)) * 1j,
    "complex tensor": torch.ones(5, 4, dtype=torch.complex64),
    "dates": np.zeros((5, 4), dtype="M8[s]"),
    "masked": np.ma.masked_array(np.ones((5, 4)), mask=np.eye(5, 4, dtype=bool)),
    "sparse tensor": torch.eye(5).to_sparse(),
    "meta tensor": torch.ones(5, 4, device="meta"),
    "sparse array": csr_array(np.eye(5)),
    "records": np.zeros(5, dtype=[("a", "f4"), ("b", "f4")]),
    "a set": {1, 2},
    "a generator": (x for x in ()),
}


@pytest.mark.parametrize("what", HOSTILE_MATRICES)
@pytest.mark.parametrize(("door", "name"), _every("matrices"))
def test_what_is_no_matrix_is_explained(door: Door, name: str, what: str) -> None:
    hostile = HOSTILE_MATRICES[what]
    if what == "no rows" and name == "query":
        assert len(door.call(**door.arguments | {name: hostile})[0]) == 0
        return
    with pytest.raises(GloamError):
        door.call(**door.arguments | {name: hostile})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("door", "name"), _every("matrices"))
def test_numbers_that_are_none_are_explained(door: Door, name: str, value: float) -> None:
    for kind in (np.float32, np.float64):
        broken = door.arguments[name].astype(kind)
        broken[2, 1] = value
        if door.call is rank_metrics and not np.isnan(value):
            door.call(**door.arguments | {name: broken})  # an infinite distance is first or last
            continue
        with pytest.raises(GloamError, match="NaN"):
            door.call(**door.arguments | {name: broken})
    if name.endswith("features") and door.call is not cluster_by_infomap:
        with pytest.raises(GloamError, match="row 2 "):
            door.call(**door.arguments | {name: broken})


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, 3.0, np.nan, np.inf, True, np.True_, None, "3", [3], np.ones(2), 1j, VERY_LONG, object()]
)
@pytest.mark.parametrize(("door", "name"), _every("counts"))
def test_what_is_no_count_is_explained(door: Door, name: str, value: Any) -> None:
    with pytest.raises(GloamError, match=name):
        door.call(**door.arguments | {name: value})


@pytest.mark.parametrize(("door", "name"), _every("counts"))
def test_counts_of_any_integer_type(door: Door, name: str) -> None:
    expected = door.call(**door.arguments | {name: 2})
    for value in (np.int8(2), np.uint64(2), np.array(2), torch.tensor(2)):
        _same(door.call(**door.arguments | {name: value}), expected)


@pytest.mark.parametrize(("door", "name"), _every("counts"))
def test_counts_beyond_everything_are_clamped_or_explained(door: Door, name: str) -> None:
    for value in (1000, 10**30, 10**400, 10**5000):
        try:
            door.call(**door.arguments | {name: value})
        except GloamError as error:
            assert name in str(error)  # noqa: PT017 (either is right)


@pytest.mark.parametrize(
    "value", [-0.1, np.nan, np.inf, -np.inf, True, None, "0.5", [0.5, 0.5], 1j, object(), VERY_LONG]
)
@pytest.mark.parametrize(("door", "name"), _every("shares"))
def test_what_is_no_share_is_explained(door: Door, name: str, value: Any) -> None:
    if door.arguments.keys() == {"eps", "min_samples"} and value == -0.1:
        assert (door.call(**door.arguments | {name: value}) == -1).all()  # nothing is that near
        return
    with pytest.raises(GloamError):
        door.call(**door.arguments | {name: value})


@pytest.mark.parametrize(("door", "name"), _every("shares"))
def test_shares_of_any_number_type(door: Door, name: str) -> None:
    expected = door.call(**door.arguments | {name: 0.5})
    for value in (np.float16(0.5), np.float64(0.5), torch.tensor(0.5), Fraction(1, 2), np.longdouble(0.5)):
        _same(door.call(**door.arguments | {name: value}), expected)


@pytest.mark.parametrize("value", [None, 3, "", "cosinus", ["cosine"], b"cosine", True, {}])
@pytest.mark.parametrize(("door", "name"), _every("words"))
def test_what_is_no_known_word_is_explained(door: Door, name: str, value: Any) -> None:
    with pytest.raises(GloamError, match=name):
        door.call(**door.arguments | {name: value})


@pytest.mark.parametrize(("door", "name"), _every("ids"))
def test_ids_in_any_form_give_the_same(door: Door, name: str) -> None:
    plain = door.arguments[name]
    expected = door.call(**door.arguments)
    forms = (
        plain.tolist(),
        tuple(plain.tolist()),
        plain.astype(object),
        plain.astype(np.uint8),
        plain.astype(">i8"),
        plain.astype(np.uint64),
        plain[::-1].copy()[::-1],
        torch.from_numpy(plain),
        torch.from_numpy(plain).to(torch.uint8),
    )
    for form in forms:
        _same(door.call(**door.arguments | {name: form}), expected)


@pytest.mark.parametrize(
    "hostile",
    [
        None,
        7,
        "ids",
        [0.5] * 5,
        ["a"] * 5,
        [None] * 5,
        [1, "a", 2, 3, 4],
        [2**63] * 9,
        [10**30] * 9,
        [-(2**63) - 1] * 9,
        [10**5000] * 9,
        np.full(9, 2**63, dtype=np.uint64),
        np.zeros((5, 1), dtype=int),
        [[1], [2, 3]],
        np.zeros(3, dtype=int),
        np.zeros(0, dtype=int),
        torch.ones(5),
        torch.ones(5, dtype=torch.bfloat16),
        torch.ones(5, dtype=torch.int64, device="meta"),
        np.zeros(5, dtype="M8[s]"),
        [1j] * 5,
    ],
)
@pytest.mark.parametrize(("door", "name"), _every("ids"))
def test_what_are_no_ids_is_explained(door: Door, name: str, hostile: Any) -> None:
    with pytest.raises(GloamError):
        door.call(**door.arguments | {name: hostile})


@pytest.mark.parametrize("largest", [2**63 - 1, -(2**63)])
def test_ids_at_the_ends_of_64_bits(largest: int) -> None:
    door = DOORS["rank_features"]
    ids = {name: np.where(door.arguments[name] == 2, largest, door.arguments[name]) for name in door.ids}
    _same(door.call(**door.arguments | ids), door.call(**door.arguments))


@pytest.mark.parametrize("call", [rank_metrics, rank_features])
def test_a_camera_rule_may_leave_a_query_no_gallery(call: Callable[..., Any]) -> None:
    first = [_table(QUERY, GALLERY)] if call is rank_metrics else [QUERY, GALLERY]
    cams = np.full(9, 2)
    found = call(*first, IDS["query_pids"], IDS["gallery_pids"], [3, 3, 1, 1, 3], cams, camera_rule="sysu")
    assert found.valid.tolist() == [False, False, True, True, False]
    with pytest.raises(GloamError, match="removes all"):
        call(*first, IDS["query_pids"], IDS["gallery_pids"], [3] * 5, cams, camera_rule="sysu")


@pytest.mark.parametrize("scale", [1e25, 1e-25, 2.0**120, 1e-40])
def test_cosine_does_not_depend_on_the_scale(scale: float) -> None:
    rows = np.random.default_rng(3).standard_normal((60, 8))
    pids = np.arange(60) % 7
    labels = (pids[:20], pids[20:], np.zeros(20, int), np.ones(40, int))
    query, gallery = rows[:20].astype(np.float32), rows[20:].astype(np.float32)
    expected = rank_features(query, gallery, *labels)
    again = list(rerank_blocks(query, gallery, k1=5, k2=2))
    close = nearest(query, gallery, 5)
    for kind in (np.float32, np.float64):
        # Powers of two change no digit; others round once more, and 1e-40 has few digits in float32.
        large, small = (part.astype(np.float64) * scale for part in (query, gallery))
        sides = (large.astype(kind), small.astype(kind))
        tolerance = 1e-3 if scale < 1e-38 and kind == np.float32 else 1e-5
        for one, two in (sides, (sides[0], gallery), (query, sides[1])):
            found = rank_features(one, two, *labels)
            assert abs(found.mAP - expected.mAP) < tolerance
            np.testing.assert_allclose(nearest(one, two, 5)[1], close[1], atol=tolerance)
            blocks = list(rerank_blocks(one, two, k1=5, k2=2))
            np.testing.assert_allclose(blocks[0][1], again[0][1], atol=10 * tolerance)
        if scale == 2.0**120:
            _same(rank_features(*sides, *labels), expected)


@pytest.mark.parametrize("scale", [1e18, 1e25, 1e-18, 1e-25])
def test_euclidean_ranks_do_not_depend_on_the_scale(scale: float) -> None:
    rows = np.random.default_rng(3).standard_normal((60, 8))
    labels = (np.arange(20) % 7, np.arange(40) % 7, np.zeros(20, int), np.ones(40, int))
    query, gallery = rows[:20].astype(np.float32), rows[20:].astype(np.float32)
    expected = rank_features(query, gallery, *labels, metric="euclidean")
    close = nearest(query, gallery, 5, metric="euclidean")
    large = [(part.astype(np.float64) * scale).astype(np.float32) for part in (query, gallery)]
    _same(rank_features(*large, *labels, metric="euclidean"), expected)
    found = nearest(*large, 5, metric="euclidean")
    assert found[0].tolist() == close[0].tolist()
    np.testing.assert_allclose(found[1] / scale, close[1], rtol=1e-5)
    tables = [_table(a, b) for a, b in ((query, gallery), (query, query), (gallery, gallery))]
    scaled = [(table.astype(np.float64) * scale).astype(np.float32) for table in tables]
    np.testing.assert_allclose(k_reciprocal(*scaled, k1=5, k2=2), k_reciprocal(*tables, k1=5, k2=2), atol=1e-5)


def test_distances_beyond_float32_are_never_returned() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 8))
    order = neighbours_dense(rows.astype(np.float32), 4)
    small, squared = nearest_neighbours(rows * 1e-18, 4)
    assert small.tolist() == order.tolist()
    assert np.isfinite(squared).all()
    with pytest.raises(GloamError, match="exceed float32"):
        nearest_neighbours(rows * 1e25, 4)
    lone = rows.copy()
    lone[3] *= 1e30
    with pytest.raises(GloamError, match="exceed float32"):
        nearest_neighbours(lone, 4)
    for call in (jaccard_distance, partial(cluster, eps=0.5)):
        for broken in (rows * 1e25, lone, rows * 1e19):
            with pytest.raises(GloamError, match="length 1"):
                call(broken)
    with pytest.raises(GloamError, match="more than float32 holds"):
        nearest(rows * 1e200, rows, 3, metric="euclidean")
    assert nearest(rows * 1e200, rows * 1e-200, 3)[0].tolist() == nearest(rows, rows, 3)[0].tolist()


def test_squares_below_zero_are_rounding_or_a_mistake() -> None:
    tables = [_table(a, b) ** 2 for a, b in ((QUERY, GALLERY), (QUERY, QUERY), (GALLERY, GALLERY))]
    expected = k_reciprocal(*tables, k1=4, k2=2, input_is_squared=True)
    rounded = [table - 1e-7 * (table == 0) for table in tables]
    np.testing.assert_allclose(k_reciprocal(*rounded, k1=4, k2=2, input_is_squared=True), expected, atol=1e-5)
    with pytest.raises(GloamError, match="cannot be negative"):
        k_reciprocal(-tables[0], *tables[1:], k1=4, k2=2, input_is_squared=True)
