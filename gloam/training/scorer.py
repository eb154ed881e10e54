"""Scores during and after a training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from gloam.datasets import DatasetSplits
from gloam.evaluation.evaluator import Results, evaluate
from gloam.inference.sources import open_test_records
from gloam.recipes.recipe import Recipe
from gloam.training.training_data import TrainingData

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
