"""Which recipes can train on a dataset that was just read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gloam.datasets.records import DatasetSplits, Modality
from gloam.methods import get_method, list_methods
from gloam.methods.contract import Method, MethodOptions
from gloam.recipes.recipe import Recipe, list_recipes, load_recipe, resolve


@dataclass(frozen=True)
class Fit:
    """What was found.

    Attributes:
        kind: ``recipes``, or ``methods`` where there are no recipes for the dataset.
        fitting: names that can train.
        others: reason -> names that cannot.
    """

    kind: str
    fitting: tuple[str, ...]
    others: dict[str, tuple[str, ...]]

    def lines(self) -> list[str]:
        """One line of names that fit, then one for each reason why others do not."""
        found = [f"{self.kind} that fit: {', '.join(self.fitting) or 'none'}"]
        return found + [f"do not fit, {reason}: {', '.join(names)}" for reason, names in self.others.items()]


def find_fitting(splits: DatasetSplits) -> Fit:
    """The recipes of a dataset (own data without recipes of its own: all methods) that can train on it."""
    recipes = list_recipes(f"{splits.name}/*")
    candidates: list[tuple[str, str | None]]
    if recipes:
        candidates = [(name, misfit(splits, load_recipe(name))) for name in recipes]
    else:
        methods = {name: get_method(name) for name in list_methods()}
        candidates = [(name, _method_misfit(splits, method, method.Options())) for name, method in methods.items()]
    others: dict[str, list[str]] = {}
    for name, reason in candidates:
        if reason is not None:
            others.setdefault(reason, []).append(name)
    return Fit(
        "recipes" if recipes else "methods",
        tuple(name for name, reason in candidates if reason is None),
        {reason: tuple(names) for reason, names in others.items()},
    )


def misfit(splits: DatasetSplits, recipe: Recipe) -> str | None:
    """Why a recipe cannot train on a dataset, as words behind a comma; None if it can."""
    for stage in resolve(recipe).stages.values():
        if (reason := _method_misfit(splits, stage.method, stage.options)) is not None:
            return reason
        wanted = getattr(stage.recipe.sampler, "identities", 0)
        if not stage.method.is_unsupervised and splits.num_classes < wanted:
            return f"a batch shows {wanted} people and there are {splits.num_classes} to train on"
    return None


def _method_misfit(splits: DatasetSplits, method: type[Method[Any]], options: MethodOptions) -> str | None:
    if not splits.train:
        return "there is nothing to train on"
    if method.needs_both_modalities(options) and splits.modalities != frozenset(Modality):
        return f"visible and infrared images are needed, these are {_words(splits)}"
    if not method.is_unsupervised and not splits.labelled:
        return "nobody is known"
    has_clips = any(len(record.paths) > 1 for record in splits.train)
    if method.is_video != has_clips:
        return "tracklets are needed, these are single images" if method.is_video else "these are tracklets"
    return None


def _words(splits: DatasetSplits) -> str:
    names: Sequence[str] = sorted(modality.name.lower() for modality in splits.modalities)
    return " and ".join(names)
