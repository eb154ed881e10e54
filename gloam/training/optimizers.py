"""Optimisers by the names of recipes: those of the published runs, timm's (``timm:lamb``), and users' own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from gloam.errors import GloamError, did_you_mean
from gloam.recipes.sections import OptimizerConfig
from gloam.registry import Registry

Groups = list[dict[str, Any]]
_PUBLISHED = ("sgd", "adam", "adamw")
_TIMM = "timm:"


def _check(name: str, entry: Any) -> None:
    if not callable(entry):
        raise GloamError(f"The optimiser {name!r} must be a class or function that builds a torch.optim.Optimizer.")


# Called as create(groups, lr=, weight_decay=, **options).
registry: Registry[Callable[..., torch.optim.Optimizer]] = Registry(
    "optimizer", check=_check, reserved=[*_PUBLISHED, f"{_TIMM}<name>"]
)
register = registry.register


def create_optimizer(
    config: OptimizerConfig, groups: Groups, layers: Sequence[Sequence[Sequence[torch.nn.Parameter]]] = ()
) -> torch.optim.Optimizer:
    """Build the optimiser over a method's parameter groups; each group remembers its base rate for the schedule.

    Args:
        config: which optimiser.
        groups: ``params`` and ``lr`` per group.
        layers: of every backbone its layers' parameters from the images up, for ``layer_decay``.

    Raises:
        GloamError: no such optimiser, options that it lacks or refuses, or one that does not keep the groups.
    """
    groups = [{**group, "initial_lr": group["lr"]} for group in decayed_groups(groups, layers, config.layer_decay)]
    if config.name == "sgd":
        return torch.optim.SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov and config.momentum > 0,
            weight_decay=config.weight_decay,
        )
    if config.name in _PUBLISHED:
        kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
        return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay)
    timm_name = config.name.removeprefix(_TIMM) if config.name.startswith(_TIMM) else None
    # YAML knows no tuples, which is what optimisers expect.
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in config.options.items()}
    create = registry.get(config.name) if timm_name is None else _timm_factory(timm_name, options)
    rates = [group["lr"] for group in groups]
    try:
        optimizer = create(groups, lr=config.lr, weight_decay=config.weight_decay, **options)
    except Exception as error:
        # Any kind: the code is not ours, and a wrong value ends in whatever its first use raises.
        cause = f"{type(error).__name__}: {str(error).removesuffix('.')}"
        raise GloamError(f"Optimiser {config.name} could not be built ({cause}). Check optimizer.options.") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise GloamError(f"Optimiser {config.name} built {type(optimizer).__name__}, no torch.optim.Optimizer.")
    if [group.get("initial_lr") for group in optimizer.param_groups] != rates:
        raise GloamError(
            f"Optimiser {config.name} does not keep the parameter groups that it is given, so the method's own "
            "learning rates would be lost. Pass the list of groups on to torch.optim.Optimizer as it is."
        )
    return optimizer


def decayed_groups(groups: Groups, layers: Sequence[Sequence[Sequence[torch.nn.Parameter]]], decay: float) -> Groups:
    """Groups in which layer n of N of a backbone learns at ``decay ** (N - n)`` of its group's rate.

    *Source*: Bao et al., BEiT, ICLR 2022; ``timm.optim.param_groups_layer_decay`` gives the same factors.

    Args:
        groups: ``params`` and ``lr`` per group; what belongs to no layer keeps its rate.
        layers: see :func:`create_optimizer`.
        decay: 1 changes nothing.

    Returns:
        The groups, each divided by layers, deepest last.
    """
    if decay == 1:
        return groups
    above = {
        id(parameter): len(backbone) - number
        for backbone in layers
        for number, layer in enumerate(backbone, start=1)
        for parameter in layer
    }
    found = []
    for group in groups:
        parts: dict[int, list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            parts.setdefault(above.get(id(parameter), 0), []).append(parameter)
        found += [{**group, "params": parts[count], "lr": group["lr"] * decay**count} for count in sorted(parts)]
    return found


def check_optimizer(config: OptimizerConfig) -> None:
    """Build it once over a small parameter, so that a mistake shows before data are read.

    Raises:
        GloamError: see :func:`create_optimizer`.
    """
    create_optimizer(config, [{"params": [torch.nn.Parameter(torch.ones(2, 2))], "lr": config.lr}])


def _timm_factory(name: str, options: dict[str, Any]) -> Callable[..., torch.optim.Optimizer]:
    timm: Any = importlib.import_module("timm.optim")
    # timm's prefix wraps any of its optimisers in a slow copy of the weights.
    plain = name.removeprefix("lookahead_")
    if plain not in timm.list_optimizers():
        raise GloamError(f"timm has no optimiser {name!r}. {did_you_mean(plain, timm.list_optimizers())}")
    if timm.get_optimizer_info(plain).second_order:
        raise GloamError(f"timm:{name} needs second derivatives, which training does not compute. Choose another one.")
    try:
        cls = timm.get_optimizer_class(plain, bind_defaults=False)
    except (ImportError, AssertionError) as error:
        raise GloamError(f"timm:{name} cannot be used on this machine: {error}.") from error
    known = set(inspect.signature(cls).parameters) - {"params", "lr", "weight_decay"}
    for key in options:
        # timm drops some of what an optimiser does not take without a word.
        if key not in known:
            raise GloamError(f"optimizer.options: timm:{name} has no {key!r}. {did_you_mean(key, known)}")

    def create(groups: Groups, **values: Any) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = timm.create_optimizer_v2(groups, opt=name, **values)
        return optimizer

    return create


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Multiply every group's base rate by ``factor``; returns the largest resulting rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)
