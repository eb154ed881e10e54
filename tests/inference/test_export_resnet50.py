"""The networks of the papers, ResNet-50, leave as ONNX files and as programs with a proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gloam
from gloam.inference.export import SUFFIXES, ExportFormat
from gloam.inference.release import export_with_proof
from tests.inference.models_to_export import drawn_model

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

PUBLISHED: dict[str, dict[str, Any]] = {
    "agw": {"nonlocal_blocks": (0, 2, 3, 0)},
    "ddag": {},
    "cgrnet": {},
    "m3reid": {"nonlocal_blocks": (0, 2, 3, 0)},
    "cluster_contrast": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch-export"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_leave_with_a_proof(name: str, kind: ExportFormat, tmp_path: Path) -> None:
    model = drawn_model(name, size=(128, 64), arch="resnet50", **PUBLISHED[name])
    file = tmp_path / f"model{SUFFIXES[kind]}"
    proof = export_with_proof(model, file, kind)
    assert proof is not None
    assert proof.holds
    print(
        f"{name} {kind}: {file.stat().st_size / 1e6:.1f} MB, 1 - cosine {1 - proof.least_cosine:.1e}, difference "
        f"{proof.largest_difference:.1e}, ms an image {proof.milliseconds['model']:.1f} -> "
        f"{proof.milliseconds['file']:.1f}"
    )
    assert gloam.load_model(file).fingerprint == model.fingerprint
