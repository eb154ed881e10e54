"""Seconds and memory of one step of self-supervised pre-training: MMGL and its two tasks alone, SimSiam, NT-Xent.

Every variant runs in a process of its own on the same random pictures, half visible and half infrared, with the first
stage of its SYSU-MM01 recipe: augmentation, forward, backward, optimiser step. The median of several steps, after
one to warm up. SimSiam and NT-Xent make two rows of every picture (``rows``), so they compute twice. ``base`` is a
supervised step for comparison. ``peak_megabytes`` is resident memory beyond what the process had before the network was
built or, on a GPU, the most that torch had allocated.

    python -m benchmarks.ssl --arch resnet50 --height 288 --width 144 --batch 64 --steps 3 --device cpu
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.machine import machine_info, peak_megabytes
from benchmarks.training_step import IDENTITIES, random_batch
from gloam.data.augment import Augmenter
from gloam.methods import create_method
from gloam.training.optimizers import create_optimizer
from gloam.training.recipe import load_recipe

# Variant -> recipe and the method's flags that differ from it.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mmgl": ("sysu_mm01/mmgl", {}),
    "mmgl_permutation": ("sysu_mm01/mmgl", {"pcc": False}),
    "mmgl_pcc": ("sysu_mm01/mmgl", {"permutation": False}),
    "simsiam": ("sysu_mm01/simsiam_base", {}),
    "ntxent": ("sysu_mm01/ntxent_base", {}),
    "base": ("sysu_mm01/base", {}),
}


def measure(
    variant: str, *, arch: str, height: int, width: int, batch: int, steps: int, device: str
) -> dict[str, float]:
    """Time one variant in this process."""
    name, options = VARIANTS[variant]
    recipe = next(iter(load_recipe(name).resolved_stages().values()))
    sampler = recipe.sampler.model_copy(update={"batch_size": batch // 2})
    raw = random_batch(recipe.model_copy(update={"sampler": sampler}), height, width)
    augment, generator = Augmenter(recipe.augment), torch.Generator().manual_seed(0)
    on_gpu = device.startswith("cuda")
    # The optional package of two losses is loaded here: its code is no part of a step's memory.
    create_method(recipe.method_name, IDENTITIES, **{**recipe.method_options, **options, "arch": "tiny"})
    before = 0.0 if on_gpu else peak_megabytes(reset=True)
    torch.manual_seed(0)
    values = {**recipe.method_options, **options, "arch": arch}
    method = create_method(recipe.method_name, IDENTITIES, **values).to(device).train()
    optimizer = create_optimizer(recipe.optimizer, method.parameter_groups(recipe.optimizer.lr))
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        rows = augment(raw.to(device), generator)
        optimizer.zero_grad()
        method.training_step(rows)["loss"].backward()
        optimizer.step()
        method.after_step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_megabytes() - before
    return {
        "rows": len(rows),
        "parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "seconds_per_step": round(statistics.median(seconds[1:]), 4),
        "peak_megabytes": round(peak),
    }


def run(
    arch: str = "resnet50", height: int = 288, width: int = 144, batch: int = 64, steps: int = 3, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Measure every variant.

    Args:
        arch: backbone.
        height: of the pictures; a multiple of 6.
        width: of the pictures.
        batch: pictures per step, half of each spectrum.
        steps: timed steps.
        device: cpu or cuda.
    """
    size = {"arch": arch, "height": height, "width": width, "batch": batch}
    rows = []
    for variant in VARIANTS:
        flags = [
            word for key, value in {**size, "steps": steps, "device": device}.items() for word in _flag(key, value)
        ]
        command = [sys.executable, "-m", "benchmarks.ssl", "--variant", variant, *flags]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append({"benchmark": "ssl", "variant": variant, **size, "device": _device_name(device), **found})
        rows[-1] |= machine_info(torch.get_num_threads(), packages=("torch", "lightly"))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _flag(key: str, value: object) -> tuple[str, str]:
    return f"--{key}", str(value)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ssl", description=__doc__)
    parser.add_argument("--arch", default="resnet50")
    for name, default in (("height", 288), ("width", 144), ("batch", 64), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    flags = vars(parser.parse_args())
    variant = flags.pop("variant")
    if variant is not None:
        print(json.dumps(measure(variant, **flags)))
        return
    import csv

    rows = run(**flags)
    writer = csv.DictWriter(sys.stdout, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    _main()
