"""Commands about galleries: ``gloam gallery create``, ``add`` and ``search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.table import Table
from rich.text import Text

from gloam.console import console
from gloam.errors import GloamError

if TYPE_CHECKING:
    from gloam.gallery.gallery import Gallery
    from gloam.gallery.hits import Hits

Queries = Annotated[tuple[str, ...], tyro.conf.arg(metavar="QUERY [QUERY ...]")]
ModalityName = Literal["visible", "infrared"]


def create(
    gallery: str,
    model: Path,
    /,
    retention: str | None = None,
    retention_camera: tuple[str, ...] = (),
    thumbnails: bool = False,
    feature: str | None = None,
    mirror: bool | None = None,
    precision: Literal["32", "bf16", "fp16"] = "32",
    shards: int | None = None,
    replicas: int | None = None,
    quantization: Literal["none", "int8", "binary"] | None = None,
) -> None:
    """Make an empty gallery for the features of one model.

    Example:
        gloam gallery create people.gallery runs/sysu_mm01/agw/2026-01-31_12-00-00 --retention 30 --thumbnails

    Args:
        gallery: folder to create, or qdrant://host:6333/name (qdrants:// with TLS; the key comes from the environment
            variable GLOAM_QDRANT_KEY).
        model: run folder or checkpoint file; or a feature file, for features of other software.
        retention: days that rows stay before gloam gallery expire erases them, or "keep".
        retention_camera: days of single cameras, each as CAMERA=DAYS.
        thumbnails: keep a small copy of every image that is added.
        feature: which of the method's features to hold; the recipe's if not given.
        mirror: average each image with its mirror image; the recipe's choice if not given.
        precision: arithmetic of the forward pass.
        shards: of a Qdrant collection.
        replicas: of a Qdrant collection.
        quantization: of a Qdrant collection.
    """
    from gloam.gallery.gallery import Gallery
    from gloam.gallery.tables import is_feature_file
    from gloam.gallery.transfer import load_features
    from gloam.inference.loading import load_model

    cameras = {}
    for word in retention_camera:
        camera, equals, days = word.partition("=")
        if not equals or not camera.lstrip("-").isdecimal():
            raise GloamError(f"{word!r} is not of the form CAMERA=DAYS, for example --retention-camera 3=7.")
        cameras[int(camera)] = _days(days)
    made = {"shards": shards, "replicas": replicas, "quantization": quantization}
    source = (
        load_features(model)[0]
        if is_feature_file(model)
        else load_model(model, feature=feature, mirror=mirror, precision=precision)
    )
    opened = Gallery.create(
        gallery,
        source,
        retention=retention,
        retention_cameras=cameras,
        thumbnails=thumbnails,
        **{name: value for name, value in made.items() if value is not None},
    )
    say(f"{gallery}: an empty gallery for features of {opened.space.fingerprint}")
    opened.close()


def add(
    gallery: str,
    source: Path,
    /,
    camera: int | None = None,
    time: str | None = None,
    modality: ModalityName | None = None,
    tracklet: str | None = None,
    person: str | None = None,
    prefix: str = "",
    pattern: str | None = None,
    split: Literal["train", "query", "gallery"] | None = None,
    root: Path | None = None,
    model: Path | None = None,
    device: str = "auto",
) -> None:
    """Add images, a table, part of a data set, or a feature file. What is there already is not embedded again.

    Example:
        gloam gallery add people.gallery photos/ --camera 3 --time 2026-03-01T08:00:00+01:00 --modality infrared

    Args:
        gallery: folder or qdrant:// address.
        source: a folder of images; an image; a table (.csv, .tsv, .parquet) with the column path and, where known,
            key, camera, time, modality, tracklet, person; a feature file; with --split, the folder of the run's data
            set.
        camera: of images that do not say it, as all further ones.
        time: when they were taken, ISO 8601 (without offset: UTC).
        modality: visible or infrared.
        tracklet: name of the tracklet.
        person: name of the person.
        prefix: put before every key (keys are paths, where a table gives none).
        pattern: how file names of a folder are read: "{pid}/c{cam}_*.jpg".
        split: read source as the data set of the gallery's run and take this part of it.
        root: folder that a table's paths are relative to; the table's folder if not given.
        model: run folder, where it is not the one that the gallery remembers.
        device: auto, cpu, cuda, cuda:1 ...
    """
    with open_there(gallery, run=model, device=device) as opened:
        done = opened.add(
            source,
            split=split,
            root=root,
            pattern=pattern,
            prefix=prefix,
            camera=camera,
            time=time,
            modality=modality,
            tracklet=tracklet,
            person=person,
        )
        say(f"{gallery}: {done}; {len(opened):,} rows in all")
        for line in done.unreadable[:5]:
            say(f"  unreadable: {line}")


def search(
    gallery: str,
    queries: Queries,
    /,
    top: int = 20,
    camera: tuple[int, ...] = (),
    not_camera: tuple[int, ...] = (),
    after: str | None = None,
    before: str | None = None,
    modality: ModalityName | None = None,
    tracklet: tuple[str, ...] = (),
    person: tuple[str, ...] = (),
    group: Literal["tracklet", "person"] | None = None,
    group_score: Literal["best", "mean"] = "best",
    group_top: int = 3,
    rerank: int = 0,
    expand: int = 0,
    like: tuple[str, ...] = (),
    unlike: tuple[str, ...] = (),
    fmr: float | None = None,
    prior: float | None = None,
    exact: bool = False,
    query_modality: ModalityName = "visible",
    model: Path | None = None,
    device: str = "auto",
    output: Path | None = None,
) -> None:
    """Who of these is that? Rows most like the queries, which show one person.

    Example:
        gloam gallery search people.gallery photo.jpg --not-camera 1 --after 2026-03-01 --top 10 --output hits.html

    Args:
        gallery: folder or qdrant:// address.
        queries: image files, keys of the gallery (which are then not found themselves), or tracklet:NAME. A key comes
            before a file of the same name; ./NAME is the file. Several show one person: their mean is searched.
        top: rows (or groups) to show.
        camera: only these cameras.
        not_camera: none of these cameras.
        after: at this time or later, ISO 8601 (without offset: UTC).
        before: earlier than this time.
        modality: only visible or only infrared rows.
        tracklet: only rows of these tracklets.
        person: only rows with these names.
        group: one line per tracklet or person.
        group_score: score of a group: its best row's, or the mean of its best rows.
        group_top: how many rows that mean takes.
        rerank: re-rank so many of the best, with their 20 neighbours each, by k-reciprocal distances (at most 200).
        expand: mean the query with so many neighbours first.
        like: keys that show the person.
        unlike: keys that do not; no row is hidden.
        fmr: show only what keeps this false match rate, by the threshold of its pair of modalities; needs a calibrated
            gallery and one query.
        prior: show probabilities, if one in so many people is the one who is asked for; needs a calibrated gallery.
        exact: compare every row.
        query_modality: modality of query images.
        model: run folder, where it is not the one that the gallery remembers.
        device: auto, cpu, cuda, cuda:1 ...
        output: .html (with thumbnails), .csv or .json file to write.
    """
    from gloam.evaluation.calibration import one_in
    from gloam.gallery.hits import check_hits_format
    from gloam.gallery.where import Where

    if output is not None:
        check_hits_format(output)
    where = Where(camera, not_camera, after, before, modality, tracklet, person)
    with open_there(gallery, run=model, device=device) as opened:
        hits = opened.search(
            list(queries),
            where=where,
            top=top,
            group=group,
            group_score=group_score,
            group_top=group_top,
            rerank=rerank,
            expand=expand,
            like=like,
            unlike=unlike,
            fmr=fmr,
            prior=None if prior is None else one_in(prior),
            exact=exact,
            modality=query_modality,
        )
        table = _hit_table(hits, grouped=group is not None)
        console().print(table if len(hits) else Text("nothing found"))
        for note in hits.notes:
            say(note)
        if output is not None:
            say(f"{hits.save(output)}")


def open_there(gallery: str, *, run: Path | None = None, device: str = "cpu") -> Gallery:
    """The gallery of a folder or an address."""
    from gloam.gallery.gallery import open_gallery

    return open_gallery(gallery, run=run, device=device)


def _hit_table(hits: Hits, *, grouped: bool) -> Table:
    """Columns in which nothing is known are left out; keys are never cut."""
    from gloam.gallery.confidence import percent

    told = [hit.to_dict() for hit in hits]
    optional = [name for name in ("time", "tracklet", "person", "marked") if any(line[name] for line in told)]
    reranked = any(hit.distance is not None for hit in hits)
    prior = next((hit.prior for hit in hits if hit.probability is not None), None)
    table = Table("", "score", *(["distance"] if reranked else []))
    if prior is not None:
        table.add_column(f"probability, if one in {1 / prior:,.0f}")
    for name in ("key", "camera", "modality", *optional, *(["rows"] if grouped else [])):
        table.add_column(name, overflow="fold")
    for rank, (hit, line) in enumerate(zip(hits, told, strict=True), start=1):
        cells = [rank, f"{hit.score:.3f}"]
        cells += ["" if hit.distance is None else f"{hit.distance:.3f}"] if reranked else []
        cells += [] if prior is None else ["-" if hit.probability is None else percent(hit.probability)]
        cells += [line["key"], line["camera"], line["modality"]]
        cells += [line[name] or "" for name in optional] + ([len(hit.members)] if grouped else [])
        table.add_row(*map(cell, cells))
    return table


def cell(value: object) -> Text:
    """A cell that neither rich nor the terminal obeys."""
    from gloam.gallery.rows import plain

    return Text(plain(value))


def say(text: str) -> None:
    """Print one line that holds users' words."""
    console().print(cell(text), soft_wrap=True, highlight=False)


def _days(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise GloamError(f"{text!r} is no number of days.") from error
