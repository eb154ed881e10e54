"""What gets installed: floors, pins and hashes."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def _pins() -> dict[str, list[tuple[Requirement, int]]]:
    """Name -> its pinned versions (one for each kind of platform) with their numbers of hashes."""
    pins: dict[str, list[tuple[Requirement, int]]] = {}
    text = (ROOT / "constraints.txt").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            words = line.split("--hash=sha256:")
            pin = Requirement(words[0])
            pins.setdefault(canonicalize_name(pin.name), []).append((pin, len(words) - 1))
    return pins


def test_constraints_pin_every_dependency_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    pins = _pins()
    assert all(hashes > 0 for found in pins.values() for _, hashes in found)
    for text in (*project["dependencies"], *(line for extra in extras for line in extra), "hatchling", "editables"):
        wanted = Requirement(text)
        name = canonicalize_name(wanted.name)
        assert name in pins, f"make constraints: {text}"
        for pin, _ in pins[name]:
            (version,) = (part.version for part in pin.specifier)
            assert str(pin.specifier) == f"=={version}"
            assert version in wanted.specifier, f"make constraints: {text} but {pin}"


def test_compromised_releases_are_excluded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["ssl"]]
    wanted = {canonicalize_name(r.name): r for r in map(Requirement, lines)}
    for name in ("lightning", "pytorch-lightning"):
        for version in ("2.6.2", "2.6.3"):
            assert version not in wanted[name].specifier
        assert "2.6.6" in wanted[name].specifier
