"""Recipes that an earlier gloam saved: what their keys mean today.

Once every sampler had the same options, most of which did nothing for most samplers, and other options
could be set without acting. A recipe of that time loads with the options that acted, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gloam.augmentation.config import AugmentConfig
from gloam.options import IDLE_ALLOWED, Options
from gloam.recipes.sections import DataConfig, OptimizerConfig, ScheduleConfig
from gloam.sampling import PlainBatches, get_sampler
from gloam.sampling.create import DEFAULT, current_name

# The options of the one sampler section there was, with their defaults.
_SAMPLER: dict[str, Any] = {
    "identities": 8,
    "instances": 4,
    "batch_size": None,
    "draw": "with_replacement",
    "independent_modalities": False,
    "epoch_multiplier": 1,
    "extra_batch": True,
    "incomplete_ids": "fail",
    "infrared_share": 0.5,
    "use_cameras": True,
    "partners": False,
    "iterations": None,
}
_SECTIONS: dict[str, type[Options]] = {
    "data": DataConfig,
    "augment": AugmentConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
}

_log = logging.getLogger(__name__)


def upgrade(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a recipe with today's names and without options that never acted; other content is unchanged.

    A warning says what was renamed or left out.
    """
    changed = dict(content)
    sampler, stages = content.get("sampler"), content.get("stages")
    saved = isinstance(sampler, Mapping) and _SAMPLER.keys() <= sampler.keys()
    if isinstance(sampler, Mapping):
        changed["sampler"] = _sampler(sampler, saved=saved)
    if isinstance(stages, Mapping):
        changed["stages"] = {
            name: _stage(stage, sampler if saved and isinstance(sampler, Mapping) else {})
            for name, stage in stages.items()
        }
    if saved:
        for name, model in _SECTIONS.items():
            if isinstance(section := content.get(name), Mapping):
                changed[name] = _without_idle(name, model, section)
        train = content.get("train")
        if isinstance(train, Mapping) and train.get("iterations") is not None:
            # The batches of the train section counted.
            changed["sampler"] = {**changed["sampler"], "iterations": None}
    return changed


def _stage(stage: Any, saved_top: Mapping[str, Any]) -> Any:
    if not isinstance(stage, Mapping) or not isinstance(stage.get("sampler"), Mapping):
        return stage
    # A stage inherited all options, also those that its own sampler does not share with the top level's.
    sampler = {**saved_top, **stage["sampler"]}
    return {**stage, "sampler": _sampler(sampler, saved=bool(saved_top))}


def _sampler(section: Mapping[str, Any], *, saved: bool) -> dict[str, Any]:
    values = dict(section)
    if "name" not in values and not saved:
        return values
    values["name"] = name = current_name(str(values.get("name", DEFAULT)))
    model = get_sampler(name).Options
    if issubclass(model, PlainBatches) and values.get("batch_size") is None:
        # P x K rows, where no size was given.
        given = [values.pop(key, None) for key in ("identities", "instances")]
        sizes = [_SAMPLER[key] if value is None else value for key, value in zip(_SAMPLER, given, strict=False)]
        values.pop("batch_size", None)
        if given != [None, None] and all(isinstance(size, int) for size in sizes):
            values["batch_size"] = sizes[0] * sizes[1]
    for key in [key for key in values if key in _SAMPLER and key not in model.model_fields]:
        value = values[key]
        if value == _SAMPLER[key] or saved:
            del values[key]
        if value != _SAMPLER[key] and saved:
            _log.warning("Option %s: %s never acted with sampler %r and is left out.", key, value, name)
    return _without_idle("sampler", model, values) if saved else values


def _without_idle(name: str, model: type[Options], section: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(section)
    try:
        idle = model.model_validate(values, context=IDLE_ALLOWED).idle()
    except ValidationError:
        return values  # told when the recipe is validated
    for option in idle:
        *path, key = option.split(".")
        place = values
        for part in path:
            place[part] = place = dict(place[part])
        _log.warning("Option %s.%s: %s never acted and is left out.", name, option, place.pop(key))
    return values
