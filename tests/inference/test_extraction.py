"""Features of many records: order, mirror images, processes, and that a method comes back as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from gloam.augmentation.augmenter import normalize
from gloam.datasets import Record, load_dataset
from gloam.errors import GloamError
from gloam.inference.extraction import extract_features
from gloam.methods import Method, create_method
from gloam.pixels.store import PixelStore, image_paths, open_store


@pytest.fixture(scope="module")
def pictures(sysu_root: Path) -> tuple[tuple[Record, ...], PixelStore]:
    records = load_dataset("sysu_mm01", sysu_root).train[::5]
    return records, open_store(sysu_root, image_paths(records), height=48, width=16, cache="off", progress=False)


@pytest.fixture(scope="module")
def method() -> Method[Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_method("base", 4, arch="tiny")


def test_features_are_in_order_and_do_not_depend_on_the_batch(pictures: Any, method: Method[Any]) -> None:
    records, store = pictures
    images = normalize(torch.from_numpy(store.read(np.arange(len(store)))))
    modalities = torch.tensor([int(record.modality) for record in records])
    with torch.no_grad():
        expected = method.eval().extract(images, modalities)
    method.train()
    for batch_size in (1, 7, 1000):
        found = extract_features(method, records, store, batch_size=batch_size)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert method.training
    chosen = np.array([4, 0, 2])
    torch.testing.assert_close(
        extract_features(method, records, store, indices=chosen), expected[chosen], atol=1e-6, rtol=1e-5
    )


def test_mirror_is_the_unit_mean_of_both_images(pictures: Any, method: Method[Any]) -> None:
    records, store = pictures
    images = normalize(torch.from_numpy(store.read(np.arange(len(store)))))
    modalities = torch.tensor([int(record.modality) for record in records])
    with torch.no_grad():
        method.eval()
        mean = (method.extract(images, modalities) + method.extract(images.flip(-1), modalities)) / 2
    found = extract_features(method, records, store, mirror=True)
    torch.testing.assert_close(found, unit_length(mean, dim=1), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(found, extract_features(method, records, store), atol=1e-4)


def test_a_failing_function_leaves_training_mode_on(pictures: Any, method: Method[Any]) -> None:
    def fail(images: Tensor, modalities: Tensor) -> Tensor:
        raise RuntimeError("broken")

    method.train()
    with pytest.raises(RuntimeError, match="broken"):
        extract_features(method, *pictures, function=fail)
    assert method.training


def test_a_batch_needs_a_record(pictures: Any, method: Method[Any]) -> None:
    with pytest.raises(GloamError, match="at least one record"):
        extract_features(method, *pictures, batch_size=0)


def _together(world: int) -> Callable[[int], Callable[[Tensor], Tensor]]:
    """An all-gather between threads."""
    barrier = threading.Barrier(world, timeout=60)
    slots: list[Tensor] = [torch.empty(0)] * world

    def of_rank(rank: int) -> Callable[[Tensor], Tensor]:
        def gather(own: Tensor) -> Tensor:
            slots[rank] = own
            barrier.wait()
            found = torch.stack(slots)
            barrier.wait()
            return found

        return gather

    return of_rank


@pytest.mark.parametrize(("count", "world"), [(10, 3), (5, 4), (3, 2), (2, 4)])
@pytest.mark.parametrize("shape", [(3,), (2, 2), ()])
def test_processes_split_without_duplicates(
    pictures: Any, method: Method[Any], count: int, world: int, shape: tuple[int, ...]
) -> None:
    records, store = pictures
    calls: list[int] = []

    def compute(images: Tensor, modalities: Tensor) -> Tensor:
        calls.append(len(images))
        return images.mean(dim=(1, 2, 3)).reshape(-1, *[1] * len(shape)).expand(-1, *shape)

    rows = np.arange(count)
    expected = extract_features(method, records, store, function=compute, indices=rows)
    calls.clear()
    gather_of = _together(world)

    def process(rank: int) -> Tensor:
        return extract_features(
            method,
            records,
            store,
            function=compute,
            indices=rows,
            batch_size=2,
            rank=rank,
            world_size=world,
            gather=gather_of(rank),
        )

    with ThreadPoolExecutor(world) as pool:
        for found in pool.map(process, range(world)):
            torch.testing.assert_close(found, expected)
    assert sum(calls) == count
