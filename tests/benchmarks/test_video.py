"""The benchmark's plain-loop forward equals M3-ReID's, and both parts run."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks import video
from benchmarks.video import Size, build, draw_batch

SMALL = Size(
    arch="tiny",
    nonlocal_blocks=(0, 1, 1, 0),
    height=64,
    width=48,
    tracklets=4,
    frames=3,
    repeats=1,
    ids=4,
    clips=6,
    threads=1,
)


@pytest.mark.parametrize("pooling", ["gem", "avg"])
def test_loops_give_the_same_losses_features_and_gradients(pooling: str) -> None:
    networks = [build(variant, SMALL).double() for variant in ("loops", "gloam")]
    batch = draw_batch(SMALL)
    assert batch.modalities.tolist() == [0, 0, 1, 1]
    batch = dataclasses.replace(batch, images=batch.images.double())
    outcomes = []
    for network in networks:
        network.mvl_attention.pooling = pooling
        losses = network.training_step(batch)
        losses["loss"].backward()
        outcomes.append((losses, network._frames(batch.images), [p.grad for p in network.parameters()]))
    (losses, frames, gradients), (other_losses, other_frames, other_gradients) = outcomes
    assert losses["alignment_video"] > 0
    for name, value in losses.items():
        torch.testing.assert_close(other_losses[name], value)
    torch.testing.assert_close(other_frames[0], frames[0], atol=1e-6, rtol=1e-6)
    for mask, other in zip(frames[2], other_frames[2], strict=True):
        torch.testing.assert_close(other, mask)
    for gradient, other in zip(gradients, other_gradients, strict=True):
        if gradient is not None:
            torch.testing.assert_close(other, gradient, atol=1e-6, rtol=1e-5)


def test_both_parts_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rows = video.run(SMALL)
    assert [row["variant"] for row in rows] == ["in process", "1 worker", "2 workers", "loops", "gloam"]
    for row in rows[:3]:
        assert row["frames_read"] == 6 * 3
        assert row["frames_per_second_per_core"] > 0
    assert rows[0]["frames_per_cpu_second"] > 0
    assert float(rows[-1]["largest_difference"]) < 1e-4
    assert rows[-1]["loss"] == pytest.approx(rows[-2]["loss"], abs=1e-3)
    assert all({"machine", "versions", "benchmark"} <= row.keys() for row in rows)
