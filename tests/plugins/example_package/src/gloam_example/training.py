"""An optimiser, a schedule and a logger. Their entry points name them, so they need no decorator."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.loggers.logger import Logger


def signs(groups: list[dict[str, Any]], *, lr: float, weight_decay: float, decay: float = 0.9) -> torch.optim.Optimizer:
    """Steps of equal size: torch's Rprop would adapt them, RMSprop with little memory nearly keeps them.

    Args:
        groups: parameter groups, each with its own rate; passed on as they are.
        lr: base rate.
        weight_decay: of the recipe.
        decay: an option of this optimiser (``optimizer.options.decay``).
    """
    return torch.optim.RMSprop(groups, lr=lr, weight_decay=weight_decay, alpha=decay)


def halving(epoch: int, num_epochs: int, *, every: int = 1) -> float:
    """Factor on the base rate in an epoch: a half of it after every so many."""
    return float(0.5 ** (epoch // every))


class TextLogger(Logger):
    """One line of JSON per epoch, in the run folder.

    Args:
        folder: run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "epochs.jsonl"

    @property
    def name(self) -> str:
        return "text"

    @property
    def version(self) -> str:
        return self._path.name

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The recipe stands in the run folder already."""
