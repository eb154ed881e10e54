"""What a recipe names and training builds later: looked up at the door, so that a mistake costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gloam import plugins
from gloam.training.loggers import check_loggers
from gloam.training.optimizers import check_optimizer
from gloam.training.schedule import check_schedule

if TYPE_CHECKING:
    from gloam.recipes.recipe import ResolvedRecipe


def check_named_parts(plan: ResolvedRecipe) -> None:
    """Plugins, loggers, and the optimiser and schedule of every stage.

    Raises:
        GloamError: a plugin that cannot be imported, an unknown name, or options that a part refuses.
    """
    plugins.import_plugins(plan.recipe.plugins, "recipe", required=True)
    check_loggers(plan.recipe.loggers, plan.recipe.logger_options)
    for stage in plan.stages.values():
        check_optimizer(stage.recipe.optimizer)
        check_schedule(stage.recipe.schedule, stage.recipe.train.epochs)
