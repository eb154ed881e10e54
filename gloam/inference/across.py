"""Several runs on several datasets: what is asked for, what fits, and one table of all scores."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gloam.atomic import write_text
from gloam.datasets import DatasetSplits, get_dataset, load_dataset
from gloam.errors import GloamError
from gloam.evaluation.evaluator import COLUMNS, Results, break_name, combine
from gloam.evaluation.protocols import find_protocols
from gloam.inference.checkpoint import Checkpoint, find_checkpoint
from gloam.inference.exported import EXPORTED_SUFFIXES
from gloam.inference.loading import load_model
from gloam.inference.published import is_published
from gloam.inference.sources import TABLE_SUFFIXES, load_splits
from gloam.methods import get_method
from gloam.recipes.recipe import DataConfig, Recipe, resolve

if TYPE_CHECKING:
    from rich.table import Table

# What runs of one recipe may differ in and still be averaged: seeds and published divisions; and the machine's side.
_DRAWS = ("train.seed", "data.options.trial", "data.options.seed")
_MACHINE = (
    *(f"data.{key}" for key in ("root", "cache", "workers", "fingerprint", "options.images", "options.check_files")),
    *(f"train.{key}" for key in ("accelerator", "log_every", "save_every")),
    *("description", "plugins", "expected", "trains_on", "loggers", "logger_options"),
)
_PER_ROW = ("models", "trained on")  # notes that differ from row to row


@dataclass(frozen=True)
class Target:
    """A dataset to score on.

    Attributes:
        name: registered name; None: the dataset that the run was trained on.
        root: its folder or table; None: where the run found its own.
        options: of the dataset.
    """

    name: str | None = None
    root: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def dataset(self, data: DataConfig) -> str:
        """Its name, for a run with this ``data`` section; a table needs none."""
        if self.name is None and self.root is not None and self.root.suffix in TABLE_SUFFIXES:
            return "table"
        return self.name or data.name

    def is_own(self, data: DataConfig) -> bool:
        """Whether that is what the run was trained on."""
        return self.dataset(data) == data.name

    def label(self, data: DataConfig) -> str:
        """What tables and files call it: a dataset by its name, own data by the name of the table or folder."""
        name, root = self.dataset(data), self.root or data.root
        return root.stem if name == "table" and root is not None else name

    def open(self, data: DataConfig) -> DatasetSplits:
        """Read its lists; a run's own dataset with the run's options.

        Args:
            data: section of the run's recipe.

        Raises:
            GloamError: no folder is known, or nothing of the kind is there.
        """
        if self.is_own(data):
            changed = {"options": {**data.options, **self.options}}
            return load_splits(data.model_copy(update=changed), self.root)
        name = self.dataset(data)
        if self.root is None:
            raise GloamError(f"Where is {name}? Give its folder with --data.root (gloam data check tests it).")
        return load_dataset(name, self.root, **self.options)


def choose_targets(
    names: Sequence[str] = (), roots: Sequence[Path] = (), options: Mapping[str, Any] | None = None
) -> list[Target]:
    """Datasets from the words of a command line: first name with first root, and so on.

    Args:
        names: dataset names; none: the runs' own.
        roots: as many folders or tables. Tables need no name.
        options: given to every dataset that knows them.

    Raises:
        GloamError: names and roots that do not pair, an unknown dataset, or an option that none of them has.
    """
    given = dict(options or {})
    if not names:
        if len(roots) > 1 and (wrong := next((root for root in roots if root.suffix not in TABLE_SUFFIXES), None)):
            raise GloamError(f"Which dataset is {wrong}? Give one --data.name for every --data.root.")
        return [Target(None, root, given) for root in roots] or [Target(options=given)]
    classes = [get_dataset(name) for name in names]
    if roots and len(roots) != len(names):
        raise GloamError(
            f"{len(names)} dataset names and {len(roots)} folders: give one --data.root for every --data.name, in the "
            "same order."
        )
    if lost := [key for key in given if not any(key in cls.options for cls in classes)]:
        raise GloamError(f"None of {', '.join(names)} has an option {lost[0]!r}. gloam data list NAME shows them.")
    places: Sequence[Path | None] = roots or [None] * len(names)
    return [
        Target(name, root, {key: value for key, value in given.items() if key in cls.options})
        for name, root, cls in zip(names, places, classes, strict=True)
    ]


@dataclass(frozen=True)
class Contender:
    """A run before its weights are used.

    Attributes:
        path: run folder, checkpoint or exported file, as given.
        recipe: of the stage whose weights it holds.
        family: what it shares with other seeds and trials of its recipe.
        draw: its seed and trial.
        is_video: whether its method embeds clips.
    """

    path: Path
    recipe: Recipe
    family: str
    draw: str
    is_video: bool

    @classmethod
    def read(cls, path: Path) -> Contender:
        """Look at a run.

        Raises:
            GloamError: there is none.
        """
        if path.suffix in EXPORTED_SUFFIXES or str(path).startswith("hf:") or is_published(path):
            model = load_model(path)
            return cls(path, model.recipe, f"exported {path.resolve()}", "", model.is_video)
        checkpoint = Checkpoint.load(find_checkpoint(path))
        recipe = checkpoint.stage_recipe()
        content = resolve(checkpoint.recipe).recipe.model_dump(mode="json")
        draws = {key: _pop(content, key) for key in _DRAWS}
        for key in _MACHINE:
            _pop(content, key)
        family = json.dumps([checkpoint.stage, content], sort_keys=True)
        return cls(path, recipe, family, json.dumps(draws), get_method(recipe.method_name).is_video)

    def check_fit(self, splits: DatasetSplits, target: Target) -> None:
        """Make sure that the run's network can embed a dataset, and that there is something to score.

        Raises:
            GloamError: it cannot; the cure is named.
        """
        if splits.is_video and not self.is_video:
            raise GloamError(
                f"{splits.name} holds tracklets, and {self.path} ({self.recipe.method_name}) embeds single images. "
                "Score a run of a video method (m3reid), or choose another --data.name."
            )
        if not target.is_own(self.recipe.data) and not splits.protocols:
            raise GloamError(f"{splits.name} at {splits.root} has no query and gallery: there is nothing to score.")

    def protocols(self, splits: DatasetSplits, target: Target, given: Sequence[str]) -> Sequence[str] | None:
        """Which protocols to score on a dataset: the given ones that it has, or the recipe's on its own dataset."""
        if given:
            return [pattern for pattern in given if _has(splits, pattern)] or given
        return self.recipe.evaluation.protocols if target.is_own(self.recipe.data) else None


