"""Clips from disk per second and core, and the cost of an M3-ReID training step against a plain-loop forward.

``reading``: batches of clips from a drawn HITSZ-VCM tree, chosen by the training rule and decoded on the fly, as a run
reads them. ``in process`` decodes with one thread; its ``frames_per_cpu_second`` counts processor time only and is what
to compare on a machine with other work. The others read with loader processes, in wall time, after a first pass that
starts them.

``step``: forward and backward of one batch with all six losses, in a process of its own. ``loops`` is the same forward
written plainly: an N x N affinity and its softmax in every non-local block, one permuted map per view, one masked copy
of the map per mask, pooled one after another. ``megabytes`` is the peak beyond network and batch;
``largest_difference`` compares the loss (relative) and test features (length of the difference of unit vectors) with
``loops``: float32's rounding, amplified by batch norm over few frames in both forms (2e-4 for four tracklets through
ResNet-50). The test compares losses, features and gradients in float64.

The default size suits a small machine. The published size is

    python -m benchmarks.video --tracklets 32

(ResNet-50, 288 x 144, 6 frames; the two larger affinities of ``loops`` alone take 4 GB each there). ``--device cuda``
measures on a GPU, ``--only reading`` or ``--only step`` a part; ``--help`` names the rest.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from benchmarks.machine import machine_info, peak_megabytes
from gloam.augmentation.augmenter import normalize
from gloam.batches.batch import Batch
from gloam.batches.loaders import InOrder, train_loader
from gloam.datasets import load_dataset
from gloam.drawing.dataset import draw_dataset
from gloam.methods.m3reid import M3ReID, M3ReIDOptions
from gloam.models.multi_view_attention import MultiViewAttention
from gloam.models.video_nonlocal import SpatioTemporalNonLocal
from gloam.pixels.store import image_paths, open_store

CLASSES = 500
READ_TOGETHER = 32  # tracklets per loaded batch, as published


@dataclass(frozen=True)
class Size:
    """What is measured.

    Attributes:
        arch: backbone of the step.
        nonlocal_blocks: non-local blocks per stage; a stage has at most as many as residual blocks.
        height: of a frame.
        width: of a frame.
        tracklets: per batch, even.
        frames: per clip.
        repeats: steps and reading passes; the fastest counts.
        ids: drawn people.
        clips: clips of a reading pass.
        threads: computing threads of a step.
        device: of a step.
        only: one part, or both.
    """

    arch: str = "resnet50"
    nonlocal_blocks: tuple[int, int, int, int] = (0, 2, 3, 0)
    height: int = 288
    width: int = 144
    tracklets: int = 4
    frames: int = 6
    repeats: int = 2
    ids: int = 12
    clips: int = 384
    threads: int = 2
    device: str = "cpu"
    only: Literal["both", "reading", "step"] = "both"


class LoopM3ReID(M3ReID):
    """M3-ReID whose forward follows the published description one operation at a time."""

    def _frames(self, clips: Tensor) -> tuple[Tensor, int, list[Tensor]]:
        length = clips.shape[1]
        frames = clips.flatten(0, 1)
        maps = self.backbone(
            frames,
            torch.zeros(len(frames), dtype=torch.int64, device=frames.device),
            lambda block, x: loop_nonlocal(block, x, length),
        )
        pooled, masks = loop_attention(self.mvl_attention, maps, length)
        return self.bn_neck(pooled), length, masks


def loop_nonlocal(block: nn.Module, frames: Tensor, length: int) -> Tensor:
    """Folded frames ``(B T, C, H, W)`` through a block that stores its affinity ``(B, N, N)``."""
    if not isinstance(block, SpatioTemporalNonLocal):
        raise TypeError(f"{type(block).__name__} is no space-time block")
    clips = frames.unflatten(0, (-1, length)).permute(0, 2, 1, 3, 4).contiguous()
    theta = block.theta(clips).flatten(2).permute(0, 2, 1)
    phi = block.phi(clips).flatten(2)
    g = block.g(clips).flatten(2).permute(0, 2, 1)
    affinity = torch.softmax(torch.matmul(theta, phi), dim=-1)
    mixed = torch.matmul(affinity, g).permute(0, 2, 1).contiguous().view(len(clips), -1, *clips.shape[2:])
    out: Tensor = block.W(mixed) + clips
    return out.permute(0, 2, 1, 3, 4).contiguous().flatten(0, 1)


def loop_attention(attention: MultiViewAttention, frames: Tensor, length: int) -> tuple[Tensor, list[Tensor]]:
    """Every view permutes the map, every head multiplies a copy of it."""
    clips = frames.unflatten(0, (-1, length))  # B, T, C, H, W
    pooled, masks = [], []
    # Each view: what goes first and what spans a mask, then the way back to (B, T, C, H, W).
    for name, there, back in (
        ("hw", (0, 1, 2, 3, 4), (0, 1, 2, 3, 4)),
        ("tw", (0, 3, 2, 1, 4), (0, 3, 2, 1, 4)),
        ("th", (0, 4, 2, 1, 3), (0, 3, 2, 4, 1)),
    ):
        view = clips.permute(there).contiguous()
        outer = view.shape[:2]
        flat = view.flatten(0, 1)
        mask = torch.sigmoid(getattr(attention, f"view_attention_{name}")(flat))
        masks.append(mask.flatten(2))
        for head in range(mask.shape[1]):
            product = flat * mask[:, head : head + 1]
            product = product.unflatten(0, outer).permute(back).contiguous().flatten(0, 1)
            if attention.pooling == "gem":
                product = (product.clamp_min(0).pow(3).mean(dim=(2, 3)) + 1e-12).pow(1 / 3)
            else:
                product = product.mean(dim=(2, 3))
            pooled.append(product)
    return torch.cat(pooled, dim=1), masks


def build(variant: str, size: Size) -> M3ReID:
    """A network in training mode with the same weights for both variants; fresh non-local blocks would do nothing."""
    options = M3ReIDOptions(arch=size.arch, nonlocal_blocks=size.nonlocal_blocks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = (LoopM3ReID if variant == "loops" else M3ReID)(CLASSES, options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.constant_(module.weight, 0.5)
    return network.to(size.device).train()


def draw_batch(size: Size) -> Batch:
    """Random clips, half of them infrared, two of every person and modality (one in a small batch)."""
    generator = torch.Generator().manual_seed(0)
    shape = (size.tracklets, size.frames, 3, size.height, size.width)
    rows = torch.arange(size.tracklets)
    half = max(size.tracklets // 2, 1)
    batch = Batch(
        images=normalize(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)),
        pids=rows % half // (2 if half >= 4 else 1),
        cams=rows // half,
        modalities=(rows // half).clamp_max(1),
        indices=rows,
        views=torch.zeros_like(rows),
    )
    return batch.to(size.device)


def measure_step(variant: str, size: Size, file: str) -> dict[str, Any]:
    """Steps in this process; the outcome goes to ``file``."""
    torch.set_num_threads(size.threads)
    network, batch = build(variant, size), draw_batch(size)
    on_gpu = torch.device(size.device).type == "cuda"
    gpu = torch.cuda
    network.training_step(batch.select(torch.arange(1, device=batch.pids.device)))  # libraries load
    before = gpu.memory_allocated() / 2**20 if on_gpu else peak_megabytes(reset=True)
    if on_gpu:
        gpu.reset_peak_memory_stats()
    seconds, busy = [], []
    for _ in range(size.repeats):
        network.zero_grad(set_to_none=True)
        start, cpu = time.perf_counter(), time.process_time()
        loss = network.training_step(batch)["loss"]
        loss.backward()
        if on_gpu:
            gpu.synchronize()
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
    peak = gpu.max_memory_allocated() / 2**20 if on_gpu else peak_megabytes()
    with torch.no_grad():
        features = network.eval().extract(batch.images, batch.modalities)
    np.savez(file, features=features.cpu(), loss=loss.detach().cpu())
    return {
        "seconds": round(min(seconds), 3),
        "cpu_seconds": round(min(busy), 3),
        "megabytes": round(peak - before),
        "loss": round(float(loss.detach()), 4),
    }


def largest_difference(left: str, right: str) -> float:
    """Of two outcomes: the relative difference of the losses, or the largest distance of two features."""
    one, two = np.load(left), np.load(right)
    distance = np.linalg.norm(one["features"] - two["features"], axis=1).max()
    return max(float(distance), abs(float(two["loss"] / one["loss"]) - 1))


def run_steps(size: Size) -> list[dict[str, Any]]:
    """Both forms, a process each."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = {variant: str(Path(folder) / f"{variant}.npz") for variant in ("loops", "gloam")}
        for variant, file in files.items():
            size_text = json.dumps(dataclasses.asdict(size))
            command = [sys.executable, "-m", "benchmarks.video", "measure", variant, size_text, file]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"The step {variant!r} failed (too little memory?): {done.stderr[-2000:]}")
            rows.append({"part": "step", "variant": variant, **_shape(size), **json.loads(done.stdout)})
            print(rows[-1], file=sys.stderr, flush=True)
        slow, fast = rows
        fast["speedup"] = round(slow["cpu_seconds"] / fast["cpu_seconds"], 2)
        fast["memory_ratio"] = round(slow["megabytes"] / max(fast["megabytes"], 1), 2)
        fast["largest_difference"] = f"{largest_difference(files['loops'], files['gloam']):.1e}"
    return rows


