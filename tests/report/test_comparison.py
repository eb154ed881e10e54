"""Comparisons of runs: published scores, pairing, seeds, RegDB's splits, and mistakes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from gloam import cli
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results
from gloam.report.comparison import compare_runs
from gloam.report.finished_runs import read_systems
from tests.report.made_runs import made_run, made_splits


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    return {
        "good": made_run(tmp_path / "good", method="agw", noise=1.0),
        "bad": made_run(tmp_path / "bad", noise=3.0),
        "again": made_run(tmp_path / "again", noise=3.0, seed=1),
    }


def test_values_are_the_published_ones_and_differences_of_the_right_sign(runs: dict[str, Path]) -> None:
    found = compare_runs([runs["bad"], runs["good"]])
    assert found.baseline == "base"
    assert [(row.protocol, row.score) for row in found.rows] == [
        ("x/sampled", "rank1"),
        ("x/sampled", "mAP"),
        ("x/whole", "rank1"),
        ("x/whole", "mAP"),
    ]
    for row in found.rows:
        for value, name in ((row.value, "good"), (row.baseline_value, "bad")):
            told = Results.load(runs[name] / "results.json").mean(row.protocol)[row.score]
            assert value == pytest.approx(told)
        assert row.difference == pytest.approx(row.value - row.baseline_value)
        assert row.low < row.difference < row.high
        assert row.verdict == "better"
        assert row.people == 20
        assert row.p_value <= row.p_holm
        assert (row.seeds, row.seed_spread) == (1, None)
    turned = compare_runs([runs["bad"], runs["good"]], baseline=runs["good"])
    assert [row.verdict for row in turned.rows] == ["worse"] * 4


def test_seeds_are_one_system_with_a_spread(runs: dict[str, Path]) -> None:
    found = compare_runs(list(runs.values()), scores=["mAP"], protocols=["whole"])
    (row,) = found.rows
    means = [Results.load(runs[name] / "results.json").mean("x/whole")["mAP"] for name in ("bad", "again")]
    assert row.value == pytest.approx(np.mean(means))
    assert row.seeds == 2
    assert row.seed_spread == pytest.approx(np.std(means, ddof=1))
    assert "one seed" in found.to_dict()["remark"]  # the baseline has one
    assert found.systems == {"agw": [str(runs["good"])], "base": [str(runs["bad"]), str(runs["again"])]}


def test_equal_runs_are_not_told_apart(tmp_path: Path) -> None:
    one = made_run(tmp_path / "one")
    other = made_run(tmp_path / "other", method="agw")
    for row in compare_runs([one, other]).rows:
        assert (row.difference, row.low, row.high, row.p_value) == (0, 0, 0, 1)
        assert row.verdict == "not told apart"


def test_splits_of_regdb_are_joined_person_by_person(tmp_path: Path) -> None:
    runs: dict[str, list[Path]] = {"agw": [], "base": []}
    for method, noise in (("agw", 1.0), ("base", 3.0)):
        for trial in (1, 2):
            data = made_splits(20, first=10 * trial)  # half of the people are in both splits
            place = tmp_path / f"{method}{trial}"
            runs[method].append(made_run(place, method=method, noise=noise, trial=trial, data=data))
    found = compare_runs([*runs["base"], *runs["agw"]], protocols=["whole"], scores=["mAP"])
    (row,) = found.rows
    assert (row.people, row.queries, row.seeds) == (30, 160, 1)
    assert row.value == pytest.approx(
        np.mean([Results.load(run / "results.json").mean("x/whole")["mAP"] for run in runs["agw"]])
    )
    (base, agw) = read_systems([*runs["base"], *runs["agw"]])
    score = agw.score("x/whole", "mAP")
    assert score is not None
    assert (score.count, score.over) == (2, "trials")
    with pytest.raises(GloamError, match="different queries"):
        compare_runs([*runs["base"], runs["agw"][0]])
    assert base.label == "base"


def test_mistakes_are_named(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    other = made_run(tmp_path / "other", method="ddag", data=made_splits(20, first=5))
    old = made_run(tmp_path / "old", method="ddag")
    (old / "results.json").write_text(json.dumps(Results.load(old / "results.json").to_dict()))
    for places, message in (
        ([runs["good"]], "two different systems"),
        ([runs["bad"], runs["again"]], "seed only"),
        ([runs["bad"], runs["bad"]], "twice"),
        ([runs["bad"], tmp_path / "nowhere"], "no run or results"),
        ([runs["bad"], tmp_path / "empty"], "not finished"),
        ([runs["bad"], other], "different queries"),
        ([runs["bad"], old], "gloam evaluate"),
        ([], "Which runs"),
    ):
        with pytest.raises(GloamError, match=message):
            compare_runs(places) if places else read_systems(places)
    with pytest.raises(GloamError, match="no score 'map'"):
        compare_runs([runs["bad"], runs["good"]], scores=["map"])
    with pytest.raises(GloamError, match="No protocol"):
        compare_runs([runs["bad"], runs["good"]], protocols=["nothing*"])


def test_tables_fit_and_json_is_complete(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = compare_runs([runs["bad"], runs["good"]])
    screen = Console(width=80, record=True, file=io.StringIO())
    screen.print(found.table())
    text = screen.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert f"{100 * found.rows[0].difference:+.2f}" in text
    assert cli.main(["compare", str(runs["bad"]), str(runs["good"]), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["comparisons"] == found.to_dict()["comparisons"]
    assert cli.main(["compare", str(runs["bad"]), str(runs["good"])]) == 0
    assert cli.main(["compare", str(runs["bad"])]) == 2
