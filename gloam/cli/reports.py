"""Commands from runs to claims: tables for papers, comparisons, reports."""

from __future__ import annotations

import json as json_text
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gloam.console import console, printable

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
