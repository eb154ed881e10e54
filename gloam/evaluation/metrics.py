"""The numbers of one ranking: what it found for every query and the averages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gloam.atomic import write_text

if TYPE_CHECKING:
    from rich.table import Table

REPORTED_RANKS = (1, 5, 10, 20)


@dataclass(frozen=True)
class RankingMetrics:
    """Cumulative matching characteristic, average precision and inverse negative penalty.

    Fractions, not percent. A query without a match in its filtered gallery is invalid and counts nowhere.

    Attributes:
        cmc: ``(K,)`` float64; entry k-1 is the share of valid queries whose first hit is at most k.
        mAP: mean average precision over the full filtered list.
        mINP: mean of (matches / position of the last match).
        num_valid: number of valid queries.
        valid: ``(Q,)`` bool.
        first_hit: ``(Q,)`` int64, 1-based position of the first match (0 for invalid queries).
        average_precision: ``(Q,)`` float64, NaN for invalid queries.
        inverse_negative_penalty: ``(Q,)`` float64, NaN for invalid queries.
    """

    cmc: NDArray[np.float64]
    mAP: float
    mINP: float
    num_valid: int
    valid: NDArray[np.bool_]
    first_hit: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    inverse_negative_penalty: NDArray[np.float64]

    def to_dict(self) -> dict[str, float]:
        """``rank1``, ``rank5``, ``rank10``, ``rank20`` (up to K), ``mAP``, ``mINP``, ``num_valid``."""
        ranks = {f"rank{k}": float(self.cmc[k - 1]) for k in REPORTED_RANKS if k <= len(self.cmc)}
        return {**ranks, "mAP": self.mAP, "mINP": self.mINP, "num_valid": self.num_valid}

    def table(self, title: str = "") -> Table:
        """Percentages with two decimals."""
        from rich.table import Table

        values = self.to_dict()
        table = Table(*values, title=title or None, title_justify="left")
        table.add_row(*(str(int(v)) if k == "num_valid" else f"{100 * v:.2f}" for k, v in values.items()))
        return table

    def __str__(self) -> str:
        values = self.to_dict()
        parts = [f"{k} {100 * v:.2f}" for k, v in values.items() if k != "num_valid"]
        return f"{', '.join(parts)} ({self.num_valid} valid queries)"

    def to_json(self, path: str | Path) -> None:
        """Write the averages as JSON, atomically."""
        write_text(path, json.dumps(self.to_dict(), indent=2))

    def to_csv(self, path: str | Path) -> None:
        """Write the averages as a CSV with one row, atomically."""
        values = self.to_dict()
        write_text(path, ",".join(values) + "\n" + ",".join(repr(v) for v in values.values()) + "\n")


def summarise(
    valid: NDArray[np.bool_],
    first_hit: NDArray[np.int64],
    average_precision: NDArray[np.float64],
    inverse_negative_penalty: NDArray[np.float64],
    max_rank: int,
) -> RankingMetrics:
    """Averages over the valid queries; CMC beyond a list's end keeps its last value."""
    hits = np.minimum(first_hit[valid], max_rank + 1)
    counts = np.bincount(hits, minlength=max_rank + 2)[1 : max_rank + 1]
    nan = np.where(valid, 0.0, np.nan)
    return RankingMetrics(
        cmc=np.cumsum(counts) / valid.sum(),
        mAP=float(average_precision[valid].mean()),
        mINP=float(inverse_negative_penalty[valid].mean()),
        num_valid=int(valid.sum()),
        valid=valid,
        first_hit=np.where(valid, first_hit, 0),
        average_precision=average_precision + nan,
        inverse_negative_penalty=inverse_negative_penalty + nan,
    )
