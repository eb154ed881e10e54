"""How changes are laid over a recipe: a stage's over the top level, a recipe's over the one that it extends.

Mappings merge key by key, plugins are added, everything else is replaced. Where a section's ``name`` changes, only
those options come along that the newly named thing has too. Published scores and counts stay with the data they are of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gloam.datasets import get_dataset
from gloam.options import Options
from gloam.recipes.sections import OptimizerConfig, ScheduleConfig
from gloam.sampling import get_sampler
from gloam.sampling.create import DEFAULT, current_name

# What a recipe says of one data set.
_OF_THE_DATA = ("expected", "trains_on")
_NAMED: dict[str, type[Options]] = {"optimizer": OptimizerConfig, "schedule": ScheduleConfig}


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content ``base`` with ``changes`` laid over it; neither is modified.

    Raises:
        GloamError: the changes name a sampler or a dataset that does not exist.
    """
    merged = dict(base)
    if _other_data(base, changes):
        merged = {key: value for key, value in base.items() if key not in _OF_THE_DATA}
    for key, value in changes.items():
        below = base.get(key)
        if key == "plugins" and isinstance(value, list | tuple) and isinstance(below, list | tuple):
            merged[key] = list(dict.fromkeys([*below, *value]))
        elif not (isinstance(value, Mapping) and isinstance(below, Mapping)):
            merged[key] = value
        elif key == "method":
            merged[key] = {**_method_options(below, value), **value}
        else:
            merged[key] = _deep(_kept(key, below, value), value)
    return merged


def _deep(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        below = base.get(key)
        nested = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _deep(below or {}, value) if nested else value
    return merged


def _other_data(base: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    before, after = base.get("data"), changes.get("data")
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        return False
    return "name" in before and after.get("name", before["name"]) != before["name"]


def _method_options(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """A change to another method takes over the network, but no other flag."""
    if changes.get("name", base.get("name")) == base.get("name"):
        return base
    # Stages hand weights on: another network would fail only after the first stage is trained.
    return {"arch": base["arch"]} if "arch" in base else {}


def _kept(section: str, base: Mapping[str, Any], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a section stays when changes name something else."""
    if section == "sampler":
        old, new = (current_name(str(part.get("name", DEFAULT))) for part in (base, {**base, **changes}))
        known = base if old == new else get_sampler(new).Options.model_fields
        return {key: value for key, value in base.items() if key in known}
    if section in _NAMED:
        default = _NAMED[section].model_fields["name"].default
        old, new = (part.get("name", default) for part in (base, {**base, **changes}))
        # Another one's options would not fit.
        idle = {"options", *(key for key, (_, names) in _NAMED[section].idle_when.items() if new in names)}
        return base if old == new else {key: value for key, value in base.items() if key not in idle}
    if section == "data" and changes.get("name", base.get("name")) != base.get("name"):
        known_options = get_dataset(str(changes["name"])).options
        options = base.get("options")
        kept = {k: v for k, v in options.items() if k in known_options} if isinstance(options, Mapping) else options
        return {**base, "options": kept} if "options" in base else base
    return base
