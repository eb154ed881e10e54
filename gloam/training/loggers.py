"""Experiment trackers beside metrics.csv and TensorBoard: Weights & Biases, MLflow, and users' own.

A logger is Lightning's: ``log_metrics(metrics, step)``, ``log_hyperparams(params)``, ``finalize(status)``, and a
``version`` that names its run, by which a resumed training finds it again.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gloam.atomic import write_text
from gloam.errors import GloamError
from gloam.registry import Registry

if TYPE_CHECKING:
    from lightning.fabric.loggers.logger import Logger

# What every run writes anyway; naming them changes nothing.
ALWAYS = ("csv", "tensorboard")
# Logger -> packages it needs, which one extra installs.
_NEEDS = {"wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
_FILE = "loggers.json"


def _check(name: str, entry: Any) -> None:
    if not callable(entry):
        raise GloamError(f"The logger {name!r} must be a function of the run folder that returns a Lightning logger.")


# Called as create(folder, **options), with run_id=None or the id of the run to go on with where it accepts that.
registry: Registry[Callable[..., Logger]] = Registry("logger", check=_check, reserved=ALWAYS)
register = registry.register


def check_loggers(names: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> None:
    """Look names and packages up, so that a mistake shows before data are read.

    Args:
        names: the recipe's ``loggers``.
        options: the recipe's ``logger_options``.

    Raises:
        GloamError: no such logger, a package that is not installed, or options of a logger that is not used.
    """
    for name in names:
        if name in ALWAYS:
            continue
        registry.get(name)
        missing = [package for package in _NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
        if missing:
            raise GloamError(
                f"The logger {name} needs {' and '.join(missing)}: pip install 'gloam[loggers]', or leave it out of "
                "loggers."
            )
    if unused := [name for name in options if name not in names]:
        raise GloamError(f"logger_options has options for {', '.join(unused)}, which loggers does not name.")


def open_loggers(
    names: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    folder: Path,
    *,
    hyperparameters: Mapping[str, Any] | None,
) -> list[Logger]:
    """Start the loggers of a run, or go on with those of a resumed one. Only the first process calls this.

    Args:
        names: the recipe's ``loggers``.
        options: the recipe's ``logger_options``.
        folder: run folder; the ids of the loggers' runs are kept in it.
        hyperparameters: the recipe, for a new run; None for a resumed one, whose loggers know it.

    Raises:
        GloamError: a logger does not start (no account, no server), or refuses its options.
    """
    place = folder / _FILE
    ids: dict[str, str] = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    started: list[Logger] = []
    chosen = [name for name in names if name not in ALWAYS]
    if chosen:
        from lightning.fabric.utilities.rank_zero import rank_zero_only

        # Lightning's loggers ask this; a Fabric that this process had before may have left another number.
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
    for name in chosen:
        create = registry.get(name)
        given = dict(options.get(name, {}))
        if "run_id" in inspect.signature(create).parameters:
            given["run_id"] = ids.get(name)
        try:
            logger = create(folder, **given)
            if hyperparameters is not None:
                logger.log_hyperparams(dict(hyperparameters))
            ids[name] = str(logger.version)
        except GloamError:
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0].removesuffix('.')}"
            raise GloamError(
                f"The logger {name} did not start ({cause}). Check its options (logger_options.{name}) and its account "
                "or server, or leave it out of loggers."
            ) from error
        started.append(logger)
    if ids:
        write_text(place, json.dumps(ids, indent=2))
    return started


@register("wandb")
def wandb_logger(folder: Path, *, run_id: str | None = None, **options: Any) -> Logger:
    """Weights & Biases. ``WANDB_MODE=offline`` writes below the run folder only; ``wandb sync`` uploads that later.

    Args:
        folder: run folder.
        run_id: the run to go on with.
        **options: of Lightning's ``WandbLogger`` (``project``, ``name``, ``entity``, ``tags``, ``group``, ...).
    """
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    class RunLogger(WandbLogger):
        """Ends the run that it has begun: another training in this process then has a run of its own."""

        def finalize(self, status: str) -> None:
            super().finalize(status)
            if not foreign:
                self.experiment.finish(exit_code=0 if status == "success" else 1)

    foreign = wandb.run is not None
    project = os.environ.get("WANDB_PROJECT", "gloam")
    logger = RunLogger(**{"project": project, "name": folder.name, "save_dir": folder, "id": run_id, **options})
    _ = logger.experiment  # starts it
    return logger


@register("mlflow")
def mlflow_logger(folder: Path, *, run_id: str | None = None, **options: Any) -> Logger:
    """MLflow: into ``MLFLOW_TRACKING_URI``, or a database in the run folder (``mlflow.db``).

    Args:
        folder: run folder.
        run_id: the run to go on with.
        **options: of Lightning's ``MLFlowLogger`` (``experiment_name``, ``tracking_uri``, ``run_name``, ``tags``, ...).
    """
    from lightning.pytorch.loggers import MLFlowLogger

    given = {"experiment_name": "gloam", "run_name": folder.name, "run_id": run_id, **options}
    if "tracking_uri" not in given:
        given["tracking_uri"] = os.environ.get("MLFLOW_TRACKING_URI")
    if given["tracking_uri"] is None:
        home = folder.resolve()
        given["tracking_uri"] = f"sqlite:///{(home / 'mlflow.db').as_posix()}"
        given.setdefault("artifact_location", (home / "mlflow").as_uri())
    logger = MLFlowLogger(**given)
    _ = logger.run_id  # starts it
    return logger
