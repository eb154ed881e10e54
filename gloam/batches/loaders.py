"""Records and a pixel store -> batches, for training and for feature extraction."""

# ruff: noqa: PT028  (test_loader is not a test)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import DataLoader, Dataset

from gloam.batches.batch import Batch
from gloam.batches.clips import FixedFrames, FrameChoice, all_clips, choose_frames, count_clips
from gloam.datasets.records import Record
from gloam.errors import GloamError
from gloam.interruption import ignore_signals
from gloam.pixels.store import PixelStore, cores
from gloam.sampling.base import BatchSampler
from gloam.seeds import Purpose, mix_seed


@dataclass(frozen=True)
class NumberedBatch:
    """What a loader asks its data set for. The number makes random frames independent of which worker serves it.

    Attributes:
        epoch: epoch of the sampler.
        number: position in the epoch.
        indices: records.
    """

    epoch: int
    number: int
    indices: list[int]


class NumberedBatches:
    """Numbers a sampler's batches. Lightning finds ``set_epoch`` here and calls it before every epoch.

    Args:
        sampler: yields lists of record indices.
        first: number of the first batch to serve; those before it are left out.
    """

    def __init__(self, sampler: BatchSampler, first: int = 0) -> None:
        self.sampler = sampler
        self._first = first

    def __iter__(self) -> Iterator[NumberedBatch]:
        epoch = self.sampler.epoch
        for number, indices in enumerate(self.sampler):
            if number >= self._first:
                yield NumberedBatch(epoch, number, indices)

    def __len__(self) -> int:
        return max(0, len(self.sampler) - self._first)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.sampler.set_epoch(epoch)


