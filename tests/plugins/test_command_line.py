"""Modules of one's own by flag, recipe key and environment variable, from the current directory, in every command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gloam import cli, plugins
from gloam.errors import GloamError
from gloam.recipes.recipe import Recipe, load_recipe, resolve, validate
from tests.training.tiny import tiny_recipe

REPOSITORY = Path(__file__).parents[2]
PARTS = """
import torch
from gloam.methods import register
from gloam.methods.base import BaseSoftmax
from gloam.losses import register as register_loss
from gloam.training.optimizers import register as register_optimizer

@register("mine")
class Mine(BaseSoftmax):
    pass

@register_loss("mine_loss")
def mine_loss(features, labels):
    return features.square().mean()

register_optimizer("mine_sgd")(torch.optim.SGD)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a module, a package, and a module that fails."""
    (tmp_path / "mine_parts.py").write_text(PARTS)
    (tmp_path / "mine_package").mkdir()
    (tmp_path / "mine_package" / "__init__.py").write_text("")
    (tmp_path / "mine_package" / "parts.py").write_text(PARTS.replace('"mine"', '"packaged"').replace("mine_", "pkg_"))
    (tmp_path / "mine_broken.py").write_text("import torch\n1 / 0\n")
    return tmp_path


def _gloam(folder: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed command's way: the working directory is not on the import path."""
    variables = {key: value for key, value in os.environ.items() if key != plugins.VARIABLE}
    variables |= {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-c", "import sys; from gloam.cli import main; sys.exit(main())", *map(str, words)]
    return subprocess.run(command, cwd=folder, env=variables | environment, capture_output=True, text=True)


def _save(recipe: Recipe, path: Path, **changes: object) -> Path:
    recipe.model_copy(update=changes).save(path)
    return path


def test_a_run_keeps_what_its_flag_named(folder: Path, sysu_root: Path) -> None:
    path = _save(tiny_recipe(sysu_root, method={"triplet": "hard"}), folder / "tiny.yaml")
    content = path.read_text()
    for ours, own in (
        ("name: base", "name: mine"),
        ("triplet: hard", "triplet: mine_loss"),
        ("name: sgd", "name: mine_sgd"),
    ):
        assert ours in content
        content = content.replace(ours, own)
    path.write_text(content)
    words = ["--plugins", "mine_parts", "--output", "run", "--quiet", "--stop-after", "1"]
    done = _gloam(folder, "train", "tiny.yaml", *words)
    assert done.returncode == 0, done.stderr
    assert "mine_parts" in (folder / "run" / "recipe.yaml").read_text().split("data:")[0]
    # The saved recipe names the module: no flag is needed again.
    resumed = _gloam(folder, "train", "--resume", "run", "--quiet")
    assert resumed.returncode == 0, resumed.stderr
    evaluated = _gloam(folder, "evaluate", "run")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "all_single" in evaluated.stdout
    # Elsewhere the module is missing, and the error says so.
    moved = folder / "elsewhere"
    moved.mkdir()
    lost = _gloam(moved, "evaluate", folder / "run")
    assert lost.returncode == 2
    assert "no method called 'mine'" in lost.stderr
    assert "No module named 'mine_parts'" in lost.stderr
    assert "Traceback" not in lost.stderr


def test_several_processes_import_the_plugins_too(folder: Path, sysu_root: Path) -> None:
    recipe = tiny_recipe(sysu_root, data={"workers": 1}, train={"epochs": 1, "iterations": 2, "devices": 2})
    path = _save(recipe, folder / "tiny.yaml")
    path.write_text(path.read_text().replace("name: base", "name: packaged"))
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gloam"]
    variables = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    variables |= {plugins.VARIABLE: "mine_package.parts"}
    train = ["train", "tiny.yaml", "--output", "run", "--quiet"]
    done = subprocess.run([sys.executable, *words, *train], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Saved, although only the environment named it.
    assert yaml.safe_load((folder / "run" / "recipe.yaml").read_text())["plugins"] == ["mine_package.parts"]


def test_a_failing_plugin_stops_the_command_that_names_it_and_no_other(folder: Path) -> None:
    named = _gloam(folder, "data", "list", "--plugins=mine_parts,mine_broken")
    assert named.returncode == 2
    assert "Plugin mine_broken could not be imported: ZeroDivisionError: division by zero" in named.stderr
    assert "mine_broken.py, line 2" in named.stderr
    assert "Traceback" not in named.stderr
    around = _gloam(folder, "data", "list", **{plugins.VARIABLE: "mine_broken"})
    assert around.returncode == 0
    assert "sysu_mm01" in around.stdout
    assert around.stderr.count("ZeroDivisionError") == 1


def test_doctor_lists_plugins_and_what_failed(folder: Path) -> None:
    shown = _gloam(folder, "doctor", **{plugins.VARIABLE: f"mine_parts{os.pathsep}mine_broken"})
    assert shown.returncode == 0, shown.stderr
    assert "mine_parts (GLOAM_PLUGINS): loaded" in shown.stdout
    assert "mine_broken (GLOAM_PLUGINS): FAILED: ZeroDivisionError" in " ".join(shown.stdout.split())


@pytest.mark.parametrize("words", [["--plugins"], ["--plugins", "--quiet"], ["--plugins=,"]])
def test_the_flag_needs_a_name(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "list", *words]) == 2
    assert "--plugins needs the names of modules" in capsys.readouterr().err


def test_a_library_never_searches_the_working_directory(folder: Path) -> None:
    code = "from gloam.plugins import import_plugins; import_plugins(['mine_parts'], 'test', required=True)"
    variables = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=variables, capture_output=True, text=True)
    assert (
        "No module named 'mine_parts'. It is looked for among the installed packages and in PYTHONPATH" in done.stderr
    )


