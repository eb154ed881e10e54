"""Learning-rate factors, set once per epoch. Epochs count from 0 inside a stage."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ScheduleConfig(BaseModel):
    """The ``schedule`` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["multistep", "step", "cosine", "constant"] = Field("multistep", description="shape after warm-up")
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


def learning_rate_factor(config: ScheduleConfig, epoch: int, num_epochs: int) -> float:
    """Factor on every group's base rate in an epoch.

    Args:
        config: the schedule.
        epoch: 0-based.
        num_epochs: epochs of the stage (the default length of a cosine).

    Returns:
        Non-negative factor. Warm-up replaces the shape; afterwards the shape counts from epoch 0, as in the references.
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
    return 1.0
