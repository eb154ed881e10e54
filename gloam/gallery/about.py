"""What ``gloam gallery info`` shows."""

from __future__ import annotations

from collections.abc import Iterator

from gloam.gallery.catalogue import FileCatalogue
from gloam.gallery.confidence import describe_calibration
from gloam.gallery.engines.rabitq import RabitqIndex, faiss_installed
from gloam.gallery.erase import expired, gallery_files
from gloam.gallery.gallery import Gallery
from gloam.gallery.where import Where


def describe(gallery: Gallery) -> Iterator[tuple[str, str]]:
    """Names and values, in the order they are shown."""
    space, rows = gallery.space, gallery.count()
    yield "gallery", gallery.catalogue.name
    yield "rows", f"{rows:,} ({gallery.count(Where(modality='infrared')):,} infrared)"
    yield "model", f"{space.fingerprint}, {space.dim} numbers"
    if space.height:
        yield "images", f"{space.height} x {space.width}, mirror {'on' if space.mirror else 'off'}, {space.precision}"
    yield "run", space.run or "unknown: search with features, or give --model RUN"
    yield "search", _search(gallery, rows)
    yield "calibration", describe_calibration(space)
    rule = gallery.catalogue.retention()
    words = ["for ever" if rule.days is None else f"{rule.days:g} days"]
    words += [f"camera {camera}: {days:g} days" for camera, days in rule.cameras.items()]
    yield "retention", ", ".join(words)
    if overdue := len(expired(gallery.catalogue)):
        yield "overdue", f"{overdue:,} rows: gloam gallery expire erases them"
    yield "thumbnails", gallery.catalogue.setting("thumbnails")
    if isinstance(gallery.catalogue, FileCatalogue):
        store = gallery.catalogue.store
        size = sum(file.stat().st_size for file in gallery_files(store.folder))
        yield "size", f"{size / 2**20:,.1f} MiB" + (f", {size / rows:,.0f} bytes a row" if rows else "")
        with store.read() as connection:
            pending = connection.execute("SELECT purge FROM state").fetchone()[0]
        if pending:
            yield "erasure", "unfinished: run gloam gallery verify"


def _search(gallery: Gallery, rows: int) -> str:
    if not isinstance(gallery.index, RabitqIndex):
        if not isinstance(gallery.catalogue, FileCatalogue):
            return "by the cluster"
        return "exact" if faiss_installed() else "exact (pip install 'gloam[search]' for search codes)"
    if rows < gallery.index.smallest:
        return f"exact (codes from {gallery.index.smallest:,} rows on)"
    tuning = gallery.space.tuning
    if tuning is None:
        return f"codes, {gallery.index.oversampling} candidates a hit, recall not measured"
    return (
        f"codes, {tuning['oversampling']} candidates a hit; recall@10 {tuning['recall']:.3f} on {tuning['queries']} "
        f"stored rows when there were {tuning['rows']:,}"
    )
