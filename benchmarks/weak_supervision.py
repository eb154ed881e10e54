"""PF-MGCD and WSL-VIReID without and with the labels between the modalities, from starts that this project trains.

One row per start and method: the start itself, each modality alone, the weak method, the weak method with the true
partners (the upper bound of all matching), and full labels; R1 / mAP, means over the ten galleries. Starts: ``labels``,
full labels on other people (``--others``), ``mmgl``, pre-training on the same images without any label, ``random``.
Finished runs are not repeated and stopped ones go on, so that the command may be stopped and given again.

    gloam data draw sysu_mm01 DIR --ids 120
    gloam data draw sysu_mm01 OTHERS --ids 250 --seed 9
    OMP_NUM_THREADS=1 python -m benchmarks.weak_supervision DIR --others OTHERS --output RUNS
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.trainings import PROTOCOL, Training, last_numbers, print_table, score
from gloam.datasets import load_dataset, shuffle_labels_per_modality

STARTS = ("labels", "mmgl", "random")
METHODS = ("wsl_vireid", "pf_mgcd")
# Column -> recipe of each method.
RECIPES = {
    "alone": {"wsl_vireid": "wsl_vireid_experts", "pf_mgcd": "pf_mgcd_alone"},
    "weak": {"wsl_vireid": "wsl_vireid", "pf_mgcd": "pf_mgcd"},
    "true partners": {"wsl_vireid": "wsl_vireid_true_partners", "pf_mgcd": "pf_mgcd_true_partners"},
    "full": {"wsl_vireid": "wsl_vireid_supervised", "pf_mgcd": "pf_mgcd_paired"},
}
SEED = 0


@dataclass(frozen=True)
class Setting:
    """What all rows of one call share.

    Attributes:
        root: folder of SYSU-MM01 or of drawn people in its layout.
        others: the same, of other people; only ``labels`` needs it.
        output: folder of the runs.
        arch: network.
        experts: epochs of WSL-VIReID's first stage.
        collaboration: of its second stage.
        epochs: of PF-MGCD.
        start_epochs: of the starts.
    """

    root: Path
    others: Path | None
    output: Path
    arch: str = "tiny"
    experts: int = 3
    collaboration: int = 9
    epochs: int = 12
    start_epochs: int = 40

    @property
    def flags(self) -> str:
        """Size, network, data and the seed, which also shuffles the weak labels."""
        size = f"--data.height 64 --data.width 32 --augment.pad 4 --method.arch {self.arch}"
        return f"{size} --train.seed {SEED} --train.iterations 30 --evaluation.protocols {PROTOCOL}"

    def warmup(self, start: str) -> int:
        """Epochs of PF-MGCD before it matches: the published share where the start has seen labels, else a third."""
        return max(1, round(self.epochs / 12)) if start == "labels" else self.epochs // 3


def start_training(start: str, method: str, setting: Setting) -> Training | None:
    """The training that makes a start, or None for random weights."""
    if start == "random":
        return None
    epochs = setting.start_epochs
    name, shared = f"start-{start}-{method}", f"{setting.flags} --weights none --train.epochs {epochs}"
    if start == "mmgl":
        # Four stripes: the feature map of 64 x 32 pixels has four rows.
        flags = f"--data.root {setting.root} {shared} --method.num-stripes 4"
        flags += f" --method.streams {2 if method == 'wsl_vireid' else 1}"
        flags += f" --schedule.length {epochs} --schedule.warmup-epochs 2"
        return Training(name, "sysu_mm01/mmgl", tuple(flags.split()))
    if setting.others is None:
        sys.exit("The start 'labels' is trained on other people: give their folder with --others.")
    flags = f"--data.root {setting.others} {shared} {learning(method, start, 'full', setting, (0, epochs))}"
    return Training(name, f"sysu_mm01/{RECIPES['full'][method]}", tuple(flags.split()))


def learning(method: str, start: str, column: str, setting: Setting, epochs: tuple[int, int]) -> str:
    """Rate, schedule and the method's own flags; ``epochs``: of WSL-VIReID's first stage and of the rest."""
    first, rest = epochs
    flags = "--optimizer.lr 0.001"
    if method == "pf_mgcd":
        flags += f" --method.num-parts 4 --method.lambda-triplet 1 --schedule.step-size {max(1, round(0.75 * rest))}"
        if column in ("weak", "true partners", "full"):
            flags += f" --method.warmup-epochs {setting.warmup(start)}"
        return f"{flags} --augment.visible.channels exchange_or_grey"
    # Without stages the drops come as late as with them.
    before = first if column == "full" else 0
    drops = [before + max(1, round(share * rest)) for share in (0.6, 0.9)]
    flags += f" --schedule.warmup-epochs 1 --schedule.milestones {drops[0]} {drops[1]}"
    flags += " --method.triplet exact --evaluation.no-mirror"
    if column in ("weak", "true partners"):
        flags += f" --method.weak-from-epoch {rest // 3}"
    return flags


def training(column: str, start: str, method: str, setting: Setting, weights: str, partners: list[int]) -> Training:
    """The run of one cell; ``start`` as column scores the weights as they are."""
    first, rest = (setting.experts, setting.collaboration) if method == "wsl_vireid" else (0, setting.epochs)
    kind = "alone" if column == "start" else column
    recipe = f"sysu_mm01/{RECIPES[kind][method]}"
    if column == "true partners":
        recipe = str(_recipe_of_true_partners(method, setting.output, partners))
    flags = f"--data.root {setting.root} {setting.flags} --weights {weights}"
    flags += f" {learning(method, start, kind, setting, (first, rest))}"
    counts = (0, 0) if column == "start" else (first, rest)
    if method == "wsl_vireid" and column != "full":
        flags += f" --stages.experts.train.epochs {counts[0]} --stages.collaboration.train.epochs {counts[1]}"
    else:
        flags += f" --train.epochs {sum(counts)}"
    return Training(f"{start}-{method}-{column.replace(' ', '_')}", recipe, tuple(flags.split()))


def _recipe_of_true_partners(method: str, output: Path, partners: list[int]) -> Path:
    """The weak recipe with the method that is given the partners, as a file."""
    path = output / f"{method}_true_partners.yaml"
    recipe = {
        "extends": f"sysu_mm01/{method}",
        "description": f"{method} with the true partners: the upper bound of matching",
        "plugins": ["benchmarks.true_partners"],
        "method": {"name": f"{method}_true_partners", "partners": partners},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def true_partners(root: Path) -> list[int]:
    """Infrared label of every visible label, as the runs' seed shuffles them; -1 where there is none."""
    _, weak = shuffle_labels_per_modality(load_dataset("sysu_mm01", root), SEED)
    infrared = {identity: label for label, identity in enumerate(weak.infrared)}
    return [infrared.get(identity, -1) for identity in weak.visible]


