"""The network that a run begins with, and its weights: built before the first image is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gloam.inference.checkpoint import Checkpoint, choose_feature, load_state
from gloam.methods.contract import Method
from gloam.models.weights import load_weights
from gloam.recipes.recipe import ResolvedRecipe, ResolvedStage
from gloam.training.training_data import DataLists


def build_method(stage: ResolvedStage, num_classes: int) -> Method[Any]:
    """A stage's method with fresh weights: a function of the recipe's seed.

    Args:
        stage: the stage.
        num_classes: identities that it is told.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.recipe.train.seed)
        method = stage.method(num_classes, stage.options)
    if stage.recipe.evaluation.feature is not None:
        choose_feature(method, stage.recipe.evaluation.feature)
    return method


def first_method(
    plan: ResolvedRecipe, lists: DataLists, checkpoint: Checkpoint | None, run: Path
) -> tuple[Method[Any], str | None]:
    """The method of the first stage that this call trains, with the weights it begins with.

    Args:
        plan: the whole run.
        lists: its data, which say how many identities there are.
        checkpoint: where a resumed run goes on.
        run: its folder, for messages.

    Returns:
        The method, and what was loaded where the recipe names weights.

    Raises:
        GloamError: weights that are missing, unreadable, or of another network.
    """
    if checkpoint is not None:
        stage = plan.stages[checkpoint.stage]
        method = build_method(stage, lists.num_classes(stage.method))
        load_state(method, checkpoint.method, str(run))
        return method, None
    stage = next(iter(plan.stages.values()))
    method = build_method(stage, lists.num_classes(stage.method))
    if stage.recipe.weights == "none":
        return method, None
    return method, str(load_weights(method, stage.recipe.weights))
