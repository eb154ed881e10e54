"""A digest that tells whether two runs saw the same data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from gloam.datasets.records import Record


def data_fingerprint(*parts: Iterable[Record]) -> str:
    """Digest of file names, lengths, labels and cameras of all records, part after part.

    Args:
        parts: records in order, for example the training, query and gallery records of a dataset.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        for record in part:
            digest.update(f"{record.paths[0]}|{len(record.paths)}|{record.pid}|{record.cam}\n".encode())
    return digest.hexdigest()[:16]