def check_protocols(opened: Sequence[DatasetSplits], given: Sequence[str]) -> None:
    """Make sure that every protocol asked for exists, and that every dataset has one of them.

    Raises:
        GloamError: one does not; the nearest names are offered.
    """
    scored = [splits for splits in opened if splits.protocols]
    for pattern in given:
        if scored and not any(_has(splits, pattern) for splits in scored):
            find_protocols(scored[0], [pattern])
    for splits in scored:
        if given and not any(_has(splits, pattern) for pattern in given):
            find_protocols(splits, given)


@dataclass(frozen=True)
class Row:
    """Scores of one model, or of several seeds or trials of one recipe, on one dataset.

    Attributes:
        runs: the models.
        source: dataset they were trained on.
        method: their method.
        target: dataset of the scores, as ``Target.label`` calls it.
        root: its folder.
        results: the scores.
    """

    runs: tuple[Path, ...]
    source: str
    method: str
    target: str
    root: Path
    results: Results

    @property
    def label(self) -> str:
        """Where the model comes from."""
        return f"{self.source}/{self.method}"


@dataclass(frozen=True)
class Comparison:
    """Scores of several models on several datasets.

    Attributes:
        rows: in the order of the datasets, and on each in the order of the runs.
    """

    rows: tuple[Row, ...]

    @property
    def models(self) -> dict[tuple[Path, ...], int]:
        """Runs of a row -> their number in the table, from 1."""
        return {runs: number for number, runs in enumerate(dict.fromkeys(row.runs for row in self.rows), start=1)}

    def table(self) -> Table:
        """One block for every protocol of every dataset, one line in it for every model; percent.

        A model's line names the data it was trained on, so that source and target meet in every cell.
        """
        from rich import box
        from rich.table import Table

        notes = dict(pair for row in self.rows for pair in row.results.notes.items() if pair[0] not in _PER_ROW)
        title = "scores in percent" + "".join(f"; {key}: {value}" for key, value in notes.items())
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
        table.add_column("scored on\n  trained", no_wrap=True)
        for name in ("R1", "R5", "R10", "R20", "mAP", "mINP"):
            table.add_column(name, justify="right", min_width=6)
        table.add_column("models", justify="right", no_wrap=True, min_width=7)
        blocks: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            for protocol in row.results.trials:
                blocks.setdefault((row.target, protocol), []).append(row)
        for (target, protocol), rows in blocks.items():
            name = f"{target}/{protocol.split('/')[-1]}"
            table.add_row(break_name(name, 26), style="bold")
            for row in rows:
                mean, spread = row.results.mean(protocol), row.results.spread(protocol)
                count = len(row.results.trials[protocol])
                cells = [_cell(mean.get(column), spread.get(column), count) for column in COLUMNS]
                own = break_name(row.label, 22).replace("\n", "\n    ")
                table.add_row(f"  {self.models[row.runs]} {own}", *cells, str(len(row.runs)))
        return table

    def legend(self) -> list[str]:
        """A line for every model: its number in the table and its runs."""
        return [f"{number} {' '.join(map(str, runs))}" for runs, number in self.models.items()]

    def to_dict(self) -> dict[str, Any]:
        """Plain values: one entry per model and dataset, scores as fractions."""
        return {
            "rows": [
                {
                    "runs": [str(run) for run in row.runs],
                    "source": row.source,
                    "method": row.method,
                    "target": row.target,
                    "root": str(row.root),
                    **row.results.to_dict(),
                }
                for row in self.rows
            ]
        }

    def to_json(self, path: Path) -> None:
        """Write :meth:`to_dict`, atomically."""
        write_text(path, json.dumps(self.to_dict(), indent=2))

    def to_csv(self, path: Path) -> None:
        """One line per model, protocol and trial, then its mean and std; as fractions; atomically."""
        names = list(dict.fromkeys(key for row in self.rows for t in row.results.trials.values() for key in t[0]))
        text = io.StringIO()
        writer = csv.DictWriter(
            text, ["runs", "source", "method", "target", "protocol", "trial", *names], lineterminator="\n"
        )
        writer.writeheader()
        for row in self.rows:
            about = {"runs": " ".join(map(str, row.runs)), "source": row.source, "method": row.method}
            for protocol, trials in row.results.trials.items():
                mean, std = row.results.mean(protocol), row.results.spread(protocol)
                for label, numbers in [*enumerate(trials), ("mean", mean), ("std", std)]:
                    writer.writerow({**about, "target": row.target, "protocol": protocol, "trial": label, **numbers})
        write_text(path, text.getvalue())


