"""What a recipe names and training builds later: looked up at the door, so that a mistake costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gloam import plugins
from gloam.training.loggers import check_loggers
from gloam.training.optimizers import check_optimizer
from gloam.training.schedule import check_schedule

if TYPE_CHECKING:
    from gloam.recipes.recipe import Recipe


def check_named_parts(recipe: Recipe) -> None:
    """Plugins, loggers, and the optimiser and schedule of every stage.

    Raises:
        GloamError: a plugin that cannot be imported, an unknown name, or options that a part refuses.
    """
    plugins.import_plugins(recipe.plugins, "recipe", required=True)
    check_loggers(recipe.loggers, recipe.logger_options)
    for stage in recipe.resolved_stages().values():
        check_optimizer(stage.optimizer)
        check_schedule(stage.schedule, stage.train.epochs)
