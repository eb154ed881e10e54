"""Smaller ONNX files: half precision, and 8-bit integers calibrated on training images.

A variant's features are close to the model's, not equal: it is a space of its own, so it has a fingerprint of its own
and never meets features of the model in a gallery.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from gloam.atomic import atomic_path
from gloam.errors import GloamError
from gloam.inference.export import INPUTS, METADATA

VariantPrecision = Literal["fp16", "int8"]
CALIBRATION_IMAGES = 128
_CALIBRATION_ROWS = 16  # of one forward pass
# Products of two activations (attention, non-local blocks) stay in float32: their range differs from image to image.
_QUANTISED = ["Conv", "Gemm"]


def write_variant(
    source: Path,
    file: Path,
    precision: VariantPrecision,
    about: dict[str, Any],
    calibration: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Any]:
    """Write a smaller version of an exported ONNX file, atomically.

    Args:
        source: ONNX file in precision 32, as ``export_model`` wrote it.
        file: file to write.
        precision: ``fp16``: weights and arithmetic, norms of wide range aside; ``int8``: static, weights per channel.
        about: the source's metadata.
        calibration: int8: training images as the file takes them ``(N, ...)``, and their modalities ``(N,)``, from
            which the range of every activation is measured.

    Returns:
        The metadata in the file: ``precision`` and ``fingerprint`` are the variant's, ``origin`` is the model's.

    Raises:
        GloamError: a missing package, or no calibration images.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise GloamError(
            f'{precision} files need onnx and ONNX Runtime: pip install "gloam[onnx]" ({error}).'
        ) from error
    with atomic_path(file) as temporary:
        if precision == "fp16":
            proto = convert_float_to_float16(onnx.load(source), keep_io_types=True)
        else:
            if calibration is None or len(calibration[0]) == 0:
                raise GloamError(
                    "int8 needs training images to calibrate on, and there are none. Give --data.root, the folder of "
                    "the dataset that the run was trained on."
                )
            prepared = source.with_name(f"prepared-{source.name}")
            quantised = source.with_name(f"quantised-{source.name}")
            with _quiet():
                quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
                quantize_static(
                    str(prepared),
                    str(quantised),
                    _Calibration(onnx, prepared, *calibration),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=_QUANTISED,
                    per_channel=True,
                    weight_type=QuantType.QInt8,
                    activation_type=QuantType.QUInt8,
                )
            proto = onnx.load(quantised)
        graph = hashlib.sha256(proto.graph.SerializeToString(deterministic=True)).hexdigest()
        told = {
            **about,
            "precision": precision,
            "origin": about["fingerprint"],
            "fingerprint": hashlib.sha256(f"{about['fingerprint']}|{precision}|{graph}".encode()).hexdigest(),
            "calibration_images": 0 if calibration is None or precision != "int8" else len(calibration[0]),
        }
        del proto.metadata_props[:]
        onnx.helper.set_model_props(proto, {METADATA: json.dumps(told)})
        onnx.save(proto, temporary, format="protobuf")
    return told


class _Calibration:
    """Batches of images under the names that a graph asks for."""

    def __init__(self, onnx: Any, file: Path, images: Tensor, modalities: Tensor) -> None:
        wanted = {entry.name for entry in onnx.load(file).graph.input}
        self._batches: Iterator[dict[str, Any]] = (
            {
                name: value[start : start + _CALIBRATION_ROWS].numpy()
                for name, value in zip(INPUTS, (images, modalities), strict=True)
                if name in wanted
            }
            for start in range(0, len(images), _CALIBRATION_ROWS)
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None at the end."""
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser logs advice that has been followed already."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
