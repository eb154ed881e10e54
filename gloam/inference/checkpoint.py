"""Checkpoints: written atomically, read without executing code, complete enough for an exact resume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gloam import __version__
from gloam.atomic import atomic_path
from gloam.datasets.records import RawId, raw_id
from gloam.errors import GloamError, WriteError
from gloam.methods import get_method
from gloam.methods.contract import Method, create_options
from gloam.recipes.recipe import Recipe, validate
from gloam.safe_load import load_torch_file

# 1: without `files` and `unfinished`; still read.
FORMAT = 2
_READABLE = (1, 2)


class _Best(BaseModel):
    model_config = ConfigDict(extra="forbid")

    score: float
    epoch: float = Field(ge=0)


class _Text(BaseModel):
    """The part of a checkpoint that is text: what is not as declared here is refused when a file is read."""

    recipe: dict[str, Any]
    stage: str
    epoch: int = Field(ge=0)
    num_classes: int = Field(ge=1)
    label_map: dict[Annotated[RawId, BeforeValidator(raw_id)], int]
    best: _Best | None
    history: list[dict[str, str | bool | int | float | None]]
    weak: dict[str, Any] | None
    fingerprint: str
    files: str | None = None
    epochs_from: Literal[0, 1] = 0  # number of the first epoch in the history; older versions counted from 0


@dataclass
class Checkpoint:
    """State of a run at an epoch border, or between two batches of an epoch.

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
        fingerprint: digest of the names and labels of all data.
        files: digest of sizes and times, or contents, of the image files (``gloam.training.data_files``), or None.
        unfinished: what the running epoch needs besides (``gloam.training.epoch_state``), or None at an epoch border.
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
    files: str | None = None
    unfinished: dict[str, Any] | None = None

    def save(self, path: Path) -> None:
        """Write to a temporary name, flush, rename: a kill leaves the previous file intact.

        Raises:
            WriteError: it could not be written (a full disk); the previous file is intact.
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
                    "files": self.files,
                    "epochs_from": 1,
                }
            ),
            "method": self.method,
            "optimizer": self.optimizer,
            "precision": self.precision,
            "labels": self.labels,
            "unfinished": self.unfinished,
        }
        try:
            with atomic_path(path) as temporary:
                torch.save(content, temporary)
        except (WriteError, RuntimeError) as error:
            reason = str(error).splitlines()[0].removesuffix(" Nothing was written.").rstrip(".")
            kept = "the one before it is intact" if path.exists() else "there is none yet"
            raise WriteError(
                f"The checkpoint {path} could not be written ({reason}); {kept}. "
                "Free some space and go on with --resume.",
                getattr(error, "errno", None),
            ) from error

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint and check it against its checksums.

        Raises:
            GloamError: missing, cut off, damaged, of another format, or not a checkpoint of gloam.
        """
        if not path.is_file():
            raise GloamError(f"There is no checkpoint {path}.")
        content = load_torch_file(path, cure="Use another checkpoint of the run.")
        if not isinstance(content, dict) or "format" not in content or "gloam" not in content:
            raise GloamError(
                f"{path} is not a gloam checkpoint. To start from weights of other software use the recipe key weights."
            )
        if content["format"] not in _READABLE:
            raise GloamError(
                f"{path} was written by gloam {content['gloam']} in format {content['format']}; this is gloam "
                f"{__version__}, which reads formats {_READABLE[0]} to {_READABLE[-1]}. Use the version that wrote it."
            )
        try:
            return cls._from_content(content, str(path))
        except (ValidationError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise GloamError(f"{path} is damaged: {_reason(error)}. Use another checkpoint of the run.") from error
        except GloamError as error:
            if content["gloam"] == __version__:
                raise
            raise GloamError(f"{error} (It was written by gloam {content['gloam']}, this is {__version__}.)") from error

    @classmethod
    def _from_content(cls, content: dict[str, Any], origin: str) -> Checkpoint:
        text = _Text.model_validate(json.loads(content["text"]), strict=True)
        checkpoint = cls(
            recipe=validate(text.recipe, origin),
            stage=text.stage,
            epoch=text.epoch,
            num_classes=text.num_classes,
            label_map=text.label_map,
            method=content["method"],
            optimizer=content["optimizer"],
            precision=content["precision"],
            labels=content["labels"],
            best=text.best.model_dump() if text.best is not None else None,
            history=[_counted_from_one(row, text.epochs_from) for row in text.history],
            weak=text.weak,
            fingerprint=text.fingerprint,
            files=text.files,
            unfinished=content.get("unfinished"),
        )
        checkpoint._check()
        return checkpoint

    def _check(self) -> None:
        """Raise ValueError for what no run writes, before it fails somewhere inside torch."""
        if self.stage not in self.recipe.resolved_stages():
            raise ValueError(f"its recipe has no stage {self.stage!r}")
        for name in ("method", "optimizer", "precision"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} is no mapping")
        if not isinstance(self.unfinished, dict | None):
            raise ValueError("the state inside the epoch is no mapping")
        for tensor in _tensors([self.method, self.optimizer, self.precision, self.labels, self.unfinished]):
            if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
                raise ValueError(f"it holds a tensor that is not dense ({tensor.layout}, {tensor.dtype})")
        labels = self.labels
        if not isinstance(labels, torch.Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
            raise ValueError("its labels are no list of integers")
        if sorted(self.label_map.values()) != list(range(len(self.label_map))):
            raise ValueError("its label map is not 0, 1, 2, ...")
        # Pseudo-labels number clusters, of which there are as many as samples at most.
        invented = get_method(self.stage_recipe().method_name).is_unsupervised
        limit = max(len(labels), 1) if invented else self.num_classes
        if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < limit:
            raise ValueError(f"its labels lie in {int(labels.min())} .. {int(labels.max())}, not in -1 .. {limit - 1}")

    def stage_recipe(self) -> Recipe:
        """The recipe of the stage that was running."""
        return self.recipe.resolved_stages()[self.stage]


def _reason(error: Exception) -> str:
    """The first line of an error; of a schema's, the first place that is wrong."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'its text'}: {first['msg']}"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _tensors(content: Any) -> Iterator[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from _tensors(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _tensors(value)


def _counted_from_one(row: dict[str, Any], first: int) -> dict[str, Any]:
    """A row of the history with its epoch counted from 1, as bars, logs and figures do."""
    return {**row, "epoch": row["epoch"] + 1 - first} if isinstance(row.get("epoch"), int) else row


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
