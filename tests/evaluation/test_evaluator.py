"""Scores of whole protocols: every trial equals ranking it alone; averages, tables and files."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from rich.console import Console

from gloam.datasets.records import Modality, Protocol
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results, combine, evaluate
from gloam.evaluation.protocols import select, trials
from gloam.evaluation.ranking import rank_features, rank_metrics
from gloam.evaluation.rerank import k_reciprocal
from tests.evaluation.records import record, splits

VIS, IR = Modality.VISIBLE, Modality.INFRARED
PROTOCOLS = (
    Protocol("x/all_single", query_modality=IR, shots=1, trials=10, camera_rule="sysu", cmc="unique_id"),
    Protocol(
        "x/indoor_multi",
        query_modality=IR,
        gallery_cams=(1, 2),
        shots=2,
        trials=3,
        camera_rule="sysu",
        cmc="unique_id",
    ),
    Protocol("x/whole", query_modality=IR, camera_rule="none"),
    Protocol("x/swapped", swapped=True, gallery_modality=IR, camera_rule="same_id_same_cam"),
    Protocol("x/released", sampled="query", shots=1, trials=2, camera_rule="same_id_same_cam"),
)


@pytest.fixture(scope="module")
def data() -> tuple:
    query = [record(pid, cam, IR, n) for pid in range(1, 13) for cam in (3, 6) for n in range(3)]
    query += [record(1, 1, VIS, 77)]
    gallery = [record(pid, cam, VIS, n) for pid in range(1, 13) for cam in (1, 2, 4, 5) for n in range(4)]
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((13, 8))
    features = [
        (centres[[r.pid for r in records]] + generator.standard_normal((len(records), 8))).astype(np.float32)
        for records in (query, gallery)
    ]
    return splits(query, gallery, *PROTOCOLS), *features


def _alone(data: tuple, protocol: Protocol) -> list[dict[str, float]]:
    """Every trial ranked by itself."""
    dataset, query, gallery = data
    found = select(dataset, protocol)
    left, right = (gallery, query) if protocol.swapped else (query, gallery)
    results = []
    for queries, entries in trials(protocol, found):
        q, g = found.query[queries], found.gallery[entries]
        labels = [
            [found.query_side[i].pid for i in q],
            [found.gallery_side[i].pid for i in g],
            [found.query_side[i].cam for i in q],
            [found.gallery_side[i].cam for i in g],
        ]
        rules = {"camera_rule": protocol.camera_rule, "cmc": protocol.cmc}
        results.append(rank_features(left[q], right[g], *labels, **rules).to_dict())
    return results


@pytest.mark.parametrize("kind", ["numpy", "torch", "tensor kernels"])
def test_every_trial_equals_ranking_it_alone(data: tuple, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, query, gallery = data
    expected = {protocol.name: _alone(data, protocol) for protocol in PROTOCOLS}
    if kind != "numpy":
        query, gallery = torch.from_numpy(query), torch.from_numpy(gallery)
    if kind == "tensor kernels":
        monkeypatch.setattr("gloam.evaluation.ranking_plan._compiled", lambda distances: False)
    found = evaluate(dataset, query, gallery)
    assert list(found.trials) == list(expected)
    for name, rows in expected.items():
        assert len(found.trials[name]) == len(rows)
        for trial, row in zip(found.trials[name], rows, strict=True):
            assert trial == pytest.approx(row, abs=1e-6)
    assert len({row["mAP"] for row in found.trials["x/all_single"]}) > 1


def test_means_and_spreads(data: tuple) -> None:
    found = evaluate(*data, protocols="all_single")
    values = [row["mAP"] for row in found.trials["x/all_single"]]
    assert found.mean("x/all_single")["mAP"] == pytest.approx(np.mean(values))
    assert found.spread("x/all_single")["mAP"] == pytest.approx(np.std(values, ddof=1))
    assert evaluate(*data, protocols=["whole"]).spread("x/whole")["mAP"] == 0


def test_a_perfect_model_scores_one(data: tuple) -> None:
    dataset = data[0]
    one_hot = [np.eye(13)[[r.pid for r in records]] for records in (dataset.query, dataset.gallery)]
    for protocol in (
        evaluate(dataset, *one_hot, protocols=["all_single", "whole", "swapped"]).to_dict()["protocols"].values()
    ):
        assert protocol["mean"]["rank1"] == protocol["mean"]["mAP"] == protocol["mean"]["mINP"] == 1


def test_reranking_equals_the_matrices(data: tuple) -> None:
    dataset, query, gallery = data
    found = evaluate(dataset, query, gallery, protocols="whole", metric="euclidean", rerank={"k1": 6, "k2": 3})
    kept = [i for i, r in enumerate(dataset.query) if r.modality is IR]
    left = torch.from_numpy(query[kept]).double()
    right = torch.from_numpy(gallery).double()
    distances = k_reciprocal(torch.cdist(left, right), torch.cdist(left, left), torch.cdist(right, right), k1=6, k2=3)
    labels = (
        [dataset.query[i].pid for i in kept],
        [r.pid for r in dataset.gallery],
        [dataset.query[i].cam for i in kept],
        [r.cam for r in dataset.gallery],
    )
    assert found.mean("x/whole")["mAP"] == pytest.approx(rank_metrics(distances, *labels).mAP, abs=1e-4)
    assert "k1 6" in found.notes["re-ranking"]
    plain = evaluate(dataset, query, gallery, protocols="whole", metric="euclidean")
    assert abs(plain.mean("x/whole")["mAP"] - found.mean("x/whole")["mAP"]) > 1e-3


def test_reranking_options_are_checked(data: tuple) -> None:
    with pytest.raises(GloamError, match="'weight'"):
        evaluate(*data, rerank={"wieght": 0.1})
    assert evaluate(*data, protocols="whole", rerank=True).notes == {"re-ranking": "k1 20, k2 6, weight 0.3"}


def test_wrong_numbers_of_features_are_named(data: tuple) -> None:
    dataset, query, gallery = data
    with pytest.raises(GloamError, match="72 query features for 73"):
        evaluate(dataset, query[1:], gallery)


def test_results_print_percent_and_travel_through_files(data: tuple, tmp_path) -> None:
    found = evaluate(*data).with_notes(selection="last epoch")
    console = Console(width=200, record=True)
    console.print(found.table())
    text = console.export_text()
    mean, spread = found.mean("x/all_single"), found.spread("x/all_single")
    assert f"{100 * mean['rank1']:.2f}" in text
    assert f"±{100 * spread['rank1']:.2f}" in text
    assert "last epoch" in text
    found.to_json(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == found
    assert json.loads((tmp_path / "results.json").read_text())["protocols"]["x/whole"]["std"]["mAP"] == 0
    found.to_csv(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["trial"] for r in rows if r["protocol"] == "x/released"] == ["0", "1", "mean", "std"]
    assert float(next(r for r in rows if r["trial"] == "mean")["mAP"]) == pytest.approx(mean["mAP"])


def test_tables_fit_eighty_columns() -> None:
    """The longest names there are, perfect scores, several trials."""
    row = dict.fromkeys(("rank1", "rank5", "rank10", "rank20", "mAP", "mINP"), 1.0) | {"num_valid": 15913.0}
    console = Console(width=80, record=True)
    console.print(Results({"bupt_campus/infrared_to_visible_unfiltered": [row] * 10}).table())
    text = console.export_text()
    assert text.count("100.00") == text.count("±0.00") == 6
    assert "…" not in text
    assert all(part in text for part in ("infrared_to_visible", "_unfiltered", "15913", "trials"))


def test_several_models_are_joined(data: tuple) -> None:
    dataset, query, gallery = data
    models = [evaluate(dataset, query * scale, gallery, protocols="whole", metric="euclidean") for scale in (1, 0.1, 3)]
    joined = combine(models)
    expected = np.mean([m.mean("x/whole")["rank1"] for m in models])
    assert joined.mean("x/whole")["rank1"] == pytest.approx(expected)
    assert len(joined.trials["x/whole"]) == 3
    assert joined.notes["models"] == "3"
    with pytest.raises(GloamError, match="same protocols"):
        combine([models[0], evaluate(dataset, query, gallery, protocols="swapped")])
    with pytest.raises(GloamError, match="no results"):
        combine([])


def test_foreign_files_are_no_results(tmp_path) -> None:
    with pytest.raises(GloamError, match="Cannot read"):
        Results.load(tmp_path / "none.json")
    for content in ("{", "[]", "{}"):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(GloamError, match="no evaluation results"):
            Results.load(tmp_path / "other.json")
