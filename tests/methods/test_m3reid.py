"""M3-ReID: degenerate clips, averaging after the neck, the total loss."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gloam.errors import GloamError
from gloam.methods import create_method
from tests.methods.contract import people


def _method(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_method("m3reid", 4, **{"arch": "tiny", **options}).train()


def test_total_is_the_sum_of_six_terms() -> None:
    outputs = _method().training_step(people(video=True))
    parts = [value for name, value in outputs.items() if name not in ("loss", "accuracy")]
    assert len(parts) == 6
    torch.testing.assert_close(outputs["loss"], torch.stack(parts).sum())
    assert 2.5 < outputs["diversity"].item() <= 3


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_one_clip_and_any_number_of_frames_work(frames: int) -> None:
    method, data = _method(), people(video=True)
    method.eval()
    with torch.no_grad():
        features = method.extract(data.images[:1, :frames], data.modalities[:1])
    assert features.shape == (1, 3 * 2 * 64)


def test_accuracy_is_that_of_the_clip_classifier() -> None:
    method, data = _method(), people(video=True)
    logits = []
    method.classifier.register_forward_hook(lambda module, inputs, output: logits.append(output))
    accuracy = method.training_step(data)["accuracy"]
    assert not accuracy.requires_grad
    assert accuracy.item() == (logits[0].argmax(1) == data.pids).float().mean().item()


@pytest.mark.parametrize(("clips", "frames"), [(1, 4), (3, 1)])
def test_one_clip_or_one_frame_trains(clips: int, frames: int) -> None:
    data = people(video=True).select(torch.arange(clips))
    data = dataclasses.replace(data, images=data.images[:, :frames])
    outputs = _method().training_step(data)
    outputs["loss"].backward()
    assert torch.isfinite(outputs["loss"])
    assert (outputs["orthogonal"].item() == 0) == (frames == 1)


def test_one_frame_in_all_is_an_error_with_a_cure() -> None:
    data = people(video=True).select(torch.arange(1))
    with pytest.raises(GloamError, match=r"data\.frames"):
        _method().training_step(dataclasses.replace(data, images=data.images[:, :1]))


def test_one_modality_only_leaves_alignment_at_zero() -> None:
    data = people(video=True)
    outputs = _method().training_step(data.select(data.modalities == 0))
    assert outputs["alignment_video"].item() == 0
    outputs["loss"].backward()


def test_frames_are_averaged_after_the_neck() -> None:
    method, data = _method(), people(video=True)
    frames, length, _ = method._frames(data.images)
    pooled = frames.unflatten(0, (-1, length)).mean(dim=1)
    torch.testing.assert_close(frames.mean(0), torch.zeros_like(frames[0]), atol=1e-4, rtol=0)
    assert not torch.allclose(pooled.std(0), torch.ones_like(pooled[0]), atol=1e-2)


def test_timm_backbones_take_no_blocks() -> None:
    method = _method(arch="timm:test_vit", nonlocal_blocks=(0, 0, 0, 0))
    data = people(video=True)
    assert torch.isfinite(method.training_step(data)["loss"])
