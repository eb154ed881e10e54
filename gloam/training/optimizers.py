"""Optimisers by the names of recipes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field


class OptimizerConfig(BaseModel):
    """The ``optimizer`` section of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["sgd", "adam", "adamw"] = Field("sgd", description="adam couples weight decay as L2, adamw does not")
    lr: float = Field(0.1, gt=0, description="base learning rate; a method's groups scale it")
    momentum: float = Field(0.9, ge=0, description="sgd only")
    nesterov: bool = Field(True, description="sgd only")
    weight_decay: float = Field(5e-4, ge=0, description="on every parameter, norms and biases too")
    betas: tuple[float, float] = Field((0.9, 0.999), description="adam, adamw")
    eps: float = Field(1e-8, gt=0, description="adam, adamw")


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
