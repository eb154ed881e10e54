"""What MMGL's two tasks are worth: random weights, each task alone, and both, each fine-tuned with ``base``.

96 x 48 pixels, so that the feature map has a row for each of the six stripes; 600 iterations of pre-training, 180 of
fine-tuning, both stems drawn independently. Finished runs are not repeated and stopped ones go on, so that the command
may be stopped and given again.

    gloam data draw sysu_mm01 DIR --ids 120
    OMP_NUM_THREADS=1 python -m benchmarks.pretraining DIR --output RUNS --seeds 0 1 2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.trainings import PROTOCOL, Training, last_numbers, mean_and_deviation, print_table, score

# Row -> the method's switches; None: no pre-training.
VARIANTS: dict[str, tuple[str, ...] | None] = {
    "none": None,
    "permutation only": ("--method.no-pcc",),
    "PCC only": ("--method.no-permutation",),
    "both": (),
}


def training(variant: str, seed: int, root: Path, arch: str = "small", epochs: tuple[int, int] = (20, 6)) -> Training:
    """One run of a variant.

    Args:
        variant: a key of ``VARIANTS``.
        seed: of everything.
        root: SYSU-MM01 folder.
        arch: network.
        epochs: of 30 batches, of pre-training and of fine-tuning.
    """
    first, second = (str(count) for count in epochs)
    flags = f"--data.root {root} --data.height 96 --data.width 48 --augment.pad 4 --method.arch {arch} --weights none"
    flags += f" --train.seed {seed} --train.iterations 30 --evaluation.protocols {PROTOCOL}"
    switches = VARIANTS[variant]
    if switches is None:
        recipe = "sysu_mm01/base"
        flags += (
            f" --train.epochs {second} --schedule.name cosine --schedule.length {second} --schedule.warmup-epochs 1"
        )
    else:
        recipe = "sysu_mm01/mmgl_base"
        flags += f" --stages.pretrain.train.epochs {first} --schedule.length {first} --schedule.warmup-epochs 2"
        flags += f" --stages.finetune.train.epochs {second} --stages.finetune.schedule.length {second}"
        flags += " --stages.finetune.schedule.warmup-epochs 1"
    return Training(f"{variant.replace(' ', '_')}-{seed}", recipe, (*flags.split(), *(switches or ())))


def row(variant: str, runs: list[Path]) -> dict[str, Any]:
    """Mean and deviation over seeds, and the accuracy of the stripes' order at the end of pre-training."""
    scores = [score(run) for run in runs]
    cells = {key: mean_and_deviation([one[key] for one in scores]) for key in ("rank1", "mAP", "mINP")}
    names = ("permutation_accuracy_visible", "permutation_accuracy_infrared")
    order = [last_numbers(run, *names) for run in runs] if "permutation" in variant or variant == "both" else []
    stripes = " / ".join(mean_and_deviation([100 * one[side] for one in order]) for side in (0, 1)) if order else "-"
    return {"pre-training": variant, "seeds": len(runs), **cells, "stripes in place, visible / infrared": stripes}


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretraining", description=__doc__)
    parser.add_argument("root", type=Path, help="folder of SYSU-MM01 or of drawn people in its layout")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arch", default="small")
    parser.add_argument("--epochs", type=int, nargs=2, default=[20, 6], help="of 30 batches: pre-training, fine-tuning")
    flags = parser.parse_args()
    runs: dict[str, list[Path]] = {variant: [] for variant in VARIANTS}
    for seed in flags.seeds:
        for variant in VARIANTS:
            one = training(variant, seed, flags.root, flags.arch, tuple(flags.epochs))
            runs[variant].append(one.run(flags.output))
    print_table([row(variant, done) for variant, done in runs.items()])


if __name__ == "__main__":
    _main()
