"""Recipes: every flag of a run in one YAML file, validated.

A recipe may extend another one and hold several stages. Each stage is the top level with its own changes merged over
it; a stage may use another method and then starts from the weights of the stage before it. :func:`resolve` writes all
of that out, once, for everything that works with a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from gloam import plugins
from gloam.atomic import write_text
from gloam.augmentation.config import AugmentConfig
from gloam.errors import GloamError, did_you_mean
from gloam.options import Options
from gloam.recipes.merge import merge
from gloam.recipes.old_format import upgrade
from gloam.recipes.reading import RECIPES, list_recipes, read_recipe
from gloam.recipes.sections import (
    DataConfig,
    EvaluationConfig,
    Expected,
    OptimizerConfig,
    SamplerSection,
    ScheduleConfig,
    TrainConfig,
    TrainsOn,
)
from gloam.sampling import get_sampler
from gloam.sampling.identity import CrossModalityIdentityOptions

if TYPE_CHECKING:
    from gloam.methods.contract import Method, MethodOptions

__all__ = [
    "RECIPES",
    "DataConfig",
    "Recipe",
    "ResolvedRecipe",
    "ResolvedStage",
    "differing_keys",
    "list_recipes",
    "load_recipe",
    "resolve",
    "validate",
]

# What a stage cannot have for itself.
_SHARED = ("stages", "data", "expected", "trains_on", "description", "plugins", "loggers", "logger_options")


class Recipe(Options):
    """Everything a run needs. ``method`` holds ``name`` and the method's own flags."""

    description: str = Field("", description="one line")
    plugins: tuple[str, ...] = Field((), description="modules of your own that register parts; imported first")
    data: DataConfig
    method: dict[str, Any] = Field(description="name and flags of the method")
    weights: str = Field("imagenet", min_length=1, description="imagenet, none, or a file or run to start from")
    augment: AugmentConfig = AugmentConfig()
    sampler: SamplerSection = CrossModalityIdentityOptions()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    loggers: tuple[str, ...] = Field((), description="beside csv and tensorboard: wandb, mlflow or a registered name")
    logger_options: dict[str, dict[str, Any]] = Field({}, description="logger -> its options, e.g. wandb: project")
    stages: dict[str, dict[str, Any]] = Field({}, description="stage name -> what differs from the top level")
    expected: tuple[Expected, ...] = ()
    trains_on: TrainsOn | None = Field(None, description="the published training set")

    def idle(self) -> dict[str, str]:
        """Two sections name the number of batches, and one of them counts."""
        both = self.sampler.iterations is not None and self.train.iterations is not None
        return {"sampler.iterations": "while train.iterations is given"} if both else {}

    @model_validator(mode="after")
    def _has_method_name(self) -> Recipe:
        if not isinstance(self.method.get("name"), str):
            raise ValueError("method.name is missing" if "name" not in self.method else "method.name is no text")
        return self

    @model_validator(mode="after")
    def _stages_are_recipes(self) -> Recipe:
        self.resolved_stages()
        return self

    @property
    def method_name(self) -> str:
        """Registered name of the method."""
        return str(self.method["name"])

    @property
    def method_options(self) -> dict[str, Any]:
        """The method's flags without its name."""
        return {key: value for key, value in self.method.items() if key != "name"}

    def resolved_stages(self) -> dict[str, Recipe]:
        """Stage name -> the stage's recipe, its changes merged in; one stage called ``train`` if none are named.

        Flags of methods stay as they were given; :func:`resolve` writes them out.

        Raises:
            GloamError: a stage changes what all stages share, or what it gives is no valid recipe.
        """
        if not self.stages:
            return {"train": self}
        top = self.model_dump(mode="json", exclude={"stages"})
        for name, changes in self.stages.items():
            for key in _SHARED:
                if key in changes:
                    raise GloamError(
                        f"Stage {name!r} cannot have its own {key!r}: all stages share the top level's. "
                        "For other data or sizes train a run of its own and pass it as weights."
                    )
        return {name: _checked(merge(top, changes), f"stage {name!r}") for name, changes in self.stages.items()}

    def with_changes(self, changes: Mapping[str, Any]) -> Recipe:
        """A recipe with other flags.

        Args:
            changes: dotted names and values: ``{"data.root": folder, "optimizer.lr": 0.05}``.

        Raises:
            GloamError: an unknown flag (the nearest is named) or a bad value.
        """
        nested: dict[str, Any] = {}
        for name, value in changes.items():
            place = nested
            *sections, key = name.split(".")
            for section in sections:
                place = place.setdefault(section, {})
            place[key] = value
        return _checked(merge(self.model_dump(mode="json"), nested), "the changed recipe")

    def complete(self) -> Recipe:
        """The recipe with every flag written out, so that later defaults do not change a saved run."""
        return resolve(self).recipe

    def save(self, path: str | Path) -> None:
        """Write as YAML, atomically; loading it gives an equal recipe."""
        write_text(path, self.to_yaml())

    def to_yaml(self) -> str:
        """The recipe as the text of a YAML file."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes everything out: no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


@dataclass(frozen=True)
class ResolvedStage:
    """One stage, ready to run.

    Attributes:
        name: of the stage.
        recipe: the stage's complete recipe, every flag of its method written out.
        method: class of its method.
        options: the method's validated flags.
    """

    name: str
    recipe: Recipe
    method: type[Method[Any]]
    options: MethodOptions


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with nothing left to look up: what a run is handed.

    Attributes:
        recipe: complete, as a run saves it: every flag of data set and methods stands in it.
        stages: stage name -> stage, in order.
    """

    recipe: Recipe
    stages: Mapping[str, ResolvedStage]


