"""A run from recipe to results: folders, stages, checkpoints, final scores."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gloam.atomic import remove, write_text
from gloam.datasets.weak import WeakLabels
from gloam.evaluation.evaluator import Results
from gloam.inference.checkpoint import Checkpoint, find_checkpoint, load_state
from gloam.interruption import Interrupted, Signals, listening
from gloam.methods.contract import Method
from gloam.models.weights import load_weights
from gloam.recipes.recipe import Recipe, ResolvedRecipe, ResolvedStage, load_recipe, resolve
from gloam.training import continuation
from gloam.training.data_files import FILES, DataFiles
from gloam.training.loggers import open_loggers
from gloam.training.logs import RunLogs
from gloam.training.machine import choose_machine, is_first_process
from gloam.training.named_parts import check_named_parts
from gloam.training.number_words import number_text
from gloam.training.outline import commands, outline, show
from gloam.training.resumed_recipe import resumed_recipe
from gloam.training.run_clock import RunClock
from gloam.training.run_folder import RunFolder, default_folder
from gloam.training.scorer import Scorer
from gloam.training.stage import Stage, create_fabric
from gloam.training.starting_weights import build_method, first_method
from gloam.training.training_data import TrainingData, read_lists

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.loggers.logger import Logger

_log = logging.getLogger(__name__)
SELECTIONS = {
    "last": "weights of the last epoch",
    "validation": "weights of the epoch that was best on held-out training identities",
    "test": "weights of the epoch that was best on the test set (not a clean result)",
}


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Attributes:
        path: the run folder.
        results: scores of the final weights, or None when the run stopped early.
        is_first_process: False in the other processes of a run on several devices; only one should print.
        was_finished: nothing was left to do.
    """

    path: Path
    results: Results | None
    is_first_process: bool = True
    was_finished: bool = False


