"""Lists: names whole at every width, one line each in a pipe, JSON that says everything."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from gloam import cli
from gloam.datasets import get_dataset, list_datasets, load_dataset
from gloam.errors import GloamError
from gloam.recipes.recipe import list_recipes

LISTS = {"data list": list_datasets, "recipes": list_recipes}


def _shown(
    words: list[str], width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """What a terminal of this width shows."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(words) == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


@pytest.mark.parametrize("command", LISTS)
@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_names_are_never_cut(
    command: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _shown(command.split(), width, monkeypatch, capsys)
    firsts = [line.split("  ")[0].rstrip() for line in lines]
    for name in LISTS[command]():
        assert firsts.count(name) == 1, name
    longest = max(map(len, LISTS[command]()))
    assert max(map(len, (line.rstrip() for line in lines))) <= max(width, longest)
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in lines)


def test_addresses_are_whole_at_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown = "\n".join(_shown(["data", "list"], 80, monkeypatch, capsys))
    for name in list_datasets():
        page = get_dataset(name).page
        assert page is None or page in shown


@pytest.mark.parametrize("command", LISTS)
def test_a_pipe_gets_one_plain_line_each(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command.split()) == 0
    shown = capsys.readouterr().out
    assert [line.split("\t")[0] for line in shown.splitlines()] == LISTS[command]()
    assert "\x1b" not in shown
    assert not set(shown) & set("│┃─━┏┓┗┛")


@pytest.mark.parametrize("command", LISTS)
def test_json_and_patterns(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == LISTS[command]()
    assert cli.main([*command.split(), "sysu*", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found] == LISTS[command]("sysu*")
    assert cli.main([*command.split(), "nothing*"]) == 2
    assert "matches 'nothing*'" in capsys.readouterr().err


def test_what_json_says_of_recipes_and_datasets(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "sysu_mm01/agw", "--json"]) == 0
    (recipe,) = json.loads(capsys.readouterr().out)
    assert (recipe["dataset"], recipe["method"]) == ("sysu_mm01", "agw")
    assert {"protocol", "rank1", "mAP", "source"} <= set(recipe["expected"][0])
    assert cli.main(["data", "list", "regdb", "--json"]) == 0
    (dataset,) = json.loads(capsys.readouterr().out)
    assert dataset["expected"]["query_records"] == 2060
    assert dataset["page"].startswith("http://dm.dongguk.edu")
    assert "trial" in dataset["options"]


def test_withdrawn_data_has_no_address() -> None:
    """DukeMTMC is never linked, anywhere in what gloam prints about it."""
    described = json.dumps(get_dataset("dukemtmc").describe())
    assert "http" not in described
    assert "www" not in described


@pytest.mark.parametrize("name", [name for name in list_datasets() if get_dataset(name).page])
def test_a_missing_folder_says_where_the_dataset_comes_from(name: str) -> None:
    with pytest.raises(GloamError) as error:
        load_dataset(name, "not/there")
    assert get_dataset(name).page in str(error.value)  # type: ignore[operator]


def test_a_reader_that_stops_early_is_no_fault() -> None:
    code = "from gloam import cli; raise SystemExit(cli.main(['data', 'list', '--json']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    _, error = process.communicate()
    assert process.returncode == 0
    assert error == ""
