"""Per-query tables: against the slow evaluator, through files, and what goes wrong with files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gloam.datasets.records import DatasetSplits, Modality, Protocol
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results, combine, evaluate
from gloam.evaluation.query_scores import QueryScores
from gloam.evaluation.ranking_plan import RankingPlan
from gloam.evaluation.results_file import json_schema
from tests.evaluation.records import record, splits

SCHEMA = Path(__file__).parents[2] / "docs" / "results.schema.json"


@pytest.fixture
def data() -> tuple[DatasetSplits, np.ndarray, np.ndarray]:
    """Six people, two of them with one query whose only gallery image is of its own camera."""
    draws = np.random.default_rng(0)
    query = [record(p, 3 if p % 2 else 6, Modality.INFRARED, n) for p in range(6) for n in range(3)]
    gallery = [record(p, c, Modality.VISIBLE, n) for p in range(5) for c in (1, 2, 4) for n in range(2)]
    gallery += [record(5, 2, Modality.VISIBLE, 0)]  # hidden from camera 3: person 5 is never valid there
    protocols = (
        Protocol("x/sysu", camera_rule="sysu", shots=1, trials=3, gallery_cams=(1, 2, 4), cmc="unique_id"),
        Protocol("x/whole", camera_rule="none"),
    )
    dataset = splits(query, gallery, *protocols)
    return dataset, draws.normal(size=(len(query), 8)), draws.normal(size=(len(gallery), 8))


def test_rows_average_to_the_scores(data: tuple) -> None:
    found = evaluate(*data)
    table = found.queries
    assert table is not None
    assert len(table) == 18 * 3 + 18
    for name, rows in found.trials.items():
        for trial, row in enumerate(rows):
            mine = table.rows((table.protocol == name) & (table.trial == trial) & table.valid)
            assert len(mine) == row["num_valid"]
            assert np.mean(mine.ap) == pytest.approx(row["mAP"])
            assert np.mean(mine.inp) == pytest.approx(row["mINP"])
            for k in (1, 5, 10):
                assert np.mean(mine.first_match <= k) == pytest.approx(row[f"rank{k}"])
    hidden = table.rows((table.protocol == "x/sysu") & (table.pid == "5"))
    assert (hidden.matches == 0).all()
    assert not hidden.valid.any()
    assert np.isnan(hidden.ap).all()
    shown = table.rows(table.protocol == "x/whole")
    assert set(shown.matches[shown.pid == "5"]) == {1}
    assert set(shown.matches[shown.pid != "5"]) == {6}
    assert shown.path[0] == data[0].query[0].paths[0]
    assert set(shown.modality) == {"infrared"}


@pytest.mark.parametrize("rule", ["none", "same_id_same_cam", "sysu"])
def test_numbers_of_matches_against_counting(rule: str) -> None:
    draws = np.random.default_rng(3)
    query = (draws.integers(0, 9, 40), draws.integers(1, 5, 40))
    gallery = (draws.integers(2, 12, 90), draws.integers(1, 4, 90))  # cameras and ids that the other side lacks
    plan = RankingPlan(query[0], gallery[0], query[1], gallery[1], camera_rule=rule)
    counted = [
        sum(bool(seen) and pid == query[0][i] for pid, seen in zip(gallery[0], plan.visible_to(i), strict=True))
        for i in range(40)
    ]
    assert plan.match_counts().tolist() == counted


def test_tables_travel_through_files_with_the_same_bytes(data: tuple, tmp_path: Path) -> None:
    found = evaluate(*data)
    found.to_json(tmp_path / "results.json")
    again = Results.load(tmp_path / "results.json", queries=True)
    assert again == found
    assert again.queries is not None
    assert found.queries is not None
    for name in ("protocol", "trial", "query", "path", "pid", "cam", "modality", "matches", "first_match", "ap", "inp"):
        np.testing.assert_array_equal(getattr(again.queries, name), getattr(found.queries, name), err_msg=name)
    first = (tmp_path / "results.parquet").read_bytes()
    again.to_json(tmp_path / "results.json")
    assert (tmp_path / "results.parquet").read_bytes() == first


def test_trials_of_several_models_are_numbered_on(data: tuple) -> None:
    one = evaluate(*data)
    both = combine([one, one])
    assert both.queries is not None
    assert set(both.queries.trial[both.queries.protocol == "x/sysu"]) == set(range(6))
    assert set(both.queries.trial[both.queries.protocol == "x/whole"]) == {0, 1}
    assert combine([one, Results(one.trials)]).queries is None


def test_old_files_are_read_and_foreign_ones_refused(data: tuple, tmp_path: Path) -> None:
    found = evaluate(*data)
    old = tmp_path / "old.json"
    old.write_text(json.dumps(found.to_dict()))  # what was written before versions
    assert Results.load(old) == found
    with pytest.raises(GloamError, match="gloam evaluate"):
        Results.load(old, queries=True)
    old.write_text(json.dumps({**found.to_dict(), "version": 99}))
    with pytest.raises(GloamError, match="Update gloam"):
        Results.load(old)
    for text in ("[]", "{", '{"protocols": 3}', "null", '{"notes": {}, "protocols": {"x": {"trials": []}}}'):
        old.write_text(text)
        with pytest.raises(GloamError, match="no evaluation results"):
            Results.load(old)


def test_a_table_of_other_results_is_refused(data: tuple, tmp_path: Path) -> None:
    dataset, query, gallery = data
    evaluate(dataset, query, gallery).to_json(tmp_path / "a.json")
    evaluate(dataset, query[::-1].copy(), gallery).to_json(tmp_path / "b.json")
    (tmp_path / "b.parquet").replace(tmp_path / "a.parquet")
    with pytest.raises(GloamError, match="not the table"):
        Results.load(tmp_path / "a.json", queries=True)
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(GloamError, match="table of queries"):
        QueryScores.load(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(GloamError, match="There is no table"):
        Results.load(tmp_path / "a.json", queries=True)


def test_the_documented_schema_is_the_code_s() -> None:
    written = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert written == json_schema(), "write it anew: json.dumps(json_schema(), indent=2)"


def test_written_results_keep_to_the_schema(data: tuple, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema checks the file as others would")
    evaluate(*data).to_json(tmp_path / "results.json")
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["format"] == "gloam results"
    jsonschema.validate(content, json.loads(SCHEMA.read_text(encoding="utf-8")))
    content["protocols"]["x/whole"]["mean"].pop("mAP")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, json.loads(SCHEMA.read_text(encoding="utf-8")))
