"""Trained models from runs, checkpoints and exported files."""

from __future__ import annotations

import re
from pathlib import Path

from gloam.devices import choose_device
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint, choose_feature, find_checkpoint, restore_method
from gloam.inference.exported import EXPORTED_SUFFIXES, load_exported
from gloam.inference.hub import PREFIX, download
from gloam.inference.model import Model, Precision
from gloam.inference.published import is_published, load_published


def load_model(
    run: str | Path,
    *,
    device: str = "cpu",
    feature: str | None = None,
    mirror: bool | None = None,
    precision: Precision = "32",
) -> Model:
    """A trained model in evaluation mode.

    Args:
        run: run folder (its best checkpoint, else its last), checkpoint file, a file that ``gloam export`` wrote
            (``.onnx``, ``.pt2``, whose feature, mirroring and precision are fixed, or ``.safetensors``), a folder that
            ``gloam publish`` wrote, or ``hf://OWNER/NAME`` (``@REVISION``), which is downloaded and verified.
        device: where to put it: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` ...
        feature: one of the method's features; the recipe's, else the method's default, if not given.
        mirror: average each image with its mirror image; the recipe's choice if not given.
        precision: arithmetic of the forward pass.

    Raises:
        GloamError: no checkpoint, one that cannot be read or does not fit, or an unknown feature.
    """
    if Path(run).suffix in EXPORTED_SUFFIXES:
        if (feature, mirror, precision) != (None, None, "32"):
            raise GloamError(f"{run} is an exported model, whose feature, mirroring and precision are fixed.")
        return load_exported(Path(run), device=choose_device(device))
    # A path collapses the two slashes of an address.
    if (address := re.sub(r"^hf:/+", PREFIX, str(run))).startswith(PREFIX):
        folder = download(address)
        model = load_published(folder, name=address, feature=feature, mirror=mirror, precision=precision)
        return model.to(device)
    if is_published(Path(run)):
        return load_published(Path(run), feature=feature, mirror=mirror, precision=precision).to(device)
    path = find_checkpoint(run)
    checkpoint = Checkpoint.load(path)
    method = restore_method(checkpoint, str(path))
    if feature is not None:
        choose_feature(method, feature)
    method.to(choose_device(device)).eval()
    return Model(method, checkpoint.stage_recipe(), name=str(run), mirror=mirror, precision=precision)
