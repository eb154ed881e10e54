"""Features in files: Parquet, NumPy archives and CSV, with their table and what is known of their model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gloam.atomic import atomic_path
from gloam.console import printable
from gloam.errors import GloamError

FORMATS = (".parquet", ".npz", ".csv")
ABOUT = ("model_digest", "model_name")  # NPZ arrays; CSV columns; Parquet keeps both in its metadata
Content = tuple[NDArray[np.float32], pd.DataFrame, dict[str, str]]


def check_format(path: Path) -> None:
    """Raises GloamError for a suffix that no format has: before features are computed, not after."""
    if path.suffix not in FORMATS:
        raise GloamError(f"{path} must end in one of {', '.join(FORMATS)}.")


def write_features(path: Path, array: NDArray[np.float32], columns: pd.DataFrame, about: dict[str, str]) -> None:
    """Write features in the format of the file's suffix, atomically.

    ``.parquet``: column ``feature`` holds lists. ``.npz``: array ``features (N, D)``, one array per column. ``.csv``:
    columns ``f0, f1, ...``.

    Args:
        path: file to write.
        array: ``(N, D)``.
        columns: N rows.
        about: the model, under the names ``ABOUT``.

    Raises:
        GloamError: another suffix.
    """
    check_format(path)
    # A run's folder may have a name that is no text; it is told, not opened again.
    about = {name: printable(value) for name, value in about.items()}
    with atomic_path(path) as temporary:
        if path.suffix == ".npz":
            arrays: dict[str, Any] = {str(name): _plain(columns[name]) for name in columns}
            arrays |= {name: np.array(value) for name, value in about.items()}
            with temporary.open("wb") as file:
                np.savez(file, features=array, **arrays)
        elif path.suffix == ".csv":
            numbers = pd.DataFrame(array, columns=[f"f{i}" for i in range(array.shape[1])])
            pd.concat([columns.assign(**about), numbers], axis=1).to_csv(temporary, index=False)
        else:
            import pyarrow as pa
            import pyarrow.parquet

            table = pa.Table.from_pandas(columns.assign(feature=list(array)), preserve_index=False)
            told = {**(table.schema.metadata or {}), b"gloam": json.dumps(about).encode()}
            table = table.replace_schema_metadata(told)
            with temporary.open("wb") as file:  # Arrow takes no names that are not UTF-8
                pyarrow.parquet.write_table(table, file)


def read_features(path: Path) -> Content:
    """Read what :func:`write_features` wrote: vectors, columns, and what is told of the model (nothing in old files).

    Raises:
        GloamError: no such file, another format, or damaged content.
    """
    check_format(path)
    if not path.is_file():
        raise GloamError(f"There is no file of features {path}.")
    try:
        return _READERS[path.suffix](path)
    except Exception as error:
        # pandas, pyarrow and NumPy raise a dozen kinds for damaged files; each means the same to a user.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GloamError(f"{path} could not be read as features ({reason}). Write it with gloam extract.") from error


def _read_npz(path: Path) -> Content:
    with np.load(path, allow_pickle=False) as file:
        about = {name: str(file[name].item()) for name in ABOUT if name in file}
        columns = {name: file[name] for name in file.files if name not in ("features", *ABOUT)}
        return file["features"], pd.DataFrame(columns), about


def _read_csv(path: Path) -> Content:
    names = pd.read_csv(path, nrows=0).columns
    vector = [name for name in names if name[0] == "f" and name[1:].isdecimal()]
    # float32 digits survive the round trip only with a parser that rounds exactly.
    table = pd.read_csv(path, dtype=dict.fromkeys(vector, np.float32), engine="pyarrow")
    about = {name: str(table[name].iloc[0]) for name in ABOUT if name in table and len(table)}
    columns = table.drop(columns=[*vector, *(name for name in ABOUT if name in table)])
    return table[vector].to_numpy(np.float32), columns, about


def _read_parquet(path: Path) -> Content:
    import pyarrow.parquet

    with path.open("rb") as file:
        table = pyarrow.parquet.read_table(file)
    about = json.loads((table.schema.metadata or {}).get(b"gloam", b"{}"))
    array = np.zeros((0, 0), np.float32)
    if count := table.num_rows:
        vectors = table.column("feature").combine_chunks().flatten()
        array = np.array(vectors.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(count, -1)
    return array, table.drop_columns(["feature"]).to_pandas(), about


_READERS = {".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}


def _plain(column: pd.Series[Any]) -> NDArray[Any]:
    """A column as an array that NumPy stores without pickling."""
    array = column.to_numpy()
    return array.astype(str) if array.dtype == object else np.asarray(array)
