"""Short trainings by the command line, one after another: each has a folder, and what is finished is not repeated."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import Any

PROTOCOL = "sysu_mm01/all_single"


@dataclass(frozen=True)
class Training:
    """One call of ``gloam train``.

    Attributes:
        name: folder of the run, below the output folder.
        recipe: name of a shipped recipe, or a YAML file.
        flags: the rest of the command line.
    """

    name: str
    recipe: str
    flags: tuple[str, ...]

    def command(self, output: Path) -> list[str]:
        """The words after ``gloam``; they begin a run or go on with one that was stopped."""
        return ["train", self.recipe, *self.flags, "--output", str(output / self.name), "--resume", "auto", "--quiet"]

    def run(self, output: Path) -> Path:
        """Train unless it is done; the log goes beside the run's folder.

        Returns:
            The run's folder.
        """
        folder = output / self.name
        if (folder / "results.json").is_file():
            return folder
        command = self.command(output)
        print("gloam", " ".join(command), file=sys.stderr, flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        process = _processes().Process(target=_gloam, args=(command, f"{folder}.log"))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"The training failed: {folder}.log says why.")
        return folder


def _processes() -> ForkServerContext | SpawnContext:
    """A process of its own per training; where there is fork, torch and gloam are imported once for all of them."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gloam.training.run", "lightning"])
    return context


def _gloam(words: list[str], log: str) -> None:
    """One command with everything that it says appended to a file."""
    from gloam.cli.main import main

    with Path(log).open("a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
        sys.exit(main(words))


def score(run: Path, protocol: str = PROTOCOL) -> dict[str, float]:
    """Means over the ten galleries, in percent: ``rank1``, ``mAP``, ``mINP`` and the rest."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return {key: 100 * value for key, value in results["protocols"][protocol]["mean"].items()}


def last_numbers(run: Path, *names: str) -> list[float]:
    """The last value that a run's ``metrics.csv`` has of each name, NaN if none."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [next((float(row[name]) for row in reversed(rows) if row.get(name)), float("nan")) for name in names]


def mean_and_deviation(values: Sequence[float]) -> str:
    """``12.34 ± 0.56``; the deviation is that of a sample and needs two values."""
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2f}"


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Rows as a table of Markdown; what is missing is a dash."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(str(row.get(column, '-')) for column in columns)} |", flush=True)