def run_reading(size: Size) -> list[dict[str, Any]]:
    """Clips of a drawn tree, with one decoding thread, one and two loader processes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "drawn"
        draw_dataset("hitsz_vcm", root, ids=size.ids, height=size.height, width=size.width, progress=False)
        records = load_dataset("hitsz_vcm", root).train
        pids = [record.pid for record in records]
        clips = np.resize(np.arange(len(records)), size.clips)
        for variant, workers in (("in process", 0), ("1 worker", 1), ("2 workers", 2)):
            paths = image_paths(records)
            store = open_store(root, paths, height=size.height, width=size.width, cache="off", workers=1)
            batches = InOrder(clips, READ_TOGETHER)
            loader = train_loader(records, pids, store, batches, frames=size.frames, workers=workers)
            speeds, cpu_speeds = [], []
            for _ in range(size.repeats + (workers > 0)):
                start, cpu = time.perf_counter(), time.process_time()
                frames = sum(batch.images.shape[0] * batch.images.shape[1] for batch in loader)
                speeds.append(frames / (time.perf_counter() - start))
                cpu_speeds.append(frames / (time.process_time() - cpu))
            speeds = speeds[workers > 0 :]
            row = {"part": "reading", "variant": variant, "frame": f"{size.height}x{size.width}"}
            row["frames_read"] = frames
            row["frames_per_second"] = round(max(speeds), 1)
            row["frames_per_second_per_core"] = round(max(speeds) / max(workers, 1), 1)
            if not workers:
                row["frames_per_cpu_second"] = round(max(cpu_speeds), 1)
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    return rows


def _shape(size: Size) -> dict[str, Any]:
    return {
        "arch": size.arch,
        "frame": f"{size.height}x{size.width}",
        "tracklets": size.tracklets,
        "frames": size.frames,
        "device": size.device,
    }


def run(size: Size | None = None) -> list[dict[str, Any]]:
    """Both parts, or the one that the size names."""
    size = size or Size()
    rows = [] if size.only == "step" else run_reading(size)
    if size.only != "reading":
        rows += run_steps(size)
    return [{"benchmark": "video", **row, **machine_info(size.threads)} for row in rows]


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure_step(sys.argv[2], Size(**json.loads(sys.argv[3])), sys.argv[4])))
    else:
        found = run(tyro.cli(Size, prog="python -m benchmarks.video"))
        writer = csv.DictWriter(sys.stdout, list(dict.fromkeys(key for row in found for key in row)))
        writer.writeheader()
        writer.writerows(found)
