"""Every recipe through the command line on drawn people, and what users get for their mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gloam import cli
from gloam.datasets.drawn import draw_dataset
from gloam.training.recipe import list_recipes, load_recipe

HEIGHT, WIDTH = 96, 48
# Flags that make a method fit the tiny data; clusters of few pictures need small neighbourhoods.
CLUSTERS = {"k1": 5, "k2": 2, "min_samples": 2, "eps": 0.7}
SMALL = {
    "pf_mgcd": {"num_parts": 3, "warmup_epochs": 0},
    "cluster_contrast": CLUSTERS,
    "spcl": CLUSTERS,
    "metaprd": CLUSTERS,
    "simsiam": {"hidden_dim": 32, "out_dim": 32, "predictor_dim": 8},
    "ntxent": {"hidden_dim": 32},
}
# One dataset stands for each kind; the other recipes differ in numbers only and are validated in tests/training.
RECIPES = [r for r in list_recipes() if r.split("/")[0] in ("sysu_mm01", "hitsz_vcm", "market1501")]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sysu_mm01, hitsz_vcm and market1501 side by side; read only."""
    root = tmp_path_factory.mktemp("drawn")
    for layout, ids, images in (("sysu_mm01", 10, 2), ("hitsz_vcm", 8, 1), ("market1501", 12, 3)):
        draw_dataset(layout, root / layout, ids=ids, images=images, height=HEIGHT, width=WIDTH, progress=False)
    return root


def _words(name: str, root: Path) -> list[str]:
    """Flags that shrink a recipe to seconds."""
    recipe = load_recipe(name)
    words = ["--data.root", str(root / recipe.data.name), "--data.height", str(HEIGHT), "--data.width", str(WIDTH)]
    words += [
        "--data.workers",
        "0",
        "--weights",
        "none",
        "--quiet",
        "--train.accelerator",
        "cpu",
        "--train.precision",
        "32",
    ]
    words += ["--train.epochs", "1", "--train.iterations", "2", "--sampler.identities", "2", "--sampler.instances", "2"]
    if recipe.sampler.batch_size is not None:
        words += ["--sampler.batch-size", "4"]
    flags = {"arch": "tiny", **SMALL.get(recipe.method_name, {})}
    words += [word for key, value in flags.items() for word in (f"--method.{key.replace('_', '-')}", str(value))]
    for stage, changes in recipe.stages.items():
        words += [f"--stages.{stage}.train.epochs", "1"]
        if "method" in changes and changes["method"].get("name", recipe.method_name) != recipe.method_name:
            words += [f"--stages.{stage}.method.arch", "tiny"]
        if "identities" in changes.get("sampler", {}):
            words += [f"--stages.{stage}.sampler.identities", "2", f"--stages.{stage}.sampler.instances", "2"]
        if "iterations" in changes.get("train", {}):
            words += [f"--stages.{stage}.train.iterations", "2"]
    return words


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_scores(name: str, drawn: Path, tmp_path: Path) -> None:
    if "simsiam" in name or "ntxent" in name:
        pytest.importorskip("lightly")
    run = tmp_path / "run"
    assert cli.main(["train", name, *_words(name, drawn), "--output", str(run)]) == 0
    scores = json.loads((run / "results.json").read_text())["protocols"]
    assert scores
    for values in scores.values():
        assert 0 <= values["mean"]["mAP"] <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "sysu_mm01/agw", "--data.root", "{nowhere}", "--weights", "none"], "nowhere"),
        (["train", "sysu_mm01/agw", "--data.root", "{market1501}", "--weights", "none"], "cam1"),
        (["train", "market1501/nothing"], "market1501/"),
        (["evaluate", "{nowhere}"], "no run or checkpoint"),
        (["evaluate"], "Which run"),
        (["extract", "{nowhere}", "{sysu_mm01}", "out.parquet"], "no run or checkpoint"),
        (["extract", "{nowhere}", "{sysu_mm01}", "out.xyz"], ".parquet"),
        (["rank-list", "{nowhere}"], "no run or checkpoint"),
        (["data", "check", "sysu", "{sysu_mm01}"], "sysu_mm01"),
        (["data", "draw", "sysu_mm01", "{sysu_mm01}"], "not empty"),
        (["recipes", "nothing*"], "No recipe matches"),
    ],
)
def test_mistakes_are_one_message_and_code_two(
    words: list[str],
    message: str,
    drawn: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"nowhere": tmp_path / "nowhere", "sysu_mm01": drawn / "sysu_mm01", "market1501": drawn / "market1501"}
    assert cli.main([word.format(**places) if "{" in word else word for word in words]) == 2
    shown = capsys.readouterr().err
    assert message in " ".join(shown.split())
    assert "Traceback" not in shown
    assert not list(tmp_path.rglob("*.tmp"))


def test_image_data_for_a_visible_only_dataset_is_explained(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "sysu_mm01/base", "--data.name", "market1501", "--data.root", str(drawn / "market1501")]
    assert cli.main([*words, "--weights", "none", "--method.arch", "tiny"]) == 2
    assert "visible" in capsys.readouterr().err


def test_tables_print(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "list"]) == 0
    assert cli.main(["recipes", "sysu_mm01/*"]) == 0
    assert cli.main(["doctor"]) == 0
    assert cli.main(["data", "check", "sysu_mm01", str(drawn / "sysu_mm01")]) in (0, 2)
    shown = capsys.readouterr().out
    for word in ("sysu_mm01", "47.50", "torch", "query"):
        assert word in shown


def test_own_table_trains_end_to_end(drawn: Path, tmp_path: Path) -> None:
    from gloam.datasets import load_dataset
    from gloam.datasets.table import write_table

    table = drawn / "sysu_mm01" / "table.csv"
    if not table.exists():
        write_table(load_dataset("sysu_mm01", drawn / "sysu_mm01"), table)
    words = _words("sysu_mm01/base", drawn)
    words[1] = str(table)
    assert cli.main(["train", "sysu_mm01/base", *words, "--data.name", "table", "--output", str(tmp_path / "run")]) == 0
    assert "table/default" in json.loads((tmp_path / "run" / "results.json").read_text())["protocols"]
