"""Finding, verifying, renaming and loading weights. Nothing loads silently: every call returns what matched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from gloam.errors import GloamError
from gloam.models.single_network import SingleNetworkBackbone
from gloam.models.traced import origins, plain, trace
from gloam.models.two_stream import TwoStreamBackbone
from gloam.safe_load import load_safetensors, load_torch_file, plain_tensors

# Heads of MMGL's pretext tasks at the top level of a file; DDAG's own `wpa.fc1...` must stay.
_PRETEXT = ("fc1.", "fc2.", "local_conv_list")
_STEM = ("conv1.", "bn1.")
# What CGRNet's release builds and its own arithmetic cannot use: weights over one source are 1 whatever they are.
_INERT = ("global2local.query_conv.", "global2local.key_conv.")
_WRAPPERS = ("state_dict", "model", "net", "method")
# Batch-norm's step counter: torchvision's ImageNet files are older than it, and nothing here reads it.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class WeightReport:
    """What a load did. Every tensor of the file and every tensor of the module is in one list of its side.

    Attributes:
        source: where the weights came from.
        matched: names of the module that were loaded.
        missing: names of the module that the file lacks (step counters of batch-norm aside); they keep their initial
            values.
        mismatched: names of the module whose shape or kind of numbers differs in the file; they keep their initial
            values.
        used: names of the file that were loaded.
        unexpected: names of the file that have no place in the module, or do not fit it.
        unneeded: names of the file that its own network did not use either (dead layers of a release), and heads of
            pretext tasks.
    """

    source: str
    matched: list[str]
    missing: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    unneeded: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"weights from {self.source}: {len(self.matched)} tensors loaded"]
        for kind in ("missing", "unexpected", "mismatched"):
            names = getattr(self, kind)
            if names:
                lines.append(f"{len(names)} {kind}: {_some(names)}")
        if self.unneeded:
            lines.append(f"{len(self.unneeded)} of the file not needed")
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
    file = read_state(source)
    state = {name.removeprefix("module."): value for name, value in trace(file).items()}
    if callable(rename := getattr(module, "rename_published", None)):
        state = rename(state)
    backbones = _backbones(module)
    own = module.state_dict()
    unneeded = _unneeded(state, own)
    found = _translate({name: value for name, value in state.items() if name not in unneeded}, backbones)
    dead = origins(state[name] for name in unneeded)
    return _apply(module, found, list(file), dead, str(source), [name for name, _ in backbones], minimum)


def load_imagenet(module: nn.Module) -> WeightReport:
    """ImageNet weights for every backbone in ``module``: torchvision V1, or timm's default for its networks.

    Raises:
        GloamError: no published weights for the architecture, or they can neither be found nor downloaded.
    """
    backbones = _backbones(module)
    found: dict[str, Tensor] = {}
    file: list[str] = []
    for prefix, backbone in backbones:
        state = trace(imagenet_state(backbone))
        file += state
        found |= {f"{prefix}{name}": value for name, value in _from_single_network(state, backbone).items()}
    # The classifier of 1,000 things.
    head = set(file) - origins(found.values())
    return _apply(module, found, list(dict.fromkeys(file)), head, "imagenet", [name for name, _ in backbones], 1.0)


def imagenet_state(backbone: nn.Module) -> dict[str, Tensor]:
    """State dict of the published ImageNet network that fits a backbone, under its publisher's names."""
    try:
        if isinstance(backbone, SingleNetworkBackbone):
            return backbone.imagenet_state()
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
    # Reference checkpoints keep numpy results (cmc, mAP) beside the tensors.
    tensors_only = path.suffix == ".safetensors"
    state = _unwrap(load_safetensors(path) if tensors_only else load_torch_file(path, numpy_values=True), path)
    if not state:
        raise GloamError(f"{path} holds no tensors under a known name (looked into {', '.join(_WRAPPERS)}).")
    return state


