"""Exported files that are written only with a proof."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gloam.atomic import atomic_path, write_text
from gloam.augmentation.augmenter import normalize
from gloam.datasets.records import DatasetSplits, Modality
from gloam.errors import GloamError
from gloam.inference.export import ExportFormat, InputKind, export_model
from gloam.inference.exported import EXPORTED_SUFFIXES, load_exported
from gloam.inference.model import Model
from gloam.inference.proof import Proof, prove, read_records
from gloam.inference.published import sha256
from gloam.inference.sources import ModalityName
from gloam.inference.variants import CALIBRATION_IMAGES, write_variant

ExportPrecision = Literal["32", "fp16", "int8"]
PROOFS = "proof.json"


def export_with_proof(
    model: Model,
    file: Path,
    kind: ExportFormat,
    *,
    modality: ModalityName | None = None,
    takes: InputKind = "uint8",
    precision: ExportPrecision = "32",
    splits: DatasetSplits | None = None,
) -> Proof | None:
    """Export, read back, compare, and only then put the file and its entry in ``proof.json`` in place.

    Args:
        model: the model.
        file: file to write; ``proof.json`` is written beside it.
        kind: format; weights alone (safetensors) compute nothing and have no proof.
        modality: the only modality that the file shall take.
        takes: images as uint8, or normalised.
        precision: ``fp16`` and ``int8`` (ONNX): smaller files whose proof says what they cost and bring.
        splits: the run's dataset, if it is at hand; int8 is calibrated on its training images.

    Raises:
        GloamError: a missing package, a method that cannot be exported, or a file that computes something else;
            nothing is written then.
    """
    if precision != "32" and kind != "onnx":
        raise GloamError(f"{precision} is offered for onnx, not for {kind}.")
    with tempfile.TemporaryDirectory(prefix="gloam-export-", ignore_cleanup_errors=True) as folder:
        draft = Path(folder) / file.name
        about = export_model(model, draft, kind, modality=modality, takes=takes)
        proof, costs = None, {}
        if precision != "32":
            whole = draft.replace(draft.with_name("whole.onnx"))
            about = write_variant(whole, draft, precision, about, _calibration(model, splits, modality, takes))
            reference = prove(model, load_exported(whole, device=torch.device("cpu")), modality=modality)
            reference.require()
            costs = {"milliseconds_in_32": reference.milliseconds["file"], "bytes_in_32": whole.stat().st_size}
        if draft.suffix in EXPORTED_SUFFIXES:
            exported = load_exported(draft, device=torch.device("cpu"))
            proof = prove(model, exported, modality=modality, splits=splits, precision=precision)
            proof.require()
        with atomic_path(file) as temporary:
            shutil.copyfile(draft, temporary)
        if proof is not None:
            add_proof(file, {**proof.to_dict(), **costs, "file": about})
    return proof


def _calibration(
    model: Model, splits: DatasetSplits | None, modality: ModalityName | None, takes: InputKind
) -> tuple[Tensor, Tensor] | None:
    if splits is None:
        return None
    only = None if modality is None else Modality[modality.upper()]
    found = read_records(model, splits.train, splits, only, CALIBRATION_IMAGES)
    return found if found is None or takes == "uint8" else (normalize(found[0]), found[1])


def add_proof(file: Path, entry: dict[str, Any]) -> None:
    """Put a file's entry into ``proof.json`` beside it; entries of files that are gone or were replaced go."""
    place = file.parent / PROOFS
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    entries = {file.name: {**entry, "sha256": sha256(file), "bytes": file.stat().st_size}}
    for name, other in known.items() if isinstance(known, dict) else ():
        beside = file.parent / Path(name).name
        if name != file.name and beside.is_file() and isinstance(other, dict) and other.get("sha256") == sha256(beside):
            entries[name] = other
    write_text(place, json.dumps(dict(sorted(entries.items())), indent=2) + "\n")
