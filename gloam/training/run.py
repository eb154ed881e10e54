"""A run from recipe to results: folders, stages, checkpoints, final scores."""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers.logger import Logger

from gloam import __version__
from gloam.atomic import write_text
from gloam.datasets.weak import WeakLabels
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results
from gloam.inference.checkpoint import Checkpoint, choose_feature, find_checkpoint, load_state
from gloam.methods.contract import Method
from gloam.models.weights import load_weights
from gloam.recipes.recipe import Recipe, ResolvedRecipe, ResolvedStage, differing_keys, load_recipe, resolve, validate
from gloam.training.loggers import open_loggers
from gloam.training.logs import RunLogs
from gloam.training.named_parts import check_named_parts
from gloam.training.scorer import Scorer
from gloam.training.stage import Stage, create_fabric
from gloam.training.training_data import TrainingData, prepare_data

_log = logging.getLogger(__name__)
SELECTIONS = {
    "last": "weights of the last epoch",
    "validation": "weights of the epoch that was best on held-out training identities",
    "test": "weights of the epoch that was best on the test set (not a clean result)",
}


# Keys that may differ when a run goes on: the same draws and updates result.
MACHINE = {
    "data": ("root", "cache", "workers"),
    "train": ("accelerator", "log_every", "save_every"),
}
MACHINE_SECTIONS = ("loggers", "logger_options")


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Attributes:
        path: the run folder.
        results: scores of the final weights, or None when the run stopped early.
        is_first_process: False in the other processes of a run on several devices; only one should print.
    """

    path: Path
    results: Results | None
    is_first_process: bool = True


def train(
    recipe: Recipe | str | Path,
    changes: Mapping[str, Any] | None = None,
    *,
    output: Path | None = None,
    resume: Path | None = None,
    stop_after: int | None = None,
    progress: bool = True,
) -> RunResult:
    """Train all stages of a recipe and score the final weights.

    Args:
        recipe: what to train: a recipe, its name (``sysu_mm01/agw``) or its file. A resume goes on with its run's
            recipe, of which only the machine's side may differ (``MACHINE``: the data's place, workers, device, how
            often to log and save; ``MACHINE_SECTIONS``; plugins).
        changes: flags that differ, by dotted name: ``{"data.root": folder, "optimizer.lr": 0.05}``.
        output: run folder to create; default ``runs/<dataset>/<method>/<time>``.
        resume: run folder whose ``last`` checkpoint to continue, with exactly the draws an uninterrupted run has.
        stop_after: stop (with a checkpoint) after so many epochs of this call, for time-limited machines.
        progress: show bars.

    Returns:
        The run folder and its results.

    Raises:
        GloamError: bad recipe, data, weights or checkpoint, a run folder in use, or training that collapses.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    if changes:
        recipe = recipe.with_changes(changes)
    checkpoint = Checkpoint.load(find_checkpoint(resume, prefer=("last",))) if resume is not None else None
    if checkpoint is not None and resume is not None:
        recipe = resumed_recipe(recipe, checkpoint.recipe)
        output = resume if resume.is_dir() else resume.parent.parent
    if recipe.data.root is not None:
        # The saved recipe must work from any folder.
        root = recipe.data.root.expanduser().resolve()
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})
    plan = resolve(recipe)
    check_named_parts(plan)
    recipe = plan.recipe
    if checkpoint is None:
        for planned in plan.stages.values():
            planned.options.refuse_idle()
    fabric = create_fabric(recipe)
    fabric.launch()
    # One process decides: clocks differ.
    folder = Path(fabric.broadcast(str(output or default_folder(recipe))))
    if any(stage.recipe.evaluation.selection == "test" for stage in plan.stages.values()) and fabric.is_global_zero:
        _log.warning(
            "evaluation.selection is test: the best epoch is chosen on the test set, so its score is no clean result. "
            "Report the last epoch, or use selection validation."
        )
    weak = WeakLabels.from_dict(checkpoint.weak) if checkpoint is not None and checkpoint.weak is not None else None
    data = prepare_data(plan, weak=weak, progress=progress and fabric.is_global_zero)
    if checkpoint is not None and checkpoint.fingerprint != data.fingerprint():
        raise GloamError(
            f"The data at {recipe.data.root} are not those of {output} (file lists or labels differ), so the run "
            "cannot go on. Give the folder it was trained on with --data.root."
        )
    run = _Run(fabric, recipe, data, folder, checkpoint, progress=progress, stop_after=stop_after)
    try:
        return run.execute(plan)
    except BaseException as error:
        run.logs.close("failed")
        if isinstance(error, GloamError):
            run.discard_unstarted()
        raise
    finally:
        run.logs.close()


