"""What a registry makes of packages that work, fail, or claim the same name."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gloam import plugins
from gloam.errors import GloamError
from gloam.registry import Registry
from tests.plugins.packages import things, use_folder, write_package

# A package registers in the registry that it imports; the tests hand theirs out through this module.
HOLDER = "tests.plugins.test_registry"
registry: Registry[object]

REGISTERS = f"""
    from {HOLDER} import registry

    @registry.register("{{name}}")
    class Thing:
        origin = __name__
"""


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    global registry
    use_folder(tmp_path, monkeypatch)
    registry = things()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_pkg")]:
        del sys.modules[name]


def test_a_module_as_entry_point_registers_its_parts(tmp_path: Path) -> None:
    source = REGISTERS.format(name="a") + "\n    registry.register('b')(int)\n"
    write_package(tmp_path, "one_pkg", {"parts": source}, {"gloam.things": {"whatever": "one_pkg.parts"}})
    assert registry.names() == ["a", "b"]
    assert registry.get("a").origin == "one_pkg.parts"
    assert [plugin.source for plugin in plugins.found()] == ["one_pkg 1.0"]


def test_an_object_as_entry_point_takes_the_entry_points_name_unless_it_has_one(tmp_path: Path) -> None:
    plain = "def make():\n    return 3\n"
    write_package(
        tmp_path,
        "one_pkg",
        {"plain": plain, "named": REGISTERS.format(name="own")},
        {"gloam.things": {"made": "one_pkg.plain:make", "other": "one_pkg.named:Thing"}},
    )
    assert registry.names() == ["made", "own"]
    assert registry.get("made")() == 3


def test_nothing_is_loaded_before_the_first_look_up(tmp_path: Path) -> None:
    write_package(tmp_path, "one_pkg", {"parts": REGISTERS.format(name="a")}, {"gloam.things": {"a": "one_pkg.parts"}})
    assert "one_pkg.parts" not in sys.modules
    assert "a" in registry
    assert "one_pkg.parts" in sys.modules


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("def broken(:\n", "SyntaxError"),
        ("import sys\nsys.exit(3)\n", "SystemExit"),
        (REGISTERS.format(name="two words"), "one word"),
    ],
)
def test_a_broken_plugin_is_named_with_its_cause_and_the_rest_works(
    source: str, cause: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_package(tmp_path, "bad_pkg", {"parts": source}, {"gloam.things": {"broken": "bad_pkg.parts"}})
    write_package(tmp_path, "ok_pkg", {"parts": REGISTERS.format(name="ok")}, {"gloam.things": {"ok": "ok_pkg.parts"}})
    with caplog.at_level(logging.WARNING, logger="gloam"):
        assert registry.names() == ["ok"]
    assert len(caplog.records) == 1
    assert "bad_pkg 1.0" in caplog.text
    assert cause in caplog.text
    with pytest.raises(GloamError, match=r"bad_pkg\.parts") as failure:
        registry.get("broken")
    assert cause in str(failure.value)


def test_a_broken_module_of_the_package_leaves_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    global registry
    registry = things("own_pkg")
    modules = {"good": REGISTERS.format(name="good"), "bad": "raise OSError('disk')\n", "z": REGISTERS.format(name="z")}
    write_package(tmp_path, "own_pkg", modules)
    assert registry.names() == ["good", "z"]
    assert "own_pkg.bad (gloam itself) could not be loaded: OSError: disk" in caplog.text
    assert "bad.py, line 1" in caplog.text


def test_two_packages_that_claim_a_name_are_both_named_and_only_that_name_is_lost(tmp_path: Path) -> None:
    for package in ("one_pkg", "two_pkg"):
        source = REGISTERS.format(name="same") + f"\n    registry.register('{package}')(Thing)\n"
        write_package(tmp_path, package, {"parts": source}, {"gloam.things": {package: f"{package}.parts"}})
    with pytest.raises(GloamError, match=r"one_pkg\.parts.*two_pkg\.parts"):
        registry.get("same")
    assert registry.names() == ["one_pkg", "two_pkg"]
    assert len(registry.clashes()) == 1


def test_entry_points_that_name_the_same_object_twice_do_not_clash(tmp_path: Path) -> None:
    write_package(
        tmp_path, "one_pkg", {"parts": "def make(): pass\n"}, {"gloam.things": {"made": "one_pkg.parts:make"}}
    )
    write_package(tmp_path, "two_pkg", {}, {"gloam.things": {"made": "one_pkg.parts:make"}})
    assert registry.names() == ["made"]


def test_a_plugin_cannot_replace_what_gloam_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Own:
        pass

    Own.__module__ = "gloam.somewhere"
    registry.register("agw")(Own)
    write_package(
        tmp_path, "one_pkg", {"parts": REGISTERS.format(name="agw")}, {"gloam.things": {"agw": "one_pkg.parts"}}
    )
    assert registry.get("agw") is Own
    assert "gloam itself has one of this name" in caplog.text


def test_a_plugin_imported_by_hand_cannot_replace_a_method_that_is_not_imported_yet() -> None:
    code = """
