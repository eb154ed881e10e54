"""Exported files read back as models: ONNX Runtime or a ``torch.export`` program behind the same ``embed``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gloam.errors import GloamError
from gloam.inference.export import METADATA, METADATA_FORMAT
from gloam.inference.features import Fingerprint
from gloam.inference.model import Model
from gloam.methods.contract import Method, MethodOptions
from gloam.recipes.recipe import validate

EXPORTED_SUFFIXES = (".onnx", ".pt2")


class ExportedMethod(Method[MethodOptions]):
    """A method that is a file: it embeds, and cannot be trained.

    Args:
        about: the file's metadata.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self.features = (about["feature"],)
        super().__init__(about["num_classes"], MethodOptions())
        self._width = int(about["feature_dim"])
        self.is_video = about["frames"] is not None  # type: ignore[misc]  # what a class says of itself, a file says here
        self.takes_pixels = True

    @property
    def feature_dim(self) -> int:
        return self._width


class OnnxMethod(ExportedMethod):
    """A graph in ONNX Runtime, on the CPU.

    Args:
        path: the file.
        about: its metadata.
        session: an open session.
    """

    def __init__(self, about: dict[str, Any], session: Any) -> None:
        super().__init__(about)
        self._session = session
        self._inputs = {entry.name for entry in session.get_inputs()}

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """uint8 images to unit features."""
        given = {"images": images.cpu().numpy(), "modalities": modalities.cpu().numpy().astype(np.int64)}
        (features,) = self._session.run(None, {name: given[name] for name in given if name in self._inputs})
        return torch.from_numpy(features)


class ProgramMethod(ExportedMethod):
    """A ``torch.export`` program.

    Args:
        about: its metadata.
        program: the loaded program.
    """

    def __init__(self, about: dict[str, Any], program: torch.export.ExportedProgram) -> None:
        super().__init__(about)
        self.graph = program.module()

    def train(self, mode: bool = True) -> ProgramMethod:
        """A program is always in evaluation mode."""
        self.training = False
        return self

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """uint8 images to unit features."""
        return torch.as_tensor(self.graph(images, modalities))


def load_exported(path: Path, *, device: torch.device) -> Model:
    """An exported file as a model, with the fingerprint of the model that it was made from.

    Args:
        path: ``.onnx`` or ``.pt2``.
        device: where a program computes; ONNX files compute on the CPU.

    Raises:
        GloamError: no such file, not one that gloam exported, or a missing package.
    """
    if not path.is_file():
        raise GloamError(f"There is no exported model {path}.")
    method: ExportedMethod
    if path.suffix == ".onnx":
        about, session = _open_onnx(path)
        method = OnnxMethod(about, session)
    else:
        about, program = _open_program(path)
        method = ProgramMethod(about, program)
        method.to(device)
    recipe = validate(about["recipe"], str(path))
    fingerprint = Fingerprint(about["fingerprint"], str(path))
    # Mirroring happens inside the graph.
    return Model(method.eval(), recipe, name=str(path), mirror=False, fingerprint=fingerprint)


def read_metadata(text: str | None, path: Path) -> dict[str, Any]:
    """The metadata of an exported file.

    Raises:
        GloamError: none, damaged, or of a newer version.
    """
    try:
        about = json.loads(text or "")
        version = about["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise GloamError(f"{path} was not exported by gloam: it does not say how images reach it.") from error
    if version != METADATA_FORMAT:
        raise GloamError(f"{path} was exported by gloam {about.get('gloam')}, whose format this version cannot read.")
    return dict(about)


def _open_onnx(path: Path) -> tuple[dict[str, Any], Any]:
    try:
        import onnxruntime
    except ImportError as error:
        raise GloamError('Running ONNX files needs ONNX Runtime: pip install "gloam[onnx]".') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime raises kinds of its own for damaged files; each means the same to a user.
        raise GloamError(f"{path} could not be read ({str(error).splitlines()[0]}). Export the run again.") from error
    return read_metadata(session.get_modelmeta().custom_metadata_map.get(METADATA), path), session


def _open_program(path: Path) -> tuple[dict[str, Any], torch.export.ExportedProgram]:
    extra: dict[str, Any] = {METADATA: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GloamError(f"{path} could not be read ({reason}). Export the run again.") from error
    return read_metadata(extra[METADATA], path), program
