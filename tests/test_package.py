"""The package as a whole: light imports, clear errors, files that are never half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gloam
from gloam import cli
from gloam.atomic import atomic_path, write_text
from gloam.errors import WriteError, did_you_mean
from gloam.registry import Registry


@pytest.mark.parametrize("statement", ["import gloam", "import gloam.cli"])
def test_import_leaves_heavy_packages_alone(statement: str) -> None:
    code = f"{statement}; import sys; print(*[m for m in ('torch', 'lightning', 'timm', 'pandas') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_every_public_name_resolves() -> None:
    for name in gloam.__all__:
        assert getattr(gloam, name) is not None


def test_help_lists_every_command_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert name in shown
        assert (command.__doc__ or "").splitlines()[0] in shown


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "train"])
def test_help_of_each_command_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*name.split(), "--help"])
    assert stop.value.code == 0
    assert f"gloam {name}" in capsys.readouterr().out.split("Example:")[1]


def test_unknown_command_is_one_message_and_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    shown = capsys.readouterr().err
    assert "train" in shown
    assert "Traceback" not in shown


def test_did_you_mean_names_the_nearest_or_lists_all() -> None:
    assert "'agw'" in did_you_mean("awg", ["agw", "ddag"])
    assert did_you_mean("zzz", ["agw", "ddag"]) == "Known: agw, ddag."


def test_registry_refuses_a_second_class_under_one_name() -> None:
    registry: Registry[object] = Registry("thing", "gloam.losses")
    registry.register("a")(int)
    with pytest.raises(ValueError, match="twice"):
        registry.register("a")(float)


def test_atomic_write_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    write_text(target, "old")
    with pytest.raises(WriteError, match="full"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_objects_tell_themselves_in_five_lines(sysu_root: Path) -> None:
    from gloam.datasets import load_dataset
    from gloam.evaluation.evaluator import Results

    splits = load_dataset("sysu_mm01", sysu_root)
    scores = [{"rank1": 0.5, "mAP": 0.25}]
    results = Results({f"a/{number}": scores for number in range(9)}, {"selection": "last"})
    for shown in (repr(splits), repr(results)):
        assert len(shown.splitlines()) == 5
    assert f"train: {len(splits.train):,} images, {splits.num_classes:,} identities" in repr(splits)
    assert "a/0: 50.00 / 25.00 (1 trial)" in repr(results)
    assert "and 6 more protocols" in repr(results)


def test_a_second_demo_finds_a_folder(tmp_path: Path) -> None:
    from gloam.demo import free_folder

    assert free_folder(tmp_path / "demo") == tmp_path / "demo"
    for expected in ("demo_2", "demo_3"):
        (free_folder(tmp_path / "demo") / "data").mkdir(parents=True)
        assert free_folder(tmp_path / "demo") == tmp_path / expected
