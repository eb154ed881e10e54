"""Where a gallery may lie on disk: local file systems only, readable by its owner only."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gloam.errors import GloamError

# File systems whose locks or memory maps do not hold between machines: SQLite's log is damaged there (sqlite.org/wal).
_KINDS = """
nfs nfs3 nfs4 cifs smb3 smbfs afs ncpfs 9p ceph glusterfs lustre gpfs beegfs pvfs2 orangefs davfs
fuse.sshfs fuse.glusterfs fuse.s3fs fuse.gcsfuse fuse.rclone fuse.ceph fuse.davfs2 fuse.juicefs
"""
NETWORK = frozenset(_KINDS.split())
_MOUNTS = Path("/proc/self/mounts")


def filesystem_of(path: Path, mounts: str) -> str:
    """Kind of the file system that a path lies on, from the text of ``/proc/self/mounts``; empty if none matches."""
    best, kind = "", ""
    for line in mounts.splitlines():
        words = line.split()
        if len(words) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), words[1])
        inside = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, words[2]
    return kind


def refuse_network(folder: Path) -> None:
    """Raises GloamError where the folder lies on a network file system (known on Linux only)."""
    try:
        mounts = _MOUNTS.read_text(errors="replace")
    except OSError:
        return
    kind = filesystem_of(folder.resolve(), mounts)
    if kind in NETWORK:
        raise GloamError(
            f"{folder} lies on a network file system ({kind}), where two machines can damage the gallery. Put it on a "
            "local disk; several machines share one gallery through Qdrant (qdrant://host:6333/name)."
        )


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_file(path: Path) -> None:
    """Create an empty file that its owner alone may read; SQLite gives its log the same rights."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def make_private(path: Path) -> None:
    """A file, new or not, that its owner alone may read."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    path.chmod(0o600)
