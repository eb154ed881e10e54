"""Optimisers by the names of recipes."""

from __future__ import annotations

from typing import Any

import torch

from gloam.recipes.sections import OptimizerConfig


def create_optimizer(config: OptimizerConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Build the optimiser over a method's parameter groups; each group remembers its base rate for the schedule.

    Args:
        config: which optimiser.
        groups: ``params`` and ``lr`` per group.
    """
    groups = [{**group, "initial_lr": group["lr"]} for group in groups]
    if config.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov and config.momentum > 0,
            weight_decay=config.weight_decay,
        )
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Multiply every group's base rate by ``factor``; returns the largest resulting rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)
