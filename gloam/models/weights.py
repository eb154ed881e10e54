"""Finding, verifying, renaming and loading weights. Nothing loads silently: every call returns what matched."""

from __future__ import annotations

import importlib
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gloam.checksums import damaged_part
from gloam.errors import GloamError
from gloam.models.timm_backbone import TimmBackbone
from gloam.models.two_stream import TwoStreamBackbone

# Heads of MMGL's pretext tasks at the top level of a file; DDAG's own `wpa.fc1...` must stay.
_PRETEXT = ("fc1.", "fc2.", "local_conv_list")
_STEM = ("conv1.", "bn1.")
_WRAPPERS = ("state_dict", "model", "net", "method")
# Batch-norm's step counter: torchvision's ImageNet files are older than it, and nothing here reads it.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class WeightReport:
    """What a load did.

    Attributes:
        source: where the weights came from.
        matched: names loaded.
        missing: names of the module that the file lacks (step counters of batch-norm aside); they keep their initial
            values.
        unexpected: names of the file that the module lacks.
        mismatched: names whose shapes differ; they keep their initial values.
    """

    source: str
    matched: list[str]
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"weights from {self.source}: {len(self.matched)} tensors loaded"]
        for kind in ("missing", "unexpected", "mismatched"):
            names = getattr(self, kind)
            if names:
                lines.append(f"{len(names)} {kind}: {_some(names)}")
        return "; ".join(lines)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def load_weights(module: nn.Module, source: str | Path, *, minimum: float = 1.0) -> WeightReport:
    """Initialise a network (not resume a run).

    Args:
        module: a method, or anything that contains a backbone.
        source: ``imagenet``, or a file (.pth, .pt, .t, .ckpt, .safetensors) or run folder of an earlier training. Files
            may be wrapped under ``state_dict``, ``net`` or ``model``, carry ``module.`` prefixes, or use the names of
            the AGW, DDAG, MMGL and CGRNet releases, or those that the method itself renames.
        minimum: fraction of the backbone's tensors that must match; step counters of batch-norm and inserted non-local
            blocks are not asked for.

    Returns:
        What was and was not loaded.

    Raises:
        GloamError: no such file, an unreadable file, or too little of the backbone in it.
    """
    if str(source) == "imagenet":
        return load_imagenet(module)
    state = read_state(source)
    if callable(rename := getattr(module, "rename_published", None)):
        state = rename(state)
    backbones = _backbones(module)
    found = _translate(state, backbones)
    return _apply(module, found, str(source), [name for name, _ in backbones], minimum)


def load_imagenet(module: nn.Module) -> WeightReport:
    """ImageNet weights for every backbone in ``module``: torchvision V1, or timm's default for its networks.

    Raises:
        GloamError: no published weights for the architecture, or they can neither be found nor downloaded.
    """
    backbones = _backbones(module)
    found: dict[str, Tensor] = {}
    for prefix, backbone in backbones:
        state = imagenet_state(backbone)
        found |= {f"{prefix}{name}": value for name, value in _from_single_network(state, backbone).items()}
    return _apply(module, found, "imagenet", [name for name, _ in backbones], 1.0)


