"""Commands from runs to claims: tables for papers, comparisons, reports, reproductions."""

from __future__ import annotations

import argparse
import json as json_text
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gloam.cli.listing import Entry, show_entries
from gloam.console import console, printable
from gloam.errors import GloamError

DataRoot = Annotated[Path | None, tyro.conf.arg(name="data.root")]
Runs = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]")]


def results(
    runs: Runs,
    /,
    format: Literal["markdown", "latex", "csv"] = "markdown",
    protocol: tuple[str, ...] = (),
    scores: tuple[str, ...] = ("rank1", "mAP", "mINP"),
    apart: bool = False,
) -> None:
    """Scores of finished runs as rows for a paper. Runs that differ in seed or RegDB trial only make one row.

    Example:
        gloam results runs/sysu_mm01/*/* --format latex --protocol all_single

    Args:
        runs: run folders, or results files.
        format: markdown, latex or csv.
        protocol: protocol names or wildcards; all if not given.
        scores: which of rank1, rank5, rank10, rank20, mAP, mINP.
        apart: a row for every run.
    """
    from gloam.report.finished_runs import read_systems
    from gloam.report.score_tables import score_table

    text = score_table(read_systems(runs, apart=apart), format=format, protocols=protocol, scores=scores)
    sys.stdout.write("\n".join(printable(line) for line in text.split("\n")))


def compare(
    runs: Runs,
    /,
    baseline: Path | None = None,
    protocol: tuple[str, ...] = (),
    scores: tuple[str, ...] = ("rank1", "mAP"),
    seed: int = 0,
    json: bool = False,
) -> None:
    """Differences between runs, with 95 % intervals over the people searched for and a corrected test.

    Example:
        gloam compare runs/sysu_mm01/agw/* runs/sysu_mm01/ddag/* --baseline runs/sysu_mm01/agw/first

    Args:
        runs: run folders, or results files. Runs that differ in seed or RegDB trial only are one system.
        baseline: what the others are compared with; the first run if not given.
        protocol: protocol names or wildcards; all if not given.
        scores: which of rank1, rank5, rank10, rank20, mAP, mINP.
        seed: of the bootstrap and of the test.
        json: print everything as JSON.
    """
    from gloam.report.comparison import compare_runs

    found = compare_runs(runs, baseline=baseline, protocols=protocol, scores=scores, seed=seed)
    if json:
        sys.stdout.write(json_text.dumps(found.to_dict(), indent=2) + "\n")
    else:
        console().print(found.table())


def report(
    runs: Runs,
    /,
    output: Path = Path("report.html"),
    data: DataRoot = None,
    protocol: str | None = None,
    faces: Literal["blur", "none", "keep"] = "blur",
    queries: int = 24,
    scores_only: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
) -> None:
    """One HTML file about a run, or several side by side: scores, curves, cameras, failures, training.

    Example:
        gloam report runs/sysu_mm01/agw/2026-01-31_12-00-00 --output report.html

    Args:
        runs: run folders. Those that differ in seed or RegDB trial only are one system.
        output: the HTML file to write.
        data: the dataset's folder, where it is not the one of training.
        protocol: what is taken apart query by query; the run's first if not given.
        faces: blur the upper part of every image, put none of the images in, or keep them.
        queries: worst, best and random queries each; a third of it where several systems share the page.
        scores_only: leave out what needs the model and the data.
        batch_size: images per forward pass.
        device: auto, cpu, cuda, cuda:1 ...
    """
    from gloam.report.html_report import write_report

    path = write_report(
        runs,
        output,
        data_root=data,
        protocol=protocol,
        faces=faces,
        queries=queries,
        scores_only=scores_only,
        batch_size=batch_size,
        device=device,
    )
    console().print(f"{path}", soft_wrap=True, highlight=False)


REPRODUCE = """gloam reproduce RECIPE --data.root DIR [--seeds 3] [--trials 1-10] [--jobs N] [--output DIR]
       gloam reproduce --list [--json] [--output DIR]"""


