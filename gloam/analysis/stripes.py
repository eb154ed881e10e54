"""Looking into an MMGL run: permutation accuracy on people it never saw, and a figure of both its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from gloam.augmentation.augmenter import normalize
from gloam.datasets.records import DatasetSplits, Modality, Record
from gloam.errors import GloamError
from gloam.inference.loading import load_model
from gloam.inference.model import Model
from gloam.inference.sources import modality_numbers, open_records
from gloam.losses.permutation import draw_orders, shuffle_stripes
from gloam.methods.mmgl import MMGL
from gloam.pixels.store import PixelStore
from gloam.visualize.figure_files import check_figure_format, save_figure
from gloam.visualize.stripes import StripeImages, draw_stripes

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class OrderScore:
    """How well orders are recovered on the test images of one modality.

    Attributes:
        modality: the modality.
        images: how many were scored, each with one random order.
        accuracy: fraction of stripes put in their true place; chance 1 / P.
        exact: fraction of images whose whole order is right; chance 1 / P!.
    """

    modality: Modality
    images: int
    accuracy: float
    exact: float


@dataclass(frozen=True)
class StripeReport:
    """What ``gloam stripes`` found.

    Attributes:
        path: the figure.
        num_stripes: P.
        scores: one per modality; empty for a run without permutation recovery.
    """

    path: Path
    num_stripes: int
    scores: tuple[OrderScore, ...]

    def table(self) -> Table:
        """Rich table in percent."""
        import math

        from rich.table import Table

        title = "permutation accuracy, test images (%)"
        table = Table("modality", "images", "stripes in place", "whole order", title=title, title_justify="left")
        for score in self.scores:
            values = (f"{100 * value:.1f}" for value in (score.accuracy, score.exact))
            table.add_row(score.modality.name.lower(), f"{score.images:,}", *values)
        chance = (100 / self.num_stripes, 100 / math.factorial(self.num_stripes))
        table.add_row("chance", "", f"{chance[0]:.1f}", f"{chance[1]:.2f}")
        return table


def report_run_stripes(
    run: Path,
    output: Path,
    *,
    data_root: Path | None = None,
    images: int = 3,
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
) -> StripeReport:
    """Measure permutation accuracy on the query and gallery images of a run's dataset, and draw some of them.

    Args:
        run: run folder or checkpoint file whose last stage is mmgl.
        output: figure file (.png, .pdf, .svg, .jpg).
        data_root: the dataset's folder, where it moved.
        images: images of each modality to draw.
        seed: of the drawn orders and of the choice of images.
        batch_size: images per forward pass.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Raises:
        GloamError: what :func:`load_model` raises, another method's run, or test data of one modality only.
    """
    if images < 1:
        raise GloamError("A figure of stripes needs at least one image of each modality: raise --images.")
    check_figure_format(output)
    model = load_model(run, device=device)
    method, recipe = model.method, model.recipe
    if not isinstance(method, MMGL):
        raise GloamError(
            f"{run} ends with method {recipe.method_name!r}, which shuffles no stripes. Give a run of mmgl alone, for "
            f"example: gloam train {recipe.data.name}/mmgl."
        )
    splits = model.load_splits(data_root)
    records, store = open_records(_test_records(splits), splits.root, recipe.data)
    scores = score_orders(model, records, store, seed=seed, batch_size=batch_size, progress="orders")
    shown = recover_some(method, records, store, images=images, seed=seed, device=model.device)
    path = save_figure(draw_stripes(shown, seed=seed), output)
    return StripeReport(path, method.options.num_stripes, scores)


def score_orders(
    model: Model,
    records: Sequence[Record],
    store: PixelStore,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    progress: str | None = None,
) -> tuple[OrderScore, ...]:
    """Permutation accuracy on records of both modalities, with orders from a private generator.

    Returns:
        One score per modality; none for a method without permutation recovery.

    Raises:
        GloamError: a model of another method than MMGL.
    """
    method = model.method
    if not isinstance(method, MMGL):
        raise GloamError(f"Orders of stripes are scored for models of mmgl, not of {model.recipe.method_name!r}.")
    if not method.options.permutation:
        return ()
    generator = torch.Generator().manual_seed(seed)
    rows = model.compute(
        records,
        store,
        function=lambda images, modalities: method.score_orders(images, modalities, generator),
        batch_size=batch_size,
        progress=progress,
    ).double()
    modalities = modality_numbers(records)
    scores = []
    for modality in Modality:
        own = rows[modalities == modality]
        if len(own):
            accuracy, exact = own.mean(dim=0).tolist()
            scores.append(OrderScore(modality, len(own), accuracy, exact))
    return tuple(scores)


@torch.no_grad()
def recover_some(
    method: MMGL,
    records: Sequence[Record],
    store: PixelStore,
    *,
    images: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> StripeImages:
    """Random images of each modality, an order of its own for each, and what the network makes of them.

    Raises:
        GloamError: too few records of a modality.
    """
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    modalities = np.array([int(record.modality) for record in records])
    for modality in Modality:
        rows = np.flatnonzero(modalities == modality)
        if len(rows) < images:
            raise GloamError(
                f"The test data have {len(rows)} {modality.name.lower()} images; {images} of each modality are to be "
                "drawn. Lower --images, or give data with both modalities."
            )
        chosen += np.sort(random.permutation(rows)[:images]).tolist()
    pixels = torch.from_numpy(store.read(chosen))
    orders = draw_orders(len(pixels), method.options.num_stripes, torch.Generator().manual_seed(seed))
    inputs = normalize(shuffle_stripes(pixels, orders)).to(device)
    maps = method.backbone(inputs, torch.from_numpy(modalities[chosen]).to(device))
    options = method.options
    return StripeImages(
        images=pixels,
        orders=orders,
        matrices=method.permutation_matrices(maps).cpu() if options.permutation else None,
        vectors=method.stripe_vectors(maps).float().cpu() if options.pcc else None,
        temperature=options.cl_temp,
    )


def _test_records(splits: DatasetSplits) -> tuple[Record, ...]:
    """Query and gallery; a record that is in both counts once."""
    return tuple(dict.fromkeys((*splits.query, *splits.gallery)))
