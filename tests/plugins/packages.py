"""Packages that a test installs by hand: source, and metadata with entry points, in a folder of the import path."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from gloam import plugins
from gloam.registry import Registry


def write_package(
    folder: Path, name: str, modules: Mapping[str, str], entry_points: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """What pip leaves behind.

    Args:
        folder: a folder of the import path.
        name: of the package and of its distribution.
        modules: module -> source.
        entry_points: group -> name -> value.
    """
    (folder / name).mkdir(parents=True)
    for module, source in {"__init__": "", **modules}.items():
        (folder / name / f"{module}.py").write_text(textwrap.dedent(source))
    if entry_points is not None:
        metadata = folder / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [
            f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in entry_points.items()
        ]
        (metadata / "entry_points.txt").write_text("\n".join(lines))


def use_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a folder on the import path and forget what was loaded before; both for one test."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(plugins, "_known", {})
    monkeypatch.delenv(plugins.VARIABLE, raising=False)


def things(package: str | None = None, **options: object) -> Registry[object]:
    """A registry of its own, whose plugins live in the group ``gloam.things``."""
    return Registry("thing", package, **options)  # type: ignore[arg-type]
