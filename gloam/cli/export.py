"""Commands that take a model elsewhere: ``gloam export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from gloam.console import console

DataRoot = Annotated[Path | None, tyro.conf.arg(name="data.root")]


def export(
    run: Path,
    /,
    output: Path,
    format: Literal["onnx", "torch-export", "safetensors"] = "onnx",
    modality: Literal["visible", "infrared"] | None = None,
    input: Literal["uint8", "normalised"] = "uint8",
    precision: Literal["32", "fp16", "int8"] = "32",
    feature: str | None = None,
    mirror: bool | None = None,
    data: DataRoot = None,
) -> None:
    """Write a trained model for other software, with proof that the file computes the same.

    The graph takes modalities and images of the model's size: uint8, unless --input says otherwise. "gloam extract",
    "evaluate" and the rest take the file in place of a run.

    Example:
        gloam export runs/sysu_mm01/agw/2026-01-31_12-00-00 --output exported --format onnx

    Args:
        run: run folder or checkpoint file.
        output: folder for model.onnx (model_int8.onnx, .pt2, .safetensors) and proof.json.
        format: onnx (opset 18), torch-export (a program for torch.export.load), safetensors (weights only).
        modality: the only modality that the file shall take: a smaller and faster graph.
        input: uint8 images, normalised inside the graph, or float32 images that are normalised already.
        precision: fp16, int8 (calibrated on training images: needs the dataset): smaller ONNX files, which are a space
            of their own; proof.json says what they cost and bring.
        feature: which of the method's features (AGW: fc, pool); the recipe's if not given.
        mirror: average each image with its mirror image inside the graph; the recipe's choice if not given.
        data: the run's dataset: its test set is then scored with both, and images of it are compared.
    """
    from gloam.inference.export import SUFFIXES
    from gloam.inference.loading import load_model
    from gloam.inference.release import export_with_proof

    model = load_model(run, feature=feature, mirror=mirror)
    # The run's own folder of data is known; it is asked for where nothing goes without it.
    splits = None if data is None and precision != "int8" else model.load_splits(data)
    file = output / f"model{'' if precision == '32' else f'_{precision}'}{SUFFIXES[format]}"
    proof = export_with_proof(model, file, format, modality=modality, takes=input, precision=precision, splits=splits)
    screen = console()
    screen.print(f"{file}: {file.stat().st_size:,} bytes", soft_wrap=True, highlight=False)
    if proof is None:
        return
    screen.print(
        f"least cosine {proof.least_cosine:.7f}, largest difference {proof.largest_difference:.1e} over {proof.rows} "
        f"images ({proof.real_images} real); milliseconds an image: model {proof.milliseconds['model']:.2f}, file "
        f"{proof.milliseconds['file']:.2f}",
        highlight=False,
    )
    for protocol, scores in proof.scores.items():
        told = ", ".join(f"{name} {100 * s['rank1']:.2f} / {100 * s['mAP']:.2f}" for name, s in scores.items())
        screen.print(f"{protocol}: rank-1 / mAP {told}", highlight=False)
    if proof.top1_changed is not None:
        screen.print(f"{100 * proof.top1_changed:.1f} % of queries find another nearest image", highlight=False)
    screen.print(f"{output / 'proof.json'}", soft_wrap=True, highlight=False)
