"""Models as files for other software: ONNX, ``torch.export`` programs and safetensors, each with what it needs to know.

An exported graph takes uint8 images of the model's size (normalisation is inside, resizing is not) and modalities, and
returns unit features, mirrored if the model mirrors. What a reader needs stands in the file's metadata.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gloam import __version__
from gloam.atomic import atomic_path
from gloam.augmentation.augmenter import IMAGENET_MEAN, IMAGENET_STD
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.inference.model import Model, weights_digest
from gloam.inference.sources import ModalityName
from gloam.methods.contract import Method

ExportFormat = Literal["onnx", "torch-export", "safetensors"]
SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}
METADATA = "gloam"  # name of the JSON text inside every file
METADATA_FORMAT = 1
OPSET = 18
_INPUTS, _OUTPUT = ("images", "modalities"), "features"


class ExportedGraph(nn.Module):
    """What an exported file computes.

    Args:
        method: the network, in evaluation mode.
        mirror: average each image with its mirror image.
    """

    def __init__(self, method: Method[Any], mirror: bool) -> None:
        super().__init__()
        self.mean: Tensor
        self.gain: Tensor
        self.method = method
        self.mirror = mirror
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).mul(255).view(3, 1, 1), persistent=False)
        self.register_buffer("gain", torch.tensor(IMAGENET_STD).mul(255).reciprocal().view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        """uint8 ``(B, 3, H, W)`` or ``(B, T, 3, H, W)`` and ``(B,)`` int64 to ``(B, D)``."""
        normalised = (images.to(torch.float32) - self.mean) * self.gain
        features = self.method.extract(normalised, modalities)
        if self.mirror:
            features = features + self.method.extract(normalised.flip(-1), modalities)
            features = nn.functional.normalize(features, dim=1, eps=1e-12)
        return features


def export_model(
    model: Model, path: Path, kind: ExportFormat, *, modality: ModalityName | None = None
) -> dict[str, Any]:
    """Write a model in a format of other software, atomically.

    Args:
        model: the model; it is left as it is.
        path: file to write.
        kind: ``onnx`` (opset 18), ``torch-export`` (``torch.export.save``) or ``safetensors`` (weights only).
        modality: leave the other modality's layers out: a smaller and faster graph, which ignores ``modalities``.

    Returns:
        The metadata in the file.

    Raises:
        GloamError: a missing package, or a method that cannot be exported.
    """
    method = copy.deepcopy(model.method).to("cpu").eval()
    for parameter in method.parameters():
        parameter.requires_grad_(False)
    if modality is not None:
        keep_modality(method, Modality[modality.upper()])
    about = metadata(model, modality)
    writers: dict[ExportFormat, Callable[[Path], None]] = {
        "onnx": lambda file: _write_onnx(ExportedGraph(method, model.mirror).eval(), example(model), file, about),
        "torch-export": lambda file: _write_program(
            ExportedGraph(method, model.mirror).eval(), example(model), file, about
        ),
        "safetensors": lambda file: _write_safetensors(method, file, about),
    }
    if kind not in writers:
        raise GloamError(f"There is no export format {kind!r}. Give {', '.join(writers)}.")
    with atomic_path(path) as temporary:
        writers[kind](temporary)
    return about


def metadata(model: Model, modality: ModalityName | None = None) -> dict[str, Any]:
    """What a reader of an exported file must know, as plain JSON values."""
    height, width = model.size
    data = model.recipe.data
    return {
        "format": METADATA_FORMAT,
        "gloam": __version__,
        "torch": torch.__version__,
        "method": model.recipe.method_name,
        "options": model.method.options.model_dump(mode="json"),
        "feature": model.feature,
        "feature_dim": model.feature_dim,
        "num_classes": model.method.num_classes,
        "height": height,
        "width": width,
        "interpolation": data.interpolation,
        "frames": data.frames,
        "colour_order": "RGB",
        "input": "uint8",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "modalities": {kind.name.lower(): int(kind) for kind in Modality},
        "only_modality": modality,
        "mirror": model.mirror,
        "precision": "32",
        "fingerprint": model.fingerprint.digest,
        "name": model.name,
        "weights": weights_digest(model.method.state_dict()),
        "opset": OPSET,
        "recipe": model.recipe.model_dump(mode="json"),
    }


def keep_modality(method: nn.Module, modality: Modality) -> None:
    """Replace every pair of stems by the one of a modality, in place."""
    for module in method.modules():
        if isinstance(getattr(module, "stem_infrared", None), nn.Module):
            _keep(module, "stem_visible", "stem_infrared", modality)
        elif isinstance(getattr(module, "infrared", None), nn.Module) and hasattr(module, "visible"):
            _keep(module, "visible", "infrared", modality)


def _keep(module: nn.Module, visible: str, infrared: str, modality: Modality) -> None:
    if modality == Modality.INFRARED:
        setattr(module, visible, getattr(module, infrared))
    setattr(module, infrared, None)


def example(model: Model) -> tuple[Tensor, Tensor]:
    """A batch of three images or clips of both modalities, from which shapes are learned."""
    frames = () if model.recipe.data.frames is None else (model.recipe.data.frames,)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, *frames, 3, *model.size), generator=generator, dtype=torch.uint8)
    return images, torch.tensor([Modality.VISIBLE, Modality.INFRARED, Modality.VISIBLE])


def _program(graph: nn.Module, inputs: tuple[Tensor, Tensor]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=4096)
    shapes = ({0: batch}, {0: batch})
    try:
        with torch.no_grad():
            return torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        # The exporter raises many kinds; each means that the network depends on its data in a way graphs cannot.
        raise GloamError(f"The network cannot be exported: {str(error).splitlines()[0]}") from error


def _write_program(graph: nn.Module, inputs: tuple[Tensor, Tensor], path: Path, about: dict[str, Any]) -> None:
    with path.open("wb") as file:
        torch.export.save(_program(graph, inputs), file, extra_files={METADATA: json.dumps(about)})


def _write_onnx(graph: nn.Module, inputs: tuple[Tensor, Tensor], path: Path, about: dict[str, Any]) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401  (the exporter needs it)
    except ImportError as error:
        raise GloamError('Exporting to ONNX needs onnx and onnxscript: pip install "gloam[onnx]".') from error
    written = torch.onnx.export(
        _program(graph, inputs),
        opset_version=OPSET,
        input_names=list(_INPUTS),
        output_names=[_OUTPUT],
        dynamo=True,
        verbose=False,
    )
    if written is None:
        raise GloamError("The ONNX exporter gave no program. Export as torch-export instead.")
    proto = written.model_proto
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(about)})
    onnx.save(proto, path, format="protobuf")


def _write_safetensors(method: nn.Module, path: Path, about: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    tensors = {key: value.contiguous() for key, value in method.state_dict().items() if isinstance(value, Tensor)}
    save_file(tensors, path, metadata={METADATA: json.dumps(about)})
