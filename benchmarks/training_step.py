"""Seconds and peak memory of one training step, for every method that trains on a batch alone.

Each variant runs in a process of its own on random images: random weights, the first stage of its SYSU-MM01 recipe
with its own sampler sizes and augmentation. A step is augmentation, forward, backward and optimiser step; the median of
several is reported, after one to warm up. SimSiam and NT-Xent make two rows of every image (``rows``), so they
compute twice. ``peak_megabytes`` is resident memory beyond what the process had before the network was built or, on a
GPU, the most that torch had allocated; ``parameters`` counts those that train.

    python -m benchmarks.training_step --arch resnet50 --height 288 --width 144 --steps 3 --device cpu base cgrnet
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
from gloam.augmentation.augmenter import Augmenter
from gloam.batches.batch import Batch
from gloam.methods import create_method
from gloam.recipes.recipe import Recipe, load_recipe
from gloam.sampling import IdentityBatches, PlainBatches
from gloam.training.optimizers import create_optimizer

# Variant -> recipe and the method's flags that differ from it.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (f"sysu_mm01/{name}", {}) for name in ("base", "agw", "ddag", "cgrnet", "cgrnet_released", "mmgl")},
    "mmgl_permutation": ("sysu_mm01/mmgl", {"pcc": False}),
    "mmgl_pcc": ("sysu_mm01/mmgl", {"permutation": False}),
    "simsiam": ("sysu_mm01/simsiam_base", {}),
    "ntxent": ("sysu_mm01/ntxent_base", {}),
}
IDENTITIES = 395


def random_batch(recipe: Recipe, height: int, width: int) -> Batch:
    """Random images, 8 bits, in the order and number that the recipe's sampler gives."""
    sampler, instances = recipe.sampler, 4
    if isinstance(sampler, IdentityBatches):
        instances, per_modality = sampler.instances, sampler.identities * sampler.instances
    elif isinstance(sampler, PlainBatches):
        per_modality = sampler.batch_size
    else:
        raise TypeError(f"sampler {sampler.name} states no batch size")
    count = 2 * per_modality
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator),
        pids=(torch.arange(per_modality) // instances).repeat(2),
        cams=torch.arange(count) % 6,
        modalities=torch.arange(2).repeat_interleave(per_modality),
        indices=torch.arange(count),
        views=torch.zeros(count, dtype=torch.int64),
    )


def measure(variant: str, *, arch: str, height: int, width: int, steps: int, device: str) -> dict[str, float]:
    """Time one variant in this process."""
    name, options = VARIANTS[variant]
    recipe = next(iter(load_recipe(name).resolved_stages().values()))
    augment, generator = Augmenter(recipe.augment), torch.Generator().manual_seed(0)
    raw, on_gpu = random_batch(recipe, height, width), device.startswith("cuda")
    values = {**recipe.method_options, **options}
    # Whatever packages the method needs are loaded here: their code is no part of a step's memory.
    create_method(recipe.method_name, IDENTITIES, **{**values, "arch": "tiny"})
    before = 0.0 if on_gpu else peak_megabytes(reset=True)
    torch.manual_seed(0)
    method = create_method(recipe.method_name, IDENTITIES, **{**values, "arch": arch}).to(device).train()
    optimizer = create_optimizer(recipe.optimizer, method.parameter_groups(recipe.optimizer.lr))
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        batch = augment(raw.to(device), generator)
        optimizer.zero_grad()
        method.training_step(batch)["loss"].backward()
        optimizer.step()
        method.after_step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_megabytes() - before
    return {
        "rows": len(batch),
        "parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "seconds_per_step": round(statistics.median(seconds[1:]), 3),
        "peak_megabytes": round(peak),
    }


def run(
    variants: tuple[str, ...] = tuple(VARIANTS),
    arch: str = "resnet50",
    height: int = 288,
    width: int = 144,
    steps: int = 3,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Measure variants, each in a process of its own.

    Args:
        variants: names of ``VARIANTS``.
        arch: backbone.
        height: of the images; a multiple of 6 for MMGL.
        width: of the images.
        steps: timed steps.
        device: cpu or cuda.
    """
    size = {"arch": arch, "height": height, "width": width, "steps": steps, "device": device}
    flags = [word for key, value in size.items() for word in (f"--{key}", str(value))]
    rows = []
    for variant in variants:
        command = [sys.executable, "-m", "benchmarks.training_step", "--one", *flags, variant]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append({"benchmark": "training_step", "variant": variant, **size, **json.loads(done.stdout)})
        if device.startswith("cuda"):
            rows[-1]["device"] = torch.cuda.get_device_name(device)
        rows[-1] |= machine_info(torch.get_num_threads(), packages=("torch", "lightly"))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_step", description=__doc__)
    parser.add_argument("variants", nargs="*", choices=VARIANTS, default=[])
    parser.add_argument("--arch", default="resnet50")
    for name, default in (("height", 288), ("width", 144), ("steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    flags = vars(parser.parse_args())
    variants, one = tuple(flags.pop("variants")), flags.pop("one")
    if one:
        print(json.dumps(measure(variants[0], **flags)))
    else:
        run(variants or tuple(VARIANTS), **flags)


if __name__ == "__main__":
    _main()
