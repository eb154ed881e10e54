"""Recipes: every flag of a run in one YAML file, validated.

A recipe may hold several stages. Each is the top level with its own changes merged over it; a stage may use another
method and then starts from the weights of the stage before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gloam.atomic import write_text
from gloam.augmentation.config import AugmentConfig
from gloam.batches.clips import FixedFrames, FrameChoice
from gloam.errors import GloamError, did_you_mean
from gloam.sampling.base import SamplerConfig
from gloam.training.optimizers import OptimizerConfig
from gloam.training.schedule import ScheduleConfig

if TYPE_CHECKING:
    from rich.table import Table

RECIPES = Path(__file__).parent


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """The ``data`` section: which images, at which size."""

    name: str = Field(description="dataset name (gloam data list)")
    root: Path | None = Field(None, description="the dataset's folder")
    height: int = Field(288, ge=1, description="image height in pixels")
    width: int = Field(144, ge=1, description="image width in pixels")
    interpolation: Literal["lanczos", "bicubic", "bilinear"] = Field("lanczos", description="filter of the resize")
    options: dict[str, Any] = Field({}, description="options of the dataset, e.g. trial: 3 for RegDB")
    frames: int | None = Field(None, ge=1, description="frames per clip for video methods")
    train_clip: FrameChoice = Field("evenly_random", description="which frames of a tracklet make a training clip")
    test_clip: FixedFrames = Field("evenly", description="which frames of a tracklet make a test clip")
    relabel: Literal["none", "per_modality"] = Field(
        "none", description="per_modality: number identities independently in each modality (weak supervision)"
    )
    cache: str = Field("auto", description="auto, off (decode on the fly) or a folder for decoded pixels")
    workers: int = Field(0, ge=-1, description="loader processes; -1: one per core")
    on_bad_image: Literal["fail", "skip"] = Field("fail", description="what to do with an unreadable image")
    fingerprint: Literal["times", "content", "names"] = Field(
        "times", description="what a resume compares image files by: size and time, every byte, or the names alone"
    )


class TrainConfig(_Section):
    """The ``train`` section: how long, how precise."""

    epochs: int = Field(81, ge=0, description="epochs of the stage")
    iterations: int | None = Field(None, ge=1, description="batches per epoch; not given: the sampler's own number")
    precision: Literal["32", "bf16", "fp16"] = Field("32", description="arithmetic of the forward pass")
    clip_norm: float | None = Field(None, gt=0, description="largest gradient norm")
    bn_group: int | None = Field(
        None, ge=1, description="rows that share batch-norm statistics (published GPUs' share)"
    )
    seed: int = Field(0, ge=0, description="seed of everything random")
    devices: int = Field(1, ge=1, description="processes per machine")
    nodes: int = Field(1, ge=1, description="machines")
    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to train")
    log_every: int = Field(50, ge=1, description="batches between log lines")
    save_every: int = Field(1, ge=1, description="epochs between checkpoints")


class EvaluationConfig(_Section):
    """The ``evaluation`` section: what is scored, and which weights are kept as best."""

    every: int = Field(0, ge=0, description="epochs between scores while training; 0: only at the end")
    selection: Literal["last", "validation", "test"] = Field(
        "last",
        description="which weights are final: the last epoch, the best on held-out training identities, or (as in many "
        "releases, not for reported results) the best on the test set",
    )
    batch_size: int = Field(64, ge=1, description="images per forward pass")
    mirror: bool = Field(False, description="average each image with its mirror image")
    protocols: tuple[str, ...] | None = Field(None, description="names or wildcards; all of the dataset's if not given")
    feature: str | None = Field(None, description="which of the method's features; its default if not given")
    metric: Literal["cosine", "euclidean"] = Field("cosine", description="distance")


class Expected(_Section):
    """A published score and where it was printed; percent."""

    protocol: str
    rank1: float | None = None
    mAP: float | None = None
    mINP: float | None = None
    source: str


class Recipe(_Section):
    """Everything a run needs. ``method`` holds ``name`` and the method's own flags."""

    description: str = Field("", description="one line")
    data: DataConfig
    method: dict[str, Any] = Field(description="name and flags of the method")
    weights: str = Field("imagenet", description="imagenet, none, or a file or run to start from")
    augment: AugmentConfig = AugmentConfig()
    sampler: SamplerConfig = SamplerConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    stages: dict[str, dict[str, Any]] = Field({}, description="stage name -> what differs from the top level")
    expected: tuple[Expected, ...] = ()

    @model_validator(mode="after")
    def _has_method_name(self) -> Recipe:
        if "name" not in self.method:
            raise ValueError("method.name is missing")
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
        """Stage name -> complete recipe of that stage; one stage called ``train`` if none are named."""
        top = self.model_dump(mode="json", exclude={"stages"})
        if not self.stages:
            return {"train": Recipe(**top)}
        for name, changes in self.stages.items():
            for key in ("stages", "data", "expected"):
                if key in changes:
                    raise GloamError(
                        f"Stage {name!r} cannot have its own {key!r}: all stages share the top level's. "
                        "For other data or sizes train a run of its own and pass it as weights."
                    )
        return {name: validate(_merge(top, changes), f"stage {name!r}") for name, changes in self.stages.items()}

    def complete(self) -> Recipe:
        """The recipe with every flag of its method written out, so that later defaults do not change a saved run.

        Raises:
            GloamError: unknown method or flag.
        """
        from gloam.methods import get_method
        from gloam.methods.contract import create_options

        options = create_options(get_method(self.method_name), self.method_options)
        return self.model_copy(update={"method": {"name": self.method_name, **options.model_dump(mode="json")}})

    def check_methods(self) -> None:
        """Validate the flags of every stage's method.

        Raises:
            GloamError: unknown method or flag.
        """
        from gloam.methods import get_method
        from gloam.methods.contract import create_options

        for stage in self.resolved_stages().values():
            create_options(get_method(stage.method_name), stage.method_options)

    def save(self, path: str | Path) -> None:
        """Write as YAML, atomically; loading it gives an equal recipe."""
        content = self.model_dump(mode="json")
        write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))


