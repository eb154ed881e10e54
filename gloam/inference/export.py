"""Models as files for other software: ONNX, ``torch.export`` programs and safetensors, each with what it needs to know.

An exported graph takes images of the model's size and modalities, and returns unit features, mirrored if the model
mirrors. Images are uint8, and normalised inside the graph, or arrive normalised (``InputKind``); resizing is never
inside. What a reader needs stands in the file's metadata.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gloam import __version__
from gloam.atomic import atomic_path
from gloam.augmentation.augmenter import IMAGENET_MEAN, IMAGENET_STD, normalize
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.inference.model import Model, weights_digest
from gloam.inference.sources import ModalityName
from gloam.methods.contract import Method
from gloam.recipes.recipe import DataConfig, Recipe

ExportFormat = Literal["onnx", "torch-export", "safetensors"]
InputKind = Literal["uint8", "normalised"]
SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}
METADATA = "gloam"  # name of the JSON text inside every file
METADATA_FORMAT = 1
OPSET = 18
INPUTS, OUTPUT = ("images", "modalities"), "features"
_MOST_ROWS, _MOST_FRAMES = 4096, 512  # bounds that the exporter asks for


class ExportedGraph(nn.Module):
    """What an exported file computes.

    Args:
        method: the network, in evaluation mode.
        mirror: average each image with its mirror image.
        takes: ``uint8`` images, which it normalises, or float32 ones that are ``normalised``.
    """

    def __init__(self, method: Method[Any], mirror: bool, takes: InputKind = "uint8") -> None:
        super().__init__()
        self.mean: Tensor
        self.gain: Tensor
        self.method = method
        self.mirror, self.takes = mirror, takes
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).mul(255).view(3, 1, 1), persistent=False)
        self.register_buffer("gain", torch.tensor(IMAGENET_STD).mul(255).reciprocal().view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        """``(B, 3, H, W)`` or ``(B, T, 3, H, W)`` and ``(B,)`` int64 to ``(B, D)``."""
        normalised = (images.to(torch.float32) - self.mean) * self.gain if self.takes == "uint8" else images
        features = self.method.extract(normalised, modalities)
        if self.mirror:
            features = features + self.method.extract(normalised.flip(-1), modalities)
            features = nn.functional.normalize(features, dim=1, eps=1e-12)
        return features


def export_model(
    model: Model,
    path: Path,
    kind: ExportFormat,
    *,
    modality: ModalityName | None = None,
    takes: InputKind = "uint8",
) -> dict[str, Any]:
    """Write a model in a format of other software, atomically.

    Args:
        model: the model; it is left as it is.
        path: file to write.
        kind: ``onnx`` (opset 18), ``torch-export`` (``torch.export.save``) or ``safetensors`` (weights only).
        modality: leave the other modality's layers out: a smaller and faster graph, which ignores ``modalities``.
        takes: ``uint8`` images, or ``normalised`` ones.

    Returns:
        The metadata in the file.

    Raises:
        GloamError: a missing package, a method that cannot be exported, or a model that is an exported file itself.
    """
    if kind not in SUFFIXES:
        raise GloamError(f"There is no export format {kind!r}. Give {', '.join(SUFFIXES)}.")
    if model.method.takes_pixels:
        raise GloamError(f"{model.name} is an exported file already. Export the run that it was made from.")
    if model.precision != "32":
        raise GloamError(f"Models are exported in precision 32, not {model.precision}.")
    about = metadata(model, modality, takes)
    if kind == "safetensors":
        if modality is not None or takes != "uint8":
            raise GloamError("safetensors holds weights alone: modality and input are for onnx and torch-export.")
        with atomic_path(path) as temporary:
            write_safetensors(model.method, temporary, about)
        return about
    method = copy.deepcopy(model.method).to("cpu").eval()
    for parameter in method.parameters():
        parameter.requires_grad_(False)
    if modality is not None:
        keep_modality(method, Modality[modality.upper()])
    graph = ExportedGraph(method, model.mirror, takes).eval()
    write = _write_onnx if kind == "onnx" else _write_program
    with atomic_path(path) as temporary:
        write(graph, example(model, takes), temporary, about)
    return about


def metadata(model: Model, modality: ModalityName | None = None, takes: InputKind = "uint8") -> dict[str, Any]:
    """What a reader of an exported file must know, as plain JSON values. Folders of this machine stay here."""
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
        "input": takes,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "modalities": {kind.name.lower(): int(kind) for kind in Modality},
        "only_modality": modality,
        "mirror": model.mirror,
        "precision": "32",
        "fingerprint": model.fingerprint.digest,
        "name": Path(model.name).name,
        "weights": weights_digest(model.method.state_dict()),
        "opset": OPSET,
        "recipe": travelling_recipe(model.recipe),
    }


def travelling_recipe(recipe: Recipe) -> dict[str, Any]:
    """The sections of a recipe that say how images reach the model and how it is scored, as plain values.

    What belongs to one machine stays there (data folder, pixel cache), and so does what only training asks for:
    a reader needs none of its plugins.
    """
    content = recipe.model_dump(mode="json", include={"description", "data", "method", "evaluation"})
    defaults = DataConfig(name=recipe.data.name).model_dump(mode="json")
    content["data"] |= {key: defaults[key] for key in ("root", "cache")}
    return {**content, "weights": "none"}


def without_plugins(recipe: Any) -> dict[str, Any]:
    """A recipe from a file of other people: it may not name modules to import."""
    return {key: value for key, value in recipe.items() if key != "plugins"} if isinstance(recipe, dict) else {}


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


def example(model: Model, takes: InputKind = "uint8") -> tuple[Tensor, Tensor]:
    """A batch of three images or clips of both modalities, from which shapes are learned."""
    # Not one frame: the exporter would take it for a constant.
    frames = () if model.recipe.data.frames is None else (max(2, model.recipe.data.frames),)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, *frames, 3, *model.size), generator=generator, dtype=torch.uint8)
    return images if takes == "uint8" else normalize(images), torch.tensor(
        [Modality.VISIBLE, Modality.INFRARED, Modality.VISIBLE]
    )


def _program(graph: nn.Module, inputs: tuple[Tensor, Tensor]) -> torch.export.ExportedProgram:
    rows = torch.export.Dim("batch", min=1, max=_MOST_ROWS)
    axes = {0: rows}
    if inputs[0].ndim == 5:
        axes[1] = torch.export.Dim("frames", min=1, max=_MOST_FRAMES)
    shapes = (axes, {0: rows})
    try:
        with torch.no_grad():
            program = torch.export.export(graph, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        # The exporter raises many kinds; each means that the network depends on its data in a way graphs cannot.
        raise GloamError(f"The network cannot be exported: {str(error).splitlines()[0]}") from error
    _drop_unused(program)
    return program


def _drop_unused(program: torch.export.ExportedProgram) -> None:
    """Leave out what the graph never reads: classifiers, and memories, which hold features of the training images."""
    signature = program.graph_signature
    program.graph.eliminate_dead_code()
    places = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    kept = []
    for spec in signature.input_specs:
        node = places[spec.arg.name]
        if spec.target is None or node.users:
            kept.append(spec)
            continue
        program.graph.erase_node(node)
        for values in (program.state_dict, program.constants):
            values.pop(spec.target, None)
    signature.input_specs[:] = kept
    program.graph_module.recompile()


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
        input_names=list(INPUTS),
        output_names=[OUTPUT],
        dynamo=True,
        verbose=False,
    )
    if written is None:
        raise GloamError("The ONNX exporter gave no program. Export as torch-export instead.")
    proto = written.model_proto
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(about)})
    onnx.save(proto, path, format="protobuf")


def write_safetensors(method: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """All tensors of a network's state, and what is known of it, as JSON in the file's header."""
    from safetensors.torch import save_file

    # Copies: safetensors refuses tensors that share memory.
    tensors = {key: value.detach().cpu().clone() for key, value in method.state_dict().items()}
    save_file(tensors, path, metadata={METADATA: json.dumps(about)})
