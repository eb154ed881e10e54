"""Every command of docs/tutorial-own-data.md, in order, in an empty folder."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from gloam import cli

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial-own-data.md").read_text()


def test_the_tutorial_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = {}
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL):
        commands = [line for line in block.splitlines() if line.startswith("gloam ")]
        for line in commands:
            quiet = ["--quiet", "--train.accelerator", "cpu"] if line.startswith("gloam train") else []
            assert cli.main([*shlex.split(line)[1:], *quiet]) == 0, line
            shown[line.split()[1]] = " ".join(capsys.readouterr().out.split())
        rest = "\n".join(line for line in block.splitlines() if line not in commands)
        if rest.strip():
            subprocess.run(["bash", "-ec", rest], check=True)
    fitting, others = shown["data"].split("recipes that fit: ")[1].split(" do not fit", 1)
    assert "table/bot" in fitting
    assert "table/agw," in others
    scores = json.loads(Path("first/results.json").read_text())["protocols"]["table/default"]["mean"]
    assert scores["mAP"] > 0.3
    with Image.open("ranked.png") as picture:
        assert min(picture.size) > 100
    people = {path.name for path in Path("photos").iterdir()}
    gallery = pd.read_parquet("gallery.parquet")
    assert set(gallery["pid"]) < people
    assert len(set(gallery["pid"])) == len(people) // 2
    assert len(pd.read_parquet("person.parquet")) == len(list(Path("photos/0002").iterdir()))
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(snippet, "tutorial", "exec", dont_inherit=True), {"__name__": "tutorial"})
    assert "0002" in capsys.readouterr().out
