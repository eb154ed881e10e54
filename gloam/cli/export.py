"""Commands that take a model elsewhere: ``gloam export``, ``gloam publish``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from gloam.console import console
from gloam.errors import GloamError

DataRoot = Annotated[Path | None, tyro.conf.arg(name="data.root")]


def export(
    run: Path,
    /,
    output: Path,
    format: Literal["onnx", "torch-export", "safetensors", "released"] = "onnx",
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
        format: onnx (opset 18), torch-export (a program for torch.export.load), safetensors (weights only), released
            (weights under the names of the method's authors, for their code).
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
    from gloam.inference.release import add_proof, export_with_proof
    from gloam.inference.released import write_released

    model = load_model(run, feature=feature, mirror=mirror)
    screen = console()
    if format == "released":
        if (modality, input, precision) != (None, "uint8", "32"):
            raise GloamError("A released file holds all weights: modality, input and precision are for graphs.")
        file = output / "model_released.pth"
        proof_of_names = write_released(model, file)
        add_proof(file, proof_of_names)
        screen.print(f"{file}: {file.stat().st_size:,} bytes", soft_wrap=True, highlight=False)
        missing = ", ".join(proof_of_names["missing"]) or "nothing"
        loaded = len(proof_of_names["loaded"])
        screen.print(
            f"read back: {loaded} tensors, features equal; the layout has no place for: {missing}", highlight=False
        )
        return
    # The run's own folder of data is known; it is asked for where nothing goes without it.
    splits = None if data is None and precision != "int8" else model.load_splits(data)
    file = output / f"model{'' if precision == '32' else f'_{precision}'}{SUFFIXES[format]}"
    proof = export_with_proof(model, file, format, modality=modality, takes=input, precision=precision, splits=splits)
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


def publish(
    run: Path,
    folder: Path,
    /,
    licence: str = "other",
    data: DataRoot = None,
    push: str | None = None,
    public: bool = False,
    force: bool = False,
) -> None:
    """Write a run's weights with a model card, in the layout of a Hugging Face model repository.

    "gloam evaluate", "extract" and the rest take the folder, or hf://OWNER/NAME after --push, in place of a run.

    Example:
        gloam publish runs/sysu_mm01/agw/2026-01-31_12-00-00 agw-sysu --licence cc-by-nc-4.0

    Args:
        run: run folder or checkpoint file.
        folder: where to write model.safetensors, config.json, recipe.yaml, README.md and SHA256SUMS.
        licence: of the weights, as the Hub names it; mind the terms of the training data.
        data: the run's dataset, for its counts in the card; those of the checkpoint if not given.
        push: OWNER/NAME: upload the folder there too (extra "hub"; log in first).
        public: let everybody see a new repository.
        force: publish a run without scores.
    """
    from gloam.inference.hub import push as upload
    from gloam.inference.published import FILES
    from gloam.inference.published import publish as write

    write(run, folder, data_root=data, licence=licence, force=force)
    screen = console()
    for name in FILES:
        screen.print(f"{folder / name}: {(folder / name).stat().st_size:,} bytes", soft_wrap=True, highlight=False)
    if push is not None:
        screen.print(upload(folder, push, public=public), soft_wrap=True, highlight=False)
