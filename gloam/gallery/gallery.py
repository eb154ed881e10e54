"""A gallery, open: add, search, name, erase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from gloam.datasets.records import DatasetSplits
from gloam.errors import GloamError
from gloam.gallery.catalogue import FileCatalogue, create_catalogue
from gloam.gallery.confidence import check_confidence
from gloam.gallery.contract import Catalogue, Retention
from gloam.gallery.engines.contract import VectorIndex
from gloam.gallery.engines.exact import ExactIndex
from gloam.gallery.engines.rabitq import RabitqIndex, faiss_installed
from gloam.gallery.erase import PATIENCE
from gloam.gallery.hits import Hits
from gloam.gallery.query import read_query
from gloam.gallery.rows import microseconds
from gloam.gallery.search import Ask, Group, GroupScore, find
from gloam.gallery.space import Space
from gloam.gallery.store import Store
from gloam.gallery.tuning import needs_tuning, tune
from gloam.gallery.upkeep import Upkeep
from gloam.gallery.where import EVERYTHING, Where

if TYPE_CHECKING:
    from gloam.gallery.adding import Addition
    from gloam.gallery.reembed import Reembedding
    from gloam.inference.features import Features
    from gloam.inference.model import Model

QDRANT = ("qdrant://", "qdrants://")
_KEEP = "keep"


class Gallery(Upkeep):
    """People seen: rows with vectors of one model, in a folder or in a Qdrant cluster.

    Open one with :func:`open_gallery`, make one with :meth:`create`.

    Args:
        catalogue: what is known of the rows.
        index: their vectors.
        model: embeds images; None: the run that the space remembers is loaded when it is needed.
        run: where that run is now, if it moved.
        device: where to put the model.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        index: VectorIndex,
        *,
        model: Model | None = None,
        run: Path | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(catalogue, index)
        self._model, self._run, self._device = model, run, device
        self._closed = False

    @staticmethod
    def create(
        where: str | Path,
        model: Model | Features | Space,
        *,
        retention: float | str | None = None,
        retention_cameras: dict[int, float] | None = None,
        thumbnails: bool = False,
        **cluster: Any,
    ) -> Gallery:
        """Make an empty gallery.

        Args:
            where: folder, or ``qdrant://host:6333/name`` (``qdrants://``: with TLS).
            model: whose features it will hold: a model, or features of it.
            retention: days that rows stay (``gallery expire`` erases older ones), or ``"keep"``. Must be given: images
                of people are not kept for ever by accident.
            retention_cameras: days of single cameras.
            thumbnails: keep small copies of images that are added.
            **cluster: of Qdrant: ``shards``, ``replicas``, ``quantization``.

        Raises:
            GloamError: something is there already, no retention.
        """
        from gloam.inference.model import Model as ModelClass

        space = model if isinstance(model, Space) else _space_of(model)
        rule = read_retention(retention, retention_cameras or {})
        if str(where).startswith(QDRANT):
            from gloam.gallery.engines.qdrant import create_qdrant

            create_qdrant(str(where), space, rule, thumbnails=thumbnails, **cluster)
        elif cluster:
            raise GloamError(f"{', '.join(cluster)}: only galleries in a Qdrant cluster have that.")
        else:
            create_catalogue(Path(where), space, rule, thumbnails=thumbnails)
        gallery = open_gallery(where, model=model if isinstance(model, ModelClass) else None)
        gallery.catalogue.record("created", {"space": space.digest, "retention": rule.text()}, 0)
        return gallery

    @property
    def space(self) -> Space:
        """Which model's vectors the gallery holds."""
        return self.catalogue.space

    @property
    def model(self) -> Model:
        """The model that embeds images for this gallery.

        Raises:
            GloamError: it is not known where it is, or it has changed.
        """
        if self._model is None:
            self._model = self.space.load_model(self._run, device=self._device)
        return self._model

    def __len__(self) -> int:
        return self.count()

    def count(self, where: Where = EVERYTHING) -> int:
        """How many rows match."""
        return self.index.count(where)

    def add(
        self,
        source: Any,
        *,
        model: Model | None = None,
        split: str | None = None,
        root: str | Path | None = None,
        pattern: str | None = None,
        prefix: str = "",
        camera: int | None = None,
        time: Any = None,
        modality: str | None = None,
        tracklet: str | None = None,
        person: str | None = None,
        thumbnails: Sequence[bytes | None] | None = None,
        progress: bool = True,
    ) -> Addition:
        """Add images or features. Keys that exist are updated; a call that was killed continues where it was.

        Args:
            source: a folder, image, table or feature file, ``DatasetSplits``, or ``Features``. The table of features
                may have the columns ``key, path, root, frame, box, frames, camera, time, modality, tracklet, person``.
            model: embeds images; the gallery's own if not given.
            split: train, query or gallery: read source as the data set of the model's recipe.
            root: folder that a table's paths are relative to.
            pattern: reads camera, modality, person of a folder's file names: ``{pid}/c{cam}_*.jpg``.
            prefix: put before every key (keys are paths where the source gives none).
            camera: of images that do not say it, as all further ones.
            time: ``datetime``, ISO 8601 text or seconds since 1970.
            modality: ``visible`` or ``infrared``.
            tracklet: name.
            person: name.
            thumbnails: WebP images of ``Features``, one (or None) each.
            progress: show a bar.

        Returns:
            What is stored, durably.

        Raises:
            GloamError: nothing to add, another model, a damaged source, a full disk. Batches that were stored before
                stay stored.
        """
        from gloam.gallery.adding import add_features, add_images, rows_of_source
        from gloam.gallery.tables import is_feature_file
        from gloam.inference.features import Features

        given: dict[str, Any] = {"camera": camera, "time": microseconds(time), "tracklet": tracklet, "person": person}
        if isinstance(source, str | Path) and split is None and is_feature_file(Path(source)):
            from gloam.gallery.transfer import load_features

            source, thumbnails = load_features(Path(source))
        if isinstance(source, Features):
            done = add_features(
                self.catalogue,
                self.index,
                source,
                thumbnails=thumbnails,
                progress=progress,
                root="" if root is None else str(root),
                prefix=prefix,
                **given,
            )
        else:
            if not isinstance(source, str | Path | DatasetSplits):
                raise GloamError(
                    f"A {type(source).__name__} cannot be added: give a folder, file, data set or Features."
                )
            chosen = self.model if model is None else model
            self.take_calibration(chosen)
            rows = rows_of_source(
                source,
                chosen,
                split=split,
                root=None if root is None else Path(root),
                pattern=pattern,
                prefix=prefix,
                modality=modality,
                **given,
            )
            keep = self.catalogue.setting("thumbnails") == "yes"
            done = add_images(self.catalogue, self.index, chosen, rows, thumbnails=keep, progress=progress)
        self.tune(progress=progress)
        return done

    def search(
        self,
        query: Any,
        *,
        where: Where = EVERYTHING,
        top: int = 20,
        group: Group | None = None,
        group_score: GroupScore = "best",
        group_top: int = 3,
        rerank: int = 0,
        expand: int = 0,
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        fmr: float | None = None,
        prior: float | None = None,
        exact: bool = False,
        model: Model | None = None,
        modality: str = "visible",
    ) -> Hits:
        """Look for one person. Every search is a line in the audit, without what was searched for.

        Args:
            query: image (path, PIL, array), key, ``tracklet:NAME``, ``Features``, or a list of those that show one
                person. Rows that the query was made from are not found.
            where: which rows may be found.
            top: hits (or groups) wanted.
            group: one hit per ``tracklet`` or ``person``.
            group_score: ``best`` row, or ``mean`` of the best ``group_top``.
            group_top: see there.
            rerank: re-rank so many of the best with their 20 neighbours each.
            expand: mean the query with so many neighbours first.
            like: keys that show the person.
            unlike: keys that do not; no row is hidden.
            fmr: false match rate that hits must keep, with the threshold of their pair of modalities; needs a
                calibrated gallery and a query of one image.
            prior: probability that a row shows the one who is asked for, before they are compared (1 / 1000: one in
                a thousand is meant): hits then have probabilities. Needs a calibrated gallery.
            exact: compare every row.
            model: embeds images; the gallery's own if not given.
            modality: of query images.

        Raises:
            GloamError: unknown keys or files, another model, options out of range, no calibration for ``fmr``.
        """
        check_confidence(self.space, fmr, prior)
        several = {"like": (like,) if isinstance(like, str) else tuple(like)}
        several["unlike"] = (unlike,) if isinstance(unlike, str) else tuple(unlike)
        ask = Ask(
            top=top,
            where=where,
            group=group,
            group_score=group_score,
            group_top=group_top,
            rerank=rerank,
            expand=expand,
            exact=exact,
            fmr=fmr,
            prior=prior,
            **several,
        )
        ask.check()
        read = read_query(
            query, self.catalogue, self.index, lambda: self.model if model is None else model, modality=modality
        )
        hits = find(read, ask, self.catalogue, self.index)
        self.catalogue.record("searched", {"vector": read.vector.tolist(), "where": str(where), "top": top}, len(hits))
        return hits

    def name_person(self, person: str | None, keys: str | Sequence[str]) -> int:
        """Give rows a person's name (None: take it away).

        Returns:
            How many rows there were.
        """
        return self.catalogue.name_person([keys] if isinstance(keys, str) else list(keys), person)

    def reembed(
        self,
        model: Model,
        *,
        source: Literal["sources", "thumbnails"] = "sources",
        drop_missing: bool = False,
        progress: bool = True,
    ) -> Reembedding:
        """Move to another model; see :func:`gloam.gallery.reembed.reembed`."""
        from gloam.gallery.reembed import reembed

        if not isinstance(self.catalogue, FileCatalogue):
            raise GloamError("A gallery in a Qdrant cluster moves by adding its sources to a new collection.")
        done = reembed(self.catalogue, model, source=source, drop_missing=drop_missing, progress=progress)
        if done.switched:
            self._model, self._run = model, None
            self.catalogue.purge(PATIENCE)
            self.tune(progress=progress)
        return done

    def merge(
        self, other: Gallery, *, conflict: Literal["fail", "skip", "replace"] = "fail", prefix: str = ""
    ) -> Addition:
        """Copy all rows of another gallery of the same model; see :func:`gloam.gallery.transfer.merge`."""
        from gloam.gallery.transfer import merge

        done = merge(self.catalogue, self.index, other.catalogue, other.index, conflict=conflict, prefix=prefix)
        self.tune()
        return done

    def tune(self, *, force: bool = False, progress: bool = False) -> None:
        """Measure the recall of the search codes and choose how many candidates they propose, if it is time to."""
        if isinstance(self.index, RabitqIndex) and (force or needs_tuning(self.catalogue, self.index)):
            tune(self.catalogue, self.index, progress=progress)

    def close(self) -> None:
        """Save what is worth saving and end the connection; closing twice changes nothing."""
        if not self._closed:
            self.index.sync()
            self.catalogue.close()
            self._closed = True

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif not self._closed:
            self.catalogue.close()
            self._closed = True

    def __repr__(self) -> str:
        space = self.space
        return f"Gallery {self.catalogue.name}\n  {len(self):,} rows of {space.fingerprint}, {space.dim} numbers each"


