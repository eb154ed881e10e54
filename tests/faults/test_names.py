"""Files and folders with names that terminals obey, markup languages read, and text encodings refuse."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from gloam import cli
from tests.training.tiny import tiny_recipe

NAMES = {
    "markup": "[/x][bold]a[/",
    "bytes": "\udcff\udcfe",
    "escapes": "\x1b[2J\x07\x1b]0;title\x07",
    "lines": "two\nlines\r",
    "zero": "0",
    "minus": "-1",
    "emoji": ":smile: %s {0}",
    "direction": "\u202egpj.exe",
}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


def _run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and everything shown; nothing of it is a traceback or an order to the terminal."""
    try:
        code = cli.main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    shown = "".join(capsys.readouterr())
    assert "Traceback" not in shown, shown
    assert "Logging error" not in shown, shown
    assert not CONTROL.search(shown.replace("\r\n", "\n")), (words, shown)
    return code, shown


def _commands(name: str, root: Path) -> list[list[str]]:
    """Every command with the name wherever a name goes; in an empty folder, so none of them succeeds."""
    commands = [[command, name] for command in ("evaluate", "rank-list", "embedding", "curves", "stripes", "clips")]
    commands += [
        ["data", "check", "sysu_mm01", name],
        ["data", "check", name, str(root)],
        ["data", "draw", name, "out"],
        ["recipes", name],
        ["train", name],
        ["train", "sysu_mm01/base", "--data.root", name, "--weights", "none"],
        ["train", "sysu_mm01/base", "--data.root", str(root), "--weights", name, "--method.arch", "tiny"],
        ["train", "--resume", name],
        ["train", "sysu_mm01/base", f"--{name}", "1"],
        ["extract", name, name, name],
        ["extract", name, name, f"{name}.npz"],
        ["cache", "clear", name],
        ["cache", "list", "--folder", name],
        [name],
    ]
    return commands


@pytest.mark.parametrize("kind", NAMES)
def test_no_command_trips_over_a_name(
    kind: str, sysu_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in _commands(NAMES[kind], sysu_root):
        code, shown = _run(words, capsys)
        assert code in (0, 2), (words, shown)
        assert shown


def test_a_folder_where_a_file_is_meant(
    sysu_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "folder.yaml", "folder.npz", "folder.csv", "folder.ckpt"):
        Path(folder).mkdir()
    for words in (
        ["train", "folder.yaml"],
        ["train", "--resume", "folder.ckpt"],
        ["train", "sysu_mm01/base", "--data.root", str(sysu_root), "--weights", "folder.ckpt", "--method.arch", "tiny"],
        ["evaluate", "folder.ckpt"],
        ["extract", "folder", str(sysu_root), "folder.npz"],
        ["data", "check", "table", "folder.csv"],
    ):
        code, shown = _run(words, capsys)
        assert code == 2, (words, shown)


def test_everything_works_below_a_folder_with_a_bad_name(
    sysu_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data, run, recipe and outputs in folders that hold markup, an escape and a byte that is no UTF-8."""
    base = tmp_path / "[/x] \x1b[2J \udcff"
    base.mkdir(parents=True)
    monkeypatch.chdir(base)
    root, run = base / "data", base / "run [bold]"
    shutil.copytree(sysu_root, root)
    tiny_recipe(root, train={"epochs": 1, "iterations": 1}).save(base / "recipe.yaml")
    assert _run(["train", str(base / "recipe.yaml"), "--output", str(run), "--stop-after", "1"], capsys)[0] == 0
    assert _run(["train", "--resume", str(run)], capsys)[0] == 0
    assert "\x1b" not in (run / "log.txt").read_text(encoding="utf-8")
    shutil.copy(root / "cam1" / "0001" / "0001.jpg", root / "cam1" / "0001" / "[y]\udcfe.jpg")
    for words in (
        ["evaluate", str(run), "--protocol", "all_single"],
        ["rank-list", str(run), "--output", "list.png", "--queries", "2", "--top", "2"],
        ["embedding", str(run), "--output", "embedding.png"],
        ["curves", str(run), "--output", "curves.png"],
        ["extract", str(run), str(root), "features.csv", "--split", "query"],
        ["data", "check", "sysu_mm01", str(root)],
        ["cache", "list"],
    ):
        code, shown = _run(words, capsys)
        assert code == 0, (words, shown)
    for suffix in ("npz", "csv", "parquet"):
        # Names that are no UTF-8 cannot be text in every format; then one message says so.
        code, shown = _run(["extract", str(run), str(root / "cam1" / "0001"), f"names.{suffix}"], capsys)
        assert code == 0 or (code == 2 and "error:" in shown)
    assert not [name for name in os.listdir(base) if name.endswith(".tmp")]


def test_a_bad_name_is_shown_by_its_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    _, shown = _run(["train", "\x1b[2J.yaml"], capsys)
    assert "\\x1b[2J.yaml" in shown
