"""Learning-rate factors, set once per epoch. Epochs count from 0 inside a stage."""

from __future__ import annotations

import math

from gloam.recipes.sections import ScheduleConfig


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
