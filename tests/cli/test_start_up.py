"""What commands import before they do anything."""

from __future__ import annotations

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
