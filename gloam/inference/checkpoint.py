"""Checkpoints: written atomically, read without executing code, complete enough for an exact resume."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gloam import __version__
from gloam.atomic import atomic_path
from gloam.datasets.records import RawId, raw_id
from gloam.errors import GloamError
from gloam.methods import get_method
from gloam.methods.contract import Method, create_options
from gloam.recipes.recipe import Recipe, validate
from gloam.safe_load import load_torch_file

FORMAT = 1


@dataclass
class Checkpoint:
    """State of a run at an epoch border.

    Attributes:
        recipe: the complete recipe of the run, all stages.
        stage: stage that was running.
        epoch: epochs of that stage that are complete.
        num_classes: identities that the method was built for.
        label_map: original training id -> label.
        method: state dict of the method.
        optimizer: state dict of the optimiser.
        precision: state of the loss scaler.
        labels: ``(N,)`` training labels, pseudo-labels among them.
        best: best selection score so far and the epoch that reached it, or None.
        history: one row of numbers per finished epoch.
        weak: permutations of weak labels, or None.
        fingerprint: digest of the training data.
    """

    recipe: Recipe
    stage: str
    epoch: int
    num_classes: int
    label_map: dict[RawId, int]
    method: dict[str, Any]
    optimizer: dict[str, Any]
    precision: dict[str, Any]
    labels: torch.Tensor
    best: dict[str, float] | None
    history: list[dict[str, Any]]
    weak: dict[str, Any] | None
    fingerprint: str

    def save(self, path: Path) -> None:
        """Write to a temporary name, flush, rename: a kill leaves the previous file intact.

        Raises:
            GloamError: it could not be written (a full disk); the previous file is intact.
        """
        content = {
            "format": FORMAT,
            "gloam": __version__,
            "text": json.dumps(
                {
                    "recipe": self.recipe.model_dump(mode="json"),
                    "stage": self.stage,
                    "epoch": self.epoch,
                    "num_classes": self.num_classes,
                    "label_map": {str(key): value for key, value in self.label_map.items()},
                    "best": self.best,
                    "history": self.history,
                    "weak": self.weak,
                    "fingerprint": self.fingerprint,
                }
            ),
            "method": self.method,
            "optimizer": self.optimizer,
            "precision": self.precision,
            "labels": self.labels,
        }
        try:
            with atomic_path(path) as temporary:
                torch.save(content, temporary)
        except (OSError, RuntimeError) as error:
            # torch reports a full disk as a RuntimeError of its stream writer.
            kept = "the one before it is intact" if path.exists() else "there is none yet"
            raise GloamError(
                f"The checkpoint {path} could not be written ({str(error).splitlines()[0]}); {kept}. "
                "Free some space and go on with --resume."
            ) from error

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            GloamError: missing, cut off, or not a checkpoint of gloam.
        """
        if not path.is_file():
            raise GloamError(f"There is no checkpoint {path}.")
        content = load_torch_file(path, cure="Use another checkpoint of the run.")
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise GloamError(
                f"{path} is not a gloam checkpoint. To start from weights of other software use the recipe key weights."
            )
        text = json.loads(content["text"])
        return cls(
            recipe=validate(text["recipe"], str(path)),
            stage=text["stage"],
            epoch=text["epoch"],
            num_classes=text["num_classes"],
            label_map={raw_id(key): value for key, value in text["label_map"].items()},
            method=content["method"],
            optimizer=content["optimizer"],
            precision=content["precision"],
            labels=content["labels"],
            best=text["best"],
            history=text["history"],
            weak=text["weak"],
            fingerprint=text["fingerprint"],
        )

    def stage_recipe(self) -> Recipe:
        """The recipe of the stage that was running."""
        return self.recipe.resolved_stages()[self.stage]


def find_checkpoint(run: str | Path, prefer: tuple[str, ...] = ("best", "last")) -> Path:
    """The checkpoint file of a run folder (or the file itself).

    Raises:
        GloamError: neither exists.
    """
    path = Path(run)
    if path.is_file():
        return path
    candidates = [path / "checkpoints" / f"{name}.ckpt" for name in prefer]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if not path.exists():
        raise GloamError(f"There is no run or checkpoint {path}.")
    raise GloamError(f"{path} holds no checkpoint (looked for {' and '.join(c.name for c in candidates)}).")


def restore_method(checkpoint: Checkpoint, origin: str) -> Method[Any]:
    """The method of a checkpoint, with its weights.

    Raises:
        GloamError: the weights do not fit the method, with the first differences.
    """
    recipe = checkpoint.stage_recipe()
    cls = get_method(recipe.method_name)
    method = cls(checkpoint.num_classes, create_options(cls, recipe.method_options))
    load_state(method, checkpoint.method, origin)
    if recipe.evaluation.feature is not None:
        choose_feature(method, recipe.evaluation.feature)
    return method


def load_state(method: Method[Any], state: dict[str, Any], origin: str) -> None:
    """``load_state_dict`` with an error that a user understands.

    Raises:
        GloamError: another method's weights, or another number of classes.
    """
    try:
        method.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]]
        raise GloamError(
            f"The weights in {origin} do not fit {type(method).__name__} with {method.num_classes} classes: "
            f"{' '.join(lines) or error}. Was it trained with another method, other flags or another dataset?"
        ) from error


def choose_feature(method: Method[Any], feature: str) -> None:
    """Make ``extract`` return one of the method's named features.

    Raises:
        GloamError: the method has no such feature.
    """
    from gloam.errors import did_you_mean

    if feature not in method.features:
        raise GloamError(
            f"{type(method).__name__} has no feature {feature!r}. {did_you_mean(feature, method.features)}"
        )
    method.test_feature = feature


def export_weights(run: str | Path, output: Path) -> None:
    """Write a run's network as safetensors: tensors only, readable by any software."""
    from safetensors.torch import save_file

    checkpoint = Checkpoint.load(find_checkpoint(run))
    tensors = {k: v.contiguous() for k, v in checkpoint.method.items() if isinstance(v, torch.Tensor)}
    metadata = {"method": checkpoint.stage_recipe().method_name, "num_classes": str(checkpoint.num_classes)}
    with atomic_path(output) as temporary:
        save_file(tensors, temporary, metadata=metadata)