def resumed_recipe(given: Recipe, saved: Recipe) -> Recipe:
    """The saved recipe with the given one's machine settings (``MACHINE``).

    Args:
        given: the saved recipe, perhaps with changes from the command line, or the recipe the run began with.
        saved: the checkpoint's.

    Raises:
        GloamError: the two differ in what the result depends on; every such key is named.
    """
    given = resolve(given).recipe
    content = resolve(saved).recipe.model_dump(mode="json")
    asked = given.model_dump(mode="json")
    for section, keys in MACHINE.items():
        content[section] |= {key: asked[section][key] for key in keys if asked[section][key] is not None}
    content |= {section: asked[section] for section in MACHINE_SECTIONS}
    content["plugins"] = list(dict.fromkeys([*saved.plugins, *given.plugins]))
    recipe = validate(content, "resumed recipe")
    free = {f"{section}.{key}" for section, keys in MACHINE.items() for key in keys}
    words = ("description", "expected", "plugins", "trains_on")
    changed = [key for key in differing_keys(given, recipe) if key not in free and key.split(".")[0] not in words]
    if changed:
        raise GloamError(
            f"A resumed run goes on with its own recipe; {', '.join(changed)} cannot change. Leave the flags out, or "
            "start a new run from its weights: --weights RUN."
        )
    return recipe


def default_folder(recipe: Recipe) -> Path:
    """``runs/<dataset>/<method>/<time>``."""
    return Path("runs") / recipe.data.name / recipe.method_name / time.strftime("%Y-%m-%d_%H-%M-%S")


