"""Features as points: float32 rows with their lengths, moved near the origin for the products that search them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gloam.search.arrays import as_features, check_finite
from gloam.search.blocks import map_blocks
from gloam.search.distances import Metric, as_float32, block_rows, largest_entries, powers_of_two

# Lengths whose squares, and those of much smaller differences, float32 holds.
_SMALL, _LARGE = 2.0**-20, 2.0**50


class Points:
    """Rows whose squared Euclidean distances order the neighbours; kept where they lie (CPU or GPU).

    For cosine a row stands for its unit vector, and ``|u - v|^2 = 2 - 2 cos``. A row of zeros has cosine 0 to every
    row, hence distance 2 (``lifts`` adds the 1 that its place at the origin lacks).

    Args:
        values: ``(N, D)`` float32, contiguous.
        squares: ``(N,)`` float64 squared lengths.
        unit: whether rows stand for their unit vectors.
    """

    def __init__(self, values: Tensor, squares: Tensor, unit: bool) -> None:
        self.values, self.squares, self.unit = values, squares, unit

    def __len__(self) -> int:
        return len(self.values)

    @property
    def on_cpu(self) -> bool:
        """Whether the compiled loops can read the rows."""
        return self.values.device.type == "cpu"

    @cached_property
    def factors(self) -> Tensor:
        """``(N,)`` float64 by which rows are multiplied: 1 / length for unit rows (0 for a row of zeros), else 1."""
        if not self.unit:
            return torch.ones_like(self.squares)
        return torch.where(self.squares > 0, self.squares.rsqrt(), 0.0)

    def take(self, rows: NDArray[np.int64]) -> Points:
        """Some rows; the points themselves where that is all of them."""
        if len(rows) == len(self) and bool((rows == np.arange(len(self))).all()):
            return self
        chosen = torch.from_numpy(rows).to(self.values.device)
        return Points(self.values[chosen], self.squares[chosen], self.unit)

    def to(self, device: torch.device) -> Points:
        """The points on a device."""
        return Points(self.values.to(device), self.squares.to(device), self.unit)

    def span(self) -> float:
        """The largest length; 0 without rows."""
        return 1.0 if self.unit else float(self.squares.max()) ** 0.5 if len(self) else 0.0

    def centre(self, shrink: float) -> Tensor:
        """``(D,)`` float64 mean of ``shrink p``: alike features differ little, but lie far from the origin.

        Any place near the mean serves, so float32 is precise enough where it does not overflow.
        """
        if not self.unit and shrink == 1:
            return self.values.mean(dim=0).double()
        factors = self.factors * (shrink / len(self))
        rows = block_rows(2 * self.values.shape[1])
        total = torch.zeros(self.values.shape[1], dtype=torch.float64, device=self.values.device)
        for some, part in zip(factors.split(rows), self.values.split(rows), strict=True):
            total += some @ part.double()
        return total

    def moved(self, start: int, stop: int, centre: Tensor, shrink: float, dtype: torch.dtype) -> Tensor:
        """``(shrink p - centre)`` of some rows, each entry rounded once to ``dtype``.

        Args:
            start: first row.
            stop: row after the last one.
            centre: ``(D,)`` float64; for float32 and neither unit rows nor shrinking its float32 value is meant.
            shrink: a power of two that keeps squares in range, or 1.
            dtype: float32 or float64.
        """
        part = self.values[start:stop]
        if not self.unit and shrink == 1:
            return part.to(dtype) - centre.to(dtype)
        factors = self.factors[start:stop] * shrink
        return (part.double() * factors[:, None]).sub_(centre).to(dtype)

    def lifts(self, start: int, stop: int) -> Tensor:
        """``(stop - start,)`` float64: 1 where a row of zeros stands for a direction, else 0."""
        squares = self.squares[start:stop]
        return (squares == 0).double() if self.unit else torch.zeros_like(squares)


def as_points(features: Any, metric: Metric, name: str = "features") -> Points:
    """Features of any float type as points.

    Args:
        features: ``(N, D)`` NumPy or torch, CPU or GPU.
        metric: ``cosine`` or ``euclidean``.
        name: for messages.

    Raises:
        GloamError: not a matrix of numbers, NaN or infinite entries, or float64 numbers that float32 cannot hold.
    """
    tensor = as_features(features, name)
    if tensor.device.type not in ("cpu", "cuda"):
        tensor = tensor.cpu()  # other devices lack float64
    if metric == "cosine" and tensor.dtype == torch.float64:
        tensor = tensor / powers_of_two(largest_entries(tensor, name))[:, None]
    tensor = as_float32(tensor, name).contiguous()
    if tensor.device.type == "cpu":
        squares = torch.empty(len(tensor), dtype=torch.float64)
        _fill_squares(tensor.numpy(), squares.numpy())
    else:
        parts = tensor.split(block_rows(2 * tensor.shape[1]))
        squares = torch.cat([part.double().square().sum(dim=1) for part in parts])
    check_finite(squares, name)
    return Points(tensor, squares, metric == "cosine")


def shrinking(*points: Points) -> float:
    """The power of two that brings points whose squares would leave the range of float32 back into it, or 1."""
    largest = max(part.span() for part in points)
    if largest == 0 or _SMALL <= largest <= _LARGE:
        return 1.0
    return 1 / float(powers_of_two(torch.tensor(largest, dtype=torch.float64)))


def _fill_squares(values: NDArray[np.float32], squares: NDArray[np.float64]) -> None:
    from gloam.search import nearest_kernels

    kernels: Any = nearest_kernels  # compiled functions are opaque to type checkers
    for _ in map_blocks(lambda start, stop: kernels.squares_of_rows(values, squares, start, stop), len(values), 4096):
        pass
