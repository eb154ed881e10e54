"""Every recipe through the command line on drawn people, and what users get for their mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gloam import cli
from gloam.recipes.recipe import list_recipes
from tests.small_recipes import small_words

# One dataset stands for each kind; the other recipes differ in numbers only and are validated in tests/training.
RECIPES = [r for r in list_recipes() if r.split("/")[0] in ("sysu_mm01", "hitsz_vcm", "market1501")]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_scores(name: str, drawn: Path, tmp_path: Path) -> None:
    if "simsiam" in name or "ntxent" in name:
        pytest.importorskip("lightly")
    run = tmp_path / "run"
    assert cli.main(["train", name, *small_words(name, drawn), "--output", str(run)]) == 0
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
        (["stripes", "{nowhere}"], "no run or checkpoint"),
        (["embedding", "{nowhere}"], "no run or checkpoint"),
        (["curves", "{nowhere}"], "no epoch has finished"),
        (["clips", "{nowhere}"], "no run or checkpoint"),
        (["data", "check", "sysu", "{sysu_mm01}"], "sysu_mm01"),
        (["data", "check", "sysu_mm01", "{sysu_mm01}", "--option", "trial"], "KEY=VALUE"),
        (["data", "check", "sysu_mm01", "{sysu_mm01}", "--option", "trial=3"], "trial"),
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
    words = small_words("sysu_mm01/base", drawn)
    words[1] = str(table)
    assert cli.main(["train", "sysu_mm01/base", *words, "--data.name", "table", "--output", str(tmp_path / "run")]) == 0
    assert "table/default" in json.loads((tmp_path / "run" / "results.json").read_text())["protocols"]


def test_images_of_a_run(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "sysu_mm01/base", *small_words("sysu_mm01/base", drawn), "--output", "run"]) == 0
    for words in (["curves", "run"], ["embedding", "run"], ["embedding", "run", "--projection", "tsne"]):
        assert cli.main([*words, "--output", "image.png"]) == 0
        with Image.open("image.png") as image:
            image.load()
            assert min(image.size) > 100
        Path("image.png").unlink()
