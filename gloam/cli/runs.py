"""Commands about trained runs: scores, features, figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gloam.console import console

DataRoot = Annotated[Path | None, tyro.conf.arg(name="data.root")]
DataName = Annotated[str | None, tyro.conf.arg(name="data.name")]
DataRoots = Annotated[tuple[Path, ...], tyro.conf.arg(name="data.root", metavar="DIR [DIR ...]")]
DataNames = Annotated[tuple[str, ...], tyro.conf.arg(name="data.name", metavar="NAME [NAME ...]")]
DataOptions = Annotated[tuple[str, ...], tyro.conf.arg(name="data.options", metavar="KEY=VALUE [KEY=VALUE ...]")]
Runs = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]")]


def evaluate(
    runs: Runs,
    /,
    names: DataNames = (),
    roots: DataRoots = (),
    options: DataOptions = (),
    protocol: tuple[str, ...] = (),
    feature: str | None = None,
    mirror: bool | None = None,
    rerank: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
    output: Path | None = None,
    fresh: bool = False,
) -> None:
    """Score trained models with the published protocols, on their own dataset or on others.

    Several runs are rows of one table; seeds and trials of one recipe (RegDB's ten divisions) are averaged.

    Example:
        gloam evaluate runs/sysu_mm01/agw/2026-01-31_12-00-00 --data.name llcm --data.root /data/LLCM

    Args:
        runs: run folders, checkpoint files or exported models.
        names: datasets to score on; the one of training if not given.
        roots: as many folders or tables; where the run found its own if not given.
        options: the datasets' own options (RegDB: trial=3).
        protocol: protocol names or wildcards; the recipe's, or all of a dataset that is not its own, if not given.
        feature: which of the method's features to use (AGW: fc, pool); the recipe's if not given.
        mirror: average each image with its mirror image; the recipe's choice if not given.
        rerank: k-reciprocal re-ranking (k1 20, k2 6, weight 0.3).
        batch_size: images per forward pass.
        device: auto, cpu, cuda, cuda:1 ...
        output: folder for evaluation.json, evaluation.parquet (every query) and evaluation.csv (default: the run folder
            of a single run).
        fresh: extract features even where an earlier call has kept them (gloam cache list).
    """
    from gloam.inference.across import choose_targets
    from gloam.inference.scoring import evaluate_across, write_evaluation

    targets = choose_targets(names, roots, _options(names, options))
    found = evaluate_across(
        runs,
        targets,
        protocols=protocol or None,
        feature=feature,
        mirror=mirror,
        rerank=rerank,
        batch_size=batch_size,
        device=device,
        fresh=fresh,
    )
    files = write_evaluation(found, targets, output)
    screen = console()
    screen.print(found.rows[0].results.table() if len(found.rows) == 1 else found.table())
    for line in found.legend() if len(found.models) > 1 else []:
        screen.print(line, soft_wrap=True, highlight=False)
    for file in files:
        screen.print(f"{file}", soft_wrap=True, highlight=False)


def extract(
    run: Path,
    source: Path,
    output: Path,
    /,
    split: Literal["train", "query", "gallery"] | None = None,
    modality: Literal["visible", "infrared"] = "visible",
    feature: str | None = None,
    mirror: bool | None = None,
    precision: Literal["32", "bf16", "fp16"] = "32",
    batch_size: int | None = None,
    device: str = "auto",
) -> None:
    """Write one feature per image or tracklet, with its metadata, to a file.

    Example:
        gloam extract runs/sysu_mm01/agw/2026-01-31_12-00-00 photos/ features.parquet

    Args:
        run: run folder or checkpoint file.
        source: a folder of images (video methods: of tracklet folders, or of videos); an image, video or table file
            (CSV, Parquet); or, with --split, the folder of the run's dataset.
        output: .parquet, .npz or .csv file to write.
        split: read source as the run's dataset and take this part of it.
        modality: modality of a plain folder's images or videos.
        feature: which of the method's features to write (AGW: fc, pool); the recipe's if not given.
        mirror: average each image with its mirror image; the recipe's choice if not given.
        precision: arithmetic of the forward pass; features are float32 in any case.
        batch_size: images per forward pass.
        device: auto, cpu, cuda, cuda:1 ...
    """
    from gloam.inference.feature_files import check_format
    from gloam.inference.loading import load_model

    check_format(output)
    model = load_model(run, device=device, feature=feature, mirror=mirror, precision=precision)
    features = model.embed(source, split=split, modality=modality, batch_size=batch_size, progress="extracting")
    features.save(output)
    console().print(f"{output}: {len(features):,} features")


def rank_list(
    run: Path,
    /,
    output: Path = Path("rank_list.png"),
    data: DataRoot = None,
    name: DataName = None,
    options: DataOptions = (),
    protocol: str | None = None,
    queries: int = 8,
    top: int = 10,
    choose: Literal["random", "worst", "best"] = "random",
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
    names: bool = False,
) -> None:
    """Figure of queries with their nearest gallery entries, right and wrong marked by colour and sign.

    Example:
        gloam rank-list runs/sysu_mm01/agw/2026-01-31_12-00-00 --output rank_list.png

    Args:
        run: run folder or checkpoint file.
        output: figure to write (.png, .pdf, .svg, .jpg).
        data: the dataset's folder, where it is not the one of training.
        name: dataset to draw; the one of training if not given.
        options: the dataset's own options (RegDB: trial=3).
        protocol: protocol that defines query, gallery and camera rule; the dataset's first if not given.
        queries: number of rows.
        top: matches per row.
        choose: which queries to show.
        seed: seed of the random choice.
        batch_size: images per forward pass.
        device: auto, cpu, cuda, cuda:1 ...
        names: write the file below every image.
    """
    from gloam.inference.scoring import rank_list_of_run
    from gloam.visualize.figure_files import check_figure_format, save_figure

    check_figure_format(output)
    figure = rank_list_of_run(
        run,
        data_root=data,
        data_name=name,
        data_options=_options([name] if name else [], options),
        protocol=protocol,
        queries=queries,
        top=top,
        choose=choose,
        seed=seed,
        batch_size=batch_size,
        device=device,
        names=names,
    )
    console().print(f"{save_figure(figure, output)}")


def embedding(
    run: Path,
    /,
    output: Path = Path("embedding.png"),
    data: DataRoot = None,
    name: DataName = None,
    options: DataOptions = (),
    projection: Literal["pca", "tsne"] = "pca",
    ids: int = 20,
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
) -> None:
    """Figure of test features in the plane: a colour per person, circles visible, triangles infrared.

    Example:
        gloam embedding runs/sysu_mm01/agw/2026-01-31_12-00-00 --projection tsne

    Args:
        run: run folder or checkpoint file.
        output: figure to write (.png, .pdf, .svg, .jpg).
        data: the dataset's folder, where it is not the one of training.
        name: dataset to draw; the one of training if not given.
        options: the dataset's own options (RegDB: trial=3).
        projection: pca keeps the meaning of distances; tsne shows neighbourhoods only.
        ids: at most so many people, those with the most images.
        seed: seed of tsne.
        batch_size: images per forward pass.
        device: auto, cpu, cuda, cuda:1 ...
    """
    from gloam.inference.scoring import embedding_of_run
    from gloam.visualize.figure_files import check_figure_format, save_figure

    check_figure_format(output)
    figure = embedding_of_run(
        run,
        data_root=data,
        data_name=name,
        data_options=_options([name] if name else [], options),
        projection=projection,
        ids=ids,
        seed=seed,
        batch_size=batch_size,
        device=device,
    )
    console().print(f"{save_figure(figure, output)}")


def curves(run: Path, /, output: Path = Path("curves.png")) -> None:
    """Figure of a run's losses, rates and scores over its epochs.

    Example:
        gloam curves runs/sysu_mm01/agw/2026-01-31_12-00-00

    Args:
        run: run folder.
        output: figure to write (.png, .pdf, .svg, .jpg).
    """
    from gloam.visualize.curves import draw_curves
    from gloam.visualize.figure_files import check_figure_format, save_figure

    check_figure_format(output)
    console().print(f"{save_figure(draw_curves(run), output)}")


def clips(
    run: Path,
    /,
    data: DataRoot = None,
    protocol: tuple[str, ...] = (),
    batch_size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    device: str = "auto",
    output: Path | None = None,
) -> None:
    """Does a video model use its clips? Scores on whole clips, one frame, shuffled frames and foreign frames.

    Example:
        gloam clips runs/hitsz_vcm/m3reid/2026-01-31_12-00-00 --output clips.csv

    Args:
        run: run folder or checkpoint file of a video method.
        data: the dataset's folder, where it is not the one of training.
        protocol: protocol names or wildcards; the recipe's if not given.
        batch_size: tracklets per forward pass.
        workers: loader processes; the recipe's if not given.
        seed: seed of all random orders.
        device: auto, cpu, cuda, cuda:1 ...
        output: CSV file for all numbers.
    """
    from gloam.analysis.clips import score_clip_controls

    found = score_clip_controls(
        run,
        data_root=data,
        protocols=protocol or None,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
        device=device,
    )
    if output is not None:
        found.to_csv(output)
    console().print(found.table())


def stripes(
    run: Path,
    /,
    output: Path = Path("stripes.png"),
    data: DataRoot = None,
    images: int = 3,
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
) -> None:
    """Permutation accuracy of an MMGL run on unseen people, and a figure of what its two tasks have learned.

    Example:
        gloam stripes runs/sysu_mm01/mmgl/2026-01-31_12-00-00 --output stripes.png

    Args:
        run: run folder or checkpoint file of method mmgl.
        output: figure to write (.png, .pdf, .svg, .jpg).
        data: the dataset's folder, where it is not the one of training.
        images: images of each modality to draw.
        seed: seed of the stripe orders and of the choice of images.
        batch_size: images per forward pass.
        device: auto, cpu, cuda, cuda:1 ...
    """
    from gloam.analysis.stripes import report_run_stripes

    report = report_run_stripes(
        run, output, data_root=data, images=images, seed=seed, batch_size=batch_size, device=device
    )
    if report.scores:
        console().print(report.table())
    console().print(f"{report.path}")


def _options(names: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
    """``trial=3`` and the like, each read as the first of the datasets that has the option reads it."""
    from gloam.cli.data import dataset_options
    from gloam.datasets import get_dataset

    found: dict[str, Any] = {}
    for word in words:
        key = word.partition("=")[0]
        found |= dataset_options(next((name for name in names if key in get_dataset(name).options), None), [word])
    return found
