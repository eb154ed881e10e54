"""``gloam calibrate``: what the scores of a run mean."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gloam.console import console

DataRoot = Annotated[Path | None, tyro.conf.arg(name="data.root")]
DataName = Annotated[str | None, tyro.conf.arg(name="data.name")]


def calibrate(
    run: Path,
    /,
    data: DataRoot = None,
    dataset: DataName = None,
    option: tuple[str, ...] = (),
    part: Literal["test", "held-out"] = "test",
    other_people: bool = False,
    fmr: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4),
    probability: Literal["auto", "logistic", "isotonic"] = "auto",
    prior: float = 1000,
    feature: str | None = None,
    mirror: bool | None = None,
    resamples: int = 200,
    max_images: int = 12_000,
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
    output: Path | None = None,
    figure: Path | None = None,
    json: bool = False,
) -> None:
    """Measure thresholds and probabilities of a run's scores for each pair of modalities, on people it has not seen.

    Writes calibration.json and det.png into the run folder; galleries made of the run take the calibration along.

    Example:
        gloam calibrate runs/sysu_mm01/agw/2026-01-31_12-00-00 --data.root /data/SYSU-MM01

    Args:
        run: run folder or checkpoint file.
        data: the dataset's folder, where it is not the one of training.
        dataset: another dataset than the run's own, for example table for own data.
        option: the dataset's own options, each as KEY=VALUE.
        part: test: the people of query and gallery; held-out: those that validation set aside.
        other_people: you know that nobody of these data was trained on (data other than the run's own).
        fmr: false match rates to find thresholds for.
        probability: two-parameter logistic, isotonic, or auto: isotonic from 1,000 identities on.
        prior: show probabilities for one match in so many people.
        feature: which of the method's features to use; the recipe's if not given.
        mirror: average each image with its mirror image; the recipe's choice if not given.
        resamples: draws of identities behind the intervals.
        max_images: thin the images where there are more; time grows with their square.
        seed: seed of all draws.
        batch_size: images per forward pass.
        device: auto, cpu, cuda, cuda:1 ...
        output: file to write instead of calibration.json in the run folder.
        figure: DET figure to write (.png, .pdf, .svg, .jpg); det.png beside the calibration if not given.
        json: print the calibration as JSON instead of tables.
    """
    from gloam.cli.data import dataset_options
    from gloam.evaluation.calibration import one_in
    from gloam.evaluation.calibration_tables import calibration_tables
    from gloam.inference.calibrating import calibrate_run
    from gloam.visualize.det import draw_det
    from gloam.visualize.figure_files import check_figure_format, save_figure

    chance = one_in(prior)
    if figure is not None:
        check_figure_format(figure)
    found, file = calibrate_run(
        run,
        data_root=data,
        data_name=dataset,
        data_options=dataset_options(dataset, option),
        part=part,
        other_people=other_people,
        targets=fmr,
        probability=probability,
        feature=feature,
        mirror=mirror,
        resamples=resamples,
        max_images=max_images,
        seed=seed,
        batch_size=batch_size,
        device=device,
        output=output,
    )
    image = save_figure(draw_det(found), figure or file.with_name("det.png"))
    if json:
        sys.stdout.write(json_format.dumps(found.model_dump(mode="json"), indent=1) + "\n")
        return
    screen = console()
    for table in calibration_tables(found, prior=chance):
        screen.print(table)
    for warning in found.warnings:
        screen.print(f"warning: {warning}")
    screen.print(f"{file}\n{image}", soft_wrap=True, highlight=False)