def row(start: str, method: str, setting: Setting) -> dict[str, Any]:
    """Train and score one row."""
    before = start_training(start, method, setting)
    weights = "none" if before is None else str(before.run(setting.output))
    epochs = f"{setting.experts} + {setting.collaboration}"
    if method == "pf_mgcd":
        epochs = f"{setting.warmup(start)} of {setting.epochs}"
    cells: dict[str, Any] = {"start": start, "method": method, "epochs": epochs}
    partners = true_partners(setting.root)
    for column in ("start", *RECIPES):
        run = training(column, start, method, setting, weights, partners).run(setting.output)
        means = score(run)
        cells["start itself" if column == "start" else column] = f"{means['rank1']:.2f} / {means['mAP']:.2f}"
        if column == "weak":
            precision, recall = last_numbers(run, "match_precision", "match_recall")
            found = f"{100 * precision:.0f} / {100 * recall:.0f}"
        if column == "true partners" and last_numbers(run, "given_precision", "given_recall") != [1.0, 1.0]:
            sys.exit(f"{run}: the partners that were given are not the true ones.")
    return {**cells, "precision / recall": found}


def _main(show: Callable[[list[dict[str, Any]]], None] = print_table) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weak_supervision", description=__doc__)
    parser.add_argument("root", type=Path, help="folder of SYSU-MM01 or of drawn people in its layout")
    parser.add_argument("--others", type=Path, help="the same, of other people, for the start 'labels'")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--arch", default="tiny")
    for name, default in (("experts", 3), ("collaboration", 9), ("epochs", 12), ("start-epochs", 40)):
        parser.add_argument(f"--{name}", type=int, default=default, help="epochs of 30 batches")
    flags = vars(parser.parse_args())
    starts, methods = flags.pop("starts"), flags.pop("methods")
    setting = Setting(**flags)
    show([row(start, method, setting) for start in starts for method in methods])


if __name__ == "__main__":
    _main()
