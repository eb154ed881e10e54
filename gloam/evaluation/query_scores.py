"""What every single query scored: the table beside ``results.json`` that comparisons and reports read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gloam.atomic import atomic_path
from gloam.datasets.records import Record
from gloam.errors import GloamError
from gloam.evaluation.ranking_plan import RankingPlan


@dataclass(frozen=True, eq=False, repr=False)
class QueryScores:
    """One row per protocol, trial and query; columns of equal length N.

    Attributes:
        protocol: ``(N,)`` full names.
        trial: ``(N,)`` int64, position in the results' list of trials.
        query: ``(N,)`` int64, position among the records that the protocol takes its queries from.
        path: ``(N,)`` the query's (first) image, relative to the dataset's root.
        pid: ``(N,)`` the identity as written on disk, as text.
        cam: ``(N,)`` int64 camera.
        modality: ``(N,)`` "visible" or "infrared".
        matches: ``(N,)`` int64 gallery entries that show the query's identity and that it may see; 0: the query is not
            valid and counts nowhere.
        first_match: ``(N,)`` int64, 1-based position of the first match; 0 without one.
        ap: ``(N,)`` float64 average precision; NaN without a match.
        inp: ``(N,)`` float64 inverse negative penalty; NaN without a match.
    """

    protocol: NDArray[np.object_]
    trial: NDArray[np.int64]
    query: NDArray[np.int64]
    path: NDArray[np.object_]
    pid: NDArray[np.object_]
    cam: NDArray[np.int64]
    modality: NDArray[np.object_]
    matches: NDArray[np.int64]
    first_match: NDArray[np.int64]
    ap: NDArray[np.float64]
    inp: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.trial)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """``(N,)``: queries that have a match; only these count."""
        return self.first_match > 0

    @classmethod
    def of_plan(
        cls, plan: RankingPlan, protocol: str, trial: int, positions: NDArray[np.int64], records: Sequence[Record]
    ) -> QueryScores:
        """The rows of one ranked trial.

        Args:
            plan: every query ranked.
            protocol: full name.
            trial: its number.
            positions: ``(Q,)`` positions of the queries in ``records``.
            records: the side that the queries come from.
        """
        chosen = [records[position] for position in positions]
        nan = np.where(plan.valid, 0.0, np.nan)
        return cls(
            protocol=np.full(len(chosen), protocol, dtype=np.object_),
            trial=np.full(len(chosen), trial, dtype=np.int64),
            query=positions.astype(np.int64),
            path=np.array([record.paths[0] for record in chosen], dtype=np.object_),
            pid=np.array([str(record.pid_raw) for record in chosen], dtype=np.object_),
            cam=np.array([record.cam for record in chosen], dtype=np.int64),
            modality=np.array([record.modality.name.lower() for record in chosen], dtype=np.object_),
            matches=plan.match_counts(),
            first_match=np.where(plan.valid, plan.first_hit, 0),
            ap=plan.average_precision + nan,
            inp=plan.penalty + nan,
        )

    def rows(self, chosen: NDArray[Any]) -> QueryScores:
        """Some rows, by mask or positions."""
        return QueryScores(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})

    def later(self, offsets: dict[str, int]) -> QueryScores:
        """The same rows with trial numbers raised by a number per protocol."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        names, place = np.unique(self.protocol.astype(str), return_inverse=True)
        raised = np.array([offsets[str(name)] for name in names], dtype=np.int64)
        return QueryScores(**{**values, "trial": self.trial + raised[place] if len(self) else self.trial})

    def save(self, path: Path) -> None:
        """Write as Parquet, atomically; equal rows give equal bytes.

        Raises:
            WriteError: it cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet

        columns: dict[str, Any] = {}
        for field in fields(self):
            values = getattr(self, field.name)
            if values.dtype == np.object_:
                columns[field.name] = pa.array(values.tolist(), type=pa.string()).dictionary_encode()
            else:
                columns[field.name] = pa.array(values, from_pandas=True)
        # An open file: Arrow takes no names that are not UTF-8.
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            pyarrow.parquet.write_table(pa.table(columns), file, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> QueryScores:
        """Read what :meth:`save` wrote.

        Raises:
            GloamError: no such file, or another kind of file.
        """
        import pyarrow as pa
        import pyarrow.parquet

        names = [field.name for field in fields(cls)]
        try:
            with path.open("rb") as file:
                table = pyarrow.parquet.read_table(file, columns=names)
            columns: dict[str, Any] = {
                name: np.array(table.column(name).to_pylist(), dtype=np.object_)
                if name in ("protocol", "path", "pid", "modality")
                else table.column(name).to_numpy()
                for name in names
            }
        except FileNotFoundError as error:
            raise GloamError(f"There is no table of queries {path}. gloam evaluate RUN writes one.") from error
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise GloamError(
                f"{path} could not be read as a table of queries ({reason}). gloam evaluate RUN writes it anew."
            ) from error
        return cls(**columns)


def join(parts: Sequence[QueryScores]) -> QueryScores:
    """The rows of several tables, one after the other."""
    return QueryScores(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(QueryScores)}
    )
