"""k-reciprocal sets and what is made of them: expanded sets, averaged encodings and the Jaccard distance.

*Source*: Zhong et al., *Re-ranking Person Re-identification with k-reciprocal Encoding*, CVPR 2017, sections 3.2 to
3.4. Clustering and re-ranking share this code; they differ in widths and in the weights that they give to a set.

Encodings are sparse rows (a few hundred entries), never N x N: two items are closer than 1 only if they share an entry,
and an inverted index finds those.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gloam.search.blocks import map_blocks

_ROWS = 256  # rows per block of the compiled loops

_Rows = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32] | None]


def half_width(k1: int) -> int:
    """Width of the members' sets: half of k1, rounded half to even, plus the item itself."""
    return k1 // 2 + (k1 % 4 == 3) + 1


def expanded_sets(neighbours: NDArray[np.int32], full: int, half: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """The expanded k-reciprocal set of every item, as sparse rows.

    A reciprocal set holds the nearest items that have the item among their own nearest. It grows by the sets of half
    width of its members, where these share more than two thirds of their entries with it.

    Args:
        neighbours: ``(N, w)`` nearest items of every item in order, 0..N-1.
        full: width of an item's own set, at most w.
        half: width of its members' sets, at most w.

    Returns:
        ``(N + 1,)`` starts and ``(S,)`` int32 columns, ascending within a row.
    """
    kernels = _compiled_loops()
    _check_neighbours(neighbours, max(full, half))
    count = len(neighbours)
    sides = []
    for width in (full, half):
        sets, sizes = np.empty((count, width), dtype=np.int32), np.empty(count, dtype=np.int32)
        for _ in map_blocks(partial(kernels.reciprocal_rows, neighbours, width, sets, sizes), count, _ROWS):
            pass
        sides += [sets, sizes]
    starts, columns, _ = _join(list(map_blocks(partial(kernels.expanded_rows, *sides), count, _ROWS)))
    return starts, columns


def averaged(encoding: csr_array, neighbours: NDArray[np.int32], k2: int) -> csr_array:
    """Local query expansion: every row of an encoding becomes the mean of the rows of its k2 nearest items.

    Args:
        encoding: ``(N, N)`` sparse rows.
        neighbours: ``(N, w)`` nearest items of every item in order.
        k2: how many, at most w; 1 changes nothing.
    """
    if k2 == 1:
        return encoding
    _check_neighbours(neighbours, k2)
    step = partial(_compiled_loops().averaged_rows, *sparse_parts(encoding), neighbours, k2)
    return _joined(list(map_blocks(step, len(neighbours), _ROWS)), len(neighbours))


def inverted(encoding: csr_array) -> csr_array:
    """The transposed encoding: for every column the rows that use it, ascending."""
    return csr_array(encoding.T.tocsr())


def overlap_pairs(encoding: csr_array, *, limit: float = 2.0, lower: bool = False) -> csr_array:
    """Jaccard distances of all rows of an encoding that are below 1 and not above ``limit``.

    Args:
        encoding: ``(N, N)`` sparse rows that sum to 1.
        limit: largest distance kept.
        lower: only pairs j <= i.

    Returns:
        ``(N, N)`` float32; zeros are stored.
    """
    lists = sparse_parts(inverted(encoding))
    count = encoding.shape[0]
    step = partial(_compiled_loops().sparse_distances, *sparse_parts(encoding), *lists, np.float32(limit), lower)
    return _joined(list(map_blocks(step, count, _ROWS)), count)


def overlap_rows(encoding: csr_array, lists: csr_array, first: int, stop: int) -> NDArray[np.float32]:
    """Jaccard distances of rows ``first`` .. ``stop`` of an encoding to some other rows.

    Args:
        encoding: ``(Q, N)`` sparse rows that sum to 1.
        lists: ``(N, G)`` the other rows, :func:`inverted`.
        first: first row.
        stop: row after the last one.

    Returns:
        ``(stop - first, G)``, not clipped at 0.
    """
    starts, columns, weights = sparse_parts(encoding)
    result = np.empty((stop - first, lists.shape[1]), dtype=np.float32)
    parts = starts[first : stop + 1], columns, weights, *sparse_parts(lists), result
    for _ in map_blocks(partial(_compiled_loops().dense_distances, *parts), stop - first, _ROWS):
        pass
    return result


def sparse_parts(matrix: csr_array) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Starts, columns and values of sparse rows, sound: the compiled loops read wherever they point."""
    matrix.check_format(full_check=True)
    return matrix.indptr, matrix.indices, matrix.data


def sparse_rows(starts: NDArray[Any], columns: NDArray[np.int32], values: NDArray[np.float32]) -> csr_array:
    """Square sparse matrix of these rows."""
    count = len(starts) - 1
    if starts[-1] <= np.iinfo(np.int32).max:
        starts = starts.astype(np.int32, copy=False)
    return csr_array((values, columns, starts), shape=(count, count))


def _joined(blocks: list[_Rows], count: int) -> csr_array:
    starts, columns, values = _join(blocks)
    return sparse_rows(starts, columns, np.zeros(0, np.float32) if values is None else values)


def _join(blocks: list[_Rows]) -> _Rows:
    """Blocks of rows to one; each block is freed as soon as it is copied."""
    sizes = np.concatenate([[0], *(block[0] for block in blocks)])
    starts = np.cumsum(sizes, dtype=np.int64)
    columns = np.empty(int(starts[-1]), dtype=np.int32)
    values = None if not blocks or blocks[0][2] is None else np.empty(len(columns), dtype=np.float32)
    place = 0
    blocks.reverse()
    while blocks:
        _, part_columns, part_values = blocks.pop()
        columns[place : place + len(part_columns)] = part_columns
        if values is not None and part_values is not None:
            values[place : place + len(part_columns)] = part_values
        place += len(part_columns)
    return starts, columns, values


def _check_neighbours(neighbours: NDArray[np.int32], width: int) -> None:
    """The compiled loops read wherever these indices point."""
    count, have = neighbours.shape
    if width < 1 or width > have or (count and not (neighbours.min() >= 0 and neighbours.max() < count)):
        raise IndexError(f"neighbours of shape {neighbours.shape} do not name {width} of {count} items each")


def _compiled_loops() -> Any:
    from gloam.search import k_reciprocal_kernels

    return k_reciprocal_kernels
