"""A trained model as an object: whatever is searched, scored, clustered or drawn is embedded here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from gloam.augmentation.augmenter import IMAGENET_MEAN, IMAGENET_STD
from gloam.datasets.records import DatasetSplits, Record
from gloam.devices import choose_device
from gloam.errors import GloamError
from gloam.inference.extraction import extract_features
from gloam.inference.features import Features, Fingerprint
from gloam.inference.sources import ModalityName, Split, load_splits, open_source
from gloam.methods.contract import Method
from gloam.pixels.store import PixelStore
from gloam.recipes.recipe import Recipe

if TYPE_CHECKING:
    from gloam.evaluation.calibration import Calibration

Precision = Literal["32", "bf16", "fp16"]
_DTYPES = {"32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Model:
    """A method with its weights, and how images reach it.

    Args:
        method: the network; ``extract`` is its inference path. It stays where it is and may go on training.
        recipe: the recipe of the stage that the weights belong to: image size, clips, batch size, mirroring.
        name: what messages call the model, for example the run folder.
        mirror: average each image with its mirror image; the recipe's choice if not given.
        precision: arithmetic of the forward pass; features are float32 in any case.
        fingerprint: of an exported model; computed from the weights if not given.
    """

    def __init__(
        self,
        method: Method[Any],
        recipe: Recipe,
        *,
        name: str = "",
        mirror: bool | None = None,
        precision: Precision = "32",
        fingerprint: Fingerprint | None = None,
    ) -> None:
        if precision not in _DTYPES:
            raise GloamError(f"There is no precision {precision!r}. Give 32, bf16 or fp16.")
        self.method, self.recipe = method, recipe
        self.name = name or recipe.method_name
        self.mirror = recipe.evaluation.mirror if mirror is None else mirror
        self.precision: Precision = precision
        self._fingerprint = fingerprint

    @property
    def feature(self) -> str:
        """Which of the method's features ``embed`` returns."""
        return self.method.test_feature

    @property
    def feature_dim(self) -> int:
        """D."""
        return self.method.feature_dim

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images that the network sees, in pixels."""
        return self.recipe.data.height, self.recipe.data.width

    @property
    def is_video(self) -> bool:
        """Whether the method embeds clips."""
        return self.method.is_video

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        first = next(iter(self.method.parameters()), None)
        return torch.device("cpu") if first is None else first.device

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Digest of all that a feature depends on.

        Weights, method and its flags, feature, image size and resize filter, normalisation, clip rule, mirroring and
        precision. Computed once: a model whose weights change afterwards (in training) needs a new ``Model``.
        """
        if self._fingerprint is not None:
            return self._fingerprint
        data = self.recipe.data
        content = {
            "method": self.recipe.method_name,
            "options": self.method.options.model_dump(mode="json"),
            "feature": self.feature,
            "size": self.size,
            "interpolation": data.interpolation,
            "stretch": data.stretch,
            "normalisation": (IMAGENET_MEAN, IMAGENET_STD),
            "clip": (data.frames, data.test_clip) if data.frames else None,
            "mirror": self.mirror,
            "precision": self.precision,
            "weights": weights_digest(self.method.state_dict()),
        }
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return Fingerprint(digest, self.name)

    def to(self, device: str | torch.device) -> Model:
        """Move the weights to a device (``auto``: the first GPU, or the CPU)."""
        self.method.to(choose_device(device))
        return self

    @property
    def calibration(self) -> Calibration | None:
        """What ``gloam calibrate`` measured for exactly this model, or None: its scores are cosines and no more.

        A calibration of the run with another feature, mirroring or precision is none of this model's.

        Raises:
            GloamError: the run's calibration file is damaged.
        """
        from gloam.evaluation.calibration import Calibration, calibration_file

        file = calibration_file(self.name)
        if not file.is_file():
            return None
        found = Calibration.load(file)
        return found if found.model.digest == self.fingerprint.digest else None

    def embed(
        self,
        source: Any,
        *,
        modality: ModalityName | Sequence[ModalityName] = "visible",
        split: Split | None = None,
        root: str | Path | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        progress: bool | str = True,
        **columns: ArrayLike,
    ) -> Features:
        """Features of images, clips, files, folders, videos, tables or datasets.

        Args:
            source: see :func:`gloam.inference.sources.open_source`.
            modality: of images that do not say it themselves: one for all, or one each.
            split: part of a dataset.
            root: folder that the paths of records are relative to.
            batch_size: images per forward pass; the recipe's if not given.
            workers: loader processes; the recipe's if not given, none for images in memory.
            progress: show bars; a string is the bar's text.
            **columns: what else is known of the images, one entry each (``time``).

        Returns:
            One unit vector per image or tracklet, on the CPU. Memory: the result, one batch and, for images in memory,
            their resized copy.

        Raises:
            GloamError: nothing to embed, unreadable images, or another kind of source than the method reads.
        """
        records, store = open_source(
            source,
            self.recipe.data,
            modality=modality,
            split=split,
            root=None if root is None else Path(root),
            progress=bool(progress),
        )
        text = progress if isinstance(progress, str) else "embedding"
        return self.embed_records(
            records, store, batch_size=batch_size, workers=workers, progress=text if progress else None, **columns
        )

    def embed_records(
        self,
        records: Sequence[Record],
        store: PixelStore,
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        progress: str | None = None,
        **columns: ArrayLike,
    ) -> Features:
        """:meth:`embed` of records whose store is open."""
        vectors = self.compute(
            records, store, batch_size=batch_size, workers=workers, mirror=self.mirror, progress=progress
        )
        if self.precision != "32":
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return Features.of_records(vectors, records, self.fingerprint, **columns)

    def compute(
        self,
        records: Sequence[Record],
        store: PixelStore,
        *,
        function: Callable[[Tensor, Tensor], Tensor] | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
        mirror: bool = False,
        progress: str | None = None,
        **processes: Any,
    ) -> Tensor:
        """Stack any function of the network's input over records: the one way to a network's output.

        Training (pseudo-labels, scores), embedding and analyses all come through here.

        Args:
            records: N samples.
            store: their pixels.
            function: ``(images, modalities) -> (n, ...)``; default ``method.extract``.
            batch_size: samples per forward pass; the recipe's if not given.
            workers: loader processes; the recipe's if not given.
            mirror: see :func:`gloam.inference.extraction.extract_features`.
            progress: text of a bar; none without.
            **processes: ``indices, rank, world_size, gather``: see there.

        Returns:
            ``(N, ...)`` float32 on the CPU.
        """
        data = self.recipe.data
        return extract_features(
            self.method,
            records,
            store,
            function=function,
            batch_size=self.recipe.evaluation.batch_size if batch_size is None else batch_size,
            mirror=mirror,
            frames=data.frames,
            frame_choice=data.test_clip,
            workers=data.workers if workers is None else workers,
            device=self.device,
            precision=_DTYPES[self.precision],
            progress=progress,
            **processes,
        )

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """The method's own inference path: normalised images to unit vectors, without mirroring."""
        return self.method.extract(images, modalities)

    def load_splits(self, root: str | Path | None = None) -> DatasetSplits:
        """The dataset that the model was trained on; ``root`` where it moved.

        Raises:
            GloamError: no root, or nothing of the kind there.
        """
        return load_splits(self.recipe.data, None if root is None else Path(root))

    def __repr__(self) -> str:
        height, width = self.size
        clip = f", clips of {self.recipe.data.frames} frames" if self.recipe.data.frames else ""
        return (
            f"Model {self.name}\n"
            f"  {self.recipe.method_name}, feature {self.feature!r} ({self.feature_dim} numbers)\n"
            f"  images {height} x {width}{clip}, mirror {'on' if self.mirror else 'off'}, precision {self.precision}\n"
            f"  {sum(p.numel() for p in self.method.parameters()):,} parameters on {self.device}\n"
            f"  trained on {self.recipe.data.name}, fingerprint {self.fingerprint.digest[:12]}"
        )


def weights_digest(state: dict[str, Any]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors of a state, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if isinstance(value, Tensor):
            array = value.detach().cpu().contiguous()
            digest.update(f"{name}|{array.dtype}|{tuple(array.shape)}|".encode())
            digest.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