def to_reference_names(backbone: TwoStreamBackbone, *, whole: bool = False) -> dict[str, Tensor]:
    """State of a two-stream backbone under the names of the AGW, DDAG, MMGL and CGRNet releases.

    A one-stream network exports its stem under both names.

    Args:
        backbone: it is left as it is; the tensors share its memory.
        whole: also the layers that the releases build and never use, so that their code loads the file strictly: each
            of their modules holds a whole ResNet. Dead layers repeat the living ones.
    """
    state = {name: value.detach().cpu() for name, value in backbone.state_dict().items()}
    own_stages = backbone.stem_visible.stages
    if own_stages > 1:
        raise GloamError(
            f"The releases give each modality its first stage at most, not {own_stages}: independent_stages must be 0 "
            "or 1 for a file under their names."
        )
    infrared = "stem_infrared." if backbone.streams == 2 else "stem_visible."
    rules = _reference_rules(["visible_block.base."] if own_stages else [])
    if not own_stages:
        # CGRNet's own modules.
        rules = tuple(rule for rule in rules if "_block." not in rule[0])
    alive: dict[str, Tensor] = {}
    for theirs, own, parts in rules:
        source = infrared if own == "stem_infrared." else own
        for name, value in state.items():
            if name.startswith(tuple(f"{source}{part}" for part in parts)):
                alive[theirs + name.removeprefix(source)] = value
    if not whole:
        return alive
    found: dict[str, Tensor] = {}
    for theirs, own, _ in rules:
        if theirs == "NL_":
            continue
        stem = infrared if own == "stem_infrared." else "stem_visible."
        for source in ("trunk.", stem):
            layers = {n.removeprefix(source): v for n, v in state.items() if n.startswith(source) and ".NL_" not in n}
            found |= {f"{theirs}{name}": value for name, value in layers.items()}
    return found | alive


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    for _ in range(3):
        if not isinstance(content, Mapping):
            return {}
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    return plain_tensors(content, path) if isinstance(content, Mapping) else {}


