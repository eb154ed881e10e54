"""The search stands on the lowest floor: it knows nothing of data, models or commands, and is quick to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gloam.search

MODULES = sorted(f"gloam.search.{path.stem}" for path in Path(gloam.search.__path__[0]).glob("[a-z]*.py"))
PROGRAM = """
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print(*sorted(name for name in sys.modules if name.startswith("gloam") or name == "numba"))
"""


def _loaded(modules: list[str]) -> set[str]:
    program = PROGRAM.format(modules=modules)
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_search_imports_errors_and_precision_only() -> None:
    below = {"gloam", "gloam.errors", "gloam.precision", "gloam.search", "numba"}
    assert _loaded(MODULES) <= below | set(MODULES)


def test_nothing_compiled_is_imported_before_it_is_used() -> None:
    plain = [name for name in MODULES if not name.endswith("_kernels")]
    assert "numba" not in _loaded([*plain, "gloam.clustering.jaccard", "gloam.evaluation.rerank"])
