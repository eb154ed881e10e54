"""Exported files read back as models: ONNX Runtime or a ``torch.export`` program behind the same ``embed``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.inference.export import METADATA, read_metadata, without_plugins
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
        self.takes_pixels = about["input"] == "uint8"
        self._only = None if about["only_modality"] is None else Modality[about["only_modality"].upper()]

    @property
    def feature_dim(self) -> int:
        return self._width

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Images as the file takes them to unit features.

        Raises:
            GloamError: images of a modality whose layers were left out of the file.
        """
        if self._only is not None and not bool((modalities == self._only).all()):
            raise GloamError(
                f"This file takes {self._only.name.lower()} images only: it was exported with --modality "
                f"{self._only.name.lower()}. Export the run without --modality for both."
            )
        return self._run(images, modalities)

    def _run(self, images: Tensor, modalities: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must run its file")


class OnnxMethod(ExportedMethod):
    """A graph in ONNX Runtime, on the CPU.

    Args:
        about: the file's metadata.
        session: an open session.
    """

    def __init__(self, about: dict[str, Any], session: Any) -> None:
        super().__init__(about)
        self._session = session
        self._exact = about["precision"] == "32"
        self._inputs = {entry.name for entry in session.get_inputs()}

    def _run(self, images: Tensor, modalities: Tensor) -> Tensor:
        given = {"images": images.cpu().numpy(), "modalities": modalities.cpu().numpy().astype(np.int64)}
        (features,) = self._session.run(None, {name: given[name] for name in given if name in self._inputs})
        vectors = torch.from_numpy(features)
        # Half precision leaves lengths that differ from 1 by 5e-4, and a ranking by products would follow them.
        return vectors if self._exact else torch.nn.functional.normalize(vectors, dim=1, eps=1e-12)


class ProgramMethod(ExportedMethod):
    """A ``torch.export`` program.

    Args:
        about: the file's metadata.
        program: the loaded program.
    """

    def __init__(self, about: dict[str, Any], program: torch.export.ExportedProgram) -> None:
        super().__init__(about)
        self.graph = program.module()

    def train(self, mode: bool = True) -> ProgramMethod:
        """A program is always in evaluation mode."""
        self.training = False
        return self

    def _run(self, images: Tensor, modalities: Tensor) -> Tensor:
        return torch.as_tensor(self.graph(images, modalities))


def load_exported(path: Path, *, device: torch.device) -> Model:
    """An exported file as a model, with the fingerprint of the model that it was made from.

    ONNX files hold numbers only. A ``torch.export`` program is a program: its tensors are read without pickle, but it
    may call any function of PyTorch, so open only those of people you trust.

    Args:
        path: ``.onnx`` or ``.pt2``.
        device: where a program computes (it was exported on the CPU and is moved); ONNX files compute on the CPU.

    Raises:
        GloamError: no such file, not one that gloam exported, or a missing package.
    """
    if not path.is_file():
        raise GloamError(f"There is no exported model {path}.")
    open_file = _open_onnx if path.suffix == ".onnx" else _open_program
    about, runnable = open_file(path, device)
    try:
        method = (OnnxMethod if path.suffix == ".onnx" else ProgramMethod)(about, runnable)
        fingerprint = Fingerprint(about["fingerprint"], str(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GloamError(f"The metadata of {path} are incomplete ({error}). Export the run again.") from error
    recipe = validate(without_plugins(about.get("recipe")), str(path))
    # Mirroring happens inside the graph.
    return Model(method.eval(), recipe, name=str(path), mirror=False, fingerprint=fingerprint)


def _open_onnx(path: Path, device: torch.device) -> tuple[dict[str, Any], Any]:
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


def _open_program(path: Path, device: torch.device) -> tuple[dict[str, Any], torch.export.ExportedProgram]:
    from torch.export.passes import move_to_device_pass

    extra: dict[str, Any] = {METADATA: ""}
    try:
        with _tensors_only():
            program = torch.export.load(path, extra_files=extra)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GloamError(f"{path} could not be read ({reason}). Export the run again.") from error
    about = read_metadata(extra[METADATA], path)
    return about, program if device.type == "cpu" else move_to_device_pass(program, str(device))


@contextmanager
def _tensors_only() -> Iterator[None]:
    """PyTorch reads tensors inside a program's archive without building objects of its author.

    Without this it falls back to pickle, which runs what the author wrote.
    """
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
