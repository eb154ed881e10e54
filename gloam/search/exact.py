"""Exact nearest points: matrix products propose, exact distances decide.

**Guarantee.** What is found are the k points of smallest distance, computed in float64 from the float32 features by
differences; equal distances come in index order. Products only propose: each score is known to lie between two ends,
whose gap follows from the rounding of a product of D terms in *any* order of summation (Higham, *Accuracy and Stability
of Numerical Algorithms*, section 3.1), and every point that may still be among the k nearest is kept. Block sizes,
threads, device and TensorFloat-32 therefore change nothing but the time.

The features' mean is subtracted first, so that features that differ little are told apart as well as others. Where more
points stay in question than a row has room for, its products are repeated in float64; what is in question then (in
general exact ties) is decided by looking at every point.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gloam.search.blocks import map_blocks
from gloam.search.points import Points, shrinking

Found = tuple[NDArray[np.int64], NDArray[np.float32]]
Hidden = NDArray[np.bool_]  # (Q, G), or (0, 0) where nothing is hidden

NOTHING_HIDDEN: Hidden = np.zeros((0, 0), dtype=np.bool_)
_TILE_ROWS, _TILE_COLUMNS = 4096, 1024  # of one tile of the products on the CPU, whatever Q and G
_DEVICE_BYTES = 1 << 26  # of one block of the products on a GPU
_ROUNDING = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
_SMALLEST = {torch.float32: 2.0**-126, torch.float64: 2.0**-1022}
_FEW = 16  # queries below which looking at every point costs less than preparing products


class Ends(NamedTuple):
    """What turns a product into the two ends of a score, per point: see ``nearest_kernels.absorb``; ``(G,)`` each.

    ``lengths`` are those of the points relative to the centre.
    """

    lengths: Tensor
    base: Tensor
    slope: Tensor
    spread: Tensor


class Pool:
    """Candidates of every row: what may be among the k nearest in spite of rounding.

    Args:
        count: rows.
        k: neighbours wanted.
        points: points there are.
        dtype: of the products.
    """

    def __init__(self, count: int, k: int, points: int, dtype: torch.dtype = torch.float32) -> None:
        kind = np.float32 if dtype == torch.float32 else np.float64
        self.capacity = min(2 * k + 64, points)
        self.nearest = np.full((count, k), np.inf, dtype=kind)  # max-heaps of the k smallest upper ends
        self.indices = np.empty((count, self.capacity), dtype=np.int32)
        self.lows = np.empty((count, self.capacity), dtype=kind)
        self.sizes = np.zeros(count, dtype=np.int32)
        self.overflowed = np.zeros(count, dtype=np.bool_)

    def absorb(
        self, products: Tensor, lengths: Tensor, ends: Ends, row: int, column: int, hidden: Hidden = NOTHING_HIDDEN
    ) -> None:
        """Look at the products of rows ``row`` .. with points ``column`` .., which come in ascending order."""
        rows, columns = products.shape
        if len(lengths) != rows or row + rows > len(self.sizes) or column + columns > len(ends.base):
            raise IndexError(f"{products.shape} products from {row}, {column} on do not fit {len(self.sizes)} rows")
        if len(hidden) and hidden.shape != (len(self.sizes), len(ends.base)):
            raise IndexError(f"a mask of shape {hidden.shape} for {len(self.sizes)} rows, {len(ends.base)} points")
        arrays = [part.numpy() for part in (products, lengths)]
        step = partial(
            compiled_loops().absorb,
            *arrays,
            row,
            column,
            *(part.numpy() for part in ends[1:]),
            hidden,
            self.nearest,
            self.indices,
            self.lows,
            self.sizes,
            self.overflowed,
        )
        for _ in map_blocks(step, len(products), 64):
            pass


class ExactSearch:
    """The k nearest of some points, for any queries.

    Args:
        points: ``(G, D)`` what is searched.
        k: neighbours wanted, at most G.
        kind: of the distances that are returned: ``SQUARED``, ``ROOT`` or ``COSINE`` of ``points``.
        shrink: see :meth:`Points.moved`.
    """

    def __init__(self, points: Points, k: int, kind: int, shrink: float) -> None:
        self.points, self.k, self.kind, self.shrink = points, k, kind, shrink
        self.centre = points.centre(shrink)
        self._ends: dict[torch.dtype, Ends] = {}

    def find(self, query: Points, hidden: Hidden = NOTHING_HIDDEN, *, again: bool = False) -> Found:
        """The nearest points of every query.

        Args:
            query: ``(Q, D)`` on the points' device.
            hidden: ``(Q, G)`` bool: points that a query may not see.
            again: products in float32 were not enough.

        Returns:
            ``(Q, k)`` int64 indices, -1 where no more are visible, and ``(Q, k)`` float32 distances, there infinite.
        """
        indices, distances = self._nothing_found(len(query))
        rows = np.arange(len(query))
        if len(query) > _FEW or not query.on_cpu:
            for dtype in (torch.float64,) if again else (torch.float32, torch.float64):
                some = query.take(rows)
                pool = self.propose(some, _some(hidden, rows), dtype)
                done = ~pool.overflowed
                indices[rows[done]], distances[rows[done]] = (part[done] for part in self.refine(some, pool))
                rows = rows[~done]
                if len(rows) == 0:
                    return indices, distances
        indices[rows], distances[rows] = self.look_at_all(query.take(rows), _some(hidden, rows))
        return indices, distances

    def propose(self, query: Points, hidden: Hidden, dtype: torch.dtype) -> Pool:
        """Candidates of every query by products of one precision."""
        pool = Pool(len(query), self.k, len(self.points), dtype)
        if not _compiled(query):
            self._propose_on_device(query, hidden, dtype, pool)
            return pool
        ends = self.ends(dtype)
        for start in range(0, len(query), _TILE_ROWS):
            rows = self.moved(query, start, start + _TILE_ROWS, dtype)
            lengths = torch.linalg.vector_norm(rows, dim=1)
            for column in range(0, len(self.points), _TILE_COLUMNS):
                products = multiply(rows, self.moved(self.points, column, column + _TILE_COLUMNS, dtype))
                pool.absorb(products, lengths, ends, start, column, hidden)
        return pool

    def refine(self, query: Points, pool: Pool) -> Found:
        """The nearest among the candidates by exact distances, which are computed on the CPU whatever the device.

        Rows that ran over stay at -1.
        """
        indices, distances = self._nothing_found(len(query))
        points, places, numbers = self.points, pool.indices, None
        if not self.points.on_cpu:
            # Bring only those points over that somebody may want.
            used = (np.arange(pool.capacity)[None] < pool.sizes[:, None]) & ~pool.overflowed[:, None]
            numbers, inverse = np.unique(pool.indices[used], return_inverse=True)
            places = np.zeros_like(pool.indices)
            places[used] = inverse
            points = self.points.take(numbers.astype(np.int64))
        self._compiled_step(compiled_loops().refine, query, points, _arrays(pool, places), indices, distances)
        if numbers is not None and len(numbers):
            indices = np.where(indices >= 0, numbers[indices], -1)
        return indices, distances

    def look_at_all(self, query: Points, hidden: Hidden) -> Found:
        """The nearest by the exact distance to every point; equal queries are asked once."""
        indices, distances = self._nothing_found(len(query))
        if len(hidden):
            self._compiled_step(compiled_loops().scan, query, self.points, (hidden,), indices, distances)
            return indices, distances
        rows = np.ascontiguousarray(query.values.cpu().numpy())
        whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
        _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
        indices, distances = indices[: len(first)], distances[: len(first)]
        self._compiled_step(compiled_loops().scan, query.take(first), self.points, (hidden,), indices, distances)
        return indices[inverse], distances[inverse]

    def moved(self, points: Points, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Rows ``start`` .. ``stop`` of some points, relative to the centre."""
        return points.moved(start, min(stop, len(points)), self.centre, self.shrink, dtype)

    def ends(self, dtype: torch.dtype) -> Ends:
        """How far the scores of all points may be from their products."""
        if dtype not in self._ends:
            self._ends[dtype] = self._make_ends(dtype)
        return self._ends[dtype]

    def _make_ends(self, dtype: torch.dtype) -> Ends:
        width, points = self.points.values.shape[1], self.points
        error = _product_error(width, dtype, points.values.device)
        floor = 2 * (width + 16) * _SMALLEST[dtype]  # of products that vanish
        blur = 8 * _ROUNDING[torch.float64] if points.unit else 0.0  # of a unit vector's place
        parts = []
        for start in range(0, len(points), _TILE_COLUMNS):
            stop = min(start + _TILE_COLUMNS, len(points))
            lengths = torch.linalg.vector_norm(self.moved(points, start, stop, dtype), dim=1).double()
            squares = lengths.square() + points.lifts(start, stop)
            doubt = error * squares + floor + 4 * blur * lengths + 2 * blur**2
            parts.append(torch.stack([lengths, squares - doubt, 2 * error * lengths + 2 * blur, 2 * doubt]))
        return Ends(*torch.cat(parts, dim=1).to(dtype))

    def _propose_on_device(self, query: Points, hidden: Hidden, dtype: torch.dtype, pool: Pool) -> None:
        """Candidates by products on a GPU: those of the lowest lower ends, if they are all that can be in question."""
        count, ends = len(self.points), self.ends(dtype)
        points = self.moved(self.points, 0, count, dtype)
        rows = max(1, _DEVICE_BYTES // (points.element_size() * count))
        for start in range(0, len(query), rows):
            stop = min(start + rows, len(query))
            some = self.moved(query, start, stop, dtype)
            slack = torch.linalg.vector_norm(some, dim=1)[:, None]
            lows = multiply(some, points).mul_(-2)
            lows.add_(ends.base).addcmul_(slack, ends.slope, value=-1)
            if len(hidden):
                lows.masked_fill_(torch.from_numpy(hidden[start:stop]).to(lows.device), torch.inf)
            low, found = lows.topk(pool.capacity, dim=1, largest=False)
            highs = low + ends.spread[found] + 2 * slack * ends.slope[found]
            limits = highs.topk(self.k, dim=1, largest=False).values[:, -1]
            found, order = found.sort(dim=1)
            low = low.gather(1, order)
            kept = (low <= limits[:, None]) & torch.isfinite(low)
            # Candidates to the front, still ascending.
            front = (~kept).to(torch.uint8).sort(dim=1, stable=True).indices
            here = slice(start, stop)
            pool.indices[here] = found.gather(1, front).to(torch.int32).cpu().numpy()
            pool.lows[here] = low.gather(1, front).cpu().numpy()
            pool.sizes[here] = kept.sum(dim=1).cpu().numpy()
            pool.nearest[here] = limits[:, None].cpu().numpy()
            pool.overflowed[here] = kept.all(dim=1).cpu().numpy() & (pool.capacity < count)

    def _nothing_found(self, count: int) -> Found:
        return np.full((count, self.k), -1, dtype=np.int64), np.full((count, self.k), np.inf, dtype=np.float32)

    def _compiled_step(self, kernel: Any, query: Points, points: Points, more: Any, *out: NDArray[Any]) -> None:
        sides = [part.to(torch.device("cpu")) for part in (query, points)]
        arrays = [array for part in sides for array in (part.values.numpy(), part.factors.numpy())]
        for _ in map_blocks(partial(kernel, self.kind, *arrays, *more, *out), len(query), 64):
            pass


def exact_search(points: Points, k: int, kind: int, *queries: Points) -> ExactSearch:
    """A search whose numbers stay in range for all these queries."""
    return ExactSearch(points, k, kind, shrinking(points, *queries))


def compiled_loops() -> Any:
    """The module of compiled loops: it takes half a second to import, and type checkers cannot see into it."""
    from gloam.search import nearest_kernels

    return nearest_kernels


def multiply(x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """``x @ y.T`` in the precision of the inputs, also under autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.mm(x, y.T, out=out)


def _some(hidden: Hidden, rows: NDArray[np.int64]) -> Hidden:
    return hidden if len(hidden) == len(rows) or len(hidden) == 0 else hidden[rows]


def _arrays(pool: Pool, places: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
    return pool.nearest, places, pool.lows, pool.sizes, pool.overflowed


def _compiled(query: Points) -> bool:
    """Whether the compiled loops propose; tests replace this to run the way of GPUs on CPUs."""
    return query.on_cpu


def _product_error(width: int, dtype: torch.dtype, device: torch.device) -> float:
    """Bound of the relative error of a score by products of ``width`` terms, in any order of summation."""
    error = (width + 16) * _ROUNDING[dtype]
    if dtype == torch.float32:
        # Inputs of 10 (TensorFloat-32) or 7 bits, and sums that need not be rounded to nearest.
        error = {"tf32": 2 * error + 2.0**-9, "bf16": 2 * error + 2.0**-6}.get(_product_mode(device), error)
    return 1.25 * error


def _product_mode(device: torch.device) -> str:
    """How the user's settings let torch multiply float32 matrices: ``ieee``, ``tf32`` or ``bf16``."""
    backend: Any = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    mode = getattr(getattr(backend, "matmul", None), "fp32_precision", None)  # torch 2.9
    if mode is None:
        fast = device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
        mode = "tf32" if fast else "bf16" if torch.get_float32_matmul_precision() == "medium" else "ieee"
    return str(mode)
