"""Scores of a trained video run on its clips, on one frame, on shuffled and on foreign frames.

    python -m benchmarks.frames_matter runs/hitsz_vcm/m3reid/2026-01-31_12-00-00 [--data-root DIR] [--output FILE.csv]

``one frame`` is the first frame of each clip (T = 1, which M3-ReID cannot tell from T copies of it). ``shuffled`` keeps
a clip's frames in random order. ``foreign frames`` keeps the first frame and takes the others from random tracklets of
the same batch and light. M3-ReID's test feature does not depend on the order of frames, so ``shuffled`` must equal
``clips`` there, and ``foreign frames`` is the control that shows whether the other frames matter.

It needs a run, so ``python -m benchmarks`` leaves it out.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console

from gloam.errors import GloamError
from gloam.training.clip_controls import score_clip_controls


def frames_matter(
    run: tyro.conf.Positional[Path],
    data_root: Path | None = None,
    protocol: tuple[str, ...] = (),
    batch_size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    device: str = "auto",
    output: Path | None = None,
) -> None:
    """Score a trained video run with its clips and with what is left of them.

    Args:
        run: run folder or checkpoint file of a video method.
        data_root: the dataset's folder, where it is not the one of training.
        protocol: protocol names or wildcards; the recipe's if not given.
        batch_size: tracklets per forward pass.
        workers: loader processes; the recipe's if not given.
        seed: of all random orders.
        device: auto, cpu, cuda, cuda:1 ...
        output: CSV file for all numbers.
    """
    found = score_clip_controls(
        run,
        data_root=data_root,
        protocols=protocol or None,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
        device=device,
    )
    Console().print(found.table())
    if output is not None:
        rows = found.rows()
        with output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run; 2 after a user's mistake."""
    try:
        tyro.cli(frames_matter, prog="python -m benchmarks.frames_matter", args=arguments)
    except GloamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
