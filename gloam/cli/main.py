"""The command line: parse, call public functions, print. Every command is one function; tyro reads its signature."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from gloam import __version__
from gloam.errors import GloamError, did_you_mean

TITLE = "gloam: person re-identification across light, cameras and supervision levels"
DataRoot = Annotated[Path | None, tyro.conf.arg(name="data.root")]
Runs = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]")]


def demo(output: Path = Path("demo"), seed: int = 0) -> None:
    """Draw people, train a small AGW, evaluate it and compare it with two baselines (below four minutes on two cores).

    Example:
        gloam demo --output demo

    Args:
        output: folder for the drawn data, the run, the table and the rank-list figure.
        seed: seed of the drawing and of the training.
    """
    from gloam.demo import run_demo

    run_demo(output, seed=seed)


def data_list() -> None:
    """Table of the datasets gloam reads: published counts and how to obtain each.

    Example:
        gloam data list
    """
    from gloam.datasets.check import dataset_table

    Console().print(dataset_table())


def data_check(name: str, root: Path, /, strict: bool = False, option: tuple[str, ...] = ()) -> int:
    """Compare a folder with what the dataset should look like: tree, counts, unreadable files.

    Example:
        gloam data check regdb /data/RegDB --option trial=3

    Args:
        name: dataset name (see "gloam data list").
        root: the dataset's folder; for own data a CSV or Parquet table, or a folder.
        strict: treat counts that differ from the published ones as errors.
        option: the dataset's own options, each as KEY=VALUE (RegDB: trial=3).
    """
    from gloam.datasets.check import check

    report = check(name, root, strict=strict, **_options(option))
    Console().print(report)
    return 0 if report.ok else 2


def data_draw(
    layout: str,
    out: Path,
    /,
    ids: int = 60,
    images: int | None = None,
    frames: int | None = None,
    height: int = 128,
    width: int = 64,
    seed: int = 0,
    workers: int = 1,
) -> None:
    """Draw small synthetic people in both modalities and write them in a benchmark's layout.

    Scores on drawn data mean nothing beyond "the software works".

    Example:
        gloam data draw sysu_mm01 drawn --ids 60

    Args:
        layout: dataset name whose folder layout to write.
        out: folder to create; must not exist or be empty.
        ids: number of people, training and test together.
        images: images (or tracklets) per person and camera; the layout's own default if not given.
        frames: frames per tracklet in video layouts; the layout's own default if not given.
        height: image height in pixels.
        width: image width in pixels.
        seed: the same seed draws the same bytes.
        workers: drawing processes.
    """
    from gloam.drawing.dataset import draw_dataset

    counts = draw_dataset(
        layout,
        out,
        ids=ids,
        images=images,
        frames=frames,
        height=height,
        width=width,
        seed=seed,
        workers=workers,
    )
    Console().print(f"{out}: " + ", ".join(f"{value:,} {key}" for key, value in counts.items()))


def recipes(pattern: str = "*", /) -> None:
    """Table of the recipes that "gloam train" knows, with the published scores they aim at.

    Example:
        gloam recipes "sysu_mm01/*"

    Args:
        pattern: shell wildcard over <dataset>/<method>.
    """
    from gloam.recipes.recipe import recipe_table

    Console().print(recipe_table(pattern))


def train(arguments: Sequence[str]) -> None:
    """Train a recipe. The recipe decides which flags exist, so this command parses in two steps."""
    from gloam.cli.train import train_command

    train_command(arguments, console=Console())


def evaluate(
    runs: Runs,
    /,
    data: DataRoot = None,
    protocol: tuple[str, ...] = (),
    feature: str | None = None,
    mirror: bool | None = None,
    rerank: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
    output: Path | None = None,
) -> None:
    """Score trained models with the published protocols. Several runs (RegDB's ten trials) are averaged.

    Example:
        gloam evaluate runs/sysu_mm01/agw/2026-01-31_12-00-00 --protocol "sysu_mm01/*_single"

    Args:
        runs: run folders or checkpoint files.
        data: the dataset's folder, where it is not the one of training.
        protocol: protocol names or wildcards; all of the dataset's if not given.
        feature: which of the method's features to use (AGW: fc, pool); the recipe's if not given.
        mirror: average each image with its mirror image; the recipe's choice if not given.
        rerank: k-reciprocal re-ranking (k1 20, k2 6, weight 0.3).
        batch_size: images per forward pass.
        device: auto, cpu, cuda, cuda:1 ...
        output: folder for results.json and results.csv (default: the run folder of a single run).
    """
    from gloam.inference.scoring import evaluate_runs

    results = evaluate_runs(
        runs,
        data_root=data,
        protocols=protocol or None,
        feature=feature,
        mirror=mirror,
        rerank=rerank,
        batch_size=batch_size,
        device=device,
        output=output,
    )
    Console().print(results.table())


def extract(
    run: Path,
    source: Path,
    output: Path,
    /,
    split: Literal["train", "query", "gallery"] | None = None,
    modality: Literal["visible", "infrared"] = "visible",
    mirror: bool | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> None:
    """Write one feature per image or tracklet, with its metadata, to a file.

    Example:
        gloam extract runs/sysu_mm01/agw/2026-01-31_12-00-00 photos/ features.parquet

    Args:
        run: run folder or checkpoint file.
        source: a folder of images (video methods: of tracklet folders, or of videos); a video file; a table (CSV,
            Parquet); or, with --split, the folder of the run's dataset.
        output: .parquet, .npz or .csv file to write.
        split: read source as the run's dataset and take this part of it.
        modality: modality of a plain folder's images or videos.
        mirror: average each image with its mirror image; the recipe's choice if not given.
        batch_size: images per forward pass.
        device: auto, cpu, cuda, cuda:1 ...
    """
    from gloam.inference.feature_files import extract_to_file

    rows = extract_to_file(
        run,
        source,
        output,
        split=split,
        modality=modality,
        mirror=mirror,
        batch_size=batch_size,
        device=device,
    )
    Console().print(f"{output}: {rows:,} features")


def rank_list(
    run: Path,
    /,
    output: Path = Path("rank_list.png"),
    data: DataRoot = None,
    protocol: str | None = None,
    queries: int = 8,
    top: int = 10,
    choose: Literal["random", "worst", "best"] = "random",
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Figure of queries with their nearest gallery entries, right and wrong marked by colour and sign.

    Example:
        gloam rank-list runs/sysu_mm01/agw/2026-01-31_12-00-00 --output rank_list.png

    Args:
        run: run folder or checkpoint file.
        output: PNG file to write.
        data: the dataset's folder, where it is not the one of training.
        protocol: protocol that defines query, gallery and camera rule; the dataset's first if not given.
        queries: number of rows.
        top: matches per row.
        choose: which queries to show.
        seed: seed of the random choice.
        device: auto, cpu, cuda, cuda:1 ...
    """
    from gloam.inference.scoring import draw_run_rank_list

    path = draw_run_rank_list(
        run,
        output,
        data_root=data,
        protocol=protocol,
        queries=queries,
        top=top,
        choose=choose,
        seed=seed,
        device=device,
    )
    Console().print(f"{path}")


def embedding(
    run: Path,
    /,
    output: Path = Path("embedding.png"),
    data: DataRoot = None,
    projection: Literal["pca", "tsne"] = "pca",
    ids: int = 20,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Figure of test features in the plane: a colour per person, circles visible, triangles infrared.

    Example:
        gloam embedding runs/sysu_mm01/agw/2026-01-31_12-00-00 --projection tsne

    Args:
        run: run folder or checkpoint file.
        output: PNG file to write.
        data: the dataset's folder, where it is not the one of training.
        projection: pca keeps the meaning of distances; tsne shows neighbourhoods only.
        ids: at most so many people, those with the most images.
        seed: seed of tsne.
        device: auto, cpu, cuda, cuda:1 ...
    """
    from gloam.inference.scoring import draw_run_embedding

    path = draw_run_embedding(run, output, data_root=data, projection=projection, ids=ids, seed=seed, device=device)
    Console().print(f"{path}")


def curves(run: Path, /, output: Path = Path("curves.png")) -> None:
    """Figure of a run's losses, rates and scores over its epochs.

    Example:
        gloam curves runs/sysu_mm01/agw/2026-01-31_12-00-00

    Args:
        run: run folder.
        output: PNG file to write.
    """
    from gloam.visualize.curves import draw_curves

    Console().print(f"{draw_curves(run, output)}")


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
    Console().print(found.table())


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
        output: PNG file to write.
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
        Console().print(report.table())
    Console().print(f"{report.path}")


def doctor() -> None:
    """Versions, devices, cache folder and optional packages: what to paste into a bug report.

    Example:
        gloam doctor
    """
    from gloam.doctor import doctor_table

    Console().print(doctor_table())


# Command -> function. The first line of a docstring is its line in "gloam --help".
COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "data list": data_list,
    "data check": data_check,
    "data draw": data_draw,
    "recipes": recipes,
    "train": train,
    "evaluate": evaluate,
    "extract": extract,
    "rank-list": rank_list,
    "embedding": embedding,
    "curves": curves,
    "stripes": stripes,
    "clips": clips,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 on success, 2 after a user's mistake (one message, no traceback), 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")  # a wrong flag's message ends with its cause
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return _dispatch(words)
    except GloamError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        return 130


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_overview(COMMANDS))
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"gloam {__version__}\n")
        return 0
    group = {name: function for name, function in COMMANDS.items() if name.startswith(f"{words[0]} ")}
    if group and (len(words) == 1 or words[1] in ("-h", "--help")):
        sys.stdout.write(_overview(group))
        return 0
    name = " ".join(words[:2]) if group else words[0]
    if name not in COMMANDS:
        raise GloamError(f"There is no command {name!r}. {did_you_mean(name, COMMANDS)}")
    command, rest = COMMANDS[name], words[len(name.split()) :]
    if command is train:
        train(rest)
        return 0
    description = inspect.cleandoc(command.__doc__ or "").split("\nArgs:")[0].strip()
    style = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.FlagCreatePairsOff)
    return int(tyro.cli(command, prog=f"gloam {name}", args=rest, description=description, config=style) or 0)


def _options(words: Sequence[str]) -> dict[str, Any]:
    """``trial=3`` and the like to keyword arguments; values are read as in a recipe."""
    import yaml

    if wrong := [word for word in words if not word.partition("=")[0].isidentifier() or "=" not in word]:
        raise GloamError(f"{wrong[0]!r} is not of the form KEY=VALUE, for example --option trial=3.")
    return {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}


def _overview(commands: dict[str, Callable[..., Any]]) -> str:
    width = max(len(name) for name in commands)
    lines = [TITLE, "", "usage: gloam COMMAND [ARGUMENTS]", "", "commands:"]
    lines += [f"  {name:<{width}}  {(function.__doc__ or '').splitlines()[0]}" for name, function in commands.items()]
    lines += ["", "gloam COMMAND --help shows the flags and an example that works; gloam --version the version.", ""]
    return "\n".join(lines)
