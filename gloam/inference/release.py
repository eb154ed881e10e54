"""Exported files that are written only with a proof."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from gloam.atomic import atomic_path, write_text
from gloam.datasets.records import DatasetSplits
from gloam.inference.export import ExportFormat, InputKind, export_model
from gloam.inference.exported import EXPORTED_SUFFIXES, load_exported
from gloam.inference.model import Model
from gloam.inference.proof import Proof, prove
from gloam.inference.sources import ModalityName

PROOFS = "proof.json"


def export_with_proof(
    model: Model,
    file: Path,
    kind: ExportFormat,
    *,
    modality: ModalityName | None = None,
    takes: InputKind = "uint8",
    splits: DatasetSplits | None = None,
) -> Proof | None:
    """Export, read back, compare, and only then put the file and ``proof.json`` in place.

    Args:
        model: the model.
        file: file to write; ``proof.json`` is written beside it.
        kind: format; weights alone (safetensors) compute nothing and have no proof.
        modality: the only modality that the file shall take.
        takes: images as uint8, or normalised.
        splits: the run's dataset, if it is at hand.

    Raises:
        GloamError: a missing package, a method that cannot be exported, or a file that computes something else;
            nothing is written then.
    """
    with tempfile.TemporaryDirectory(prefix="gloam-export-") as folder:
        draft = Path(folder) / file.name
        about = export_model(model, draft, kind, modality=modality, takes=takes)
        proof = None
        if draft.suffix in EXPORTED_SUFFIXES:
            exported = load_exported(draft, device=torch.device("cpu"))
            proof = prove(model, exported, modality=modality, splits=splits)
            proof.require()
        with atomic_path(file) as temporary:
            shutil.copyfile(draft, temporary)
        if proof is not None:
            add_proof(file, {**proof.to_dict(), "file": about})
    return proof


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


def sha256(file: Path) -> str:
    """Hexadecimal digest of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