def open_gallery(
    where: str | Path,
    *,
    engine: str = "auto",
    model: Model | None = None,
    run: str | Path | None = None,
    device: str = "cpu",
) -> Gallery:
    """Open a gallery.

    Args:
        where: folder, or ``qdrant://host:6333/name`` (``qdrants://``: with TLS; the key is read from the environment
            variable ``GLOAM_QDRANT_KEY``).
        engine: ``auto``: search codes where FAISS is installed; ``exact``: compare every row; ``rabitq``: codes.
        model: embeds query images and images to add; else the run that the gallery remembers is loaded when needed.
        run: where that run is now, if it moved.
        device: where to put the model: ``auto``, ``cpu``, ``cuda`` ...

    Raises:
        GloamError: no gallery there, or one that cannot be read.
    """
    moved = None if run is None else Path(run)
    if str(where).startswith(QDRANT):
        from gloam.gallery.engines.qdrant import open_qdrant

        catalogue, index = open_qdrant(str(where))
        return Gallery(catalogue, index, model=model, run=moved, device=device)
    if engine not in ("auto", "exact", "rabitq"):
        raise GloamError(f"There is no engine {engine!r}. Known: auto, exact, rabitq.")
    store = Store(Path(where))
    file = FileCatalogue(store)
    if engine == "exact" or (engine == "auto" and not faiss_installed()):
        return Gallery(file, ExactIndex(store), model=model, run=moved, device=device)
    codes = RabitqIndex(store)
    if (tuning := file.space.tuning) is not None:
        codes.oversampling = int(tuning["oversampling"])
    return Gallery(file, codes, model=model, run=moved, device=device)


def read_retention(days: float | str | None, cameras: dict[int, float]) -> Retention:
    """How long rows stay, as a user says it.

    Raises:
        GloamError: nothing is said, or no positive number of days.
    """
    if days is None:
        raise GloamError(
            "How long may images of people stay? Give --retention DAYS (gloam gallery expire erases what is older), or "
            "--retention keep."
        )
    try:
        rule = Retention(None if days == _KEEP else float(days), {int(k): float(v) for k, v in cameras.items()})
    except ValueError as error:
        raise GloamError(f"--retention takes a number of days or {_KEEP!r}, not {days!r}.") from error
    for value in (rule.days, *rule.cameras.values()):
        if value is not None and not 0 < value < 1e6:
            raise GloamError(f"A retention of {value:g} days is not possible.")
    return rule


def _space_of(model: Model | Features) -> Space:
    from gloam.inference.features import Features

    if isinstance(model, Features):
        return Space(model.fingerprint.digest, model.fingerprint.name, model.width)
    return Space.of_model(model)