class InOrder:
    """All of some records once, in order; the last batch may be smaller.

    Args:
        indices: ``(n,)`` records.
        batch_size: rows per batch.
    """

    def __init__(self, indices: NDArray[np.int64], batch_size: int) -> None:
        self.epoch = 0
        self._indices = indices
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self._indices), self._batch_size):
            yield self._indices[start : start + self._batch_size].tolist()

    def __len__(self) -> int:
        return -(-len(self._indices) // self._batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Every epoch is the same; kept for the contract of samplers."""
        self.epoch = epoch


class RecordBatches(Dataset[Batch]):
    """Reads whole batches: one call of the store per batch, and the columns as arrays.

    Args:
        records: samples; record i owns the store rows of its paths (``image_paths`` order).
        labels: ``(N,)`` what ``Batch.pids`` holds.
        store: images.
        frames: clip length T, or None for single images.
        frame_choice: which frames of a tracklet. With ``all`` a sample is a clip: those of the first record come first.
        seed: run seed, for random frame choices.
        rank: number of this process: processes choose frames independently.

    Raises:
        GloamError: tracklets without a clip length, or a store that does not fit the records.
    """

    def __init__(
        self,
        records: Sequence[Record],
        labels: ArrayLike,
        store: PixelStore,
        *,
        frames: int | None = None,
        frame_choice: FrameChoice | FixedFrames = "evenly",
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        # Arrays, not records: what a worker process holds stays small and is shared after a fork.
        self._lengths = np.fromiter((len(r.paths) for r in records), np.int64, len(records))
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._pids = np.array(labels, dtype=np.int64)
        self._cams = np.fromiter((r.cam for r in records), np.int64, len(records))
        self._modalities = np.fromiter((int(r.modality) for r in records), np.int64, len(records))
        self._store = store
        self._frames = frames
        self._clips = count_clips(self._lengths, frames, frame_choice)
        self._frame_choice = frame_choice
        self._seed, self._rank = seed, rank
        if len(self._pids) != len(records):
            raise ValueError(f"{len(self._pids)} labels for {len(records)} records")
        if (total := int(self._lengths.sum())) != len(store):
            raise ValueError(f"the records name {total} images, the store holds {len(store)}")
        if frames is None and len(records) and self._lengths.max() > 1:
            raise GloamError(
                f"{(self._lengths > 1).sum()} of {len(records)} samples are tracklets of several frames, but no clip "
                "length is set. Set data.frames (for example 6), and use a method for video."
            )

    def __len__(self) -> int:
        return int(self._clips.sum())

    def samples_of(self, records: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the samples (one each, or their clips) of some records, in their order."""
        starts = np.cumsum(self._clips) - self._clips
        return np.concatenate([np.arange(starts[i], starts[i] + self._clips[i]) for i in records] or [records])

    def __getitems__(self, batch: NumberedBatch) -> Batch:
        """One batch, uint8, on the CPU."""
        samples = np.asarray(batch.indices, dtype=np.int64)
        rows = np.searchsorted(np.cumsum(self._clips), samples, side="right")
        images = torch.from_numpy(self._read(batch, rows, samples))
        return Batch(
            images=images,
            pids=torch.from_numpy(self._pids[rows]),
            cams=torch.from_numpy(self._cams[rows]),
            modalities=torch.from_numpy(self._modalities[rows]),
            indices=torch.from_numpy(rows),
            views=torch.zeros(len(rows), dtype=torch.int64),
        )

    def _read(self, batch: NumberedBatch, rows: NDArray[np.int64], samples: NDArray[np.int64]) -> NDArray[np.uint8]:
        if self._frames is None:
            return self._store.read(self._starts[rows])
        if self._frame_choice == "all":
            numbers = samples - (np.cumsum(self._clips) - self._clips)[rows]
            found = [
                self._starts[i] + all_clips(int(self._lengths[i]), self._frames)[number]
                for i, number in zip(rows.tolist(), numbers.tolist(), strict=True)
            ]
            images = self._store.read(np.concatenate(found))
            return images.reshape(len(rows), self._frames, *images.shape[1:])
        generator = np.random.default_rng(mix_seed(self._seed, Purpose.CLIPS, self._rank, batch.epoch, batch.number))
        clips = [
            self._starts[i] + choose_frames(int(self._lengths[i]), self._frames, self._frame_choice, generator)
            for i in rows.tolist()
        ]
        images = self._store.read(np.concatenate(clips))
        return images.reshape(len(rows), self._frames, *images.shape[1:])


def train_loader(
    records: Sequence[Record],
    labels: ArrayLike,
    store: PixelStore,
    sampler: BatchSampler,
    *,
    frames: int | None = None,
    frame_choice: FrameChoice = "evenly_random",
    workers: int = 0,
    seed: int = 0,
    rank: int = 0,
    prefetch: int = 2,
    first_batch: int = 0,
) -> DataLoader[Batch]:
    """Training batches as the sampler draws them.

    A cached store needs no workers, or one; on-the-fly decoding wants one per core. Results do not depend on the
    number. Labels are copied: after a change of pseudo-labels build a new loader, with a new sampler.

    Args:
        records: training samples.
        labels: ``(N,)`` labels for ``Batch.pids``.
        store: opened for ``image_paths(records)``.
        sampler: from ``create_sampler``; call ``loader.batch_sampler.set_epoch(e)`` before each epoch (Lightning does;
            set ``use_distributed_sampler=False`` there, as the sampler already splits batches between processes).
        frames: clip length T for video.
        frame_choice: rule for the frames of a training clip.
        workers: processes that read ahead; -1: one per core, shared by the processes of a run.
        seed: run seed, for random frames.
        rank: number of this process: processes choose frames independently.
        prefetch: batches that each worker reads ahead.
        first_batch: batches of the epoch to leave out at its start; the others are the same as without.
    """
    data = RecordBatches(records, labels, store, frames=frames, frame_choice=frame_choice, seed=seed, rank=rank)
    return _loader(data, NumberedBatches(sampler, first_batch), workers, prefetch, persistent=True)


def test_loader(
    records: Sequence[Record],
    store: PixelStore,
    *,
    batch_size: int,
    frames: int | None = None,
    frame_choice: FixedFrames = "evenly",
    workers: int = 0,
    indices: ArrayLike | None = None,
    prefetch: int = 2,
) -> DataLoader[Batch]:
    """Batches in record order for feature extraction; ``pids`` are the records' own.

    With the rule ``all`` a row is a clip, a record has several rows one after the other, and ``indices`` says whose.

    Args:
        records: samples.
        store: opened for ``image_paths(records)``.
        batch_size: rows per batch; the last may be smaller.
        frames: clip length T for video.
        frame_choice: rule for the frames of a test clip.
        workers: processes that read ahead; -1: one per core, shared by the processes of a run.
        indices: ``(n,)`` read only these records, in this order (a process's share); default all.
        prefetch: batches that each worker reads ahead.
    """
    pids = np.fromiter((r.pid for r in records), np.int64, len(records))
    data = RecordBatches(records, pids, store, frames=frames, frame_choice=frame_choice)
    chosen = np.arange(len(records)) if indices is None else np.asarray(indices, dtype=np.int64)
    order = InOrder(data.samples_of(chosen), batch_size)
    return _loader(data, NumberedBatches(order), workers, prefetch, persistent=False)


# pytest must not collect it where tests import it.
test_loader.__test__ = False  # type: ignore[attr-defined]


def _loader(
    data: RecordBatches, batches: NumberedBatches, workers: int, prefetch: int, *, persistent: bool
) -> DataLoader[Batch]:
    options: dict[str, Any] = {}
    if workers < 0:
        group = torch.distributed
        sharing = group.get_world_size() if group.is_available() and group.is_initialized() else 1
        workers = max(1, cores() // sharing)
    if workers > 0:
        options = {"prefetch_factor": prefetch, "persistent_workers": persistent, "worker_init_fn": ignore_signals}
    return DataLoader(
        data,
        batch_sampler=batches,  # type: ignore[arg-type]
        collate_fn=_unchanged,  # type: ignore[arg-type]  # __getitems__ has made the batch
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # A private generator: starting worker processes draws a seed, which must not come from the global one.
        generator=torch.Generator(),
        **options,
    )


def _unchanged(batch: Batch) -> Batch:
    return batch
