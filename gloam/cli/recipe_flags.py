"""A recipe's flags on the command line.

The recipe decides which flags exist (its method, sampler and data set have options of their own), so parsing has two
steps: find the recipe, then let tyro read everything else with the recipe's values as defaults.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro
from pydantic import BaseModel, ConfigDict, Field, create_model

from gloam.cli.option_words import as_changes, split_option_words
from gloam.cli.parsing import parse
from gloam.datasets import get_dataset
from gloam.errors import GloamError, did_you_mean
from gloam.methods import get_method
from gloam.methods.contract import create_options
from gloam.options import Options
from gloam.recipes.merge import merge
from gloam.recipes.reading import parse_yaml
from gloam.recipes.recipe import Recipe, dataset_options, validate
from gloam.recipes.sections import DataConfig
from gloam.sampling.base import list_samplers, samplers_with

_LISTS = ("milestones", "betas", "protocols")  # keys whose value is a list even where the command line gives one word
_SECTIONS = ("augment", "sampler", "optimizer", "schedule", "train", "evaluation")
# What a whole run has once, whatever its stages say.
_OF_THE_RUN = {("train", key) for key in ("seed", "precision", "devices", "nodes", "accelerator")}
_MARK = object()
_PLUGINS = "\n\nAlso: --plugins MODULE[,MODULE] imports modules of your own first; the saved recipe keeps them."


class RunFlags(BaseModel):
    """Flags of the run itself."""

    model_config = ConfigDict(frozen=True)

    output: Path | None = Field(None, description="run folder; default runs/<dataset>/<method>/<time>")
    resume: Path | None = Field(None, description="run folder to go on with; auto: begin, go on or finish in --output")
    stop_after: int | None = Field(
        None, ge=1, le=1_000_000, description="stop with a checkpoint after so many epochs of this call"
    )
    quiet: bool = Field(False, description="no progress bars")
    dry_run: bool = Field(False, description="print the resolved recipe and stop")


class _Apart(Options):
    """A section whose flags are read one by one; what acts together is checked in the whole recipe."""

    def idle(self) -> dict[str, str]:
        return {}


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
        GloamError: values that do not form a valid recipe, or a flag that no stage would read.
    """
    words, stage_words = _split_stage_words(words, recipe.stages)
    words, option_words = split_option_words(words)
    for section in ("data", "sampler"):
        # The name decides which other flags there are.
        words, name = _take(words, f"--{section}.name")
        if name is not None:
            recipe = validate(merge(recipe.model_dump(mode="json"), {section: {"name": name}}), program)
    _refuse_foreign_options(recipe, words)
    model = _flags_model(recipe)
    values = parse(
        model,
        words,
        prog=program,
        description=f"{recipe.description or 'Train a recipe.'}\n\nExample:\n    {program} --data.root DIR{_PLUGINS}",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    sections = [name for name in model.model_fields if name not in RunFlags.model_fields]
    before = {name: _plain(model.model_fields[name].default) for name in sections}
    changes = _differences(before, {name: _plain(getattr(values, name)) for name in sections})
    changes = merge(changes, as_changes(option_words))
    _refuse_unread(recipe, changes)
    content = merge(recipe.model_dump(mode="json"), changes)
    content["stages"] = _apply_stage_words(recipe.stages, stage_words)
    return validate(content, program), RunFlags(**{name: getattr(values, name) for name in RunFlags.model_fields})


def _flags_model(recipe: Recipe) -> type[BaseModel]:
    """A model whose defaults are the recipe's values; method, sampler and data set have options of their own."""
    options = create_options(get_method(recipe.method_name), recipe.method_options)
    names = tyro.extras.literal_type_from_choices(list_samplers())
    fields: dict[str, Any] = {
        "data": _section(recipe.data, options=_dataset_flags(recipe.data)),
        "method": _section(options),
        "weights": (str, Field(recipe.weights, description="imagenet, none, or a file or run to start from")),
    }
    for name in _SECTIONS:
        value = getattr(recipe, name)
        replaced: dict[str, tuple[Any, Any]] = {"name": (names, recipe.sampler.name)} if name == "sampler" else {}
        if "options" in type(value).model_fields:
            replaced["options"] = (dict[str, Any], {})  # see option_words.py
        fields[name] = _section(value, **replaced)
    text = Recipe.model_fields["loggers"].description
    fields["loggers"] = (tuple[str, ...], Field(recipe.loggers, description=text))
    return create_model("TrainFlags", __base__=RunFlags, **fields)


def _section(value: Options, **replaced: tuple[Any, Any]) -> tuple[Any, Any]:
    """Type and default of a section's flags; some fields with another (type, default)."""
    cls = type(value)
    fields: dict[str, Any] = {
        name: (kind, Field(default, description=cls.model_fields[name].description))
        for name, (kind, default) in replaced.items()
    }
    model = create_model(cls.__name__, __base__=(_Apart, cls), __doc__=cls.__doc__, **fields)
    defaults = {name: getattr(value, name) for name in cls.model_fields}
    return model, model.model_construct(**{**defaults, **{name: default for name, (_, default) in replaced.items()}})


def _dataset_flags(data: DataConfig) -> tuple[Any, Any]:
    """Type and default of ``data.options``: one typed flag for every option of the data set."""
    fields: dict[str, Any] = {}
    for name, option in get_dataset(data.name).options.items():
        kind: Any = str | None if option.default is None else type(option.default)
        if option.choices:
            kind = tyro.extras.literal_type_from_choices(option.choices)
        fields[name] = (kind, Field(option.default, ge=option.least, le=option.most, description=option.help))
    model = create_model(f"{data.name} options", __config__=ConfigDict(allow_inf_nan=False), **fields)
    return model, model(**dataset_options(data.name, data.options))


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``after`` is not as ``before``, as nested keys."""
    changed: dict[str, Any] = {}
    for key, value in after.items():
        if isinstance(value, Mapping) and isinstance(before[key], Mapping):
            if inner := _differences(before[key], value):
                changed[key] = inner
        elif value != before[key]:
            changed[key] = value
    return changed


def _take(words: Sequence[str], flag: str) -> tuple[list[str], str | None]:
    """The words without a flag and its value, and the value; the last one counts."""
    rest, value, queue = [], None, list(words)
    while queue:
        word = queue.pop(0)
        if word == flag and queue and not queue[0].startswith("--"):
            value = queue.pop(0)
        elif word.startswith(f"{flag}="):
            value = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, value


def _refuse_foreign_options(recipe: Recipe, words: Sequence[str]) -> None:
    """Name the sampler that has an option which the recipe's lacks.

    Raises:
        GloamError: such a flag is among the words.
    """
    for word in words:
        key = word.partition("=")[0].removeprefix("--sampler.").replace("-", "_")
        if word.startswith("--sampler.") and not hasattr(recipe.sampler, key) and (owners := samplers_with(key)):
            raise GloamError(
                f"{word.partition('=')[0]} is no option of sampler {recipe.sampler.name!r}, but of "
                f"{' and '.join(owners)}. Leave it out, or choose another --sampler.name."
            )


def _refuse_unread(recipe: Recipe, changes: Mapping[str, Any]) -> None:
    """A flag of the top level must reach at least one stage.

    Raises:
        GloamError: every stage has a value of its own; the flags that would act are named.
    """
    for section, values in changes.items():
        for path, value in _leaves(values, (section,)):
            flag = ".".join(path).replace("_", "-")
            if recipe.stages and path not in _OF_THE_RUN and section != "data" and not _reaches_a_stage(recipe, path):
                flags = " or ".join(f"--stages.{stage}.{flag} {value}" for stage in recipe.stages)
                raise GloamError(f"--{flag} would change nothing: every stage of this recipe has its own. Use {flags}.")


def _reaches_a_stage(recipe: Recipe, path: tuple[str, ...]) -> bool:
    marked: Any = _MARK
    for key in reversed(path):
        marked = {key: marked}
    top = merge(recipe.model_dump(mode="json", exclude={"stages"}), marked)
    for changes in recipe.stages.values():
        found: Any = merge(top, changes)
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is _MARK:
            return True
    return False


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, (*path, key))


def _split_stage_words(
    words: Sequence[str], stages: Mapping[str, Any]
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
            raise GloamError(f"This recipe has no stage {keys[0]!r}. {did_you_mean(keys[0], stages)}")
        taken.append((keys, values))
    return rest, taken


def _apply_stage_words(
    stages: Mapping[str, dict[str, Any]], words: Sequence[tuple[list[str], list[str]]]
) -> dict[str, dict[str, Any]]:
    changed = copy.deepcopy(dict(stages))
    for keys, values in words:
        flag = f"--stages.{'.'.join(keys)}"
        place: Any = changed
        for key in keys[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise GloamError(f"{flag}: {key} is a value, not a section.")
        read = [parse_yaml(value, flag) for value in values]
        place[keys[-1]] = read[0] if len(read) == 1 and keys[-1] not in _LISTS else read
    return changed