def validate(content: dict[str, Any], origin: str) -> Recipe:
    """Check a recipe's content.

    Raises:
        GloamError: an unknown key (the nearest known one is named) or a bad value, with the place.
    """
    try:
        return Recipe(**content)
    except ValidationError as error:
        problems = [_explain(dict(problem)) for problem in error.errors()]
        raise GloamError(f"{origin} is not a valid recipe: {'; '.join(problems)}") from error


def load_recipe(name: str | Path) -> Recipe:
    """Read a recipe by name (``sysu_mm01/agw``) or from a YAML file.

    Raises:
        GloamError: no such recipe (the nearest names are offered), or an invalid one.
    """
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if path.is_dir() and (path / "recipe.yaml").is_file():
        path = path / "recipe.yaml"
    if not path.is_file():
        raise GloamError(f"There is no recipe {str(name)!r}. {did_you_mean(str(name), list_recipes())}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise GloamError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise GloamError(f"{path} does not hold a recipe: expected keys such as data and method.")
    recipe = validate(content, str(name))
    recipe.resolved_stages()
    return recipe


def differing_keys(left: Recipe, right: Recipe) -> list[str]:
    """Dotted names of the keys whose values differ, sorted."""
    one, other = _flat(left.model_dump(mode="json")), _flat(right.model_dump(mode="json"))
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the recipes that match a shell wildcard."""
    import fnmatch

    names = [path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.glob("*/*.yaml")]
    return sorted(fnmatch.filter(names, pattern))


def recipe_table(pattern: str = "*") -> Table:
    """Recipes with their descriptions and published scores as a rich table."""
    from rich.table import Table

    names = list_recipes(pattern)
    if not names:
        raise GloamError(f"No recipe matches {pattern!r}. {did_you_mean(pattern, list_recipes())}")
    table = Table("recipe", "what", "published rank-1 / mAP", title="recipes", title_justify="left")
    for name in names:
        recipe = load_recipe(name)
        scores = [f"{e.protocol.split('/')[-1]}: {_score(e.rank1)} / {_score(e.mAP)}" for e in recipe.expected]
        table.add_row(name, recipe.description, "\n".join(scores) or "none published")
    return table


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections to dotted names."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Deep merge; a stage that names another method takes over the network of the top level's, but no other flag."""
    merged = dict(base)
    for key, value in changes.items():
        other_method = key == "method" and value.get("name", base["method"]["name"]) != base["method"]["name"]
        if isinstance(value, dict) and isinstance(base.get(key), dict) and not other_method:
            merged[key] = _merge(base[key], value) if key != "method" else {**base[key], **value}
        elif other_method and "arch" in base["method"]:
            # Stages hand weights on: another network would fail only after the first stage is trained.
            merged[key] = {"arch": base["method"]["arch"], **value}
        else:
            merged[key] = value
    return merged


def _explain(problem: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {place!r}. {did_you_mean(str(problem['loc'][-1]), _known_keys(problem['loc'][:-1]))}"
    return f"{place or 'recipe'}: {problem['msg']}"


def _known_keys(place: tuple[Any, ...]) -> list[str]:
    model: Any = Recipe
    for part in place:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
        # A section, or an optional one.
        sections = [a for a in (annotation, *get_args(annotation)) if hasattr(a, "model_fields")]
        if not sections:
            return []
        model = sections[0]
    return list(model.model_fields)
