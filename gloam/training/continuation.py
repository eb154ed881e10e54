"""Going on with a run: what must still be as it was, and what a run that died leaves to put right."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from gloam import __version__
from gloam.atomic import remove
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.recipes.recipe import Recipe
from gloam.training.data_files import FILES, DataFiles, check_files, recorded_kind
from gloam.training.epoch_state import EpochState
from gloam.training.run_folder import RunFolder, State
from gloam.training.training_data import TrainingData

if TYPE_CHECKING:
    from lightning.fabric import Fabric

T = TypeVar("T")
AUTO = "auto"
Identity = tuple[int, int, int]


def find_run(output: Path | None, resume: Path | str | None) -> tuple[Path | None, Path | None, State]:
    """What ``--output`` and ``--resume`` ask for.

    Args:
        output: run folder to create.
        resume: run folder or checkpoint to go on with, or ``auto``.

    Returns:
        Folder of the run (None: a default name), run or checkpoint to go on from (None: begin), and the run's state.

    Raises:
        GloamError: ``auto`` without a folder, or a folder that holds other things.
    """
    if resume is None:
        return output, None, "new"
    if str(resume) == AUTO:
        if output is None:
            raise GloamError("--resume auto finds the run by its folder. Give --output DIR.")
        state = RunFolder(output).state()
        return output, output if state == "started" else None, state
    run = Path(resume)
    if (run / "recipe.yaml").is_file() and RunFolder(run).state() == "unstarted":
        return run, None, "unstarted"
    return output, run, "started"


def on_first(fabric: Fabric, action: Callable[[], T]) -> T:
    """Do something in the first process only; where it fails, all stop with the same message."""
    result, problem = None, None
    if fabric.is_global_zero:
        try:
            result = action()
        except GloamError as error:
            if fabric.world_size == 1:
                raise
            problem = str(error)
    result, problem = fabric.broadcast((result, problem))
    if problem is not None:
        raise GloamError(problem)
    return cast(T, result)


def farewell(folder: RunFolder, place: str | None) -> str:
    """What is said after Ctrl-C or SIGTERM.

    Args:
        folder: of the run.
        place: where the run stopped, as the end of a sentence.
    """
    if not (folder.checkpoints / "last.ckpt").is_file():
        return "Stopped before the first checkpoint; nothing is kept. Run the same command again."
    where = "" if place is None else f" {place}"
    return f"Stopped{where}. Go on with: gloam train --resume {shlex.quote(str(folder.path))}"


def identity(file: Path) -> Identity:
    """Tells whether a path still names the file that was read."""
    status = file.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def hold_as_read(folder: RunFolder, file: Path | None, before: Identity | None) -> None:
    """Take a run's folder; what was read of it before must still be so.

    Args:
        folder: of the run.
        file: its checkpoint, or None for a run that ended before the first one.
        before: the checkpoint's identity when it was read.

    Raises:
        GloamError: another process has the folder, or has gone on meanwhile.
    """
    folder.hold()
    if (file is not None and identity(file) != before) or (file is None and folder.state() != "unstarted"):
        raise GloamError(f"The run {folder.path} went on in another process meanwhile. Run the same command again.")


def check_data(
    recipe: Recipe, data: TrainingData, folder: RunFolder, checkpoint: Checkpoint | None
) -> DataFiles | None:
    """The data must be those that the run began with.

    Args:
        recipe: of the run.
        data: as they are now.
        folder: of the run.
        checkpoint: to go on from, or None for a new run.

    Returns:
        What the image files look like, for the run folder; None where nobody wants to know.

    Raises:
        GloamError: other files, labels or contents, or images that cannot be read any more.
    """
    kind = recipe.data.fingerprint
    if checkpoint is None:
        return DataFiles.scan(data.test, kind)
    if checkpoint.fingerprint != data.fingerprint():
        raise GloamError(
            f"The data at {recipe.data.root} are not those of {folder.path} (file lists or labels differ), so the run "
            "cannot go on. Give the folder it was trained on with --data.root."
        )
    table = folder.path / FILES
    files = DataFiles.scan(data.test, recorded_kind(table, kind) if kind != "names" else kind)
    if files is not None and checkpoint.files is not None:
        check_files(files, checkpoint.files, table, recipe.data.root)
    if len(checkpoint.labels) != len(data.records):
        raise GloamError(
            f"The run began with {len(checkpoint.labels)} readable training samples, now there are "
            f"{len(data.records)}, so it cannot go on. gloam data check lists the images that cannot be read."
        )
    return files


def recover_best(path: Path, last: Checkpoint) -> dict[str, float] | None:
    """The best score of a run, as the weights in ``best.ckpt`` have it.

    A run that died between its two checkpoints has a ``best`` that is newer than ``last`` knows (or, of versions that
    wrote ``last`` first, older). What counts is the file, whose weights are used in the end.

    Args:
        path: of ``best.ckpt``, which is removed where it is an earlier stage's.
        last: the checkpoint to go on from.

    Raises:
        GloamError: the best epoch's weights are lost.
    """
    known = last.best
    is_the_last = known is not None and known["epoch"] == last.epoch and last.unfinished is None
    saved = None
    if path.is_file():
        try:
            saved = Checkpoint.load(path)
        except GloamError:
            if known is not None and not is_the_last:
                raise
    if saved is not None and saved.stage == last.stage and saved.best is not None:
        if known is None or saved.best["epoch"] >= known["epoch"]:
            return saved.best
    elif known is None:
        remove(path)
        return None
    if is_the_last:
        last.save(path)
        return known
    raise GloamError(
        f"{path} does not hold the best epoch of the run, so its result would be wrong. Put the file back, or start a "
        "new run."
    )


def restore_optimizer(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer, precision: Any) -> None:
    """Load the states of optimiser and loss scaler.

    Raises:
        GloamError: they are of other parameters.
    """
    try:
        optimizer.load_state_dict(checkpoint.optimizer)
        precision.load_state_dict(checkpoint.precision)
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError) as error:
        raise GloamError(
            f"The saved state of the optimiser does not fit the method ({error}). Use another checkpoint of the run."
        ) from error


def unfinished_epoch(checkpoint: Checkpoint, fabric: Fabric) -> EpochState | None:
    """Where the running epoch goes on in this process; None at an epoch border.

    Raises:
        GloamError: the epoch was begun by another number of processes.
    """
    if checkpoint.unfinished is None:
        return None
    saved = checkpoint.unfinished.get("processes")
    if not isinstance(saved, list) or len(saved) != fabric.world_size:
        count = len(saved) if isinstance(saved, list) else "?"
        raise GloamError(
            f"The run stopped inside an epoch of {count} processes and cannot go on with {fabric.world_size}. Start as "
            "many as before."
        )
    return EpochState.from_dict(saved[fabric.global_rank], fabric.device)


def of_every_process(fabric: Fabric, state: EpochState | None) -> dict[str, Any] | None:
    """The states of an unfinished epoch in all processes, for a checkpoint; None where one has none."""
    states = [state.to_dict() if state is not None else None]
    if fabric.world_size > 1:
        own = states[0]
        states = [None] * fabric.world_size
        torch.distributed.all_gather_object(states, own)
    return None if any(one is None for one in states) else {"processes": states}


def with_absolute_root(recipe: Recipe) -> Recipe:
    """A saved recipe must work from any folder."""
    if recipe.data.root is None:
        return recipe
    root = recipe.data.root.expanduser().resolve()
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})


def environment(fabric: Fabric, data: TrainingData) -> dict[str, Any]:
    """Versions, device and data of a run, for ``environment.json``."""
    packages = ("torch", "torchvision", "timm", "lightning", "numpy")
    return {
        "gloam": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(fabric.device),
        "processes": fabric.world_size,
        "packages": {name: version(name) for name in packages},
        "data_fingerprint": data.fingerprint(),
        "data_counts": data.splits.counts(),
    }
