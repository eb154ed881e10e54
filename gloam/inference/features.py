"""Features with everything that is known of them: whose they are, and which model made them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gloam.datasets.records import Modality, Record
from gloam.errors import GloamError
from gloam.inference.feature_files import ABOUT, read_features, write_features

# Columns that every table of features has, in this order; others may follow (time, ...).
COLUMNS = ("path", "frames", "pid", "cam", "modality")
UNKNOWN = -1  # pid of images whose identity nobody told


@dataclass(frozen=True)
class Fingerprint:
    """Which model made a feature. Features of different digests lie in different spaces and never meet.

    Attributes:
        digest: hexadecimal SHA-256 of all that a feature depends on (``Model.fingerprint`` says of what).
        name: what a person calls the model; no part of the comparison.
    """

    digest: str
    name: str = field(default="", compare=False)

    @classmethod
    def foreign(cls, name: str) -> Fingerprint:
        """Fingerprint of features that other software made: its name is all that is known."""
        return cls(hashlib.sha256(f"foreign|{name}".encode()).hexdigest(), name)

    def __str__(self) -> str:
        return f"{self.name or 'a model'} [{self.digest[:12]}]"


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """N features with a table of what is known of each, and the fingerprint of the model that made them.

    Attributes:
        vectors: ``(N, D)`` float32 of unit length, on any device.
        columns: N rows: ``path``, ``frames``, ``pid`` (-1: unknown), ``cam``, ``modality`` ("visible", "infrared"), and
            whatever else was given (``time``).
        fingerprint: of the model.

    Raises:
        GloamError: vectors and rows that do not match, NaN, or vectors that are not of unit length.
    """

    vectors: Tensor
    columns: pd.DataFrame
    fingerprint: Fingerprint

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != torch.float32:
            raise GloamError(
                f"Features are a float32 matrix (N, D), not {self.vectors.dtype} of shape {tuple(self.vectors.shape)}."
            )
        if len(self.vectors) != len(self.columns):
            raise GloamError(f"{len(self.vectors)} vectors, but {len(self.columns)} rows that describe them.")
        if missing := [name for name in COLUMNS if name not in self.columns]:
            raise GloamError(f"The table of features lacks the columns {', '.join(missing)}.")
        lengths = torch.linalg.vector_norm(self.vectors, dim=1)
        # NaN compares false: it ends here too.
        if len(self) and not bool(((lengths - 1).abs() < 1e-3).all()):
            raise GloamError(
                f"Features must have length 1; row {int(((lengths - 1).abs() < 1e-3).logical_not().nonzero()[0])} has "
                "not (NaN, or not normalised). Features.of_arrays(..., normalise=True) scales them."
            )

    @classmethod
    def of_records(
        cls, vectors: Tensor, records: Sequence[Record], fingerprint: Fingerprint, **more: ArrayLike
    ) -> Features:
        """Features of records, in their order, with further columns of N entries each."""
        columns: dict[str, Any] = {
            "path": [record.paths[0] for record in records],
            "frames": np.array([len(record.paths) for record in records], dtype=np.int64),
            "pid": [record.pid_raw for record in records],
            "cam": np.array([record.cam for record in records], dtype=np.int64),
            "modality": [record.modality.name.lower() for record in records],
        }
        for name, values in more.items():
            if len(np.asarray(values)) != len(records):
                raise GloamError(f"Column {name!r} has {len(np.asarray(values))} entries for {len(records)} records.")
            columns[name] = values
        return cls(vectors, pd.DataFrame(columns), fingerprint)

    @classmethod
    def of_arrays(
        cls,
        vectors: ArrayLike | Tensor,
        *,
        model: str | Fingerprint = "unnamed",
        pid: ArrayLike | None = None,
        cam: ArrayLike | None = None,
        modality: str | Sequence[str] = "visible",
        path: Sequence[str] | None = None,
        normalise: bool = False,
        **more: ArrayLike,
    ) -> Features:
        """Features of other software: vectors and what is known of them.

        Args:
            vectors: ``(N, D)`` of any float type, NumPy or torch.
            model: what made them; two sets compare only if this is equal.
            pid: ``(N,)`` identities; unknown if not given.
            cam: ``(N,)`` integer cameras; 0 if not given.
            modality: one word for all, or one each.
            path: ``(N,)`` names of the images.
            normalise: scale the vectors to unit length instead of demanding it.
            **more: further columns.

        Raises:
            GloamError: lengths that do not fit, or vectors that are not of unit length.
        """
        tensor = vectors.detach() if isinstance(vectors, Tensor) else torch.as_tensor(np.asarray(vectors))
        if tensor.ndim != 2:
            raise GloamError(f"Features are a matrix (N, D), not of shape {tuple(tensor.shape)}.")
        tensor, count = tensor.to(torch.float32), len(tensor)
        if normalise:
            tensor = torch.nn.functional.normalize(tensor, dim=1, eps=1e-12)
        words = [modality] * count if isinstance(modality, str) else [str(word) for word in modality]
        if wrong := set(words) - {kind.name.lower() for kind in Modality}:
            raise GloamError(f"There is no modality {sorted(wrong)[0]!r}. Give visible or infrared.")
        given: dict[str, Any] = {
            "path": [f"[{number}]" for number in range(count)] if path is None else list(path),
            "frames": np.ones(count, dtype=np.int64),
            "pid": np.full(count, UNKNOWN) if pid is None else np.asarray(pid),
            "cam": np.zeros(count, dtype=np.int64) if cam is None else np.asarray(cam),
            "modality": words,
            **more,
        }
        for name, values in given.items():
            if len(values) != count:
                raise GloamError(f"Column {name!r} has {len(values)} entries for {count} features.")
        fingerprint = Fingerprint.foreign(model) if isinstance(model, str) else model
        return cls(tensor, pd.DataFrame(given), fingerprint)

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def width(self) -> int:
        """D."""
        return int(self.vectors.shape[1])

    @property
    def modalities(self) -> NDArray[np.int64]:
        """``(N,)`` values of :class:`Modality`."""
        numbers = self.columns["modality"].map({kind.name.lower(): int(kind) for kind in Modality})
        return np.asarray(numbers, dtype=np.int64)

    def numpy(self) -> NDArray[np.float32]:
        """``(N, D)`` on the CPU; no copy where they lie there already."""
        array: NDArray[np.float32] = self.vectors.cpu().numpy()
        return array

    def to(self, device: str | torch.device) -> Features:
        """The same features on another device."""
        return Features(self.vectors.to(device), self.columns, self.fingerprint)

    def take(self, rows: ArrayLike | Tensor) -> Features:
        """Some rows, by mask ``(N,)`` or by positions ``(n,)``; repeats are allowed.

        Raises:
            GloamError: a mask of another length, or a position out of range.
        """
        chosen = np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows)
        if chosen.dtype == np.bool_:
            if chosen.shape != (len(self),):
                raise GloamError(f"A mask of shape {chosen.shape} does not fit {len(self)} features.")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or (len(chosen) and not (-len(self) <= chosen.min() and chosen.max() < len(self))):
            raise GloamError(f"Positions must be a vector of numbers below {len(self)}.")
        places = torch.from_numpy(chosen).to(self.vectors.device)
        return Features(self.vectors[places], self.columns.iloc[chosen].reset_index(drop=True), self.fingerprint)

    def __getitem__(self, rows: slice) -> Features:
        """Consecutive rows: ``features[:100]``."""
        return self.take(np.arange(len(self))[rows])

    def where(self, **values: Any) -> Features:
        """Rows whose columns have these values: ``features.where(modality="infrared", cam=3)``.

        Raises:
            GloamError: no such column.
        """
        mask = np.ones(len(self), dtype=np.bool_)
        for name, value in values.items():
            if name not in self.columns:
                raise GloamError(f"There is no column {name!r}. Known: {', '.join(map(str, self.columns))}.")
            mask &= (self.columns[name] == value).to_numpy()
        return self.take(mask)

    def __add__(self, other: Features) -> Features:
        return concatenate([self, other])

    def require_same_model(self, other: Features) -> None:
        """Raises GloamError, which names both models, unless one model made both."""
        if self.fingerprint != other.fingerprint:
            raise GloamError(
                f"Features of different models cannot be compared: {self.fingerprint} and {other.fingerprint}. "
                "Embed both sides with one model."
            )

    def records(self) -> list[Record]:
        """One record per row; identities that are no integers get numbers in sorted order."""
        pids = self.columns["pid"]
        named = not pd.api.types.is_integer_dtype(pids)
        numbers = pd.factorize(pids.astype(str), sort=True)[0] if named else pids.to_numpy()
        rows = zip(self.columns["path"], numbers, self.columns["cam"], self.modalities, pids, strict=True)
        return [Record((str(path),), int(pid), int(cam), Modality(kind), raw) for path, pid, cam, kind, raw in rows]

    def save(self, path: str | Path) -> Path:
        """Write to ``.parquet``, ``.npz`` or ``.csv``; see :func:`gloam.inference.feature_files.write_features`.

        Returns:
            The path.

        Raises:
            GloamError: another suffix.
        """
        about = dict(zip(ABOUT, (self.fingerprint.digest, self.fingerprint.name), strict=True))
        write_features(Path(path), self.numpy(), self.columns, about)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Features:
        """Read what :meth:`save` wrote.

        Files of older versions do not name their model: they are taken as made by a model called like the file.

        Raises:
            GloamError: no such file, another format, or content that is no table of features.
        """
        array, columns, about = read_features(Path(path))
        if missing := [name for name in COLUMNS if name not in columns]:
            raise GloamError(f"{path} holds no features of gloam: it lacks {', '.join(missing)}.")
        digest, name = (about.get(key) for key in ABOUT)
        fingerprint = Fingerprint(digest, name or "") if digest else Fingerprint.foreign(Path(path).name)
        return cls(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)), columns, fingerprint)

    def __iter__(self) -> Iterator[tuple[Tensor, Mapping[str, Any]]]:
        for number in range(len(self)):
            yield self.vectors[number], dict(self.columns.iloc[number])

    def __repr__(self) -> str:
        counts = self.columns["modality"].value_counts()
        kinds = ", ".join(f"{counts[kind]:,} {kind}" for kind in ("visible", "infrared") if kind in counts)
        known = self.columns["pid"][self.columns["pid"].astype(str) != str(UNKNOWN)]
        return (
            f"Features of {self.fingerprint}\n"
            f"  {len(self):,} x {self.width}, {self.vectors.device}: {kinds or 'none'}\n"
            f"  {known.nunique():,} identities, {self.columns['cam'].nunique():,} cameras\n"
            f"  columns: {', '.join(map(str, self.columns))}"
        )


def concatenate(parts: Sequence[Features]) -> Features:
    """Several sets of one model, one after the other, on the first one's device.

    Raises:
        GloamError: nothing, or features of different models or widths.
    """
    if not parts:
        raise GloamError("There are no features to join.")
    first = parts[0]
    for part in parts[1:]:
        first.require_same_model(part)
        if part.width != first.width:
            raise GloamError(f"Features of {first.width} and of {part.width} numbers cannot be joined.")
    vectors = torch.cat([part.vectors.to(first.vectors.device) for part in parts])
    columns = pd.concat([part.columns for part in parts], ignore_index=True)
    return Features(vectors, columns, first.fingerprint)
