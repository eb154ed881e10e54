"""Commands about recipes: ``gloam train`` and ``gloam recipes``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gloam.cli.listing import Entry, show_entries
from gloam.console import console
from gloam.errors import GloamError, did_you_mean

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
  --plugins MODULE[,MODULE]  import modules of your own first; the saved recipe keeps them

gloam train RECIPE --help lists every flag of a recipe. Recipes:
"""


def recipes(pattern: str = "*", /, json: bool = False) -> None:
    """List of the recipes that "gloam train" knows, with the published scores they aim at (rank-1 / mAP).

    Example:
        gloam recipes "sysu_mm01/*"

    Args:
        pattern: shell wildcard over <dataset>/<method>.
        json: print names, methods and published scores with their sources as JSON.
    """
    from gloam.recipes.recipe import list_recipes

    names = list_recipes(pattern)
    if not names:
        raise GloamError(f"No recipe matches {pattern!r}. {did_you_mean(pattern, list_recipes())}")
    show_entries([_entry(name) for name in names], as_json=json)


def runs(folder: Path = Path("runs"), /, json: bool = False) -> None:
    """List of the runs below a folder: recipe, state, score of the final weights, size.

    Example:
        gloam runs runs/sysu_mm01

    Args:
        folder: where to look.
        json: print everything as JSON.
    """
    from gloam.training.run_list import list_runs

    found = list_runs(folder)
    if not found:
        raise GloamError(f"{folder} holds no runs. gloam train RECIPE --data.root DIR makes one.")
    entries = []
    for run in found:
        score = "no score yet"
        if run.protocol is not None and run.rank1 is not None and run.mAP is not None:
            score = f"{run.protocol.split('/')[-1]}: {100 * run.rank1:.2f} / {100 * run.mAP:.2f}"
        lines = [f"{run.recipe}, {run.state}", score, f"{run.size / 2**20:,.1f} MiB"]
        entries.append(Entry(str(run.path), lines, run.facts()))
    show_entries(entries, as_json=json)


def train(arguments: Sequence[str], modules: Sequence[str] = ()) -> None:
    """Train a recipe, with any of its flags changed, and score the result.

    Args:
        arguments: the recipe's name and its flags.
        modules: plugins that ``--plugins`` names, already imported.

    Raises:
        GloamError: no recipe, or a bad one.
    """
    from gloam import plugins
    from gloam.recipes.recipe import list_recipes, load_recipe

    words = list(arguments)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(USAGE + "".join(f"  {name}\n" for name in list_recipes()))
        return
    from gloam.cli.recipe_flags import parse_overrides

    name = None if words[0].startswith("-") else words.pop(0)
    if name is None:
        name = _resumed_run(words)
    recipe = load_recipe(name)
    # What the run needs is saved with it, whoever named it.
    wanted = dict.fromkeys([*recipe.plugins, *plugins.import_from_environment(), *modules])
    recipe = recipe.model_copy(update={"plugins": tuple(wanted)})
    recipe, flags = parse_overrides(recipe, words, program=f"gloam train {name}")
    if flags.dry_run:
        from gloam.recipes.recipe import resolve
        from gloam.training.named_parts import check_named_parts

        plan = resolve(recipe)
        check_named_parts(plan)
        sys.stdout.write(plan.recipe.to_yaml())
        return
    from gloam.training import run

    result = run.train(
        recipe, output=flags.output, resume=flags.resume, stop_after=flags.stop_after, progress=not flags.quiet
    )
    if not result.is_first_process:
        return
    if result.results is not None:
        scored = result.results
        console().print(scored.table() if scored.trials else "no scores: these data have no test set")
    told = f"run: {result.path}" + (" (already finished)" if result.was_finished else "")
    console().print(told, soft_wrap=True)


def _entry(name: str) -> Entry:
    from gloam.recipes.recipe import load_recipe

    recipe = load_recipe(name)
    facts = {
        "name": name,
        "dataset": recipe.data.name,
        "method": recipe.method_name,
        "description": recipe.description,
        "expected": [expected.model_dump(mode="json") for expected in recipe.expected],
    }
    scores = [f"{e.protocol.split('/')[-1]}: {_score(e.rank1)} / {_score(e.mAP)}" for e in recipe.expected]
    return Entry(name, [recipe.description, *(scores or ["no published score"])], facts)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _resumed_run(words: Sequence[str]) -> str:
    """The run folder that ``--resume`` names: its recipe is the one to go on with."""
    for position, word in enumerate(words):
        run = word.partition("=")[2] or (words[position + 1] if position + 1 < len(words) else "")
        if word.partition("=")[0] == "--resume" and run == "auto":
            raise GloamError("--resume auto takes the whole command: gloam train RECIPE --output DIR --resume auto.")
        if word.partition("=")[0] == "--resume" and run:
            path = Path(run)
            if not path.exists():
                raise GloamError(f"There is no run {run}: --resume takes the folder of a run.")
            return str(path.parent.parent) if path.is_file() else run
    raise GloamError("Which recipe? gloam train RECIPE ..., or gloam train --resume RUN. gloam recipes lists them.")