def group(contenders: Sequence[Contender]) -> list[tuple[Contender, ...]]:
    """Runs to average: those of one recipe that differ in seed or trial and in nothing else.

    Where two of a recipe have the same seed and trial (two checkpoints of one run, a run repeated), none of them is
    averaged: each stands for itself.
    """
    families: dict[str, list[Contender]] = {}
    for one in contenders:
        families.setdefault(one.family, []).append(one)
    groups: list[tuple[Contender, ...]] = []
    for members in families.values():
        differs = len({one.draw for one in members}) == len(members)
        groups += [tuple(members)] if differs else [(one,) for one in members]
    return groups


def join_rows(parts: Sequence[Row]) -> Row:
    """The rows of several seeds or trials on one dataset as one."""
    first = parts[0]
    runs = tuple(run for part in parts for run in part.runs)
    return Row(runs, first.source, first.method, first.target, first.root, combine([part.results for part in parts]))


def _cell(mean: float | None, spread: float | None, count: int) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" + (f"\n±{100 * (spread or 0):.2f}" if count > 1 else "")


def _has(splits: DatasetSplits, pattern: str) -> bool:
    try:
        return bool(find_protocols(splits, [pattern]))
    except GloamError:
        return False


def _pop(content: dict[str, Any], key: str) -> Any:
    *sections, last = key.split(".")
    place: Any = content
    for section in sections:
        place = place.get(section, {})
    return place.pop(last, None)
