"""Where a recipe trains on this machine: devices, processes, precision. Nothing is started here."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from gloam.errors import GloamError
from gloam.recipes.recipe import Recipe

# Set by launchers in every process but the first of each kind: torchrun, Lightning's own, Slurm.
_RANKS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "SLURM_PROCID")


@dataclass(frozen=True)
class Machine:
    """What a run computes on.

    Attributes:
        accelerator: ``cpu`` or ``cuda``.
        devices: processes on each node.
        nodes: machines.
        precision: ``32``, ``bf16`` or ``fp16``.
        wanted_precision: the recipe's.
    """

    accelerator: str
    devices: int
    nodes: int
    precision: str
    wanted_precision: str

    @property
    def processes(self) -> int:
        """All of them."""
        return self.devices * self.nodes

    def __str__(self) -> str:
        if self.accelerator == "cuda":
            name = torch.cuda.get_device_name(0)
        else:
            name = f"CPU, {torch.get_num_threads()} threads"
        several = f", {self.processes} processes" if self.processes > 1 else ""
        words = {"32": "float32", "bf16": "bfloat16 mixed", "fp16": "float16 mixed"}
        fallen = (
            "" if self.precision == self.wanted_precision else f" (train.precision {self.wanted_precision} needs a GPU)"
        )
        return f"{name}{several}, {words[self.precision]}{fallen}"


def choose_machine(recipe: Recipe) -> Machine:
    """Devices, processes and precision of a recipe.

    Under torchrun its number of processes counts, whatever the recipe says: independent processes would otherwise
    train the same run side by side. fp16 needs a GPU; on the CPU it falls back to float32, which is more exact.

    Raises:
        GloamError: more devices than there are, or several processes for a method of one.
    """
    from gloam.methods import get_method

    train = recipe.train
    if "TORCHELASTIC_RUN_ID" in os.environ:
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        train = train.model_copy(update={"devices": local, "nodes": world // local})
    several = train.devices * train.nodes > 1
    for name in {stage.method_name for stage in recipe.resolved_stages().values()} if several else ():
        if reason := get_method(name).one_process:
            raise GloamError(
                f"{name} cannot train in {train.devices * train.nodes} processes yet: {reason}. Set --train.devices "
                "and --train.nodes to 1; with torchrun, --nproc-per-node 1."
            )
    accelerator: str = train.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise GloamError(
            "train.accelerator is cuda, but torch sees no GPU (gloam doctor). Use --train.accelerator cpu or auto."
        )
    if accelerator == "cuda" and train.devices > torch.cuda.device_count():
        raise GloamError(f"train.devices is {train.devices}, but this machine has {torch.cuda.device_count()} GPUs.")
    precision = "32" if train.precision == "fp16" and accelerator == "cpu" else train.precision
    return Machine(accelerator, train.devices, train.nodes, precision, train.precision)


def is_first_process() -> bool:
    """Whether this is the process that speaks, told from what launchers set: before Lightning is imported."""
    return all(int(os.environ.get(name) or 0) == 0 for name in _RANKS)
