"""Scores and figures of trained runs with the published protocols."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from gloam.datasets import DatasetSplits
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results, combine, evaluate
from gloam.inference.features import Features, concatenate
from gloam.inference.loading import load_model
from gloam.inference.model import Model
from gloam.inference.sources import open_test_records

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def embed_test(model: Model, splits: DatasetSplits, *, batch_size: int | None = None) -> tuple[Features, Features]:
    """Query and gallery features of a dataset.

    Raises:
        GloamError: a record without a readable image: scores without it could not be compared.
    """
    query, gallery = (
        model.embed_records(
            *open_test_records(records, splits.root, model.recipe.data),
            batch_size=batch_size,
            progress=f"{name} features",
        )
        for name, records in (("query", splits.query), ("gallery", splits.gallery))
    )
    return query, gallery


def evaluate_runs(
    runs: Sequence[Path],
    *,
    data_root: Path | None = None,
    protocols: Sequence[str] | None = None,
    feature: str | None = None,
    mirror: bool | None = None,
    rerank: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
    output: Path | None = None,
) -> Results:
    """Score one run, or several whose results are averaged (RegDB trains one model per trial).

    Args:
        runs: run folders or checkpoint files.
        data_root: the dataset's folder, where it moved.
        protocols: names or wildcards; the recipe's if not given.
        feature: one of the method's features.
        mirror: average with mirror images; the recipe's choice if not given.
        rerank: k-reciprocal re-ranking.
        batch_size: images per forward pass.
        device: ``auto``, ``cpu``, ``cuda``, ...
        output: folder for evaluation.json, .parquet and .csv; the run folder of a single run if not given.

    Raises:
        GloamError: no run given, or what :func:`load_model` and :func:`evaluate` raise.
    """
    if not runs:
        raise GloamError("Which run? Give a run folder or a checkpoint file: gloam evaluate runs/...")
    results = []
    for run in runs:
        model = load_model(run, device=device, feature=feature, mirror=mirror)
        splits = model.load_splits(data_root)
        query, gallery = embed_test(model, splits, batch_size=batch_size)
        wanted = protocols or model.recipe.evaluation.protocols
        metric = model.recipe.evaluation.metric
        results.append(evaluate(splits, query.vectors, gallery.vectors, protocols=wanted, metric=metric, rerank=rerank))
    combined = combine(results)
    for file in evaluation_files(runs, output):
        if file.suffix == ".json":
            combined.to_json(file)  # and the queries' table
        elif file.suffix == ".csv":
            combined.to_csv(file)
    return combined


def evaluation_files(runs: Sequence[Path], output: Path | None) -> tuple[Path, ...]:
    """Where :func:`evaluate_runs` writes: nowhere for several runs without an output folder."""
    folder = output or (runs[0] if len(runs) == 1 and runs[0].is_dir() else None)
    return () if folder is None else tuple(folder / f"evaluation.{kind}" for kind in ("json", "parquet", "csv"))


def rank_list_of_run(
    run: Path,
    *,
    data_root: Path | None = None,
    protocol: str | None = None,
    queries: int = 8,
    top: int = 10,
    choose: Literal["random", "worst", "best"] = "random",
    seed: int = 0,
    device: str = "auto",
) -> Figure:
    """Figure of queries with their nearest gallery entries.

    Raises:
        GloamError: what :func:`load_model` raises, or an unknown protocol.
    """
    from gloam.visualize.rank_list import draw_rank_list

    model = load_model(run, device=device)
    splits = model.load_splits(data_root)
    query, gallery = embed_test(model, splits)
    return draw_rank_list(
        splits,
        query.vectors,
        gallery.vectors,
        protocol=protocol,
        queries=queries,
        top=top,
        choose=choose,
        seed=seed,
        metric=model.recipe.evaluation.metric,
    )


def embedding_of_run(
    run: Path,
    *,
    data_root: Path | None = None,
    projection: Literal["pca", "tsne"] = "pca",
    ids: int = 20,
    seed: int = 0,
    device: str = "auto",
) -> Figure:
    """Figure of a run's query and gallery features in the plane.

    Raises:
        GloamError: what :func:`load_model` and :func:`gloam.visualize.embedding.draw_embedding` raise.
    """
    from gloam.visualize.embedding import draw_embedding

    model = load_model(run, device=device)
    splits = model.load_splits(data_root)
    features = concatenate(embed_test(model, splits))
    # Protocols may share images between query and gallery: each is drawn once.
    rows = {record: row for row, record in enumerate((*splits.query, *splits.gallery))}
    searched = {record.pid for record in splits.query}  # not distractors
    people = [(row, record) for record, row in rows.items() if record.pid in searched]
    return draw_embedding(
        features.vectors[torch.tensor([row for row, _ in people], dtype=torch.int64)],
        [record.pid for _, record in people],
        [int(record.modality) for _, record in people],
        method=projection,
        ids=ids,
        seed=seed,
    )
