"""``gloam runs``: recipe, state, score and size of every run of a folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gloam import cli
from gloam.errors import GloamError
from gloam.training.run import train
from gloam.training.run_list import list_runs
from tests.training.tiny import tiny_recipe


def test_every_state_is_told(sysu_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny_recipe(sysu_root, train={"epochs": 2, "iterations": 1})
    done = train(recipe, output=tmp_path / "a" / "done", progress=False)
    train(recipe, output=tmp_path / "a" / "stopped", progress=False, stop_after=1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "recipe.yaml").write_text("nothing: here")
    runs = {run.path.name: run for run in list_runs(tmp_path)}
    assert list(runs) == ["done", "stopped", "b"]
    assert [run.state for run in runs.values()] == ["finished", "stopped after epoch 1 of 2", "damaged"]
    assert done.results is not None
    assert runs["done"].mAP == done.results.mean("sysu_mm01/all_single")["mAP"]
    assert runs["done"].recipe == "sysu_mm01/base"
    files = [file for file in (tmp_path / "a" / "done").rglob("*") if file.is_file()]
    assert runs["done"].size == sum(file.stat().st_size for file in files)
    capsys.readouterr()
    assert cli.main(["runs", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(run.path) for run in runs.values()]
    assert re.search(r"sysu_mm01/base, finished\tall_single: [\d.]+ / [\d.]+\t[\d.]+ MiB", lines[0])
    assert cli.main(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1]["state"] == "stopped after epoch 1 of 2"


def test_a_run_in_progress_is_running(sysu_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny_recipe(sysu_root, train={"epochs": 2, "iterations": 1}), output=run, progress=False, stop_after=1)
    code = (
        "import sys\nfrom gloam.training.run_folder import RunFolder\nfrom pathlib import Path\n"
        f"folder = RunFolder(Path({str(run)!r}))\nfolder.hold()\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert [one.state for one in list_runs(tmp_path)] == ["running"]
        holder.communicate(b"")
    assert [one.state for one in list_runs(tmp_path)] == ["stopped after epoch 1 of 2"]


def test_a_folder_without_runs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GloamError, match="no folder"):
        list_runs(tmp_path / "nothing")
    assert cli.main(["runs", str(tmp_path)]) == 2
    assert "holds no runs" in capsys.readouterr().err