def test_the_import_path_stays_as_it_is_without_plugins(folder: Path) -> None:
    code = "from gloam.cli import main; main(['data', 'list']); import os, sys; print(os.getcwd() in sys.path)"
    variables = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_recipe_that_extends_another_adds_its_plugins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(plugins, "_known", {})
    (folder / "below.yaml").write_text("extends: sysu_mm01/base\nplugins: [mine_parts]\nmethod: {name: mine}\n")
    (folder / "above.yaml").write_text("extends: below.yaml\nplugins: [mine_package.parts]\nmethod: {name: packaged}\n")
    recipe = load_recipe(folder / "above.yaml")
    assert recipe.plugins == ("mine_parts", "mine_package.parts")
    assert recipe.method_name == "packaged"
    assert resolve(recipe).recipe.plugins == recipe.plugins


def test_plugins_belong_to_the_whole_run(tmp_path: Path) -> None:
    content = tiny_recipe(tmp_path).model_dump(mode="json")
    for key, value in {"plugins": ["a"], "loggers": ["csv"], "logger_options": {}}.items():
        with pytest.raises(GloamError, match=f"cannot have its own '{key}'"):
            validate({**content, "stages": {"one": {key: value}}}, "mine")
    with pytest.raises(GloamError, match="plugins"):
        validate({**content, "plugins": "mine_parts"}, "mine")


def test_a_dry_run_finds_wrong_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--optimizer.name", "timm:lamp"], "'lamb'"),
        (["--schedule.name", "cosin"], "'cosine'"),
        (["--loggers", "wandbb"], "'wandb'"),
        (["--method.triplet", "hart"], "'hard'"),
        (["--method.arch", "tiny", "--optimizer.name", "timm:lamb", "--optimizer.options.beta", "1"], "'betas'"),
    ):
        assert cli.main(["train", "sysu_mm01/base", "--dry-run", *words]) == 2, words
        assert message in capsys.readouterr().err


def test_options_of_open_sections_are_flags(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--optimizer.name",
        "timm:lamb",
        "--optimizer.options.betas",
        "0.9",
        "0.95",
        "--optimizer.options.eps=1e-7",
    ]
    words += ["--schedule.name=timm:cosine", "--schedule.options.warmup-epochs", "3", "--schedule.warmup-epochs", "0"]
    words += ["--logger-options.csv.flush", "true", "--loggers", "csv"]
    assert cli.main(["train", "sysu_mm01/agw", "--dry-run", *words]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["optimizer"]["options"] == {"betas": [0.9, 0.95], "eps": 1e-7}
    assert shown["schedule"]["options"] == {"warmup_epochs": 3}
    assert shown["logger_options"] == {"csv": {"flush": True}}
    for wrong in (["--optimizer.options.eps"], ["--optimizer.options", "3"], ["--logger-options.csv", "3"]):
        assert cli.main(["train", "sysu_mm01/agw", "--dry-run", *wrong]) == 2
        assert "and a value" in capsys.readouterr().err
