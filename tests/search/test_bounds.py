"""The tests of everything compiled once more with numba's checks of every index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = (
    "tests/search/test_neighbours.py",
    "tests/search/test_nearest.py",
    "tests/search/test_k_reciprocal.py",
    "tests/clustering/test_jaccard.py",
    "tests/clustering/test_pseudo_labels.py",
    "tests/evaluation/test_rerank.py",
    "tests/evaluation/test_ranking.py",
)


@pytest.mark.slow
def test_no_compiled_loop_leaves_its_arrays(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow and not gpu", "-p", "no:cacheprovider"]
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    found = subprocess.run([*command, *TESTS], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]
    assert list(tmp_path.rglob("nearest_kernels*"))  # compiled anew, with checks
