"""The parts of a ranking against a slow reading of the full matrix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gloam.datasets.records import DatasetSplits, Protocol
from gloam.evaluation.protocols import select, trials
from gloam.evaluation.ranking import rank_metrics
from gloam.report.ranking_analysis import RECALLS, ScoreHistograms, analyse_ranking
from tests.report.made_runs import made_features, made_splits


@pytest.fixture(params=["sysu", "same_id_same_cam", "none"])
def case(request: pytest.FixtureRequest) -> tuple[DatasetSplits, Protocol]:
    data = made_splits(12)
    if request.param == "same_id_same_cam":  # query cameras among the gallery's
        data = replace(data, query=data.gallery[::3])
    return data, Protocol("x/case", camera_rule=request.param, shots=1, trials=2, gallery_cams=(1, 2, 4))


def test_every_part_against_the_whole_matrix(case: tuple[DatasetSplits, Protocol]) -> None:
    data, protocol = case
    query, gallery = made_features(data)
    found = analyse_ranking(data, protocol, query.vectors, gallery.vectors, listed=5, top=7)
    _, kept = next(trials(protocol, select(data, protocol)))
    entries = [data.gallery[i] for i in kept]
    scores = query.vectors @ gallery.vectors[torch.from_numpy(kept)].T
    right, wrong = np.zeros(2000, int), np.zeros(2000, int)
    precision, pairs, aps = [], {}, []
    for row, one in enumerate(data.query):
        hidden = [
            (protocol.camera_rule == "sysu" and one.cam == 3 and entry.cam == 2)
            or (protocol.camera_rule == "same_id_same_cam" and entry.pid == one.pid and entry.cam == one.cam)
            for entry in entries
        ]
        line = sorted(
            ((float(scores[row, i]), entry) for i, entry in enumerate(entries) if not hidden[i]), key=lambda p: -p[0]
        )
        for score, entry in line:
            (right if entry.pid == one.pid else wrong)[min(int((score + 1) * 1000), 1999)] += 1
        marks = [entry.pid == one.pid for _, entry in line]
        if not any(marks):
            continue
        steps = np.flatnonzero(marks) + 1
        shares = np.arange(1, len(steps) + 1) / steps
        recalls = np.arange(1, len(steps) + 1) / len(steps)
        precision.append([shares[recalls >= r - 1e-9].max() for r in RECALLS])
        aps.append((shares.mean(), row))
        for cam in (1, 2, 4):
            alone = [entry.pid == one.pid for _, entry in line if entry.cam == cam]
            if any(alone):
                where = np.flatnonzero(alone) + 1
                ap = np.mean(np.arange(1, len(where) + 1) / where)
                pairs.setdefault((one.cam, cam), []).append((alone[0], ap))
    assert found.queries == len(aps)
    np.testing.assert_allclose(found.precision, np.mean(precision, axis=0), atol=1e-9)
    # Products of a block and of the whole matrix differ in the last bit: a score may fall into the next bin.
    assert np.abs(found.histograms.right.cumsum() - right.cumsum()).max() <= 1
    assert np.abs(found.histograms.wrong.cumsum() - wrong.cumsum()).max() <= 1
    table = found.pairs
    for row, (query_cam, _) in enumerate(table.query_cams):
        for column, (cam, light) in enumerate(table.gallery_cams):
            values = pairs.get((query_cam, cam), [])
            assert light == "visible"
            assert table.queries[row, column] == len(values)
            if values:
                assert table.rank1[row, column] == pytest.approx(np.mean([hit for hit, _ in values]))
                assert table.mAP[row, column] == pytest.approx(np.mean([ap for _, ap in values]))
            else:
                assert np.isnan(table.mAP[row, column])
    worst = [entry for entry in found.listed if "worst" in entry.kinds]
    assert [entry.ap for entry in worst] == pytest.approx(sorted(ap for ap, _ in aps)[:5])
    for entry in found.listed:
        assert entry.scores == sorted(entry.scores, reverse=True)
        assert entry.right == [record.pid == entry.query.pid for record in entry.found]
        if entry.first_match <= len(entry.right):
            assert entry.right.index(True) + 1 == entry.first_match
    assert sum(count for _, count in found.by_matches.values()) == found.queries
    mean = sum(value * count for value, count in found.by_matches.values()) / found.queries
    assert mean == pytest.approx(np.mean([ap for ap, _ in aps]))


def test_equal_error_of_known_scores() -> None:
    """Right pairs uniform on [0, 1], wrong ones on [-0.5, 0.5]: a quarter is wrong either way at 0.25."""
    edges = np.linspace(-1, 1, 2001)
    right, wrong = np.zeros(2000, int), np.zeros(2000, int)
    right[1000:2000], wrong[500:1500] = 3, 5
    histograms = ScoreHistograms(edges, right, wrong)
    rate, threshold = histograms.equal_error()
    assert (rate, threshold) == (pytest.approx(0.25, abs=1e-3), pytest.approx(0.25, abs=1e-3))
    found, limit = histograms.found_at(0.01)
    assert (found, limit) == (pytest.approx(0.51, abs=1e-3), pytest.approx(0.49, abs=1e-3))


def test_the_first_trial_scores_as_the_evaluator_says() -> None:
    data = made_splits(12)
    query, gallery = made_features(data)
    found = analyse_ranking(data, data.protocols["x/whole"], query.vectors, gallery.vectors)
    told = rank_metrics(
        -(query.vectors @ gallery.vectors.T),
        *([r.pid for r in part] for part in (data.query, data.gallery)),
        *([r.cam for r in part] for part in (data.query, data.gallery)),
    )
    assert found.precision[0] >= told.mAP > found.precision[-1]
    assert found.by_matches == {(5, 8): (pytest.approx(told.mAP), 48)}
