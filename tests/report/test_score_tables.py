"""Rows for papers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from gloam import cli
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results
from gloam.report.finished_runs import read_systems
from gloam.report.score_tables import score_table
from tests.report.made_runs import made_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    first = made_run(tmp_path / "a_0")
    return [first, made_run(tmp_path / "a_1", seed=1), made_run(tmp_path / "b_0", method="agw")]


def test_markdown_has_a_row_per_system(runs: list[Path]) -> None:
    lines = score_table(read_systems(runs), protocols=["whole"], scores=["rank1", "mAP"]).splitlines()
    assert lines[0] == "| model | whole R1 | whole mAP |"
    means = [100 * Results.load(run / "results.json").mean("x/whole")["mAP"] for run in runs[:2]]
    assert f" {sum(means) / 2:.2f} ± " in lines[2]
    assert lines[3].startswith("| agw | ")
    assert "±" not in lines[3]  # one run, one trial
    assert "base: 2 runs, ± over 2 seeds" in lines[-1]
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_latex_escapes_names_and_counts_its_columns(runs: list[Path]) -> None:
    text = score_table(read_systems(runs, apart=True), format="latex", scores=["rank1", "mAP"])
    assert r"a\_0 & " in text
    assert r"\multicolumn{2}{c}{whole}" in text
    rows = [line for line in text.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
    assert {line.count(" & ") for line in rows} == {4}
    assert r"\begin{tabular}{lrrrr}" in text


def test_csv_is_exact(runs: list[Path]) -> None:
    rows = list(csv.DictReader(io.StringIO(score_table(read_systems(runs, apart=True), format="csv"))))
    assert len(rows) == 6
    told = Results.load(runs[0] / "results.json")
    first = next(row for row in rows if row["model"] == "a_0" and row["protocol"] == "x/sampled")
    assert float(first["mAP"]) == told.mean("x/sampled")["mAP"]
    assert float(first["mAP_std"]) == pytest.approx(told.spread("x/sampled")["mAP"])
    assert (first["std_over"], first["count"], first["runs"]) == ("trials", "3", "1")


def test_command_and_mistakes(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["results", *map(str, runs), "--format", "latex"]) == 0
    assert r"\toprule" in capsys.readouterr().out
    assert cli.main(["results", "nowhere"]) == 2
    assert cli.main(["results"]) == 2
    with pytest.raises(GloamError, match="no format"):
        score_table(read_systems(runs), format="word")  # type: ignore[arg-type]
    with pytest.raises(GloamError, match="no score"):
        score_table(read_systems(runs), scores=["R1"])
