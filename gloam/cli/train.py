"""Commands about recipes: ``gloam train`` and ``gloam recipes``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gloam.console import console
from gloam.errors import GloamError

USAGE = """usage: gloam train RECIPE [--data.root DIR] [--output DIR] [--SECTION.KEY VALUE ...]
       gloam train --resume RUN
       gloam train RECIPE --output DIR --resume auto

Train a recipe, or your own YAML file in the same form, and score the result with the dataset's protocols.

Example:
    gloam train sysu_mm01/agw --data.root /data/SYSU-MM01 --optimizer.lr 0.05

  --output DIR       run folder (default: runs/<dataset>/<method>/<time>)
  --resume RUN       go on with a stopped run, exactly where it was
  --resume auto      begin in --output, go on there, or show its results: the same command for every start of a job
  --stop-after N     stop with a checkpoint after N epochs of this call
  --quiet            no progress bars
  --dry-run          print the resolved recipe and stop

gloam train RECIPE --help lists every flag of a recipe. Recipes:
"""


def recipes(pattern: str = "*", /) -> None:
    """Table of the recipes that "gloam train" knows, with the published scores they aim at.

    Example:
        gloam recipes "sysu_mm01/*"

    Args:
        pattern: shell wildcard over <dataset>/<method>.
    """
    from gloam.recipes.recipe import recipe_table

    console().print(recipe_table(pattern))


def train(arguments: Sequence[str]) -> None:
    """Train a recipe, with any of its flags changed, and score the result.

    Raises:
        GloamError: no recipe, or a bad one.
    """
    from gloam.recipes.recipe import list_recipes, load_recipe

    words = list(arguments)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(USAGE + "".join(f"  {name}\n" for name in list_recipes()))
        return
    from gloam.cli.recipe_flags import parse_overrides

    name = None if words[0].startswith("-") else words.pop(0)
    if name is None:
        name = _resumed_run(words)
    recipe, flags = parse_overrides(load_recipe(name), words, program=f"gloam train {name}")
    if flags.dry_run:
        import yaml

        console().print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), highlight=False)
        return
    from gloam.training import run

    result = run.train(
        recipe, output=flags.output, resume=flags.resume, stop_after=flags.stop_after, progress=not flags.quiet
    )
    if not result.is_first_process:
        return
    if result.results is not None:
        console().print(result.results.table())
    console().print(f"run: {result.path}" + (" (already finished)" if result.was_finished else ""))


def _resumed_run(words: Sequence[str]) -> str:
    """The run folder that ``--resume`` names: its recipe is the one to go on with."""
    for position, word in enumerate(words):
        run = word.partition("=")[2] or (words[position + 1] if position + 1 < len(words) else "")
        if word.partition("=")[0] == "--resume" and run == "auto":
            raise GloamError("--resume auto takes the whole command: gloam train RECIPE --output DIR --resume auto.")
        if word.partition("=")[0] == "--resume" and run:
            return str(Path(run).parent.parent) if Path(run).is_file() else run
    raise GloamError("Which recipe? gloam train RECIPE ..., or gloam train --resume RUN. gloam recipes lists them.")
