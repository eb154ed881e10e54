"""Scores and figures of trained runs with the published protocols."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from gloam.datasets import DatasetSplits
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results, evaluate
from gloam.evaluation.protocols import find_protocols
from gloam.inference.across import Comparison, Contender, Row, Target, check_protocols, choose_targets, group, join_rows
from gloam.inference.feature_cache import features_folder, keep_features
from gloam.inference.features import Features, concatenate
from gloam.inference.loading import load_model
from gloam.inference.model import Model
from gloam.inference.sources import open_test_records

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)


def embed_test(model: Model, splits: DatasetSplits, *, batch_size: int | None = None) -> tuple[Features, Features]:
    """Query and gallery features of a dataset.

    Raises:
        GloamError: a record without a readable image: scores without it could not be compared.
    """
    query, gallery = (_embed_part(model, splits, part, batch_size=batch_size) for part in ("query", "gallery"))
    return query, gallery


def dataset_features(
    model: Model, splits: DatasetSplits, *, batch_size: int | None = None, fresh: bool = False
) -> tuple[Features, Features]:
    """:func:`embed_test`, but features of the same model and files that an earlier call has kept are read.

    Args:
        model: the model.
        splits: the dataset.
        batch_size: images per forward pass; the recipe's if not given.
        fresh: extract in any case.

    Raises:
        GloamError: what :func:`embed_test` raises.
    """
    size = model.recipe.evaluation.batch_size if batch_size is None else batch_size
    found = []
    for part in ("query", "gallery"):
        records = getattr(splits, part)
        features, were_kept = keep_features(
            model,
            records,
            splits.root,
            batch_size=size,
            extract=functools.partial(_embed_part, model, splits, part, batch_size=size),
            fresh=fresh,
        )
        if were_kept:
            _log.info("%s: %d %s features read from %s", model.name, len(features), part, features_folder())
        found.append(features)
    query, gallery = found
    return query, gallery


def _embed_part(model: Model, splits: DatasetSplits, part: str, *, batch_size: int | None) -> Features:
    return model.embed_records(
        *open_test_records(getattr(splits, part), splits.root, model.recipe.data),
        batch_size=batch_size,
        progress=f"{part} features",
    )


def evaluate_across(
    runs: Sequence[Path],
    targets: Sequence[Target] = (Target(),),
    *,
    protocols: Sequence[str] | None = None,
    feature: str | None = None,
    mirror: bool | None = None,
    rerank: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
    fresh: bool = False,
) -> Comparison:
    """Score every run on every dataset.

    Runs of one recipe that differ in seed or trial only are averaged; all others are rows of their own. Everything that
    can be wrong with the request is found before the first image is looked at.

    Args:
        runs: run folders, checkpoint files or exported models.
        targets: datasets; by default each run's own.
        protocols: names or wildcards; by default the recipe's on its own dataset, and all on others.
        feature: one of the method's features.
        mirror: average with mirror images; the recipe's choice if not given.
        rerank: k-reciprocal re-ranking.
        batch_size: images per forward pass.
        device: ``auto``, ``cpu``, ``cuda``, ...
        fresh: extract features even where they are kept from an earlier call.

    Raises:
        GloamError: no run, a run given twice, a dataset that a run cannot embed, or what :func:`load_model` and
            :func:`evaluate` raise.
    """
    if not runs:
        raise GloamError("Which run? Give a run folder or a checkpoint file: gloam evaluate runs/...")
    places = [Path(run).resolve() for run in runs]
    if twice := next((run for number, run in enumerate(runs) if places[number] in places[:number]), None):
        raise GloamError(f"{twice} is given twice. Name every run once.")
    contenders = [Contender.read(Path(run)) for run in runs]
    given = list(protocols or ())
    opened: dict[str, DatasetSplits] = {}
    plans: dict[tuple[int, int], tuple[DatasetSplits, Sequence[str] | None]] = {}
    for row, one in enumerate(contenders):
        for column, target in enumerate(targets):
            data = one.recipe.data
            key = repr((target, data.name, data.root, data.options) if target.is_own(data) else target)
            if key not in opened:
                opened[key] = target.open(data)
            splits = opened[key]
            one.check_fit(splits, target)
            plans[row, column] = (splits, one.protocols(splits, target, given))
    check_protocols(list(opened.values()), given)
    for splits, wanted in plans.values():
        find_protocols(splits, wanted if splits.protocols else None)
    rows: dict[tuple[int, int], Row] = {}
    for number, one in enumerate(contenders):
        model = load_model(one.path, device=device, feature=feature, mirror=mirror)
        for column, target in enumerate(targets):
            splits, wanted = plans[number, column]
            query, gallery = dataset_features(model, splits, batch_size=batch_size, fresh=fresh)
            metric = model.recipe.evaluation.metric
            found = evaluate(splits, query.vectors, gallery.vectors, protocols=wanted, metric=metric, rerank=rerank)
            data = one.recipe.data
            label = target.label(data)
            if not target.is_own(data):
                found = found.with_notes(**{"trained on": data.name})
            rows[number, column] = Row((one.path,), data.name, one.recipe.method_name, label, splits.root, found)
    groups = [[contenders.index(one) for one in members] for members in group(contenders)]
    return Comparison(
        tuple(
            join_rows([rows[number, column] for number in members])
            for column in range(len(targets))
            for members in groups
        )
    )


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
    """Score one run, or seeds or trials of one recipe, whose results are averaged (RegDB trains one model per trial).

    Args:
        runs: run folders or checkpoint files.
        data_root: the dataset's folder, where it moved.
        protocols: see :func:`evaluate_across`, as all that follows.
        feature: see there.
        mirror: see there.
        rerank: see there.
        batch_size: see there.
        device: see there.
        output: folder for evaluation.json, .parquet and .csv; the run folder of a single run if not given.

    Raises:
        GloamError: what :func:`evaluate_across` raises, or runs that are not of one recipe.
    """
    found = evaluate_across(
        runs,
        [Target(root=data_root)],
        protocols=protocols,
        feature=feature,
        mirror=mirror,
        rerank=rerank,
        batch_size=batch_size,
        device=device,
    )
    if len(found.rows) > 1:
        raise GloamError(
            f"{' and '.join(str(row.runs[0]) for row in found.rows[:2])} are no seeds or trials of one recipe, so they "
            "have no mean. evaluate_across gives a row for each."
        )
    write_evaluation(found, [Target(root=data_root)], output)
    return found.rows[0].results


def write_evaluation(found: Comparison, targets: Sequence[Target], output: Path | None) -> list[Path]:
    """Write scores as JSON and CSV.

    One model: ``evaluation.json`` for its own dataset and ``evaluation_<dataset>.json`` for others, in the form of
    :meth:`Results.to_json`. Several models: one ``evaluation.json`` in the form of :meth:`Comparison.to_json`.

    Args:
        found: the scores.
        targets: the datasets.
        output: folder; the run folder of a single run if not given, and nothing is written for several.

    Returns:
        The files.
    """
    runs = found.rows[0].runs
    if output is None and len(found.models) == 1 and len(runs) == 1 and runs[0].is_dir():
        output = runs[0]
    if output is None:
        return []
    if len(found.models) > 1:
        files = [output / "evaluation.json", output / "evaluation.csv"]
        found.to_json(files[0])
        found.to_csv(files[1])
        return files
    files = []
    for row, target in zip(found.rows, targets, strict=True):
        name = "evaluation" if target.name in (None, row.source) else f"evaluation_{row.target}"
        row.results.to_json(output / f"{name}.json")
        row.results.to_csv(output / f"{name}.csv")
        files += [output / f"{name}.{kind}" for kind in ("json", "parquet", "csv")]
    return files


def rank_list_of_run(
    run: Path,
    *,
    data_root: Path | None = None,
    data_name: str | None = None,
    data_options: Mapping[str, Any] | None = None,
    protocol: str | None = None,
    queries: int = 8,
    top: int = 10,
    choose: Literal["random", "worst", "best"] = "random",
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
    names: bool = False,
) -> Figure:
    """Figure of queries with their nearest gallery entries.

    Raises:
        GloamError: what :func:`load_model` and :func:`evaluate_across` raise.
    """
    from gloam.visualize.rank_list import draw_rank_list

    (target,) = choose_targets([data_name] if data_name else [], [data_root] if data_root else [], data_options)
    one = Contender.read(run)
    splits = target.open(one.recipe.data)
    one.check_fit(splits, target)
    check_protocols([splits], [] if protocol is None else [protocol])
    model = load_model(run, device=device)
    query, gallery = dataset_features(model, splits, batch_size=batch_size)
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
        names=names,
    )


def embedding_of_run(
    run: Path,
    *,
    data_root: Path | None = None,
    data_name: str | None = None,
    data_options: Mapping[str, Any] | None = None,
    projection: Literal["pca", "tsne"] = "pca",
    ids: int = 20,
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
) -> Figure:
    """Figure of a run's query and gallery features in the plane.

    Raises:
        GloamError: what :func:`load_model` and :func:`gloam.visualize.embedding.draw_embedding` raise.
    """
    from gloam.visualize.embedding import draw_embedding

    (target,) = choose_targets([data_name] if data_name else [], [data_root] if data_root else [], data_options)
    one = Contender.read(run)
    splits = target.open(one.recipe.data)
    one.check_fit(splits, target)
    model = load_model(run, device=device)
    features = concatenate(dataset_features(model, splits, batch_size=batch_size))
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
