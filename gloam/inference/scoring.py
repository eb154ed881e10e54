"""Scoring methods and runs with the published protocols."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gloam.datasets import DatasetSplits
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results, combine, evaluate
from gloam.inference.checkpoint import Checkpoint, choose_feature, find_checkpoint, restore_method
from gloam.inference.extraction import extract_features
from gloam.methods.contract import Method
from gloam.recipes.recipe import Recipe
from gloam.training.training_data import TrainingData, load_splits, open_test_records

_log = logging.getLogger(__name__)
Features = Callable[..., Tensor]


class Scorer:
    """Scores during and after a training run.

    Args:
        recipe: the stage's recipe.
        data: what the run trains on.
        features_of: ``(records, store, mirror=...) -> (N, D)``.
    """

    def __init__(self, recipe: Recipe, data: TrainingData, features_of: Features) -> None:
        self._recipe, self._data, self._features_of = recipe, data, features_of

    def score_epoch(self, epochs: int, last: int, numbers: dict[str, Any]) -> float | None:
        """Score an epoch if the recipe wants it, into ``numbers``.

        With a validation split its people are scored; otherwise the first test protocol with one trial, for curves only
        unless the recipe explicitly selects on the test set.

        Returns:
            The selection score (rank-1 + mAP), or None where nothing is selected.
        """
        config = self._recipe.evaluation
        every = config.every or (1 if config.selection != "last" else 0)
        if not every or (epochs % every and epochs != last):
            return None
        if config.selection == "validation":
            if self._data.validation is None:
                raise RuntimeError("selection by validation needs held-out identities")
            splits, prefix = self._data.validation, "validation"
        elif not self._data.test.protocols:
            return None  # training only
        else:
            name = next(iter(self._data.test.protocols))
            protocol = self._data.test.protocols[name]
            galleries = protocol.galleries[:1] if protocol.galleries else None
            splits = replace(self._data.test, protocols={name: replace(protocol, trials=1, galleries=galleries)})
            prefix = "test"
        result = self._score(splits, None)
        name = next(iter(splits.protocols))
        mean = result.mean(name)
        numbers |= {f"{prefix}_{key}": mean[key] for key in ("rank1", "mAP", "mINP")}
        return mean["rank1"] + mean["mAP"] if config.selection != "last" else None

    def score_all(self) -> Results:
        """Every protocol that the recipe names, all trials."""
        return self._score(self._data.test, self._recipe.evaluation.protocols)

    def _score(self, splits: DatasetSplits, protocols: Sequence[str] | None) -> Results:
        config = self._recipe.evaluation

        def features(part: Sequence[Any], text: str) -> Tensor:
            records, store = open_test_records(part, splits.root, self._recipe.data, progress=False)
            return self._features_of(records, store, mirror=config.mirror, text=text)

        return evaluate(
            splits,
            features(splits.query, "query features"),
            features(splits.gallery, "gallery features"),
            protocols=protocols,
            metric=config.metric,
        )


def load_run(
    run: Path, *, data_root: Path | None = None, feature: str | None = None, device: str = "auto"
) -> tuple[Method[Any], Recipe, DatasetSplits, torch.device]:
    """Method (in evaluation mode), recipe and test data of a trained run.

    Raises:
        GloamError: no checkpoint, an unknown feature, or no dataset.
    """
    path = find_checkpoint(run)
    checkpoint = Checkpoint.load(path)
    method = restore_method(checkpoint, str(path))
    if feature is not None:
        choose_feature(method, feature)
    recipe = checkpoint.stage_recipe()
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    return method.to(target).eval(), recipe, load_splits(recipe.data, data_root), target


def query_and_gallery_features(
    method: Method[Any],
    recipe: Recipe,
    splits: DatasetSplits,
    device: torch.device,
    *,
    mirror: bool | None = None,
    batch_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Query and gallery features of a dataset, ``(Q, D)`` and ``(G, D)``."""
    parts = []
    for name in ("query", "gallery"):
        records, store = open_test_records(getattr(splits, name), splits.root, recipe.data)
        parts.append(
            extract_features(
                method,
                records,
                store,
                batch_size=recipe.evaluation.batch_size if batch_size is None else batch_size,
                mirror=recipe.evaluation.mirror if mirror is None else mirror,
                frames=recipe.data.frames,
                frame_choice=recipe.data.test_clip,
                workers=recipe.data.workers,
                device=device,
                progress=f"{name} features",
            )
        )
    return parts[0], parts[1]


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
        output: folder for results.json and results.csv; the run folder of a single run if not given.

    Raises:
        GloamError: no run given, or what :func:`load_run` and :func:`evaluate` raise.
    """
    if not runs:
        raise GloamError("Which run? Give a run folder or a checkpoint file: gloam evaluate runs/...")
    results = []
    for run in runs:
        method, recipe, splits, target = load_run(run, data_root=data_root, feature=feature, device=device)
        query, gallery = query_and_gallery_features(
            method, recipe, splits, target, mirror=mirror, batch_size=batch_size
        )
        wanted = protocols or recipe.evaluation.protocols
        results.append(
            evaluate(splits, query, gallery, protocols=wanted, metric=recipe.evaluation.metric, rerank=rerank)
        )
    combined = combine(results)
    folder = output or (runs[0] if len(runs) == 1 and runs[0].is_dir() else None)
    if folder is not None:
        combined.to_json(folder / "evaluation.json")
        combined.to_csv(folder / "evaluation.csv")
    return combined


def draw_run_rank_list(
    run: Path,
    output: Path,
    *,
    data_root: Path | None = None,
    protocol: str | None = None,
    queries: int = 8,
    top: int = 10,
    choose: Literal["random", "worst", "best"] = "random",
    seed: int = 0,
    device: str = "auto",
) -> Path:
    """Figure of queries with their nearest gallery entries.

    Raises:
        GloamError: what :func:`load_run` raises, or an unknown protocol.
    """
    from gloam.visualize.rank_list import draw_rank_list

    method, recipe, splits, target = load_run(run, data_root=data_root, device=device)
    query, gallery = query_and_gallery_features(method, recipe, splits, target)
    return draw_rank_list(
        splits,
        query,
        gallery,
        output,
        protocol=protocol,
        queries=queries,
        top=top,
        choose=choose,
        seed=seed,
        metric=recipe.evaluation.metric,
    )


def draw_run_embedding(
    run: Path,
    output: Path,
    *,
    data_root: Path | None = None,
    projection: Literal["pca", "tsne"] = "pca",
    ids: int = 20,
    seed: int = 0,
    device: str = "auto",
) -> Path:
    """Figure of a run's query and gallery features in the plane.

    Raises:
        GloamError: what :func:`load_run` and :func:`gloam.visualize.embedding.draw_embedding` raise.
    """
    from gloam.visualize.embedding import draw_embedding

    method, recipe, splits, target = load_run(run, data_root=data_root, device=device)
    features = torch.cat(query_and_gallery_features(method, recipe, splits, target))
    # Protocols may share images between query and gallery: each is drawn once.
    rows = {record: row for row, record in enumerate((*splits.query, *splits.gallery))}
    searched = {record.pid for record in splits.query}  # not distractors
    people = [(row, record) for record, row in rows.items() if record.pid in searched]
    return draw_embedding(
        features[[row for row, _ in people]],
        [record.pid for _, record in people],
        [int(record.modality) for _, record in people],
        output,
        method=projection,
        ids=ids,
        seed=seed,
    )
