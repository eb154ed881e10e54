"""Rows in blocks over threads, for compiled kernels that release the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def map_blocks(function: Callable[[int, int], T], count: int, size: int) -> Iterator[T]:
    """Results of ``function(start, stop)`` over consecutive blocks, in order; as many threads as torch computes with.

    Args:
        function: works on rows ``start <= i < stop``; must release the interpreter lock to gain from threads.
        count: number of rows.
        size: rows per block.
    """
    bounds = [(start, min(start + size, count)) for start in range(0, count, size)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        yield from pool.map(lambda bound: function(*bound), bounds)
