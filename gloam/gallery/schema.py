"""Tables of the gallery file."""

from __future__ import annotations

APPLICATION_ID = 0x676C6F61  # "gloa"
VERSION = 1
PAGE_BYTES = 16384  # fifteen vectors of 512 half floats a page; 4096 would leave a quarter of each page empty

SETTINGS = (
    "PRAGMA foreign_keys=ON",
    "PRAGMA synchronous=FULL",  # a commit returns when the log is on the disk
    "PRAGMA secure_delete=ON",  # deleted content is overwritten with zeros
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-16384",
)

# Nobody changes a line of the audit: two triggers, and a chain of digests that verify walks.
TABLES = """
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    space INTEGER NOT NULL,       -- the space that is searched
    last INTEGER NOT NULL,        -- largest crop id that was ever given
    gone INTEGER NOT NULL,        -- number of removals so far
    rows INTEGER NOT NULL,
    purge INTEGER NOT NULL        -- 1: removed bytes may still lie in the files
) STRICT;
CREATE TABLE space (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL, name TEXT NOT NULL, dim INTEGER NOT NULL CHECK (dim > 0), run TEXT NOT NULL,
    feature TEXT NOT NULL, height INTEGER NOT NULL, width INTEGER NOT NULL, mirror INTEGER NOT NULL,
    precision TEXT NOT NULL, calibration TEXT, tuning TEXT, crc INTEGER NOT NULL
) STRICT;
CREATE TABLE source (id INTEGER PRIMARY KEY, root TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE tracklet (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE crop (
    id INTEGER PRIMARY KEY,       -- ascending and never given twice: an updated row gets a new one
    key TEXT NOT NULL UNIQUE,
    source INTEGER NOT NULL REFERENCES source,
    path TEXT,                    -- NULL: no file; empty: equal to the key
    frame INTEGER, box BLOB, frames INTEGER NOT NULL,
    camera INTEGER NOT NULL, time INTEGER, modality INTEGER NOT NULL,
    tracklet INTEGER REFERENCES tracklet, person INTEGER REFERENCES person,
    sha256 BLOB,
    added INTEGER NOT NULL,       -- microseconds since 1970: retention counts from it where time is unknown
    crc INTEGER NOT NULL
) STRICT;
CREATE INDEX crop_tracklet ON crop (tracklet) WHERE tracklet IS NOT NULL;
CREATE INDEX crop_person ON crop (person) WHERE person IS NOT NULL;
CREATE TABLE thumbnail (
    crop INTEGER PRIMARY KEY REFERENCES crop ON DELETE CASCADE, webp BLOB NOT NULL, crc INTEGER NOT NULL
) STRICT;
CREATE TABLE gone (seq INTEGER PRIMARY KEY, crop INTEGER NOT NULL) STRICT;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL, digest TEXT NOT NULL,
    rows INTEGER NOT NULL, chain BLOB NOT NULL
) STRICT;
CREATE TRIGGER audit_keeps BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
"""


def vector_table(space: int, dim: int) -> str:
    """Statement that makes the vectors of one space: half floats, each with its checksum."""
    return (
        f"CREATE TABLE vector_{int(space)} (crop INTEGER PRIMARY KEY REFERENCES crop ON DELETE CASCADE, "
        f"f16 BLOB NOT NULL CHECK (length(f16) = {2 * int(dim)}), crc INTEGER NOT NULL) STRICT"
    )
