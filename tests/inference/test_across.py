"""Runs on other datasets, several at once: what is averaged, what is refused, and how often features are extracted."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gloam import cli
from gloam.datasets import load_dataset
from gloam.drawing.dataset import draw_dataset
from gloam.errors import GloamError
from gloam.evaluation.evaluator import evaluate
from gloam.inference import model as model_module
from gloam.inference.across import Comparison, Row, Target, choose_targets
from gloam.inference.feature_cache import features_folder, list_features, size_limit
from gloam.inference.loading import load_model
from gloam.inference.scoring import embed_test, evaluate_across, evaluate_runs
from tests.small_recipes import HEIGHT, WIDTH, small_words


@pytest.fixture(scope="module")
def runs(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of two batches: two seeds of one recipe, another method, a video method."""
    folder = tmp_path_factory.mktemp("runs")
    made = {"seed0": ("sysu_mm01/base", 0), "seed1": ("sysu_mm01/base", 1), "agw": ("sysu_mm01/agw", 0)}
    made["clip"] = ("hitsz_vcm/m3reid", 0)
    for key, (recipe, seed) in made.items():
        words = [*small_words(recipe, drawn, epochs=1), "--train.seed", str(seed), "--output", str(folder / key)]
        assert cli.main(["train", recipe, *words]) == 0
    return {key: folder / key for key in made}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that no run has seen."""
    root = tmp_path_factory.mktemp("market")
    draw_dataset("market1501", root / "m", ids=6, images=2, height=HEIGHT, width=WIDTH, seed=3, progress=False)
    return root / "m"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOAM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of records of every extraction."""
    calls: list[int] = []
    original: Callable[..., Any] = model_module.extract_features

    def counted(method: Any, records: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(len(records))
        return original(method, records, *arguments, **options)

    monkeypatch.setattr(model_module, "extract_features", counted)
    return calls


def test_every_run_meets_every_dataset_and_only_seeds_are_averaged(
    runs: dict[str, Path], drawn: Path, market: Path
) -> None:
    targets = choose_targets(["sysu_mm01", "market1501"], [drawn / "sysu_mm01", market])
    chosen = [runs["seed0"], runs["agw"], runs["seed1"]]
    found = evaluate_across(chosen, targets, protocols=["all_single", "single_query"], device="cpu")
    assert [(row.runs, row.target) for row in found.rows] == [
        ((runs["seed0"], runs["seed1"]), "sysu_mm01"),
        ((runs["agw"],), "sysu_mm01"),
        ((runs["seed0"], runs["seed1"]), "market1501"),
        ((runs["agw"],), "market1501"),
    ]
    # The slow way: every model on every dataset by hand.
    for row in found.rows:
        splits = load_dataset(row.target, row.root)
        by_hand: list[dict[str, float]] = []
        for run in row.runs:
            query, gallery = embed_test(load_model(run), splits)
            (scored,) = (
                evaluate(splits, query.vectors, gallery.vectors, protocols="*single*").trials.items()
                if (row.target == "market1501")
                else evaluate(splits, query.vectors, gallery.vectors, protocols="all_single").trials.items()
            )
            by_hand += scored[1]
        (protocol,) = row.results.trials
        assert row.results.trials[protocol] == by_hand
        assert row.results.mean(protocol)["mAP"] == pytest.approx(np.mean([one["mAP"] for one in by_hand]))


def test_runs_that_differ_in_more_than_their_seed_have_no_mean(runs: dict[str, Path]) -> None:
    with pytest.raises(GloamError, match="no seeds or trials of one recipe"):
        evaluate_runs([runs["seed0"], runs["agw"]], protocols=["all_single"], device="cpu")


def test_two_checkpoints_of_one_run_are_two_rows(runs: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "epoch.ckpt"
    other.write_bytes((runs["seed0"] / "checkpoints" / "last.ckpt").read_bytes())
    found = evaluate_across([runs["seed0"], other], protocols=["all_single"], device="cpu")
    assert [len(row.runs) for row in found.rows] == [1, 1]
    with pytest.raises(GloamError, match="given twice"):
        evaluate_across([runs["seed0"], runs["seed0"]], device="cpu")


def test_published_trials_are_averaged(tmp_path: Path) -> None:
    draw_dataset("regdb", tmp_path / "regdb", ids=6, height=HEIGHT, width=WIDTH, progress=False)
    for trial in ("1", "2"):
        words = [*small_words("regdb/base", tmp_path), "--data.options.trial", trial, "--output", str(tmp_path / trial)]
        assert cli.main(["train", "regdb/base", *words]) == 0
    found = evaluate_across([tmp_path / "1", tmp_path / "2"], device="cpu")
    assert [len(row.runs) for row in found.rows] == [2]
    # Each is scored on its own division, as at the end of its training.
    for number, trial in enumerate(("1", "2")):
        saved = json.loads((tmp_path / trial / "results.json").read_text())["protocols"]
        for protocol, rows in found.rows[0].results.trials.items():
            assert rows[number] == pytest.approx(saved[protocol]["trials"][0])


def test_figures_and_scores_of_a_run_extract_once(
    runs: dict[str, Path], drawn: Path, market: Path, tmp_path: Path, extracted: list[int]
) -> None:
    splits = load_dataset("sysu_mm01", drawn / "sysu_mm01")
    both = [len(splits.query), len(splits.gallery)]
    run, output = str(runs["agw"]), str(tmp_path / "figure.png")
    assert cli.main(["evaluate", run, "--device", "cpu", "--output", str(tmp_path / "first")]) == 0
    assert extracted == both
    assert cli.main(["rank-list", run, "--device", "cpu", "--output", output]) == 0
    assert cli.main(["embedding", run, "--device", "cpu", "--output", output]) == 0
    assert cli.main(["evaluate", run, "--device", "cpu", "--rerank", "--output", str(tmp_path / "rerank")]) == 0
    assert extracted == both
    # Extracted again: the same numbers. Other weights, another batch size and other data are other features.
    assert cli.main(["evaluate", run, "--device", "cpu", "--output", str(tmp_path / "second"), "--fresh"]) == 0
    assert extracted == 2 * both
    first, second = ((tmp_path / name / "evaluation.json").read_bytes() for name in ("first", "second"))
    assert first == second
    evaluate_runs([runs["seed0"]], device="cpu", output=tmp_path)
    evaluate_runs([runs["agw"]], device="cpu", output=tmp_path, batch_size=3)
    assert len(extracted) == 8
    target = [Target("market1501", market)]
    evaluate_across([runs["agw"]], target, device="cpu")
    evaluate_across([runs["agw"]], target, device="cpu")
    assert len(extracted) == 10
    path = market / load_dataset("market1501", market).query[0].paths[0]
    os.utime(path, ns=(1, 1))
    evaluate_across([runs["agw"]], target, device="cpu")
    assert len(extracted) == 11  # the gallery is as it was


def test_damaged_features_are_computed_again(runs: dict[str, Path], tmp_path: Path, extracted: list[int]) -> None:
    expected = evaluate_runs([runs["agw"]], device="cpu", output=tmp_path)
    for file in features_folder().glob("*.npz"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0x40
        file.write_bytes(bytes(content))
    assert evaluate_runs([runs["agw"]], device="cpu", output=tmp_path) == expected
    assert len(extracted) == 4
    assert evaluate_runs([runs["agw"]], device="cpu", output=tmp_path) == expected
    assert len(extracted) == 4


def test_kept_features_stay_below_their_limit(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extracted: list[int]
) -> None:
    evaluate_runs([runs["agw"]], device="cpu", output=tmp_path)
    kept = list_features()
    assert len(kept) == 2
    for number, one in enumerate(kept):
        os.utime(one.path, (number, number))
    total = sum(one.size for one in kept)
    monkeypatch.setenv("GLOAM_FEATURE_CACHE_GIB", str((total + 100) / 2**30))
    evaluate_runs([runs["seed0"]], device="cpu", output=tmp_path)
    left = list_features()
    assert sum(one.size for one in left) <= size_limit()
    assert {one.model for one in left} == {str(runs["seed0"])}
    monkeypatch.setenv("GLOAM_FEATURE_CACHE_GIB", "0")
    evaluate_runs([runs["seed0"]], device="cpu", output=tmp_path)
    assert len(extracted) == 6
    monkeypatch.setenv("GLOAM_FEATURE_CACHE_GIB", "much")
    with pytest.raises(GloamError, match="GLOAM_FEATURE_CACHE_GIB"):
        evaluate_runs([runs["seed0"]], device="cpu", output=tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{agw}", "--protocol", "all_singel"], "all_single"),
        (["{agw}", "--protocol", "all_single", "nothing*"], "nothing"),
        (["{agw}", "--data.name", "hitsz_vcm", "--data.root", "{drawn}/hitsz_vcm"], "tracklets"),
        (["{agw}", "--data.name", "market1501"], "Where is market1501"),
        (["{agw}", "--data.name", "sysu_mm01", "market1501", "--data.root", "{drawn}/sysu_mm01"], "same order"),
        (["{agw}", "--data.root", "{drawn}/sysu_mm01", "{drawn}/market1501"], "--data.name"),
        (["{agw}", "--data.name", "marked", "--data.root", "{drawn}/market1501"], "market1501"),
        (["{agw}", "--data.options", "trial=3", "--data.name", "market1501", "--data.root", "."], "trial"),
        (["{agw}", "--data.options", "trial"], "KEY=VALUE"),
        (["{agw}", "{drawn}/nothing"], "no run"),
    ],
)
def test_what_cannot_be_is_refused_before_features_are_extracted(
    words: list[str],
    message: str,
    runs: dict[str, Path],
    drawn: Path,
    extracted: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"agw": runs["agw"], "drawn": drawn}
    assert cli.main(["evaluate", *(word.format(**places) for word in words)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert extracted == []


def test_a_video_model_takes_images_as_clips_of_one_frame(runs: dict[str, Path], market: Path) -> None:
    (row,) = evaluate_across([runs["clip"]], [Target("market1501", market)], device="cpu").rows
    assert (row.source, row.target) == ("hitsz_vcm", "market1501")
    assert row.results.notes["trained on"] == "hitsz_vcm"


def test_the_command_shows_and_writes_the_matrix(
    runs: dict[str, Path],
    drawn: Path,
    market: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    chosen = [str(runs[name]) for name in ("seed0", "seed1", "agw")]
    words = ["--data.name", "sysu_mm01", "market1501", "--data.root", str(drawn / "sysu_mm01"), str(market)]
    words += ["--protocol", "all_single", "single_query", "--device", "cpu", "--output", str(tmp_path)]
    capsys.readouterr()
    assert cli.main(["evaluate", *chosen, *words]) == 0
    shown = capsys.readouterr().out.splitlines()
    table = shown[: next(number for number, line in enumerate(shown) if line.startswith("1 "))]
    assert max(map(len, table)) <= 80
    # Blanks out, numbers to N.
    told = [re.sub(r" +", " ", re.sub(r"±?\d+\.\d+", "N", line)).strip() for line in table]
    assert [line for line in told if line and not set(line) <= set("N ─")] == [
        "scores in percent",
        "scored on",
        "trained R1 R5 R10 R20 mAP mINP models",
        "sysu_mm01/all_single",
        "1 sysu_mm01/base N N N N N N 2",
        "2 sysu_mm01/agw N N N N N N 1",
        "market1501/single_query",
        "1 sysu_mm01/base N N N N N N 2",
        "2 sysu_mm01/agw N N N N N N 1",
    ]
    assert shown[len(table) :][:2] == [f"1 {chosen[0]} {chosen[1]}", f"2 {chosen[2]}"]
    rows = json.loads((tmp_path / "evaluation.json").read_text())["rows"]
    assert [(row["source"], row["target"], len(row["runs"])) for row in rows] == [
        ("sysu_mm01", "sysu_mm01", 2),
        ("sysu_mm01", "sysu_mm01", 1),
        ("sysu_mm01", "market1501", 2),
        ("sysu_mm01", "market1501", 1),
    ]
    with (tmp_path / "evaluation.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {(line["method"], line["target"], line["trial"]) for line in lines} >= {("agw", "market1501", "mean")}


def test_scores_on_another_dataset_leave_those_on_the_own_alone(runs: dict[str, Path], market: Path) -> None:
    run = runs["seed1"]
    evaluate_runs([run], device="cpu")
    own = (run / "evaluation.json").read_bytes()
    assert cli.main(["evaluate", str(run), "--data.name", "market1501", "--data.root", str(market)]) == 0
    assert (run / "evaluation.json").read_bytes() == own
    assert list(json.loads((run / "evaluation_market1501.json").read_text())["protocols"]) == [
        "market1501/single_query"
    ]


def test_a_table_needs_no_name(runs: dict[str, Path], market: Path, tmp_path: Path) -> None:
    from gloam.datasets.table import write_table

    table = tmp_path / "people.csv"
    write_table(load_dataset("market1501", market), table)
    (row,) = evaluate_across([runs["agw"]], choose_targets([], [table]), device="cpu").rows
    assert (row.target, row.source) == ("people", "sysu_mm01")
    (same,) = evaluate_across([runs["agw"]], [Target("market1501", market)], device="cpu").rows
    own = next(iter(row.results.trials.values()))
    assert own[0]["mAP"] == pytest.approx(same.results.trials["market1501/single_query"][0]["mAP"])


def test_long_names_are_broken_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    from gloam.console import console
    from gloam.evaluation.evaluator import Results

    scores = {f"{key}{n}": 1.0 for key in ("rank",) for n in (1, 5, 10, 20)} | {"mAP": 1.0, "mINP": 1.0, "num_valid": 5}
    results = Results({"hitsz_vcm/infrared_to_visible_without_same_camera": [scores] * 2})
    row = Row((Path("a"),), "occluded_people_of_ours", "cluster_contrast_infomap", "hitsz_vcm", Path(), results)
    found = Comparison((row, Row((Path("b"),), "x", "y", "hitsz_vcm", Path(), results)))
    console().print(found.table())
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    firsts = "".join(line[:30].strip().split("  ")[0].split(" 100")[0] for line in lines)
    assert "infrared_to_visible_without_same_camera" in firsts
    assert "occluded_people_of_ours/cluster_contrast_infomap" in firsts


def test_kept_features_are_listed_and_cleared(
    runs: dict[str, Path], market: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_across([runs["agw"]], [Target(), Target("market1501", market)], device="cpu")
    kept = list_features()
    assert sorted(one.count for one in kept) == sorted(
        len(part)
        for splits in (load_dataset("market1501", market), load_model(runs["agw"]).load_splits())
        for part in (splits.query, splits.gallery)
    )
    capsys.readouterr()
    assert cli.main(["cache", "list"]) == 0
    shown = capsys.readouterr().out
    for one in kept:
        assert f"{one.name}: {one.count:,} features of {one.root}" in shown
    assert cli.main(["cache", "clear", "--days", "1"]) == 0
    assert len(list_features()) == 4
    assert cli.main(["cache", "clear", str(market)]) == 0  # its pixels too
    assert {one.root for one in list_features()} == {one.root for one in kept} - {market.resolve().as_posix()}
    assert cli.main(["cache", "clear", list_features()[0].name]) == 0
    assert len(list_features()) == 1
    assert cli.main(["cache", "clear", "nothing"]) == 2
    assert "There is no cache 'nothing'" in capsys.readouterr().err
    assert cli.main(["cache", "clear"]) == 0
    assert list_features() == []
