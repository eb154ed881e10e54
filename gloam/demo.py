"""``gloam demo``: from nothing to a table, a figure and a gallery that is searched, on a laptop.

Draws a SYSU-MM01-like set, trains a small AGW on it, compares it with the untrained network and with grey histograms,
and puts the people it never saw into a gallery. The scores mean only that the software works.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from gloam.atomic import write_text
from gloam.console import console as make_console
from gloam.console import styled
from gloam.datasets import DatasetSplits, load_dataset
from gloam.datasets.records import RawId
from gloam.drawing.dataset import draw_dataset
from gloam.errors import GloamError
from gloam.evaluation.baselines import grey_histogram_features
from gloam.evaluation.evaluator import Results, evaluate
from gloam.gallery.gallery import Gallery
from gloam.gallery.hits import Hits
from gloam.inference.loading import load_model
from gloam.pixels.store import image_paths, open_store
from gloam.recipes.recipe import Recipe, load_recipe

IDS, HEIGHT, WIDTH = 80, 96, 48
PROTOCOLS = ("sysu_mm01/all_single", "sysu_mm01/indoor_single")


def free_folder(wanted: Path) -> Path:
    """A folder that holds nothing yet: the wanted one, or that with ``_2``, ``_3``, ... added."""
    folder, number = wanted, 1
    while folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        number += 1
        folder = wanted.with_name(f"{wanted.name}_{number}")
    return folder


def run_demo(output: Path, *, seed: int = 0) -> dict[str, Results]:
    """Draw, train, evaluate, compare, search.

    Writes ``table.csv``, ``table.json``, ``rank_list.png``, the gallery ``gallery`` and ``hits.html``.

    Args:
        output: folder to create.
        seed: of drawing and training.

    Returns:
        Results of the trained network, the untrained network and the grey histograms.

    Raises:
        GloamError: ``output`` is not empty.
    """
    from gloam.inference.scoring import rank_list_of_run
    from gloam.training.run import train
    from gloam.visualize.figure_files import save_figure

    if output.exists() and any(output.iterdir()):
        raise GloamError(f"{output} is not empty. Choose another folder with --output, or delete it.")
    console = make_console()
    console.print(styled(("1/5", "bold"), f" drawing {IDS} people in both modalities"))
    data = output / "data"
    draw_dataset("sysu_mm01", data, ids=IDS, height=HEIGHT, width=WIDTH, seed=seed)
    recipe = demo_recipe(data, seed)

    console.print(styled(("2/5", "bold"), " scoring the untrained network and grey histograms"))
    stages = {"train": {"epochs": 0}}
    untrained = train(_with(recipe, stages), output=output / "untrained", progress=False).results
    splits = load_dataset("sysu_mm01", data)
    histograms = _score_histograms(splits)

    console.print(styled(("3/5", "bold"), " training a small AGW"))
    run = train(recipe, output=output / "run")
    trained = run.results
    if trained is None or untrained is None:
        raise RuntimeError("a finished run has results")

    console.print(styled(("4/5", "bold"), " drawing the rank list"))
    figure = save_figure(rank_list_of_run(run.path, queries=6, top=8), output / "rank_list.png")
    found = {"small AGW, trained": trained, "small AGW, untrained": untrained, "grey histogram": histograms}
    table = _table(found)
    console.print(table)
    write_text(output / "table.csv", _csv(found))
    write_text(output / "table.json", json.dumps({name: result.to_dict() for name, result in found.items()}, indent=2))
    console.print(styled(("5/5", "bold"), " a gallery of the test people, searched for one of them"))
    person, hits = search_people(output / "gallery", run.path, splits, output / "hits.html")
    console.print(f"who looks like person {person}, seen in infrared?\n{hits!r}", highlight=False)
    console.print(f"table:   {output / 'table.csv'}\nfigure:  {figure}\nrun:     {run.path}")
    console.print(f"gallery: {output / 'gallery'}\nhits:    {output / 'hits.html'}")
    console.print("Scores on drawn people mean nothing beyond: the software works.")
    return found


def search_people(folder: Path, run: Path, splits: DatasetSplits, page: Path) -> tuple[RawId, Hits]:
    """Make a gallery of the images of the part ``gallery`` and look for the first person of the part ``query``.

    Args:
        folder: of the gallery, new.
        run: of the model.
        splits: the data.
        page: HTML file to write.

    Returns:
        The person's number, and what was found.
    """
    known = {record.pid for record in splits.gallery}
    asked = next(record for record in splits.query if record.pid in known)
    with Gallery.create(folder, load_model(run), retention="keep", thumbnails=True) as gallery:
        gallery.add(splits, split="gallery")
        hits = gallery.search(splits.root / asked.paths[0], modality=asked.modality.name.lower(), top=8)
        hits.save(page)  # it shows the gallery's thumbnails: before the gallery closes
        return asked.pid_raw, hits


def demo_recipe(data: Path, seed: int) -> Recipe:
    """The recipe ``demo/agw`` on a folder."""
    recipe = load_recipe("demo/agw")
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"root": data}),
            "train": recipe.train.model_copy(update={"seed": seed}),
        }
    )


def _with(recipe: Recipe, changes: dict[str, dict[str, int]]) -> Recipe:
    return recipe.model_copy(
        update={key: getattr(recipe, key).model_copy(update=value) for key, value in changes.items()}
    )


def _score_histograms(splits: DatasetSplits) -> Results:
    features = []
    for records in (splits.query, splits.gallery):
        store = open_store(splits.root, image_paths(records), height=HEIGHT, width=WIDTH, progress=False)
        features.append(torch.from_numpy(grey_histogram_features(store.read(np.arange(len(store))))))
    return evaluate(splits, features[0], features[1], protocols=PROTOCOLS)


def _table(found: dict[str, Results]) -> Table:
    table = Table(title="drawn people, infrared queries, visible gallery (percent)", title_justify="left")
    table.add_column("", no_wrap=True)
    for protocol in PROTOCOLS:
        for name in ("R1", "mAP", "mINP"):
            table.add_column(f"{protocol.split('/')[1].split('_')[0]}\n{name}", justify="right")
    for label, result in found.items():
        cells = [
            f"{100 * result.mean(protocol)[key]:.1f}" for protocol in PROTOCOLS for key in ("rank1", "mAP", "mINP")
        ]
        table.add_row(label, *cells)
    return table


def _csv(found: dict[str, Results]) -> str:
    lines = ["model,protocol,rank1,rank5,rank10,rank20,mAP,mINP"]
    for label, result in found.items():
        for protocol in PROTOCOLS:
            mean = result.mean(protocol)
            numbers = [f"{mean[key]:.6f}" for key in ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")]
            lines.append(",".join([f'"{label}"', protocol, *numbers]))
    return "\n".join(lines) + "\n"
