"""Weights under the names of a method's authors, for their code: written only if reading them back gives the model."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gloam.atomic import atomic_path
from gloam.augmentation.augmenter import normalize
from gloam.errors import GloamError
from gloam.inference.export import example
from gloam.inference.model import Model
from gloam.methods import create_method, get_method, list_methods
from gloam.methods.contract import Method
from gloam.models.weights import WeightReport, load_weights


def write_released(model: Model, file: Path) -> dict[str, Any]:
    """Write the file that the authors' code reads, and prove it.

    The file is read back into a fresh network of other weights: every tensor that decides a feature must come from
    it, nothing in it may be without a place, and features of drawn images of both modalities must be equal to the bit.

    Args:
        model: the model; it is left as it is.
        file: file to write.

    Returns:
        The proof: the three lists of the read-back, and the largest difference of features (0).

    Raises:
        GloamError: the method has no released layout, or what was read back is not the model; nothing is written.
    """
    content = model.method.to_published()
    if content is None:
        offered = [name for name in list_methods() if get_method(name).to_published is not Method.to_published]
        raise GloamError(
            f"{model.recipe.method_name} with these options has no released layout of weights: the names of the "
            f"authors exist for ResNets of {', '.join(offered)}. Export as safetensors instead."
        )
    with tempfile.TemporaryDirectory(prefix="gloam-released-") as folder:
        draft = Path(folder) / file.name
        torch.save({key: _plain(value) for key, value in content.items()}, draft)
        fresh = _fresh(model)
        report = load_weights(fresh, draft)
        difference = _difference(model, fresh)
        if report.unexpected or report.mismatched or difference != 0:
            raise GloamError(
                f"The file does not read back as the model ({report}; features differ by up to {difference:.1e}). "
                "Nothing was written; please report the method and its flags."
            )
        with atomic_path(file) as temporary:
            temporary.write_bytes(draft.read_bytes())
    return {"format": "released", "largest_difference": difference, **_lists(report)}


def _plain(value: Any) -> Any:
    """Parameters without their gradients; dictionaries inside are copied."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _fresh(model: Model) -> Method[Any]:
    """The same network with other weights everywhere, so that nothing stays right by chance."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        options = model.method.options.model_dump(mode="json")
        fresh = create_method(model.recipe.method_name, model.method.num_classes, **options)
        for tensor in fresh.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    fresh.test_feature = model.method.test_feature
    return fresh.eval()


def _difference(model: Model, fresh: Method[Any]) -> float:
    images, modalities = example(model)
    method, was_training = model.method, model.method.training
    method.eval()
    with torch.no_grad():
        ours = method.extract(normalize(images).to(model.device), modalities.to(model.device))
        theirs = fresh.to(model.device).extract(normalize(images).to(model.device), modalities.to(model.device))
    method.train(was_training)
    return float((ours - theirs).abs().max())


def _lists(report: WeightReport) -> dict[str, Any]:
    lists = asdict(report)
    return {
        "loaded": lists["matched"],
        "missing": lists["missing"],  # state of gloam's own, which no feature depends on
        "unexpected": lists["unexpected"],
        "repeated_for_their_code": len(lists["unneeded"]),
    }
