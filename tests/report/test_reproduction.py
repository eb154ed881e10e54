"""Reproductions: plans, verdicts by hand, and a real one that is killed and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gloam import cli
from gloam.drawing.dataset import draw_dataset
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results
from gloam.recipes.recipe import list_recipes, load_recipe
from gloam.recipes.sections import Expected
from gloam.report.finished_runs import read_systems
from gloam.report.reproduction import changed_flags, judge, plan_jobs, published_numbers, read_numbers
from tests.report.made_runs import made_run
from tests.small_recipes import small_words


def test_numbers_of_trials() -> None:
    assert read_numbers("1-3,7,2", "--trials") == [1, 2, 3, 7]
    for text in ("", "a", "1-", "-3", "1..3", "3-1", "1,,2"):
        with pytest.raises(GloamError, match="--trials"):
            read_numbers(text, "--trials")


def test_plans_have_every_seed_and_trial(tmp_path: Path) -> None:
    regdb = load_recipe("regdb/agw")
    jobs = plan_jobs("regdb/agw", regdb, ["--data.root", "x"], tmp_path, seeds=2)
    assert len(jobs) == 20
    assert jobs[0].label == "seed-0_trial-01"
    assert jobs[-1].words[-4:] == ["--train.seed", "1", "--data.options.trial", "10"]
    assert len({job.folder for job in jobs}) == 20
    market = load_recipe("market1501/spcl")
    assert [job.label for job in plan_jobs("market1501/spcl", market, [], tmp_path)] == ["seed-1", "seed-2", "seed-3"]
    with pytest.raises(GloamError, match="leave --trials out"):
        plan_jobs("market1501/spcl", market, [], tmp_path, trials="1-2")
    with pytest.raises(GloamError, match="trial"):
        plan_jobs("regdb/agw", regdb, [], tmp_path, trials="11")
    with pytest.raises(GloamError, match="--seeds"):
        plan_jobs("regdb/agw", regdb, [], tmp_path, seeds=0)


def test_only_what_changes_the_training_is_a_change() -> None:
    recipe = load_recipe("regdb/agw")
    moved = recipe.with_changes({"data.root": "/x", "data.workers": 0, "train.seed": 4, "data.options.trial": 3})
    assert changed_flags("regdb/agw", moved) == []
    assert changed_flags("regdb/agw", moved.with_changes({"optimizer.lr": 0.3})) == ["optimizer.lr"]


def test_verdicts_by_hand(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / str(seed), seed=seed) for seed in range(3)]
    values = [100 * Results.load(run / "results.json").mean("x/whole")["mAP"] for run in runs]
    mean, spread = np.mean(values), np.std(values, ddof=1)
    width = stats.t.ppf(0.975, 2) * spread * np.sqrt(4 / 3)
    (system,) = read_systems(runs)
    for shift, inside in ((0.99, True), (-0.99, True), (1.01, False), (-1.01, False)):
        (verdict,) = judge([Expected(protocol="x/whole", mAP=mean + shift * width, source="s")], system)
        assert verdict.distance == pytest.approx(-shift * width)
        assert verdict.tolerance == pytest.approx(width)
        assert verdict.spread == pytest.approx(spread)
        assert verdict.inside is inside
    told = Expected(protocol="x/whole", mAP=mean + 0.3, source="s", tolerance=0.2, tolerance_source="table 5")
    (verdict,) = judge([told], system)
    assert (verdict.inside, verdict.tolerance_source) == (False, "table 5")
    (alone,) = read_systems(runs[:1])
    (verdict,) = judge([Expected(protocol="x/whole", mAP=50, source="s", trials=10, mirror=True)], alone)
    assert (verdict.inside, verdict.tolerance) == (None, None)
    assert verdict.conditions == "10 trials, mirror images averaged, epoch not stated"
    assert judge([Expected(protocol="x/other", mAP=50, source="s")], alone) == []


def test_every_published_number_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = sum(
        getattr(one, score) is not None
        for name in list_recipes()
        for one in load_recipe(name).expected
        for score in ("rank1", "mAP", "mINP")
    )
    rows = published_numbers(tmp_path)
    assert len(rows) == told > 50
    assert {row["state"] for row in rows} == {"never run here"}
    row = {"protocol": "regdb/visible_to_thermal", "score": "mAP", "distance": -1.5, "seeds": 3, "inside": False}
    for name, example in (("agw", None), ("caj", "other data")):
        (tmp_path / name).mkdir()
        content = {"recipe": f"regdb/{name}", "example": example, "verdicts": [row]}
        (tmp_path / name / "verdict.json").write_text(json.dumps(content))
    (tmp_path / "verdict.json").write_text("[]")  # not ours
    found = {(r["recipe"], r["score"]): r for r in published_numbers(tmp_path)}
    assert found["regdb/agw", "mAP"]["state"] == "-1.50 over 3 seeds, outside the tolerance"
    assert found["regdb/agw", "mAP"]["distance"] == -1.5
    assert found["regdb/caj", "mAP"]["state"] == "never run here"  # an example is no reproduction
    assert cli.main(["reproduce", "--list", "--json", "--output", str(tmp_path)]) == 0
    assert len(json.loads(capsys.readouterr().out)) == told


def test_killed_and_gone_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two RegDB splits: told to stop during the first, the same command ends both and repeats nothing."""
    draw_dataset("regdb", tmp_path / "regdb", ids=8, images=2, height=96, width=48, progress=False)
    words = small_words("regdb/agw", tmp_path, epochs=2)
    words.remove("--quiet")
    folder = tmp_path / "again"
    command = ["reproduce", "regdb/agw", *words, "--seeds", "1", "--trials", "1-2", "--output", str(folder)]
    process = subprocess.Popen([sys.executable, "-m", "gloam", *command], env=dict(os.environ))
    first = folder / "runs" / "seed-0_trial-01"
    until = time.monotonic() + 200
    while not (first / "metrics.csv").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    assert not (folder / "verdict.json").exists()
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "visible_to_thermal R1" in shown
    assert "differ from the recipe" in shown
    content = json.loads((folder / "verdict.json").read_text())
    means = [
        Results.load(folder / "runs" / f"seed-0_trial-{n:02d}" / "results.json").mean("regdb/visible_to_thermal")
        for n in (1, 2)
    ]
    row = next(r for r in content["verdicts"] if r["score"] == "mAP")
    assert row["obtained"] == pytest.approx(50 * (means[0]["mAP"] + means[1]["mAP"]))
    assert (row["published"], row["inside"]) == (66.37, None)
    assert "train.epochs" in content["example"]
    assert "some of the 10 trials" in content["example"]
    page = (folder / "report.html").read_text()
    assert "seed-0_trial-02" in page
    written = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("results.json")}
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == content
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("results.json")} == written
    assert cli.main([*command, "--optimizer.lr", "0.3"]) == 2
    assert "another reproduction" in capsys.readouterr().err


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    root = ["--data.root", str(tmp_path)]
    for words, message in (
        (["reproduce"], "Which recipe"),
        (["reproduce", "regdb/agw"], "--data.root"),
        (["reproduce", "regdb/awg", *root], "regdb/agw"),
        (["reproduce", "regdb/agw", *root, "--train.seed", "3"], "--seeds"),
        (["reproduce", "regdb/agw", *root, "--output", str(tmp_path / "full")], "not empty"),
        (["reproduce", "regdb/agw", *root, "--output", str(tmp_path / "r"), "--seeds", "1", "--trials", "1"], "failed"),
        (["reproduce", "regdb/agw", *root, "--output", str(tmp_path / "s"), "--jobs", "0"], "--jobs"),
    ):
        assert cli.main(words) == 2, words
        assert message in " ".join(capsys.readouterr().err.split())
