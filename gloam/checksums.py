"""Checksums of files that are used long after they were written."""

from __future__ import annotations

import zipfile
from pathlib import Path


def damaged_part(path: Path) -> str | None:
    """The first part of a file of torch (a ZIP archive) whose content is not what was written, or None.

    torch writes a CRC-32 for every part and does not look at it; a flipped bit would be taken for a weight.

    Args:
        path: a file that ``torch.save`` wrote.

    Raises:
        Exception: no archive, or one whose structure is broken; zipfile raises several kinds.
    """
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()
