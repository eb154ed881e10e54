"""What a run is going to do, in a few lines, before it does it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gloam.console import console, styled
from gloam.datasets.records import DatasetSplits, Record
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.recipes.recipe import ResolvedRecipe, ResolvedStage
from gloam.sampling import SamplerOptions, create_sampler
from gloam.training.machine import Machine
from gloam.training.training_data import DataLists

Lines = list[tuple[str, str]]


def outline(plan: ResolvedRecipe, lists: DataLists, machine: Machine, checkpoint: Checkpoint | None = None) -> Lines:
    """Names and values of the lines: data, network, device, epochs.

    Args:
        plan: the whole run.
        lists: its data.
        machine: where it trains.
        checkpoint: where a resumed run goes on.
    """
    recipe = plan.recipe
    lines = [("data", f"{recipe.data.name} at {recipe.data.root}"), *_data(lists)]
    for name, stage in plan.stages.items():
        arch = getattr(stage.options, "arch", None)
        clip = f"{stage.recipe.data.frames} x " if stage.recipe.data.frames else ""
        size = f"{clip}{stage.recipe.data.height} x {stage.recipe.data.width}"
        network = ", ".join(
            filter(
                None,
                [
                    stage.recipe.method_name,
                    arch,
                    size,
                    "random weights" if stage.recipe.weights == "none" else f"weights {stage.recipe.weights}",
                ],
            )
        )
        line = ("network" if len(plan.stages) == 1 else f"stage {name}", network)
        if line[1] not in [value for _, value in lines]:
            lines.append(line)
        lines.append(("training", _epochs(stage, lists, machine)))
    lines.append(("device", str(machine)))
    if checkpoint is not None:
        done = f"after epoch {checkpoint.epoch} of stage {checkpoint.stage!r}"
        lines.append(("goes on", f"inside the epoch {done}" if checkpoint.unfinished else done))
    return lines


def commands(folder: Path) -> Lines:
    """The lines that need the run's folder."""
    name = shlex.quote(str(folder))
    return [
        ("run", str(folder)),
        ("watch", f"tensorboard --logdir {name}"),
        ("resume", f"gloam train --resume {name}"),
    ]


def show(lines: Lines) -> None:
    """Print lines to standard error, commands and folders unbroken."""
    screen = console(stderr=True)
    for name, value in lines:
        screen.print(styled((f"{name:<8} ", "bold"), value), soft_wrap=True, highlight=False)


def _data(lists: DataLists) -> Lines:
    splits, unit = lists.splits, "tracklets" if lists.splits.is_video else "images"
    kinds = [f"{count:,} {kind}" for kind, count in _modalities(splits.train).items()]
    people = f"{splits.num_classes:,} people" if splits.labelled else "nobody is named"
    lines = [("train", f"{len(splits.train):,} {unit} ({', '.join(kinds)}), {people}")]
    if lists.validation is not None:
        held = lists.validation
        lines.append(("select", f"on {len(held.query):,} queries and {len(held.gallery):,} gallery {unit} held out"))
    lines.append(("test", _test(lists.test, unit)))
    return lines


def _test(test: DatasetSplits, unit: str) -> str:
    if not test.protocols:
        return "none: training only"
    plural = "" if len(test.protocols) == 1 else "s"
    return f"{len(test.query):,} queries, {len(test.gallery):,} gallery {unit}, {len(test.protocols)} protocol{plural}"


def _modalities(records: Sequence[Record]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in records:
        counts[record.modality.name.lower()] = counts.get(record.modality.name.lower(), 0) + 1
    return counts


def _epochs(stage: ResolvedStage, lists: DataLists, machine: Machine) -> str:
    """``81 epochs x 533 batches of 64 images``, as far as that is known before clusters are."""
    recipe = stage.recipe
    epochs = f"{recipe.train.epochs:,} epoch{'' if recipe.train.epochs == 1 else 's'}"
    sampler = recipe.sampler
    if recipe.train.iterations is not None:
        sampler = sampler.model_copy(update={"iterations": recipe.train.iterations})
    if not stage.method.is_unsupervised and recipe.train.epochs:
        with contextlib.suppress(GloamError):  # told with its cure when the stage begins, whose labels may be others
            batches, rows = _batches(sampler, lists, recipe.train.seed, machine.processes)
            return f"{epochs} x {batches:,} batches of {rows:,} {'clips' if recipe.data.frames else 'images'}"
    count = f" x {sampler.iterations:,} batches" if sampler.iterations is not None else ""
    return f"{epochs}{count}, {sampler.batch}{'' if count else '; clusters decide how many batches'}"


def _batches(sampler: SamplerOptions, lists: DataLists, seed: int, processes: int) -> tuple[int, int]:
    """Batches of the first epoch in each process, and rows of the first."""
    records = lists.splits.train
    columns = [[record.pid, int(record.modality), record.cam] for record in records]
    labels, modalities, cams = np.array(columns, dtype=np.int64).T
    made = create_sampler(sampler, labels, modalities, cams, seed=seed, rank=0, world_size=processes)
    return len(made), len(next(iter(made)))
