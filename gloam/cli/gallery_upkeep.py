"""Commands that keep a gallery in order: info, verify, erase, expire, audit, reembed, export, import, merge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.table import Table

from gloam.cli.gallery import ModalityName, cell, open_there, say
from gloam.console import console
from gloam.errors import GloamError

if TYPE_CHECKING:
    from gloam.gallery.erase import Erasure

Keys = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[KEY ...]")]
_PREVIEW = 20  # rows that are listed


def info(gallery: str, /, measure: bool = False) -> None:
    """What a gallery holds: rows, model, codes and their measured recall, retention, size.

    Example:
        gloam gallery info people.gallery

    Args:
        gallery: folder or qdrant:// address.
        measure: measure the recall of the search codes now and choose how many candidates they propose.
    """
    from gloam.gallery.about import describe

    with open_there(gallery) as opened:
        if measure:
            opened.tune(force=True, progress=True)
        table = Table(show_header=False)
        for name, value in describe(opened):
            table.add_row(cell(name), cell(value))
        console().print(table)


def calibrate(gallery: str, source: Path | None = None, /) -> None:
    """Copy a run's calibration into a gallery that was made before it: thresholds and probabilities for its scores.

    Example:
        gloam gallery calibrate people.gallery

    Args:
        gallery: folder or qdrant:// address.
        source: a calibration.json, or the run's folder where it is not the one that the gallery remembers.
    """
    from gloam.evaluation.calibration import Calibration, calibration_file
    from gloam.gallery.confidence import describe_calibration

    with open_there(gallery) as opened:
        place = Path(opened.space.run) if source is None and opened.space.run else source
        if place is None:
            raise GloamError("The gallery does not know where its model's run is. Give a calibration.json.")
        found = Calibration.load(place if place.suffix == ".json" else calibration_file(place))
        opened.calibrate(found)
        say(f"{gallery}: {describe_calibration(opened.space)}")


def verify(gallery: str, /) -> int:
    """Read all of a gallery: structure, checksums, vectors, audit, codes. Finishes erasures. Exit code 2: damage.

    Example:
        gloam gallery verify people.gallery

    Args:
        gallery: folder or qdrant:// address.
    """
    with open_there(gallery) as opened:
        verdict = opened.verify()
    for line in (*verdict.repaired, *verdict.problems):
        say(line)
    say(f"{gallery}: {verdict.rows:,} rows, nothing is damaged" if verdict.ok else f"{gallery}: damaged, see above")
    return 0 if verdict.ok else 2


def erase(
    gallery: str,
    keys: Keys = (),
    /,
    person: tuple[str, ...] = (),
    tracklet: tuple[str, ...] = (),
    camera: tuple[int, ...] = (),
    after: str | None = None,
    before: str | None = None,
    near: str | None = None,
    score: float | None = None,
    yes: bool = False,
    patience: float = 30.0,
    keep_file: bool = False,
    query_modality: ModalityName = "visible",
    device: str = "auto",
) -> int:
    """Erase rows: their vectors, codes, thumbnails, keys and paths leave every file. Shows them first; --yes does it.

    Example:
        gloam gallery erase people.gallery --person P17 --yes

    Args:
        gallery: folder or qdrant:// address.
        keys: rows by name.
        person: rows with these names.
        tracklet: rows of these tracklets.
        camera: rows of these cameras.
        after: taken at this time or later, ISO 8601 (without offset: UTC).
        before: taken earlier than this.
        near: rows like this image or key, with at least --score.
        score: least cosine with --near.
        yes: erase; without it the rows are listed only.
        patience: seconds to wait for other processes that still read the old state.
        keep_file: do not write the file anew (which needs twice its size in free space, and alone is sure to leave no
            copy); gloam gallery verify does it later.
        query_modality: modality of the image --near.
        device: auto, cpu, cuda, cuda:1 ...
    """
    from gloam.gallery.rows import MODALITIES, time_text
    from gloam.gallery.where import Where

    with open_there(gallery, device=device) as opened:
        where = Where(camera, (), after, before, None, tracklet, person)
        given = None if where.empty else where
        chosen = opened.select(keys=keys, where=given, near=near, score=score, modality=query_modality)
        if not chosen:
            say("no row matches: nothing to erase")
            return 0
        if not yes:
            known = opened.catalogue.rows(chosen[:_PREVIEW])
            for row in known.values():
                facts = [f"camera {row.camera}", MODALITIES[row.modality], time_text(row.time)]
                facts += [
                    f"{what} {name}" for what, name in (("tracklet", row.tracklet), ("person", row.person)) if name
                ]
                say("  ".join([row.key, *filter(None, facts)]))
            more = f" ({len(chosen) - _PREVIEW:,} more)" if len(chosen) > _PREVIEW else ""
            say(f"{len(chosen):,} rows would be erased{more}. Repeat the command with --yes to erase them.")
            return 0
        return _report(opened.erase(chosen, patience=patience, rewrite=not keep_file))


def expire(gallery: str, /, dry_run: bool = False, patience: float = 30.0) -> int:
    """Erase the rows whose time is over, by the retention that was given at create. For a daily job.

    Example:
        gloam gallery expire people.gallery

    Args:
        gallery: folder or qdrant:// address.
        dry_run: only count them.
        patience: seconds to wait for other processes that still read the old state.
    """
    from gloam.gallery.erase import expired

    with open_there(gallery) as opened:
        if dry_run:
            say(f"{len(expired(opened.catalogue)):,} rows would be erased")
            return 0
        return _report(opened.expire(patience=patience))


def audit(gallery: str, /, last: int = 50) -> None:
    """Who added, searched and erased: times, accounts, digests and numbers of rows, never images.

    Example:
        gloam gallery audit people.gallery --last 20

    Args:
        gallery: folder or qdrant:// address.
        last: how many lines, the newest last.
    """
    from gloam.gallery.rows import time_text

    with open_there(gallery) as opened:
        lines = list(opened.catalogue.audit())[-max(last, 1) :]
    table = Table("time", "who", "action", "rows", "digest")
    for line in lines:
        table.add_row(*map(cell, (time_text(line.time), line.who, line.action, line.rows, line.digest[:16])))
    console().print(table)


def reembed(
    gallery: str,
    run: Path,
    /,
    source: Literal["sources", "thumbnails"] = "sources",
    drop_missing: bool = False,
    feature: str | None = None,
    mirror: bool | None = None,
    precision: Literal["32", "bf16", "fp16"] = "32",
    device: str = "auto",
) -> int:
    """Move a gallery to another model. It stays searchable by the old one until every row is done; resumable.

    Example:
        gloam gallery reembed people.gallery runs/sysu_mm01/agw/2026-02-28_12-00-00

    Args:
        gallery: folder.
        run: run folder or checkpoint file of the new model.
        source: read the images from their files, or from the thumbnails (small: worse features).
        drop_missing: erase rows whose image is gone; else the switch waits for them.
        feature: which of the method's features to hold; the recipe's if not given.
        mirror: average each image with its mirror image; the recipe's choice if not given.
        precision: arithmetic of the forward pass.
        device: auto, cpu, cuda, cuda:1 ...
    """
    from gloam.inference.loading import load_model

    model = load_model(run, device=device, feature=feature, mirror=mirror, precision=precision)
    with open_there(gallery) as opened:
        done = opened.reembed(model, source=source, drop_missing=drop_missing)
        for line in done.missing[:_PREVIEW]:
            say(line)
        dropped = f", {done.dropped:,} rows without an image erased" if done.dropped else ""
        if done.switched:
            say(f"{gallery}: {done.rows:,} rows embedded{dropped}; it answers with {opened.space.fingerprint} now")
            return 0
    cause = f"{len(done.missing):,} rows have no image" if done.missing else "rows were added meanwhile"
    say(
        f"{gallery}: {done.rows:,} rows embedded{dropped}, but {cause}: it still answers with the old model. Repeat "
        "the command, or give --drop-missing."
    )
    return 2


def export(
    gallery: str,
    output: Path,
    /,
    camera: tuple[int, ...] = (),
    after: str | None = None,
    before: str | None = None,
    modality: ModalityName | None = None,
    person: tuple[str, ...] = (),
) -> None:
    """Write rows with vectors and thumbnails to a .parquet file, or a whole gallery to a new folder while it is used.

    Example:
        gloam gallery export people.gallery people.parquet --camera 3

    Args:
        gallery: folder or qdrant:// address.
        output: .parquet file (gloam gallery import reads it), or a folder for a backup.
        camera: only these cameras.
        after: at this time or later.
        before: earlier than this time.
        modality: only visible or only infrared rows.
        person: only rows with these names.
    """
    from gloam.gallery.where import Where

    with open_there(gallery) as opened:
        count = opened.export(output, Where(camera, (), after, before, modality, (), person))
    say(f"{output}: {count:,} rows")


def import_(gallery: str, file: Path, /) -> None:
    """Add the rows of a file that gloam gallery export or gloam extract wrote.

    Example:
        gloam gallery import people.gallery people.parquet

    Args:
        gallery: folder or qdrant:// address.
        file: .parquet, .npz or .csv file of features of the gallery's model.
    """
    from gloam.gallery.tables import is_feature_file

    if not is_feature_file(file):
        raise GloamError(f"{file} is no file of features. Images and tables are added by gloam gallery add.")
    with open_there(gallery) as opened:
        done = opened.add(file)
        say(f"{gallery}: {done}; {len(opened):,} rows in all")


def merge(gallery: str, other: str, /, conflict: Literal["fail", "skip", "replace"] = "fail", prefix: str = "") -> None:
    """Copy all rows of another gallery of the same model into a gallery.

    Example:
        gloam gallery merge people.gallery night-shift.gallery --prefix night/

    Args:
        gallery: folder or qdrant:// address of the one that grows.
        other: the one that is read.
        conflict: a key that both have, with different content: fail before anything is copied, skip it, or replace it.
        prefix: put before every key of the other gallery.
    """
    with open_there(gallery) as opened, open_there(other) as read:
        done = opened.merge(read, conflict=conflict, prefix=prefix)
        say(f"{gallery}: {done}; {len(opened):,} rows in all")


def _report(erasure: Erasure) -> int:
    if erasure.done:
        checked = f"; their bytes are in none of {len(erasure.searched)} files" if erasure.searched else ""
        say(f"{len(erasure.keys):,} rows erased{checked}")
        return 0
    say(f"{len(erasure.keys):,} rows erased, but {erasure.reason}")
    return 2
