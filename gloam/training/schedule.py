"""Learning-rate factors, set once per epoch. Epochs count from 0 inside a stage.

The shapes of the published runs, timm's (``timm:poly``), and users' own. A shape is a function of the epoch alone, so a
resume repeats it.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from gloam.errors import GloamError, did_you_mean
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


class ScheduleConfig(BaseModel):
    """The ``schedule`` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["multistep", "step", "cosine", "constant"] | str = Field(
        "multistep", description="shape after warm-up; timm:<name> or a registered name"
    )
    milestones: tuple[int, ...] = Field((), description="multistep: epochs from which the rate is multiplied by gamma")
    step_size: int = Field(20, ge=1, description="step: the rate is multiplied by gamma every so many epochs")
    gamma: float = Field(0.1, gt=0, description="factor of multistep and step")
    length: int | None = Field(
        None, ge=1, description="cosine: epoch at which it ends; the stage's epochs if not given"
    )
    minimum: float = Field(0.0, ge=0, description="cosine: factor at its end")
    warmup_epochs: int = Field(0, ge=0, description="epochs of linear warm-up")
    warmup_start: float | None = Field(
        None, ge=0, description="factor at epoch 0, rising to 1; not given: (epoch + 1) / warmup_epochs"
    )
    options: dict[str, Any] = Field({}, description="what a timm or registered schedule takes; rates as factors")


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
    _refuse_idle(config)
    for epoch in {config.warmup_epochs, max(num_epochs - 1, config.warmup_epochs)}:
        learning_rate_factor(config, epoch, num_epochs)


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


def _refuse_idle(config: ScheduleConfig) -> None:
    """Flags that would do nothing are errors."""
    if config.name in _PUBLISHED:
        if config.options:
            raise GloamError(
                f"schedule.options is for timm's and registered schedules; {config.name} has its own flags."
            )
        return
    for key in ("milestones", "step_size", "gamma", "length", "minimum"):
        if getattr(config, key) != type(config).model_fields[key].default:
            raise GloamError(
                f"schedule.{key} is for {', '.join(_PUBLISHED)} only. Give {config.name} its values in "
                "schedule.options."
            )