class _Run:
    """State that the stages of one run share."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        data: TrainingData,
        folder: Path,
        checkpoint: Checkpoint | None,
        *,
        progress: bool,
        stop_after: int | None,
    ) -> None:
        self.fabric, self.recipe, self.data, self.folder = fabric, recipe, data, folder
        self.checkpoint = checkpoint
        self.progress = progress and fabric.is_global_zero
        self.remaining = stop_after
        self.best: dict[str, float] | None = checkpoint.best if checkpoint else None
        self._made = [parent for parent in folder.absolute().parents if not parent.exists()]
        loggers = self._prepare_folder(new=checkpoint is None)
        history = checkpoint.history if checkpoint else None
        self.logs = RunLogs(folder if fabric.is_global_zero else None, history, loggers)

    def execute(self, plan: ResolvedRecipe) -> RunResult:
        """Run every stage that is not finished yet."""
        names = list(plan.stages)
        start = names.index(self.checkpoint.stage) if self.checkpoint else 0
        method: Method[Any] | None = None
        stage: Stage | None = None
        for number in range(start, len(names)):
            if number > start and self.remaining is not None and self.remaining <= 0:
                return self._result(None)
            name, resolved = names[number], plan.stages[names[number]]
            resumed = self.checkpoint if self.checkpoint and number == start else None
            method = self._create(resolved, previous=method, resumed=resumed, first=number == 0)
            stage = self._run_stage(name, resolved.recipe, method, resumed)
            if stage is None:
                return self._result(None)
        if stage is None:
            raise RuntimeError("a recipe has at least one stage")
        return self._result(self._score(stage))

    def discard_unstarted(self) -> None:
        """Remove the folder of a run that failed before its first checkpoint: there is nothing to go on with."""
        saved = self.folder / "checkpoints"
        if self.fabric.is_global_zero and self.checkpoint is None and saved.is_dir() and not any(saved.iterdir()):
            shutil.rmtree(self.folder)
            for parent in self._made:
                with contextlib.suppress(OSError):  # another run's
                    parent.rmdir()

    def _result(self, results: Results | None) -> RunResult:
        return RunResult(self.folder, results, self.fabric.is_global_zero)

    def _create(
        self, stage: ResolvedStage, *, previous: Method[Any] | None, resumed: Checkpoint | None, first: bool
    ) -> Method[Any]:
        """The stage's method: the previous stage's object, or a new one with weights from where the recipe says."""
        recipe = stage.recipe
        if previous is not None and isinstance(previous, stage.method) and previous.options == stage.options:
            return previous
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.train.seed)
            method = stage.method(self.data.num_classes(stage.method), stage.options)
        if recipe.evaluation.feature is not None:
            choose_feature(method, recipe.evaluation.feature)
        if resumed is not None:
            load_state(method, resumed.method, str(self.folder))
        elif previous is not None:
            self.logs.line(str(load_weights(method, self._finished_weights())))
        elif first and recipe.weights != "none":
            self.logs.line(str(load_weights(method, recipe.weights)))
        return method

    def _run_stage(self, name: str, recipe: Recipe, method: Method[Any], resumed: Checkpoint | None) -> Stage | None:
        """Train a stage to its end and put its final weights into the method; None where the call's time is up."""
        stage = Stage(self.fabric, name, recipe, method, self.data, self.logs, progress=self.progress)
        first = 0
        if resumed is not None:
            first = resumed.epoch
            stage.optimizer.load_state_dict(resumed.optimizer)
            self.fabric.strategy.precision.load_state_dict(resumed.precision)
            stage.labels = resumed.labels
        else:
            self.best = None
        scorer = Scorer(recipe, self.data, stage.features_of)

        def after_epoch(epochs: int, numbers: dict[str, Any]) -> None:
            selected = scorer.score_epoch(epochs, recipe.train.epochs, numbers)
            self.logs.write(numbers)
            self.logs.line(_summary(numbers))
            improved = selected is not None and (self.best is None or selected > self.best["score"])
            if improved and selected is not None:
                self.best = {"score": selected, "epoch": float(epochs)}
            if self.remaining is not None:
                self.remaining -= 1
            stop = self.remaining is not None and self.remaining <= 0
            if epochs % recipe.train.save_every == 0 or epochs == recipe.train.epochs or improved or stop:
                self._save(stage, epochs, ["last", "best"] if improved else ["last"])
            if stop and epochs < recipe.train.epochs:
                raise _StopEarlyError

        try:
            stage.run(first, after_epoch)
        except _StopEarlyError:
            return None
        if self.best is not None:
            load_state(method, Checkpoint.load(self._best_path).method, str(self.folder))
        return stage

    def _save(self, stage: Stage, epochs: int, names: list[str]) -> None:
        """Write ``last`` and, for a new best, ``best``."""
        if not self.fabric.is_global_zero:
            self.fabric.barrier()
            return
        checkpoint = Checkpoint(
            recipe=self.recipe,
            stage=stage.name,
            epoch=epochs,
            num_classes=stage.method.num_classes,
            label_map={**self.data.splits.label_map},
            method=stage.method.state_dict(),
            optimizer=stage.optimizer.state_dict(),
            precision=self.fabric.strategy.precision.state_dict(),
            labels=stage.labels,
            best=self.best,
            history=self.logs.history,
            weak=self.data.weak.to_dict() if self.data.weak else None,
            fingerprint=self.data.fingerprint(),
        )
        for name in names:
            checkpoint.save(self.folder / "checkpoints" / f"{name}.ckpt")
        if self.best is None:
            self._best_path.unlink(missing_ok=True)  # an earlier stage's, perhaps another method's
        self.fabric.barrier()

    def _score(self, stage: Stage) -> Results:
        """All protocols with the final weights, into results.json, results.parquet and results.csv."""
        results = Scorer(stage.recipe, self.data, stage.features_of).score_all()
        if self.fabric.is_global_zero:
            rule = SELECTIONS[stage.recipe.evaluation.selection]
            results = results.with_notes(selection=rule, **({"best": json.dumps(self.best)} if self.best else {}))
            results.to_json(self.folder / "results.json")
            results.to_csv(self.folder / "results.csv")
            self.logs.line(f"final scores: {rule}")
            self.logs.scores({name: results.mean(name) for name in results.trials})
        return results

    @property
    def _best_path(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    def _finished_weights(self) -> Path:
        """The finished stage's selected checkpoint, from which the next stage takes its weights."""
        return self._best_path if self.best is not None else self.folder / "checkpoints" / "last.ckpt"

    def _prepare_folder(self, *, new: bool) -> list[Logger]:
        """The first process makes folder and loggers; where it cannot, all stop with the same message."""
        problem, loggers = None, []
        if self.fabric.is_global_zero:
            try:
                self._fill_folder(new=new)
                loggers = self._open_loggers(new=new)
            except OSError as error:
                problem = f"The run folder {self.folder} cannot be written ({error}). Choose another --output."
            except GloamError as error:
                problem = str(error)
        problem = self.fabric.broadcast(problem)
        if problem is not None:
            raise GloamError(problem)
        return loggers

    def _open_loggers(self, *, new: bool) -> list[Logger]:
        try:
            return open_loggers(
                self.recipe.loggers,
                self.recipe.logger_options,
                self.folder,
                hyperparameters=self.recipe.model_dump(mode="json") if new else None,
            )
        except GloamError:
            self.discard_unstarted()
            raise

    def _fill_folder(self, *, new: bool) -> None:
        if new and self.folder.exists() and any(self.folder.iterdir()):
            raise GloamError(
                f"{self.folder} is not empty. Choose another --output, or go on with --resume {self.folder}."
            )
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # file names tell who was seen where
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        for left_over in (self.folder / "checkpoints").glob(".*.tmp"):
            left_over.unlink()  # of a process that was killed while it saved
        if new:
            self.recipe.save(self.folder / "recipe.yaml")
            write_text(self.folder / "environment.json", json.dumps(self._environment(), indent=2))

    def _environment(self) -> dict[str, Any]:
        packages = ("torch", "torchvision", "timm", "lightning", "numpy")
        return {
            "gloam": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": str(self.fabric.device),
            "processes": self.fabric.world_size,
            "packages": {name: version(name) for name in packages},
            "data_fingerprint": self.data.fingerprint(),
            "data_counts": self.data.splits.counts(),
        }


class _StopEarlyError(Exception):
    """Leaves the epoch loop after a checkpoint; never reaches a caller."""


def _summary(numbers: dict[str, Any]) -> str:
    shown = [f"{key} {value:.4f}" for key, value in numbers.items() if isinstance(value, float)]
    return f"{numbers['stage']} epoch {numbers['epoch']} done: {', '.join(shown)}"
