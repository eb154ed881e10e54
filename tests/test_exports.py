"""Packages offer the names that their files define, and import a file when one of its names is asked for."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import gloam
from gloam import datasets

PACKAGES = ["datasets", "losses", "methods", "models"]
# Offers every public function and class of its files; ``gloam.datasets`` only what users and their own readers need.
WHOLE = ["losses", "methods", "models"]


def _defined(package: str) -> dict[str, set[str]]:
    """File -> public functions and classes, read without importing anything."""
    found = {}
    for path in sorted((Path(gloam.__file__).parent / package).glob("*.py")):
        if path.stem != "__init__":
            body = ast.parse(path.read_text(encoding="utf-8")).body
            names = {n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
            found[path.stem] = {n for n in names if not n.startswith("_")}
    return {file: names for file, names in found.items() if names}


@pytest.mark.parametrize("package", WHOLE)
def test_every_public_function_and_class_is_listed(package: str) -> None:
    module = importlib.import_module(f"gloam.{package}")
    expected = _defined(package)
    wrong = {file: " ".join(sorted(names)) for file, names in expected.items()
             if set(module._NAMES.get(file, "").split()) != names}  # fmt: skip
    assert not wrong, f"entries for _NAMES of gloam/{package}/__init__.py"
    assert set(module._NAMES) == set(expected)
    assert {name for names in expected.values() for name in names} <= set(module.__all__)
    assert len(module.__all__) == len(set(module.__all__))


def test_datasets_offers_its_readers_and_what_own_ones_need_and_no_tools_of_theirs() -> None:
    listed = {name for names in datasets._NAMES.values() for name in names.split()}
    assert listed <= set(datasets.__all__)
    assert len(datasets.__all__) == len(set(datasets.__all__))
    readers = {datasets.get_dataset(name).__name__ for name in datasets.list_datasets()
               if datasets.get_dataset(name).__module__.startswith("gloam.")}  # fmt: skip
    assert readers <= listed
    # What a dataset of a user's own is made of: the example package imports nothing else from this room.
    example = Path(__file__).parent / "plugins" / "example_package" / "src" / "gloam_example" / "dataset.py"
    imports = [node for node in ast.walk(ast.parse(example.read_text(encoding="utf-8")))
               if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gloam.datasets")]  # fmt: skip
    assert [node.module for node in imports] == ["gloam.datasets"]
    assert {alias.name for alias in imports[0].names} <= set(datasets.__all__)
    defined = _defined("datasets")
    tools = set().union(*(defined[file] for file in ("files", "folder_pattern", "labelled_lists", "table_ids")))
    assert tools
    assert not tools & set(datasets.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_listed_name_is_what_its_file_defines(package: str) -> None:
    module = importlib.import_module(f"gloam.{package}")
    for name in module.__all__:
        assert getattr(module, name) is not None
    for file, names in module._NAMES.items():
        home = importlib.import_module(f"gloam.{package}.{file}")
        for name in names.split():
            assert getattr(module, name) is getattr(home, name)
            assert name in dir(module)


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_same_names(package: str) -> None:
    path = Path(gloam.__file__).parent / package / "__init__.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                for alias in node.names}  # fmt: skip
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    own |= {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
            if isinstance(target, ast.Name)}  # fmt: skip
    assert set(importlib.import_module(f"gloam.{package}").__all__) <= imported | own


@pytest.mark.parametrize("package", PACKAGES)
def test_unknown_names_are_attribute_errors(package: str) -> None:
    with pytest.raises(AttributeError, match=f"gloam.{package}.*nonsense"):
        _ = importlib.import_module(f"gloam.{package}").nonsense


def test_importing_the_packages_of_parts_imports_no_torch() -> None:
    code = "import gloam.losses, gloam.models, gloam.datasets, sys; assert 'torch' not in sys.modules, 'torch'\n"
    code += "from gloam.losses import weighted_regularized_triplet\nassert 'torch' in sys.modules\n"
    code += "assert 'gloam.losses.triplet' in sys.modules and 'gloam.losses.permutation' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
