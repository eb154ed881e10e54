"""A recipe's flags on the command line.

The recipe decides which flags exist (its method's options have types and help texts of their own), so parsing has two
steps: find the recipe, then let tyro read everything else with the recipe's values as defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from pydantic import BaseModel, ConfigDict, Field, create_model

from gloam.cli.parsing import parse
from gloam.errors import GloamError
from gloam.methods import get_method
from gloam.methods.contract import create_options
from gloam.recipes.recipe import Recipe, validate

_LISTS = ("milestones", "betas", "protocols")  # keys whose value is a list even where the command line gives one word


class RunFlags(BaseModel):
    """Flags of the run itself."""

    model_config = ConfigDict(frozen=True)

    output: Path | None = Field(None, description="run folder; default runs/<dataset>/<method>/<time>")
    resume: Path | None = Field(None, description="run folder to go on with; auto: begin, go on or finish in --output")
    stop_after: int | None = Field(None, description="stop with a checkpoint after so many epochs of this call")
    quiet: bool = Field(False, description="no progress bars")
    dry_run: bool = Field(False, description="print the resolved recipe and stop")


def parse_overrides(recipe: Recipe, words: Sequence[str], *, program: str = "gloam train") -> tuple[Recipe, RunFlags]:
    """Apply dotted command-line flags to a recipe.

    Args:
        recipe: defaults.
        words: ``["--optimizer.lr", "0.05", ...]``.
        program: name shown in help and errors.

    Returns:
        The changed recipe and the flags of the run.

    Raises:
        SystemExit: ``--help`` (code 0), or an unknown or badly typed flag (code 2, with the nearest flags).
        GloamError: values that do not form a valid recipe.
    """
    model = _flags_model(recipe)
    stages = {
        stage: {section: values for section, values in changes.items() if isinstance(values, dict)}
        for stage, changes in recipe.stages.items()
    }
    words, stage_words = _split_stage_words(words, stages)
    values = parse(
        model,
        words,
        prog=program,
        description=f"{recipe.description or 'Train a recipe.'}\n\nExample:\n    {program} --data.root DIR",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    content = {name: getattr(values, name) for name in model.model_fields if name not in RunFlags.model_fields}
    content = {key: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for key, v in content.items()}
    content["method"] = {"name": recipe.method_name, **content["method"]}
    content["stages"] = _apply_stage_words(recipe.stages, stage_words)
    content["expected"] = [e.model_dump(mode="json") for e in recipe.expected]
    content["description"] = recipe.description
    flags = RunFlags(**{name: getattr(values, name) for name in RunFlags.model_fields})
    return validate(content, program), flags


def _flags_model(recipe: Recipe) -> type[BaseModel]:
    """A model whose defaults are the recipe's values and whose method section has the method's own options."""
    cls = get_method(recipe.method_name)
    options = create_options(cls, recipe.method_options)
    fields: dict[str, Any] = {
        "data": (type(recipe.data), recipe.data),
        "method": (type(options), options),
        "weights": (str, Field(recipe.weights, description="imagenet, none, or a file or run to start from")),
    }
    for section in ("augment", "sampler", "optimizer", "schedule", "train", "evaluation"):
        value = getattr(recipe, section)
        fields[section] = (type(value), value)
    return create_model("TrainFlags", __base__=RunFlags, **fields)


def _split_stage_words(
    words: Sequence[str], stages: dict[str, dict[str, Any]]
) -> tuple[list[str], list[tuple[list[str], list[str]]]]:
    """Take ``--stages.<name>.<section>.<key> VALUE...`` out of the words; several values make a list."""
    rest: list[str] = []
    taken: list[tuple[list[str], list[str]]] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--stages."):
            rest.append(word)
            continue
        path, _, value = word.removeprefix("--stages.").partition("=")
        stage, _, rest_of_path = path.partition(".")
        keys = [stage, *rest_of_path.replace("-", "_").split(".")]
        values = [value] if value else []
        while not value and queue and not queue[0].startswith("--"):
            values.append(queue.pop(0))
        if not values or not rest_of_path:
            raise GloamError(f"{word} needs a section, a key and a value: --stages.{stage}.train.epochs 3")
        if keys[0] not in stages:
            from gloam.errors import did_you_mean

            raise GloamError(f"This recipe has no stage {keys[0]!r}. {did_you_mean(keys[0], stages)}")
        taken.append((keys, values))
    return rest, taken


def _apply_stage_words(
    stages: dict[str, dict[str, Any]], words: Sequence[tuple[list[str], list[str]]]
) -> dict[str, dict[str, Any]]:
    import copy

    import yaml

    changed = copy.deepcopy(stages)
    for keys, values in words:
        place: dict[str, Any] = changed
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        read = [yaml.safe_load(value) for value in values]
        place[keys[-1]] = read[0] if len(read) == 1 and keys[-1] not in _LISTS else read
    return changed