def imagenet_state(backbone: nn.Module) -> dict[str, Tensor]:
    """State dict of the published ImageNet network that fits a backbone, under its publisher's names."""
    try:
        if isinstance(backbone, TimmBackbone):
            import timm

            network = timm.create_model(backbone.name, pretrained=True, num_classes=0)
            return dict(network.state_dict())
        from torchvision.models import get_model_weights

        arch = str(getattr(backbone, "arch", ""))
        if arch.endswith("_ibn_a"):
            raise GloamError(
                f"ImageNet weights of {arch} are not part of torchvision. Get the file of the IBN-Net authors and pass "
                "its path as weights."
            )
        try:
            entry = get_model_weights(arch)["IMAGENET1K_V1"]
        except (ValueError, KeyError) as error:
            raise GloamError(f"There are no published ImageNet weights for {arch!r}. Use weights: none.") from error
        return dict(entry.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise GloamError(
            f"ImageNet weights are neither in {folder} nor could they be downloaded ({error}). Put the file there, "
            "pass its path as weights, or train from random weights with weights: none."
        ) from error


def read_state(source: str | Path) -> dict[str, Tensor]:
    """Flat state dict of a weight file or of a run's newest checkpoint, on the CPU, without executing code from it.

    Raises:
        GloamError: missing or unreadable file, or one without tensors.
    """
    path = Path(source)
    if path.is_dir():
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        candidates = [p for name in ("best", "last", "model") for p in sorted(folder.glob(f"{name}.*"))]
        if not candidates:
            raise GloamError(f"{path} holds no checkpoint (looked for best.*, last.*, model.* in {folder}).")
        path = candidates[0]
    if not path.is_file():
        raise GloamError(
            f"There is no weight file {path}. Check the path; training does not start from random weights."
        )
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    state = _unwrap(content)
    if not state:
        raise GloamError(f"{path} holds no tensors under a known name (looked into {', '.join(_WRAPPERS)}).")
    return state


def to_reference_names(backbone: TwoStreamBackbone) -> dict[str, Tensor]:
    """State of a two-stream backbone under the names of the AGW, DDAG and MMGL releases.

    A one-stream network exports its stem under both names.
    """
    state = backbone.state_dict()
    renamed: dict[str, Tensor] = {}
    infrared = "stem_infrared." if backbone.streams == 2 else "stem_visible."
    for own, theirs in (
        ("stem_visible.", "visible_module.visible."),
        (infrared, "thermal_module.thermal."),
        ("trunk.layer", "base_resnet.base.layer"),
        ("trunk.NL_", "NL_"),
    ):
        renamed |= {theirs + k.removeprefix(own): v.cpu() for k, v in state.items() if k.startswith(own)}
    return renamed


def _read_safetensors(path: Path) -> Mapping[str, object]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise GloamError(f"{path} is not a complete safetensors file ({error}). Copy it again.") from error


def _read_torch(path: Path) -> object:
    # Reference checkpoints keep numpy results (cmc, mAP) beside the tensors; these few types are safe.
    internals = importlib.import_module("numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray")
    allowed = [np.ndarray, np.dtype, internals.scalar, internals._reconstruct]
    allowed += [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32")]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
        # Other software's files need not have valid checksums; ours do.
        damaged = damaged_part(path) if isinstance(content, dict) and "gloam" in content else None
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or ["it is empty or cut off"])[0]
        raise GloamError(
            f"{path} could not be read as weights ({reason}). It may be cut off, of another "
            "format, or hold objects other than tensors; export it again as a plain state dict."
        ) from error
    if damaged:
        raise GloamError(f"{path} is damaged: the checksum of {damaged} is wrong. Use another checkpoint of the run.")
    return content


def _unwrap(content: object) -> dict[str, Tensor]:
    for _ in range(3):
        if not isinstance(content, Mapping):
            return {}
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    return {name.removeprefix("module."): value for name, value in state.items()}


def _backbones(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """(prefix with a dot or "", backbone) for every backbone inside a module."""
    return [
        (f"{name}." if name else "", child)
        for name, child in module.named_modules()
        if isinstance(child, TwoStreamBackbone | TimmBackbone)
    ]


def _translate(state: dict[str, Tensor], backbones: list[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """Names of a foreign file to names of our module."""
    state = {name: value for name, value in state.items() if not name.startswith(_PRETEXT)}
    if any(name.startswith("base_resnet.base.") for name in state):
        return _from_reference(state, backbones)
    sources = _source_prefixes(state)
    translated: dict[str, Tensor] = {}
    for prefix, backbone in backbones:
        if isinstance(backbone, TimmBackbone):
            translated |= _from_timm_file(state, prefix, backbone)
            continue
        for source in sources:
            part = {k.removeprefix(source): v for k, v in state.items() if k.startswith(source)}
            if isinstance(backbone, TwoStreamBackbone) and "trunk.layer1.0.conv1.weight" in part:
                # Another method of ours.
                translated |= {f"{prefix}{k}": v for k, v in _fit_streams(part, backbone).items()}
                break
            if "layer1.0.conv1.weight" in part:
                translated |= {f"{prefix}{k}": v for k, v in _from_single_network(part, backbone).items()}
                break
    # What no backbone took keeps its name: heads of the same method, or something to report as unexpected.
    taken = {id(value) for value in translated.values()}
    return {name: value for name, value in state.items() if id(value) not in taken} | translated


def _from_timm_file(state: dict[str, Tensor], prefix: str, backbone: TimmBackbone) -> dict[str, Tensor]:
    """Any file that holds a timm network (timm's, OpenAI's or open_clip's names, a run of ours) to our names."""
    if all(f"{prefix}{name}" in state for name in backbone.state_dict()):
        return {}
    return {f"{prefix}{name}": value for name, value in backbone.fit_state(state).items()}


def _source_prefixes(state: Iterable[str]) -> list[str]:
    """Prefixes under which a file may keep its backbone, most specific first."""
    marks = ("trunk.layer1.0.conv1.weight", "layer1.0.conv1.weight")
    found = [name[: name.index(mark)] for mark in marks for name in state if mark in name]
    return list(dict.fromkeys(found))


def _from_reference(state: dict[str, Tensor], backbones: list[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """AGW, DDAG, MMGL and CGRNet names; modules of the releases hold whole ResNets of which most is dead weight."""
    own_stages = any(name.startswith("visible_block.base.") for name in state)
    rules = (
        ("visible_module.visible.", "stem_visible.", _STEM),
        ("thermal_module.thermal.", "stem_infrared.", _STEM),
        ("visible_block.base.", "stem_visible.", ("layer1.",)),
        ("thermal_block.base.", "stem_infrared.", ("layer1.",)),
        ("common_block.base.", "trunk.", ("layer2.",)),
        ("base_resnet.base.", "trunk.", ("layer3.", "layer4.") if own_stages else ("layer",)),
        ("NL_", "trunk.NL_", ("",)),
    )
    modules = tuple(theirs.split(".")[0] + "." for theirs, _, _ in rules[:-1])
    found = {k: v for k, v in state.items() if not k.startswith(modules)}
    for prefix, backbone in backbones:
        part: dict[str, Tensor] = {}
        for theirs, own, keep in rules:
            for name, value in state.items():
                rest = name.removeprefix(theirs)
                if name.startswith(theirs) and rest.startswith(keep):
                    part[f"{own}{rest}"] = value
        if isinstance(backbone, TwoStreamBackbone):
            part = _fit_streams(part, backbone)
        found |= {f"{prefix}{k}": v for k, v in part.items()}
        owner = prefix.removesuffix("backbone.")
        for head in ("bottleneck.", "classifier."):
            found |= {f"{owner}{k}": found.pop(k) for k in list(found) if k.startswith(head)}
    return found


def _fit_streams(part: dict[str, Tensor], backbone: TwoStreamBackbone) -> dict[str, Tensor]:
    """Fill what a two-stream backbone has more than once: stems from a one-stream file, stages kept by each stream."""
    part = dict(part)
    for number in range(1, backbone.stem_visible.stages + 1):
        for name in [n for n in part if n.startswith(f"trunk.layer{number}.")]:
            value = part.pop(name)
            part.setdefault(name.replace("trunk", "stem_visible"), value)
            if any(n.startswith("stem_infrared.") for n in part):
                part.setdefault(name.replace("trunk", "stem_infrared"), value)
    if "stem_infrared.conv1.weight" not in part:
        visible = {k: v for k, v in part.items() if k.startswith("stem_visible.")}
        part |= {k.replace("stem_visible", "stem_infrared"): v for k, v in visible.items()}
    return part if backbone.streams == 2 else {k: v for k, v in part.items() if not k.startswith("stem_infrared.")}


def _from_single_network(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Names of one plain network (torchvision, timm) to names of a backbone, the stem copied to every stream."""
    if isinstance(backbone, TimmBackbone):
        return backbone.rename_state(state)
    renamed = {}
    for name, value in state.items():
        if name.startswith(_STEM):
            renamed[f"stem_visible.{name}"] = value
        elif name.startswith("layer"):
            renamed[f"trunk.{name}"] = value
    return _fit_streams(renamed, backbone) if isinstance(backbone, TwoStreamBackbone) else renamed


def _apply(
    module: nn.Module, found: dict[str, Tensor], source: str, backbone_prefixes: list[str], minimum: float
) -> WeightReport:
    own = module.state_dict()
    tensors = {name: value for name, value in own.items() if isinstance(value, Tensor)}
    matched = {n: v for n, v in found.items() if n in tensors and tensors[n].shape == v.shape}
    mismatched = sorted(n for n, v in found.items() if n in tensors and tensors[n].shape != v.shape)
    # Inserted blocks (non-local) are no part of the published backbones.
    needed = [n for n in tensors if n.startswith(tuple(backbone_prefixes)) and ".NL_" not in f".{n}"]
    needed = [n for n in needed if not n.endswith(_COUNTER)]
    lacking = [n for n in needed if n not in matched]
    if not needed or len(lacking) > (1 - minimum) * len(needed):
        other = sum(n in mismatched for n in lacking)
        raise GloamError(
            f"{source} lacks {len(lacking) - other} of the backbone's {len(needed)} tensors and has {other} in another "
            f"shape, {_some(lacking)}, so nothing was loaded. The file begins with "
            f"{', '.join(sorted(found)[:3]) or 'no known names'}. Is it of another architecture, or cut off?"
        )
    module.load_state_dict(matched, strict=False)
    return WeightReport(
        source=source,
        matched=sorted(matched),
        missing=sorted(n for n in tensors if n not in matched and n not in mismatched and not n.endswith(_COUNTER)),
        unexpected=sorted(n for n in found if n not in tensors),
        mismatched=mismatched,
    )
