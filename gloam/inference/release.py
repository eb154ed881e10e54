"""Exported files that are written only with a proof."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from gloam.atomic import write_text
from gloam.datasets.records import DatasetSplits
from gloam.errors import WriteError, describe, write_failure
from gloam.inference.export import ExportFormat, export_model
from gloam.inference.exported import EXPORTED_SUFFIXES, load_exported
from gloam.inference.model import Model
from gloam.inference.proof import Proof, prove
from gloam.inference.sources import ModalityName


def export_with_proof(
    model: Model,
    file: Path,
    kind: ExportFormat,
    *,
    modality: ModalityName | None = None,
    splits: DatasetSplits | None = None,
) -> Proof | None:
    """Export, read back, compare, and only then put the file and ``proof.json`` in place.

    Args:
        model: the model.
        file: file to write; ``proof.json`` is written beside it.
        kind: format; weights alone (safetensors) compute nothing and have no proof.
        modality: the only modality that the file shall take.
        splits: the run's dataset, if it is at hand.

    Raises:
        GloamError: a missing package, a method that cannot be exported, or a file that computes something else;
            nothing is written then.
        WriteError: the disk takes no more; nothing is written then.
    """
    try:
        return _write_and_prove(model, file, kind, modality, splits)
    except Exception as error:
        failure = write_failure(error)
        if failure is None:
            raise
        raise WriteError(f"{describe(failure, file)} Nothing was written.", failure.errno) from error


def _write_and_prove(
    model: Model, file: Path, kind: ExportFormat, modality: ModalityName | None, splits: DatasetSplits | None
) -> Proof | None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # A file system that has failed may not let go of the draft either; the first error is the one to tell.
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".export-", ignore_cleanup_errors=True) as folder:
        draft = Path(folder) / file.name
        about = export_model(model, draft, kind, modality=modality)
        proof = None
        if draft.suffix in EXPORTED_SUFFIXES:
            exported = load_exported(draft, device=torch.device("cpu"))
            proof = prove(model, exported, modality=modality, splits=splits)
            proof.require()
            write_text(file.parent / "proof.json", json.dumps({**proof.to_dict(), "file": about}, indent=2))
        draft.replace(file)
    return proof