def train(
    recipe: Recipe | str | Path,
    changes: Mapping[str, Any] | None = None,
    *,
    output: Path | None = None,
    resume: Path | Literal["auto"] | None = None,
    stop_after: int | None = None,
    progress: bool = True,
) -> RunResult:
    """Train all stages of a recipe and score the final weights.

    Ctrl-C and SIGTERM end it after the running batch, with a checkpoint that goes on there with the same bits. That
    takes the time of one batch and of one checkpoint; give a scheduler a grace of a minute.

    Args:
        recipe: what to train: a recipe, its name (``sysu_mm01/agw``) or its file. A resume goes on with its run's
            recipe, of which only the machine's side may differ (the data's place, workers, device, how often
            to log and save, loggers, plugins: ``resumed_recipe``).
        changes: flags that differ, by dotted name: ``{"data.root": folder, "optimizer.lr": 0.05}``.
        output: run folder to create; default ``runs/<dataset>/<method>/<time>``.
        resume: run folder whose ``last`` checkpoint to continue, with exactly the draws an uninterrupted run has; a run
            that ended before its first checkpoint begins again. ``"auto"``: begin in ``output``, or go on there, or
            return the results of the finished run: always the same call.
        stop_after: stop (with a checkpoint) after so many epochs of this call, for time-limited machines.
        progress: show bars.

    Returns:
        The run folder and its results.

    Raises:
        GloamError: bad recipe, data, weights or checkpoint, a run folder in use, or training that collapses.
        Interrupted: Ctrl-C or SIGTERM; its text names the command that goes on.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    if changes:
        recipe = recipe.with_changes(changes)
    output, source, state = continuation.find_run(output, resume)
    if state == "finished" and output is not None:
        resumed_recipe(continuation.with_absolute_root(recipe), load_recipe(output))  # the run that was asked for?
        first = int(os.environ.get("RANK", "0")) == 0
        return RunResult(output, Results.load(output / "results.json"), first, was_finished=True)
    with listening() as signals:
        return _train(recipe, output, source, state == "unstarted", stop_after, progress, signals)


def _train(
    recipe: Recipe,
    output: Path | None,
    resume: Path | None,
    begin_again: bool,
    stop_after: int | None,
    progress: bool,
    signals: Signals,
) -> RunResult:
    checkpoint, file, before = None, None, None
    if resume is not None:
        file = find_checkpoint(resume, prefer=("last",))
        before = continuation.identity(file)
        checkpoint = Checkpoint.load(file)
        recipe = resumed_recipe(recipe, checkpoint.recipe)
        output = resume if resume.is_dir() else resume.parent.parent
    plan = resolve(continuation.with_absolute_root(recipe))
    check_named_parts(plan)
    recipe = plan.recipe
    if checkpoint is None:
        for planned in plan.stages.values():
            planned.options.refuse_idle()
    weak = WeakLabels.from_dict(checkpoint.weak) if checkpoint is not None and checkpoint.weak is not None else None
    lists = read_lists(plan, weak=weak)
    machine = choose_machine(recipe)
    if machine.precision != machine.wanted_precision and is_first_process():
        _log.warning(
            "train.precision %s needs a GPU; this run computes in float32 on the CPU.", machine.wanted_precision
        )
    about = outline(plan, lists, machine, checkpoint)
    if progress and is_first_process():
        show(about)
    fabric = create_fabric(recipe)
    fabric.launch()
    # One process decides: clocks differ.
    folder = RunFolder(Path(fabric.broadcast(str(output or default_folder(recipe.data.name, recipe.method_name)))))
    run: _Run | None = None
    status = "failed"
    try:
        if checkpoint is not None or begin_again:
            continuation.on_first(fabric, lambda: continuation.hold_as_read(folder, file, before))
        if any(stage.recipe.evaluation.selection == "test" for stage in plan.stages.values()) and fabric.is_global_zero:
            _log.warning(
                "evaluation.selection is test: the best epoch is chosen on the test set, so its score is no clean "
                "result. Report the last epoch, or use selection validation."
            )
        # Weights that are missing or do not fit are told before an image is decoded; those of a resumed run fit.
        begun = first_method(plan, lists, None, folder.path) if checkpoint is None else None
        data = lists.open(progress=progress and fabric.is_global_zero)
        files = continuation.on_first(fabric, lambda: continuation.check_data(recipe, data, folder, checkpoint))
        method, told = begun or first_method(plan, lists, checkpoint, folder.path)
        run = _Run(fabric, recipe, data, folder, checkpoint, files, signals, progress=progress, stop_after=stop_after)
        run.open(unique=output is None, begin_again=begin_again)
        about += commands(run.folder.path)
        if run.progress:
            show(commands(run.folder.path))
        for name, value in about:
            run.logs.record(f"{name}: {value}")
        if told is not None:
            run.logs.line(told)
        result = run.execute(plan, method)
        status = "success"
        return result
    except Interrupted as stop:
        stop.args = (continuation.farewell(folder, None if run is None else run.stopped_at),)
        if run is not None:
            run.logs.record(str(stop))
        raise
    finally:
        if run is not None:
            run.logs.close(status)
        # Without a checkpoint there is nothing to go on with.
        folder.discard()
        folder.release()


class _Run:
    """State that the stages of one run share."""

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        data: TrainingData,
        folder: RunFolder,
        checkpoint: Checkpoint | None,
        files: DataFiles | None,
        signals: Signals,
        *,
        progress: bool,
        stop_after: int | None,
    ) -> None:
        self.fabric, self.recipe, self.data, self.folder = fabric, recipe, data, folder
        self.checkpoint, self.files, self.signals = checkpoint, files, signals
        self.progress = progress and fabric.is_global_zero
        self.remaining = stop_after
        self.best: dict[str, float] | None = None
        self.stopped_at: str | None = None
        self.clock, self.epochs_before = RunClock(0), 0
        self.logs = RunLogs(None)
        self._loggers: list[Logger] = []

    def open(self, *, unique: bool, begin_again: bool) -> None:
        """Make or take the folder and start its logs."""
        self.folder.path, self.best = continuation.on_first(self.fabric, lambda: self._fill_folder(unique, begin_again))
        continuation.on_first(self.fabric, self._open_loggers)
        history = self.checkpoint.history if self.checkpoint else None
        self.logs = RunLogs(self.folder.path if self.fabric.is_global_zero else None, history, self._loggers)

    def execute(self, plan: ResolvedRecipe, method: Method[Any]) -> RunResult:
        """Run every stage that is not finished yet; the first of them trains this method."""
        names = list(plan.stages)
        start = names.index(self.checkpoint.stage) if self.checkpoint else 0
        stage: Stage | None = None
        self.clock = RunClock(sum(each.recipe.train.epochs for each in plan.stages.values()))
        for number in range(start, len(names)):
            if number > start and self.remaining is not None and self.remaining <= 0:
                return self._result(None)
            name, resolved = names[number], plan.stages[names[number]]
            resumed = self.checkpoint if self.checkpoint and number == start else None
            self.epochs_before = sum(plan.stages[earlier].recipe.train.epochs for earlier in names[:number])
            if number > start:
                method = self._next(resolved, method)
            stage = self._run_stage(name, resolved.recipe, method, resumed, first=number == 0)
            if stage is None:
                return self._result(None)
        if stage is None:
            raise RuntimeError("a recipe has at least one stage")
        return self._result(self._score(stage))

    def _result(self, results: Results | None) -> RunResult:
        return RunResult(self.folder.path, results, self.fabric.is_global_zero)

    def _next(self, stage: ResolvedStage, previous: Method[Any]) -> Method[Any]:
        """The method of a later stage: the one before, or a new one with its weights."""
        if isinstance(previous, stage.method) and previous.options == stage.options:
            return previous
        method = build_method(stage, self.data.num_classes(stage.method))
        self.logs.line(str(load_weights(method, self._finished_weights())))
        return method

    def _run_stage(
        self, name: str, recipe: Recipe, method: Method[Any], resumed: Checkpoint | None, *, first: bool
    ) -> Stage | None:
        """Train a stage to its end and put its final weights into the method; None where the call's time is up."""
        stage = Stage(
            self.fabric,
            name,
            recipe,
            method,
            self.data,
            self.logs,
            signals=self.signals,
            progress=self.progress,
            clock=self.clock,
            epochs_before=self.epochs_before,
        )
        done, unfinished = 0, None
        if resumed is not None:
            continuation.restore_optimizer(resumed, stage.optimizer, self.fabric.strategy.precision)
            stage.labels = resumed.labels
            done, unfinished = resumed.epoch, continuation.unfinished_epoch(resumed, self.fabric)
        else:
            self.best = None
            if not first:
                # From here on `last` speaks of this stage: its first `best` may replace the one of the stage before.
                with self.signals.deferred():
                    self._save(stage, 0, ["last"])
        scorer = Scorer(recipe, self.data, stage.features_of)

        def after_epoch(epochs: int, numbers: dict[str, Any]) -> None:
            selected = scorer.score_epoch(epochs, recipe.train.epochs, numbers)
            with self.signals.deferred():
                self.logs.write(numbers)
                self.logs.line(_summary(numbers))
                improved = selected is not None and (self.best is None or selected > self.best["score"])
                if improved and selected is not None:
                    self.best = {"score": selected, "epoch": float(epochs)}
                if self.remaining is not None:
                    self.remaining -= 1
                stop, told = self.remaining is not None and self.remaining <= 0, stage.is_told_to_stop()
                due = epochs % recipe.train.save_every == 0 or epochs == recipe.train.epochs
                if due or improved or stop or told:
                    # `best` first: a run that dies between the two repeats this epoch, with `best` as it will be again.
                    self._save(stage, epochs, ["best", "last"] if improved else ["last"])
                stage.unfinished = None
                self.stopped_at = f"after epoch {epochs} of {recipe.train.epochs} of stage {name!r}"
                if told:
                    self.signals.interrupt()
            if stop and epochs < recipe.train.epochs:
                raise _StopEarlyError

        # Several processes stop together, between batches: one that left alone would let the others wait for ever.
        together = self.signals.deferred() if self.fabric.world_size > 1 else contextlib.nullcontext()
        try:
            with together:
                stage.run(done, after_epoch, unfinished)
        except _StopEarlyError:
            return None
        except Interrupted:
            self._keep_unfinished(stage)
            raise
        if self.best is not None:
            load_state(method, Checkpoint.load(self._best_path).method, str(self.folder.path))
        return stage

    def _keep_unfinished(self, stage: Stage) -> None:
        """Save the epoch that a signal has stopped, where it is between two batches."""
        states = continuation.of_every_process(self.fabric, stage.unfinished)
        if states is None or stage.unfinished is None:
            return
        epochs = sum(row["stage"] == stage.name for row in self.logs.history)
        with self.signals.deferred():
            self._save(stage, epochs, ["last"], states)
        self.stopped_at = f"after batch {stage.unfinished.step} of epoch {epochs + 1} of stage {stage.name!r}"

    def _save(self, stage: Stage, epochs: int, names: list[str], unfinished: dict[str, Any] | None = None) -> None:
        """Write checkpoints, in the order given."""
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
            files=self.files.digest() if self.files is not None else None,
            unfinished=unfinished,
        )
        for name in names:
            checkpoint.save(self.folder.checkpoints / f"{name}.ckpt")
        if self.best is None:
            remove(self._best_path)  # an earlier stage's, perhaps another method's
        self.fabric.barrier()

    def _score(self, stage: Stage) -> Results:
        """All protocols with the final weights, into results.json, results.parquet and results.csv."""
        results = Scorer(stage.recipe, self.data, stage.features_of).score_all()
        if self.fabric.is_global_zero:
            rule = SELECTIONS[stage.recipe.evaluation.selection]
            results = results.with_notes(selection=rule, **({"best": json.dumps(self.best)} if self.best else {}))
            results.to_json(self.folder.path / "results.json")
            results.to_csv(self.folder.path / "results.csv")
            self.logs.line(f"final scores: {rule}")
            self.logs.scores({name: results.mean(name) for name in results.trials})
        return results

    @property
    def _best_path(self) -> Path:
        return self.folder.checkpoints / "best.ckpt"

    def _finished_weights(self) -> Path:
        """The finished stage's selected checkpoint, from which the next stage takes its weights."""
        return self._best_path if self.best is not None else self.folder.checkpoints / "last.ckpt"

    def _open_loggers(self) -> None:
        self._loggers = open_loggers(
            self.recipe.loggers,
            self.recipe.logger_options,
            self.folder.path,
            hyperparameters=self.recipe.model_dump(mode="json") if self.checkpoint is None else None,
        )

    def _fill_folder(self, unique: bool, begin_again: bool) -> tuple[Path, dict[str, float] | None]:
        """Make or clean the folder; returns its path and the best score so far."""
        best = None
        if self.checkpoint is None:
            self.folder.create(unique=unique, begin_again=begin_again)
            self.recipe.save(self.folder.path / "recipe.yaml")
            write_text(
                self.folder.path / "environment.json",
                json.dumps(continuation.environment(self.fabric, self.data), indent=2),
            )
        else:
            self.folder.clean()
            best = continuation.recover_best(self._best_path, self.checkpoint)
        if self.files is not None:
            self.files.save(self.folder.path / FILES)
        return self.folder.path, best


class _StopEarlyError(Exception):
    """Leaves the epoch loop after a checkpoint; never reaches a caller."""


def _summary(numbers: dict[str, Any]) -> str:
    shown = [f"{key} {number_text(key, value)}" for key, value in numbers.items() if key not in ("stage", "epoch")]
    return f"{numbers['stage']} epoch {numbers['epoch']} done: {', '.join(shown)}"
