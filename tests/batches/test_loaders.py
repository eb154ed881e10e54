"""Loaders: what a batch holds, and that it does not depend on workers or on the kind of store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gloam.batches.batch import Batch
from gloam.batches.clips import all_clips, choose_frames
from gloam.batches.loaders import test_loader, train_loader
from gloam.datasets.records import Modality, Record
from gloam.errors import GloamError
from gloam.pixels.store import PixelStore, image_paths, open_store
from gloam.sampling import create_sampler, sampler_options
from tests.pixels.images import write_images

IDS, PER_MODALITY = 4, 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    write_images(folder, 96)
    return folder


def _images() -> list[Record]:
    return [
        Record((f"{n:04d}.jpg",), n // (2 * PER_MODALITY), n % 5, Modality(n // PER_MODALITY % 2), 1000 + n)
        for n in range(2 * IDS * PER_MODALITY)
    ]


def _tracklets() -> list[Record]:
    records, first = [], 0
    for n, length in enumerate([1, 5, 9, 14, 3, 8, 7, 2, 11, 6, 12, 18]):
        paths = tuple(f"{first + k:04d}.jpg" for k in range(length))
        records.append(Record(paths, n // 3, 0, Modality(n % 2), n))
        first += length
    return records


def _store(root: Path, records: list[Record], cache: Any = "off") -> PixelStore:
    return open_store(root, image_paths(records), height=16, width=8, cache=cache, workers=2, progress=False)


def _sampler(records: list[Record], **options: Any) -> Any:
    columns = [[r.pid for r in records], [int(r.modality) for r in records], [r.cam for r in records]]
    sizes = {} if options.get("name") == "shuffle" else {"identities": 2, "instances": 2}
    return create_sampler(sampler_options({**sizes, **options}), *columns, seed=0)


def _equal(a: list[Batch], b: list[Batch]) -> bool:
    names = ("images", "pids", "cams", "modalities", "indices", "views")
    return len(a) == len(b) and all(
        torch.equal(getattr(x, n), getattr(y, n)) for x, y in zip(a, b, strict=True) for n in names
    )


def test_training_batches(root: Path) -> None:
    records = _images()
    store = _store(root, records)
    labels = np.array([r.pid for r in records]) + 50
    sampler = _sampler(records)
    loader = train_loader(records, labels, store, sampler)
    batches = list(loader)
    assert len(loader) == len(batches) == len(sampler)
    assert [b.indices.tolist() for b in batches] == list(sampler)
    for batch in batches:
        rows = batch.indices.tolist()
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (8, 3, 16, 8)
        np.testing.assert_array_equal(batch.images.numpy(), store.read(rows))
        assert batch.pids.tolist() == labels[rows].tolist()
        assert batch.cams.tolist() == [records[i].cam for i in rows]
        assert batch.modalities.tolist() == [0] * 4 + [1] * 4
        assert batch.views.tolist() == [0] * 8
    loader.batch_sampler.set_epoch(1)  # type: ignore[union-attr]
    assert not _equal(list(loader), batches)


@pytest.mark.parametrize("frames", [None, 4])
def test_independent_of_workers_and_store(root: Path, tmp_path: Path, frames: int | None) -> None:
    records = _images() if frames is None else _tracklets()
    options = {"name": "identity"} if frames else {}
    labels = [r.pid for r in records]
    results = []
    for workers, cache in [(0, "off"), (0, tmp_path), (2, "off"), (1, tmp_path)]:
        loader = train_loader(
            records, labels, _store(root, records, cache), _sampler(records, **options), frames=frames, workers=workers
        )
        results.append([])
        for epoch in (0, 1):  # persistent workers serve both
            loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
            results[-1] += list(loader)
    assert all(_equal(result, results[0]) for result in results)


def test_one_worker_per_core_shared_by_the_processes_of_a_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = _images()
    monkeypatch.setattr("gloam.batches.loaders.cores", lambda: 16)
    store = _store(root, records)
    assert test_loader(records, store, batch_size=4, workers=-1).num_workers == 16
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for processes, own in ((3, 5), (32, 1)):
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda processes=processes: processes)
        assert test_loader(records, store, batch_size=4, workers=-1).num_workers == own


def test_clips_take_frames_of_their_tracklet(root: Path) -> None:
    records = _tracklets()
    store = _store(root, records)
    sampler = _sampler(records, name="identity")
    labels = [r.pid for r in records]
    starts = np.cumsum([0] + [len(r.paths) for r in records])
    pixels = store.read(range(len(store)))
    epochs = []
    for seed, rank in [(0, 0), (0, 0), (1, 0), (0, 1)]:
        loader = train_loader(records, labels, store, sampler, frames=4, seed=seed, rank=rank)
        epochs.append(list(loader))
        for batch in epochs[-1]:
            assert batch.images.shape == (4, 4, 3, 16, 8)
            for clip, i in zip(batch.images.numpy(), batch.indices.tolist(), strict=True):
                own = pixels[starts[i] : starts[i + 1]]
                found = [next(k for k, f in enumerate(own) if (f == frame).all()) for frame in clip]
                assert found == sorted(found)
    assert _equal(epochs[0], epochs[1])
    assert not _equal(epochs[0], epochs[2])
    assert not _equal(epochs[0], epochs[3])


def test_test_loader_keeps_record_order(root: Path) -> None:
    records = _images()
    store = _store(root, records)
    batches = list(test_loader(records, store, batch_size=10))
    assert [len(b) for b in batches] == [10, 10, 4]
    assert torch.cat([b.indices for b in batches]).tolist() == list(range(24))
    assert torch.cat([b.pids for b in batches]).tolist() == [r.pid for r in records]
    np.testing.assert_array_equal(torch.cat([b.images for b in batches]).numpy(), store.read(range(24)))
    share = list(test_loader(records, store, batch_size=10, indices=[5, 3, 20], workers=1))
    assert [b.indices.tolist() for b in share] == [[5, 3, 20]]
    assert list(test_loader(records, store, batch_size=10, indices=[])) == []


def test_test_clips_are_evenly_spaced(root: Path) -> None:
    records = _tracklets()
    store = _store(root, records)
    images = torch.cat([b.images for b in test_loader(records, store, batch_size=5, frames=6)]).numpy()
    start = 0
    for record, clip in zip(records, images, strict=True):
        np.testing.assert_array_equal(clip, store.read(start + choose_frames(len(record.paths), 6)))
        start += len(record.paths)


def test_all_clips_of_a_tracklet_follow_each_other(root: Path) -> None:
    records = _tracklets()
    store = _store(root, records)
    starts = np.cumsum([0] + [len(r.paths) for r in records])
    expected = [(i, starts[i] + clip) for i, r in enumerate(records) for clip in all_clips(len(r.paths), 3)]
    assert len(expected) > len(records)
    for order in (list(range(len(records))), [4, 11, 0]):
        wanted = [(i, clip) for own in order for i, clip in expected if i == own]
        batches = list(test_loader(records, store, batch_size=4, frames=3, frame_choice="all", indices=order))
        assert {len(b) for b in batches[:-1]} <= {4}
        assert torch.cat([b.indices for b in batches]).tolist() == [i for i, _ in wanted]
        assert torch.cat([b.pids for b in batches]).tolist() == [records[i].pid for i, _ in wanted]
        images = torch.cat([b.images for b in batches]).numpy()
        for (_, frames), clip in zip(wanted, images, strict=True):
            np.testing.assert_array_equal(clip, store.read(frames))
    assert list(test_loader(records, store, batch_size=4, frames=3, frame_choice="all", indices=[])) == []


def test_mistakes(root: Path) -> None:
    records = _tracklets()
    store = _store(root, records)
    with pytest.raises(GloamError, match=r"11 of 12 .*data.frames"):
        test_loader(records, store, batch_size=4)
    with pytest.raises(ValueError, match="labels for 12 records"):
        train_loader(records, [0], store, _sampler(records, name="shuffle"), frames=4)
    with pytest.raises(ValueError, match="the store holds"):
        test_loader(records[1:], store, batch_size=4, frames=4)


def test_unreadable_image_names_itself_through_a_worker(root: Path, tmp_path: Path) -> None:
    write_images(tmp_path, 24)
    (tmp_path / "0007.jpg").write_bytes(b"")
    records = _images()
    loader = test_loader(records, _store(tmp_path, records), batch_size=24, workers=1)
    with pytest.raises(GloamError, match=r"^1 of 24 images .*0007.jpg \(the file is empty\).*skip\.$"):
        list(loader)


def test_global_random_state_is_untouched(root: Path) -> None:
    records = _images()
    before = torch.get_rng_state()
    list(train_loader(records, [r.pid for r in records], _store(root, records), _sampler(records), workers=1))
    assert torch.equal(before, torch.get_rng_state())
