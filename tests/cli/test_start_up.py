"""What commands import before they do anything."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from gloam.cli import COMMANDS

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "scipy",
    "sklearn",
    "numba",
    "pandas",
    "matplotlib",
    "tensorboard",
)


def _imported(words: list[str]) -> set[str]:
    code = (
        "import sys\n"
        "from gloam.cli import main\n"
        "try:\n"
        f"    main({words!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"sys.stderr.write(','.join(name for name in {HEAVY!r} if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(filter(None, done.stderr.split(",")))


@pytest.mark.parametrize("command", [*COMMANDS, ""])
def test_help_imports_nothing_heavy(command: str) -> None:
    assert _imported([*command.split(), "--help"]) == set()


def test_the_help_of_a_recipe_imports_no_trainer() -> None:
    # The flags of a method stand in its file, which needs torch and SciPy.
    assert _imported(["train", "sysu_mm01/agw", "--help"]) <= {"torch", "scipy"}


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_help_shows_types_as_people_write_them(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gloam import cli

    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert not stop.value.code
    boxes = [line for line in capsys.readouterr().out.splitlines() if line[:1] in "│╭╰"]
    assert boxes
    for line in boxes:
        assert len(line) <= 80
        assert not re.search(r"\{None|\bSTR\b|\bINT\b|\bFLOAT\b|default: None", line), line
