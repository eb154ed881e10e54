"""What README and docs/extend.md show is what works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gloam import plugins

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = Path(__file__).parent / "example_package"
PAGE = REPOSITORY / "docs" / "extend.md"


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("block", [*_blocks(PAGE, "python"), *_blocks(PAGE, "toml")])
def test_the_page_shows_the_example_package(block: str) -> None:
    sources = [path.read_text(encoding="utf-8") for path in [*EXAMPLE.rglob("*.py"), EXAMPLE / "pyproject.toml"]]
    assert any(block in source for source in sources)


def test_the_page_and_the_example_name_every_group() -> None:
    text = PAGE.read_text(encoding="utf-8")
    metadata = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    for group in plugins.GROUPS:
        assert f'[project.entry-points."{group}"]' in metadata
        assert f"## A{'n' if group == 'gloam.optimizers' else ''} {_word(group)}\n" in text


def _word(group: str) -> str:
    kind = group.removeprefix("gloam.").removesuffix("s")
    return {"losse": "loss", "optimizer": "optimiser"}.get(kind, kind)


def test_the_readmes_command_works(tmp_path: Path, sysu_root: Path) -> None:
    (module,) = [block for block in _blocks(REPOSITORY / "README.md", "python") if "my_reid.py" in block]
    assert len(module.strip().splitlines()) <= 20
    (tmp_path / "my_reid.py").write_text(module)
    commands = "\n".join(_blocks(REPOSITORY / "README.md", "bash")).splitlines()
    (command,) = [line for line in commands if "--plugins" in line]
    words = command.replace("DIR", str(sysu_root)).split()[1:]
    words += ["--train.epochs", "1", "--train.iterations", "1", "--data.height", "48", "--data.width", "16"]
    words += ["--train.accelerator", "cpu", "--quiet", "--output", "run", "--evaluation.protocols", "all_single"]
    words += ["--sampler.identities", "2", "--sampler.instances", "2"]
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from gloam.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(REPOSITORY), *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "thin" in (tmp_path / "run" / "recipe.yaml").read_text()