def _backbones(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """(prefix with a dot or "", backbone) for every backbone inside a module."""
    return [
        (f"{name}." if name else "", child)
        for name, child in module.named_modules()
        if isinstance(child, TwoStreamBackbone | SingleNetworkBackbone)
    ]


def _translate(state: dict[str, Tensor], backbones: list[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """Names of a foreign file to names of our module."""
    if _is_reference(state):
        return _from_reference(state, backbones)
    sources = _source_prefixes(state)
    translated: dict[str, Tensor] = {}
    for prefix, backbone in backbones:
        if isinstance(backbone, SingleNetworkBackbone):
            translated |= _from_network_file(state, prefix, backbone)
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
    taken = origins(translated.values())
    return {name: value for name, value in state.items() if taken.isdisjoint(origins([value]))} | translated


def _from_network_file(state: dict[str, Tensor], prefix: str, backbone: SingleNetworkBackbone) -> dict[str, Tensor]:
    """Any file that holds a single network (its own names, OpenAI's or open_clip's, a run of ours) to our names."""
    if all(f"{prefix}{name}" in state for name in backbone.state_dict()):
        return {}
    return {f"{prefix}{name}": value for name, value in backbone.fit_state(state).items()}


def _source_prefixes(state: Iterable[str]) -> list[str]:
    """Prefixes under which a file may keep its backbone, most specific first."""
    marks = ("trunk.layer1.0.conv1.weight", "layer1.0.conv1.weight")
    found = [name[: name.index(mark)] for mark in marks for name in state if mark in name]
    return list(dict.fromkeys(found))


def _reference_rules(state: Iterable[str]) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """(prefix in a release, prefix in a backbone, what is alive there) for AGW, DDAG, MMGL and CGRNet."""
    own_stages = any(name.startswith("visible_block.base.") for name in state)
    return (
        ("visible_module.visible.", "stem_visible.", _STEM),
        ("thermal_module.thermal.", "stem_infrared.", _STEM),
        ("visible_block.base.", "stem_visible.", ("layer1.",)),
        ("thermal_block.base.", "stem_infrared.", ("layer1.",)),
        ("common_block.base.", "trunk.", ("layer2.",)),
        ("base_resnet.base.", "trunk.", ("layer3.", "layer4.") if own_stages else ("layer",)),
        ("NL_", "trunk.NL_", ("",)),
    )


def _is_reference(state: Iterable[str]) -> bool:
    return any(name.startswith("base_resnet.base.") for name in state)


def _unneeded(state: Mapping[str, Tensor], own: Mapping[str, object]) -> set[str]:
    """Names that no network needs: dead layers of the releases, whose modules hold whole ResNets, and pretext heads."""
    found = {name for name in state if name.startswith(_PRETEXT) and name not in own}
    found |= {name for name in state if any(part in name for part in _INERT) and name not in own}
    if _is_reference(state):
        rules = _reference_rules(state)
        modules = tuple(theirs.split(".")[0] + "." for theirs, _, _ in rules[:-1])
        alive = tuple(f"{theirs}{part}" for theirs, _, parts in rules for part in parts)
        found |= {name for name in state if name.startswith(modules) and not name.startswith(alive)}
    return found


def _from_reference(state: dict[str, Tensor], backbones: list[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """AGW, DDAG, MMGL and CGRNet names to ours."""
    rules = _reference_rules(state)
    theirs_of_backbones = tuple(theirs for theirs, _, _ in rules)
    found = {k: v for k, v in state.items() if not k.startswith(theirs_of_backbones)}
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
    if isinstance(backbone, SingleNetworkBackbone):
        return backbone.rename_state(state)
    renamed = {}
    for name, value in state.items():
        if name.startswith(_STEM):
            renamed[f"stem_visible.{name}"] = value
        elif name.startswith("layer"):
            renamed[f"trunk.{name}"] = value
    return _fit_streams(renamed, backbone) if isinstance(backbone, TwoStreamBackbone) else renamed


def _apply(
    module: nn.Module,
    found: dict[str, Tensor],
    file: list[str],
    dead: Iterable[str],
    source: str,
    backbone_prefixes: list[str],
    minimum: float,
) -> WeightReport:
    """Load what fits, or nothing.

    Args:
        module: what to fill.
        found: name of the module -> traced tensor of the file.
        file: every name of the file.
        dead: those that nobody needs.
        source: for messages.
        backbone_prefixes: where the module's backbones are.
        minimum: share of their tensors that must be there.
    """
    own = module.state_dict()
    tensors = {name: value for name, value in own.items() if isinstance(value, Tensor)}
    known = {name: value for name, value in found.items() if name in tensors}
    matched = {name: value for name, value in known.items() if _fits(value, tensors[name])}
    mismatched = sorted(name for name in known if name not in matched)
    # Inserted blocks (non-local) are no part of the published backbones.
    needed = [n for n in tensors if n.startswith(tuple(backbone_prefixes)) and ".NL_" not in f".{n}"]
    needed = [n for n in needed if not n.endswith(_COUNTER)]
    lacking = [n for n in needed if n not in matched]
    if not needed or len(lacking) > (1 - minimum) * len(needed):
        other = sum(n in mismatched for n in lacking)
        raise GloamError(
            f"{source} lacks {len(lacking) - other} of the backbone's {len(needed)} tensors and has {other} in another "
            f"shape or kind, {_some(lacking)}, so nothing was loaded. The file begins with "
            f"{', '.join(file[:3]) or 'no known names'}. Is it of another architecture, or cut off?"
        )
    module.load_state_dict({name: plain(value) for name, value in matched.items()}, strict=False)
    used, dead = origins(matched.values()), frozenset(dead)
    placed = used | dead | origins(known[name] for name in mismatched)
    return WeightReport(
        source=source,
        matched=sorted(matched),
        missing=sorted(n for n in tensors if n not in known and not n.endswith(_COUNTER)),
        mismatched=mismatched,
        used=sorted(used),
        unexpected=sorted(name for name in file if name not in placed),
        unneeded=sorted(dead - used),
    )


def _fits(value: Tensor, own: Tensor) -> bool:
    return value.shape == own.shape and value.is_floating_point() == own.is_floating_point()