from gloam.methods import Method, register
from gloam.errors import GloamError

class AGW(Method):
    pass

try:
    register("agw")(AGW)
except GloamError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "gloam itself has one of this name" in done.stdout


def test_a_reserved_name_cannot_be_registered() -> None:
    with pytest.raises(GloamError, match="gloam itself"):
        things(reserved=["sgd"]).register("sgd")(int)


def test_a_module_loaded_again_replaces_what_it_registered() -> None:
    own = things()
    for _ in range(2):
        own.register("a")(type("Thing", (), {"__module__": "notebook", "__qualname__": "Thing"}))
    latest = own.register("a")(type("Thing", (), {"__module__": "notebook", "__qualname__": "Thing"}))
    assert own.get("a") is latest


def test_one_module_cannot_register_two_things_under_one_name() -> None:
    own = things()
    own.register("a")(int)
    with pytest.raises(ValueError, match="twice"):
        own.register("a")(float)


def test_modules_of_the_environment_variable_are_imported_at_the_first_look_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for package in ("one_pkg", "two_pkg"):
        write_package(tmp_path, package, {"parts": REGISTERS.format(name=package)})
    monkeypatch.setenv(plugins.VARIABLE, f"one_pkg.parts{os.pathsep} two_pkg.parts,lost_pkg,")
    assert registry.names() == ["one_pkg", "two_pkg"]
    assert plugins.import_from_environment() == ("one_pkg.parts", "two_pkg.parts")
    assert "lost_pkg (GLOAM_PLUGINS) could not be loaded" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", ["parts.py", "one/parts", "one-parts", "a..b", ""])
def test_a_path_is_no_module_name(name: str) -> None:
    with pytest.raises(GloamError, match="not the name of a module"):
        plugins.import_plugins([name], "test", required=True)


def test_a_module_that_failed_can_be_mended_and_named_again(tmp_path: Path) -> None:
    write_package(tmp_path, "one_pkg", {"parts": "1 / 0\n"})
    with pytest.raises(GloamError, match="ZeroDivisionError"):
        plugins.import_plugins(["one_pkg.parts"], "test", required=True)
    (tmp_path / "one_pkg" / "parts.py").write_text("x = 1  # longer, so that no cached bytecode fits\n")
    plugins.import_plugins(["one_pkg.parts"], "test", required=True)
    assert [plugin.failure for plugin in plugins.found()] == [None]


@pytest.mark.parametrize(
    ("register", "entry", "message"),
    [
        ("gloam.methods", int, "subclass of gloam.methods.Method"),
        ("gloam.datasets", int, "subclass of gloam.datasets.Dataset"),
        ("gloam.sampling", int, "subclass of gloam.sampling.Strategy"),
        ("gloam.models.backbone", 3, "builds a torch.nn.Module"),
        ("gloam.losses", int, "function of features"),
        ("gloam.losses", len, "cannot be called as loss"),
        ("gloam.training.optimizers", "sgd", "builds a torch.optim.Optimizer"),
        ("gloam.training.schedule", 0.1, "function of epoch"),
        ("gloam.training.loggers", None, "Lightning logger"),
    ],
)
def test_what_cannot_be_such_a_part_is_refused(register: str, entry: object, message: str) -> None:
    with pytest.raises(GloamError, match=message):
        importlib.import_module(register).register("mine")(entry)


def test_a_dataset_must_describe_itself() -> None:
    from gloam.datasets import Dataset, register

    with pytest.raises(GloamError, match="lacks title, tree, obtain, licence, read"):
        register("mine")(type("Mine", (Dataset,), {"name": "mine"}))


def test_every_group_has_its_registry() -> None:
    for group, module in plugins.GROUPS.items():
        found = importlib.import_module(module).registry
        assert isinstance(found, Registry)
        assert found.group == group
