"""What is asked of features: search, scores, re-ranking, clusters and figures, against slow forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gloam
from gloam.datasets.records import DatasetSplits, Modality, Protocol
from gloam.errors import GloamError
from gloam.evaluation.ranking import rank_features
from gloam.evaluation.rerank import k_reciprocal
from gloam.inference.features import Features

PEOPLE, SHOTS = 6, 5


def people(seed: int, shots: int = SHOTS, **options: object) -> Features:
    """Noisy copies of the same people; the seed draws the noise."""
    centres = np.random.default_rng(99).standard_normal((PEOPLE, 16))
    generator = np.random.default_rng(seed)
    pids = np.repeat(np.arange(PEOPLE), shots)
    vectors = centres[pids] + 0.7 * generator.standard_normal((len(pids), 16))
    cams = generator.integers(1, 4, len(pids))
    names = [f"{seed}/{number}.png" for number in range(len(pids))]
    return Features.of_arrays(vectors, normalise=True, pid=pids, cam=cams, path=names, model="drawn", **options)  # type: ignore[arg-type]


def test_search_equals_sorting_everything() -> None:
    query, gallery = people(1), people(2, shots=8)
    matches = gloam.search(query, gallery, top=7)
    similarity = query.numpy().astype(np.float64) @ gallery.numpy().astype(np.float64).T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(matches.rows, order)
    np.testing.assert_allclose(matches.scores, np.take_along_axis(similarity, order, axis=1), atol=1e-6)
    table = matches.of(3)
    assert table["path"].tolist() == gallery.columns["path"].iloc[order[3]].tolist()
    assert table["rank"].tolist() == list(range(1, 8))
    frame = matches.to_frame()
    assert len(frame) == len(query) * 7
    assert frame["query_path"].iloc[7] == "1/1.png"


@pytest.mark.parametrize(
    ("rule", "hidden"),
    [
        ("itself", lambda q, g: q.path == g.path),
        ("same_camera", lambda q, g: q.cam == g.cam),
        ("same_id_same_camera", lambda q, g: q.pid == g.pid and q.cam == g.cam),
    ],
)
def test_rules_hide_rows(rule: str, hidden: object) -> None:
    features = people(1)
    matches = gloam.search(features, features, top=len(features), exclude=rule)
    rows = list(features.columns.itertuples())
    for number, query in enumerate(rows):
        visible = {place for place, entry in enumerate(rows) if not hidden(query, entry)}  # type: ignore[operator]
        found = matches.rows[number]
        assert set(found[found >= 0].tolist()) == visible
        assert np.isinf(matches.distances[number][found < 0]).all()
        assert len(matches.of(number)) == len(visible)


def test_a_rule_of_your_own() -> None:
    query, gallery = people(1), people(2)

    def only_even(first: int, stop: int) -> np.ndarray:
        return np.tile(np.arange(len(gallery)) % 2 == 1, (stop - first, 1))

    assert (gloam.search(query, gallery, top=3, exclude=only_even).rows % 2 == 0).all()
    with pytest.raises(GloamError, match="'same_camera'"):
        gloam.search(query, gallery, exclude="same_cam")


def test_reranking_equals_the_matrix_form() -> None:
    query, gallery = people(1, shots=2), people(2)

    def distance(a: Features, b: Features) -> np.ndarray:
        return np.sqrt(np.maximum(2 - 2 * a.numpy() @ b.numpy().T, 0))

    expected = k_reciprocal(
        distance(query, gallery), distance(query, query), distance(gallery, gallery), k1=6, k2=2, weight=0.3
    )
    matches = gloam.rerank(query, gallery, top=5, k1=6, k2=2)
    np.testing.assert_allclose(matches.distances, np.sort(expected, axis=1)[:, :5], atol=1e-4)
    assert matches.reranked
    hidden = gloam.rerank(query, gallery, top=len(gallery), k1=6, k2=2, exclude="same_camera")
    for number, rows in enumerate(hidden.rows):
        assert query.columns["cam"].iloc[number] not in set(gallery.columns["cam"].iloc[rows[rows >= 0]])


def test_scores_are_those_of_the_evaluator() -> None:
    query, gallery = people(1), people(2)
    columns = [side.columns[name].to_numpy() for name in ("pid", "cam") for side in (query, gallery)]
    expected = rank_features(query.vectors, gallery.vectors, *columns, camera_rule="same_id_same_cam")
    found = gloam.evaluate(query, gallery).mean("own/all")
    assert found["mAP"] == pytest.approx(expected.mAP)
    assert found["rank1"] == pytest.approx(expected.cmc[0])
    strict = Protocol("own/none", camera_rule="none")
    assert set(gloam.evaluate(query, gallery, [strict, Protocol("own/all")]).trials) == {"own/none", "own/all"}
    assert gloam.evaluate(query, gallery, strict, rerank=True).notes["re-ranking"]


def test_names_of_people_may_be_strings() -> None:
    query, gallery = people(1), people(2)
    named = [
        Features.of_arrays(
            side.vectors, model="drawn", cam=side.columns["cam"], pid=[f"O'Brien {pid}" for pid in side.columns["pid"]]
        )
        for side in (query, gallery.take(gallery.columns["pid"] > 0))
    ]
    kept = gallery.take(gallery.columns["pid"] > 0)
    assert gloam.evaluate(*named).mean("own/all") == gloam.evaluate(query, kept).mean("own/all")


def test_a_dataset_brings_its_protocols() -> None:
    query, gallery = people(1, modality="infrared"), people(2)
    sides = {"query_modality": Modality.INFRARED, "gallery_modality": Modality.VISIBLE}
    protocol = Protocol("x/cross", **sides, shots=1, trials=3)
    splits = DatasetSplits("x", Path(), (), (), (), {"x/cross": protocol}, {})
    assert len(gloam.evaluate(query, gallery, splits).trials["x/cross"]) == 3


def test_models_never_mix() -> None:
    other = Features.of_arrays(people(2).vectors, model="another")
    for function in (gloam.search, gloam.rerank, gloam.evaluate):
        with pytest.raises(GloamError, match=r"drawn.*another|another.*drawn|different models"):
            function(people(1), other)


def test_features_without_identities_are_not_scored() -> None:
    unknown = Features.of_arrays(people(1).vectors, model="drawn")
    with pytest.raises(GloamError, match="No query feature has an identity"):
        gloam.evaluate(unknown, people(2))


def test_clusters_are_people() -> None:
    features = people(1, shots=12)
    labels = gloam.cluster(features, eps=0.6, min_samples=3, k1=10, k2=3)
    assert labels.shape == (len(features),)
    for label in set(labels.tolist()) - {-1}:
        pids = features.columns["pid"][labels == label]
        assert (pids == pids.mode()[0]).mean() > 0.8


def test_matches_are_drawn_with_and_without_identities(tmp_path: Path) -> None:
    query, gallery = people(1), people(2)
    for name in (*query.columns["path"], *gallery.columns["path"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 16), (90, 90, 90)).save(tmp_path / name)
    figure = gloam.draw(gloam.search(query, gallery, top=4), tmp_path, queries=2, top=3)
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 2 * 4
    assert sum("✓" in title or "✗" in title for title in titles) == 6
    unknown = Features.of_arrays(query.vectors, model="drawn", path=query.columns["path"].tolist())
    titles = [axes.get_title() for axes in gloam.draw(gloam.search(unknown, gallery), tmp_path, queries=1).axes]
    assert not any("✓" in title or "✗" in title for title in titles)
    assert torch.is_tensor(query.vectors)