def reproduce(arguments: Sequence[str], modules: Sequence[str] = ()) -> None:
    """Train what a published number consists of (stages, trials, seeds), and say how near it comes.

    Args:
        arguments: recipe, own flags, and flags of ``gloam train``.
        modules: plugins that ``--plugins`` names, already imported; the trainings import them too.

    Raises:
        GloamError: a bad plan, or trainings that failed.
    """
    parser = argparse.ArgumentParser(
        "gloam reproduce",
        REPRODUCE,
        "Train what a published number consists of (stages, trials, seeds), and say how near it comes.\n"
        "The same command goes on after any interruption; finished runs are not repeated.",
        epilog="Flags of gloam train follow (gloam train RECIPE --help); one that changes the training makes it an\n"
        "example, no reproduction.\n\nExample:\n    gloam reproduce regdb/agw --data.root /data/RegDB --jobs 2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", nargs="?", help="recipe to reproduce (gloam recipes)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings, with the recipe's seed and the next ones (3)")
    parser.add_argument("--trials", help="RegDB's splits, such as 1-10 or 1,3; all of them if not given")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time; several GPUs are shared out (1)")
    parser.add_argument("--output", type=Path, help="folder (reproductions/DATASET/RECIPE)")
    parser.add_argument("--list", action="store_true", help="every published number and what was obtained here")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    flags, words = parser.parse_known_args(list(arguments))
    if flags.list:
        _list_published(flags.output, flags.json)
        return
    if flags.recipe is None or arguments[0].startswith("-"):
        raise GloamError(f"Which recipe? {REPRODUCE.splitlines()[0]}")
    from gloam.cli.recipe_flags import parse_overrides
    from gloam.recipes.recipe import load_recipe
    from gloam.report import reproduction

    own = ("--train.seed", "--data.options.trial", "--resume", "--stop-after", "--dry-run")
    if refused := [word for word in words if word.partition("=")[0] in own]:
        raise GloamError(f"{refused[0]} is set by gloam reproduce: use --seeds and --trials.")
    recipe, _ = parse_overrides(load_recipe(flags.recipe), words, program=f"gloam reproduce {flags.recipe}")
    done = reproduction.reproduce(
        flags.recipe,
        recipe,
        [*words, *(["--plugins", ",".join(modules)] if modules else [])],
        output=flags.output,
        seeds=flags.seeds,
        trials=flags.trials,
        jobs=flags.jobs,
    )
    if flags.json:
        sys.stdout.write((done.folder / reproduction.VERDICT).read_text(encoding="utf-8") + "\n")
        return
    screen = console()
    sys.stdout.write("\n".join(printable(line) for line in done.table.split("\n")) + "\n")
    if done.example:
        screen.print(f"Example: {done.example}\n")
    if not done.verdicts:
        screen.print("The recipe states no published score for these protocols.")
    words_of = {True: "inside", False: "outside", None: "no"}
    for row in done.verdicts:
        spread = "" if row.spread is None else f" ± {row.spread:.2f}"
        limit = "" if row.tolerance is None else f" of {row.tolerance:.2f}"
        screen.print(
            f"{row.protocol} {row.score}: published {row.published:.2f}, obtained {row.obtained:.2f}{spread} "
            f"({row.seeds} seed{'s' * (row.seeds > 1)}), distance {row.distance:+.2f}: {words_of[row.inside]} tolerance"
            f"{limit} ({row.tolerance_source}). Published with: {row.conditions} [{row.source}]",
            highlight=False,
            soft_wrap=True,
        )
    screen.print(f"{done.folder / 'report.html'}", soft_wrap=True, highlight=False)


def _list_published(folder: Path | None, as_json: bool) -> None:
    from gloam.report.reproduction import FOLDER, published_numbers

    entries = []
    for row in published_numbers(folder or FOLDER):
        name = f"{row['recipe']} {row['protocol'].split('/')[-1]} {row['score']}"
        text = [f"published {row['published']:.2f}: {row['state']}", f"{row['source']}; {row['conditions']}"]
        entries.append(Entry(name, text, row))
    show_entries(entries, as_json=as_json)
