"""Seconds and peak memory of one training step of every recipe that trains on a batch alone.

Each recipe runs in a process of its own: random weights, its own options, sampler sizes and augmentation, on
random pictures. A step is augmentation, forward, backward and optimiser step; the median of several is reported, after
one to warm up. ``peak_megabytes`` is the largest resident memory of the process minus what it had before the network
was built; ``parameters`` counts those that train.

    python -m benchmarks.training_step resnet50 288 144 sysu_mm01/base sysu_mm01/cgrnet
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.machine import machine_info, peak_megabytes
from gloam.data.augment import Augmenter
from gloam.data.batch import Batch
from gloam.methods import create_method
from gloam.training.optimizers import create_optimizer
from gloam.training.recipe import Recipe, load_recipe

RECIPES = tuple(
    f"sysu_mm01/{name}"
    for name in ("base", "agw", "ddag", "cgrnet", "cgrnet_released", "mmgl", "simsiam_base", "ntxent_base")
)
STEPS, IDENTITIES = 3, 395


def random_batch(recipe: Recipe, height: int, width: int) -> Batch:
    """Random pictures, 8 bits, in the order and number that the recipe's sampler gives."""
    sampler = recipe.sampler
    per_spectrum = sampler.batch_size or sampler.identities * sampler.instances
    pids = torch.arange(per_spectrum) // sampler.instances
    count = 2 * per_spectrum
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator),
        pids=pids.repeat(2),
        cams=torch.arange(count) % 6,
        modalities=torch.arange(2).repeat_interleave(per_spectrum),
        indices=torch.arange(count),
        views=torch.zeros(count, dtype=torch.int64),
    )


def measure(name: str, arch: str, height: int, width: int) -> dict[str, Any]:
    """Time the first stage of a recipe in this process."""
    recipe = next(iter(load_recipe(name).resolved_stages().values()))
    before = peak_megabytes(reset=True)
    options = {**recipe.method_options, "arch": arch}
    torch.manual_seed(0)
    method = create_method(recipe.method_name, IDENTITIES, **options).train()
    optimizer = create_optimizer(recipe.optimizer, method.parameter_groups(recipe.optimizer.lr))
    augment, generator = Augmenter(recipe.augment), torch.Generator().manual_seed(0)
    raw, seconds = random_batch(recipe, height, width), []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        batch = augment(raw, generator)
        optimizer.zero_grad()
        method.training_step(batch)["loss"].backward()
        optimizer.step()
        method.after_step()
        seconds.append(time.perf_counter() - start)
    return {
        "rows": len(batch),
        "parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "seconds_per_step": round(statistics.median(seconds[1:]), 3),
        "peak_megabytes": round(peak_megabytes() - before),
    }


def run(
    arch: str = "resnet50", height: int = 288, width: int = 144, recipes: tuple[str, ...] = RECIPES
) -> list[dict[str, Any]]:
    """Measure every recipe in a process of its own."""
    rows = []
    for name in recipes:
        command = [sys.executable, "-m", "benchmarks.training_step", "--one", name, arch, str(height), str(width)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        row = {"benchmark": "training_step", "recipe": name, "arch": arch, "height": height, "width": width}
        rows.append({**row, **json.loads(done.stdout), **machine_info(torch.get_num_threads())})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    if len(sys.argv) == 6 and sys.argv[1] == "--one":
        print(json.dumps(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))
    elif len(sys.argv) > 4:
        run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), tuple(sys.argv[4:]))
    else:
        sys.exit("usage: python -m benchmarks.training_step ARCH HEIGHT WIDTH RECIPE ...")
