"""Learning-rate factors, set once per epoch. Epochs count from 0 inside a stage.

The shapes of the published runs, timm's (``timm:poly``), and users' own. A shape is a function of the epoch alone, so a
resume repeats it.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch

from gloam.errors import GloamError, did_you_mean
from gloam.recipes.sections import ScheduleConfig
from gloam.registry import Registry

_PUBLISHED = ("multistep", "step", "cosine", "constant")
_TIMM = "timm:"
# timm's "plateau" waits for a score, and its "none" is our "constant".
_TIMM_SHAPES = ("constant", "cosine", "multistep", "poly", "rsqrt", "step", "tanh", "wsd")
# Arguments of timm's factory that do not describe a shape over epochs.
_NOT_OPTIONS = ("optimizer", "sched", "step_on_epochs", "updates_per_epoch", "plateau_mode", "patience_epochs")


def _check(name: str, entry: Any) -> None:
    if not callable(entry):
        raise GloamError(f"The schedule {name!r} must be a function of epoch and num_epochs.")


# Called as shape(epoch, num_epochs, **options) -> factor on every group's base rate.
registry: Registry[Callable[..., float]] = Registry("schedule", check=_check, reserved=[*_PUBLISHED, f"{_TIMM}<name>"])
register = registry.register


def learning_rate_factor(config: ScheduleConfig, epoch: int, num_epochs: int) -> float:
    """Factor on every group's base rate in an epoch.

    Args:
        config: the schedule.
        epoch: 0-based.
        num_epochs: epochs of the stage (the default length of a cosine).

    Returns:
        Non-negative factor. Warm-up replaces the shape; afterwards the shape counts from epoch 0, as in the references.

    Raises:
        GloamError: no such shape, options that it lacks or refuses, or a factor that is no number from 0.
    """
    if epoch < config.warmup_epochs:
        if config.warmup_start is None:
            return (epoch + 1) / config.warmup_epochs
        return config.warmup_start * (1 - epoch / config.warmup_epochs) + epoch / config.warmup_epochs
    if config.name == "multistep":
        return float(config.gamma ** sum(epoch >= milestone for milestone in config.milestones))
    if config.name == "step":
        return float(config.gamma ** (epoch // config.step_size))
    if config.name == "cosine":
        length = config.length or num_epochs
        progress = min(epoch / length, 1.0)
        return config.minimum + (1 - config.minimum) * (1 + math.cos(math.pi * progress)) / 2
    if config.name == "constant":
        return 1.0
    return _other_factor(config, epoch, num_epochs)


def check_schedule(config: ScheduleConfig, num_epochs: int) -> None:
    """Ask for the first and the last epoch's factor, so that a mistake shows before data are read.

    Raises:
        GloamError: see :func:`learning_rate_factor`.
    """
    length = max(num_epochs, 1)  # a stage of no epochs scores its first weights
    for epoch in {config.warmup_epochs, max(length - 1, config.warmup_epochs)}:
        learning_rate_factor(config, epoch, length)


def _other_factor(config: ScheduleConfig, epoch: int, num_epochs: int) -> float:
    shape = _timm_shape(config) if config.name.startswith(_TIMM) else registry.get(config.name)
    try:
        factor = float(shape(epoch, num_epochs, **config.options))
    except GloamError:
        raise
    except Exception as error:
        # Any kind: the code is not ours, and a wrong value ends in whatever its first use raises.
        cause = f"{type(error).__name__}: {str(error).removesuffix('.')}"
        raise GloamError(
            f"Schedule {config.name} has no factor for epoch {epoch} ({cause}). Check schedule.options."
        ) from error
    if not (math.isfinite(factor) and factor >= 0):
        raise GloamError(f"Schedule {config.name} gives the factor {factor} at epoch {epoch}; it must be 0 or more.")
    return factor


def _timm_shape(config: ScheduleConfig) -> Callable[..., float]:
    """timm's scheduler on a group whose base rate is 1: its rates, ``min_lr`` and ``warmup_lr`` too, are factors."""
    create: Any = importlib.import_module("timm.scheduler").create_scheduler_v2
    name = config.name.removeprefix(_TIMM)
    if name not in _TIMM_SHAPES:
        raise GloamError(f"timm has no schedule {name!r} over epochs. {did_you_mean(name, _TIMM_SHAPES)}")
    known = set(inspect.signature(create).parameters).difference(_NOT_OPTIONS)
    for key in config.options:
        if key not in known:
            raise GloamError(f"schedule.options: {config.name} has no {key!r}. {did_you_mean(key, known)}")

    def factor(epoch: int, num_epochs: int, **options: Any) -> float:
        probe = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        scheduler, _ = create(probe, name, **{"num_epochs": num_epochs, **options})
        if scheduler is None:
            raise GloamError(f"This version of timm has no schedule {name!r}. Update timm, or choose another one.")
        scheduler.step(epoch)
        return float(probe.param_groups[0]["lr"])

    return factor