def resolve(recipe: Recipe) -> ResolvedRecipe:
    """Write out all defaults and merge all stages. Resolving the result's recipe again changes nothing.

    Raises:
        GloamError: an unknown data set, method, or flag of either, or a bad value.
    """
    from gloam.methods import get_method
    from gloam.methods.contract import create_options

    def with_options(part: Recipe) -> tuple[Recipe, type[Method[Any]], MethodOptions]:
        cls = get_method(part.method_name)
        options = create_options(cls, part.method_options)
        method = {"name": part.method_name, **options.model_dump(mode="json")}
        return part.model_copy(update={"method": method}), cls, options

    data = recipe.data.model_copy(update={"options": dataset_options(recipe.data.name, recipe.data.options)})
    complete, *_ = with_options(recipe.model_copy(update={"data": data}))
    stages = {name: ResolvedStage(name, *with_options(part)) for name, part in complete.resolved_stages().items()}
    # A stage that names another method or sampler inherits none of its flags, so all of them are written.
    written = {
        name: {
            **changes,
            **{
                section: stages[name].recipe.model_dump(mode="json")[section]
                for section in ("method", "sampler")
                if section in changes
            },
        }
        for name, changes in complete.stages.items()
    }
    return ResolvedRecipe(complete.model_copy(update={"stages": written}), stages)


def dataset_options(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a data set: the given ones, checked, and the defaults of the others.

    Raises:
        GloamError: an unknown data set or option, or a bad value.
    """
    from gloam.datasets import get_dataset

    known = get_dataset(name).options
    for key in values:
        if key not in known:
            raise GloamError(f"{name} has no option {key!r}. {did_you_mean(key, known)}")
    return {
        key: option.validate(name, key, values[key]) if key in values else option.default
        for key, option in known.items()
    }


def validate(content: Mapping[str, Any], origin: str) -> Recipe:
    """Check a recipe's content; that of an earlier gloam is brought up to date.

    Raises:
        GloamError: an unknown key (the nearest known one is named) or a bad value, with the place.
    """
    plugins.import_named(content, origin)
    return _checked(upgrade(content), origin)


def _checked(content: Mapping[str, Any], origin: str) -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = [_explain(dict(problem), content) for problem in error.errors()]
        raise GloamError(f"{origin} is not a valid recipe: {'; '.join(problems)}") from error


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe by name (``sysu_mm01/agw``), from a YAML file, or from a run folder.

    Raises:
        GloamError: no such recipe (the nearest names are offered), or an invalid one.
    """
    return _checked(read_recipe(name), str(name))


def differing_keys(left: Recipe, right: Recipe) -> list[str]:
    """Dotted names of the keys whose values differ, sorted."""
    one, other = _flat(left.model_dump(mode="json")), _flat(right.model_dump(mode="json"))
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections to dotted names."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _explain(problem: dict[str, Any], content: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1], content)
        return f"unknown key {place!r}. {did_you_mean(str(problem['loc'][-1]), known)}"
    return f"{place or 'recipe'}: {problem['msg'].removeprefix('Value error, ')}"


def _known_keys(place: tuple[Any, ...], content: Mapping[str, Any]) -> list[str]:
    model: Any = Recipe
    for part in place:
        if part == "sampler":
            model = get_sampler(content["sampler"].get("name", "cross_modality_identity")).Options
            continue
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
        # A section, or an optional one.
        sections = [a for a in (annotation, *get_args(annotation)) if hasattr(a, "model_fields")]
        if not sections:
            return []
        model = sections[0]
    return [*model.model_fields, *(["extends"] if model is Recipe else [])]
