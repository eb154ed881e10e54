"""The gallery behind the interface: one thread asks it, so that requests never meet inside of it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gloam.gallery.catalogue import acting
from gloam.gallery.confidence import describe_calibration
from gloam.gallery.erase import erase, expired
from gloam.gallery.gallery import Gallery
from gloam.gallery.hits import Hit, Hits
from gloam.gallery.rows import MODALITIES, Row, microseconds, time_text
from gloam.gallery.thumbnails import thumbnail_of
from gloam.gallery.where import Where
from gloam.serve.decoding import Box, Decoded, Decoders
from gloam.serve.embedding import Embedder
from gloam.serve.problems import Problem, busy
from gloam.serve.schemas import (
    AddAnswer,
    AddRequest,
    CameraInfo,
    EraseAnswer,
    EraseRequest,
    FoundHit,
    ImageFacts,
    Info,
    RowAnswer,
    SearchAnswer,
    SearchRequest,
)
from gloam.serve.settings import Settings, Who

if TYPE_CHECKING:
    from gloam.inference.features import Features
    from gloam.inference.model import Model
    from gloam.inference.sources import ModalityName

T = TypeVar("T")
MEMBERS = 100  # keys of a group that are told
NEIGHBOURS = 1000  # rows of a tracklet that are told
_PURGE_PATIENCE = 2.0  # seconds to wait for readers in other processes
_RARELY = 20  # looking for expired rows takes at most this part of the time
_MODALITY_NUMBERS = {word: number for number, word in MODALITIES.items()}
_log = logging.getLogger("gloam.serve")


class Service:
    """One gallery, its model, and the threads and processes that work for them.

    Args:
        gallery: open.
        settings: limits.
        model: embeds images; None: images cannot be searched for, keys and vectors can.
    """

    def __init__(self, gallery: Gallery, settings: Settings, model: Model | None) -> None:
        self.gallery, self.settings = gallery, settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gallery")
        self._waiting = 0
        self._next_check = 0.0
        self.ready = False
        self.embedder = None if model is None else Embedder(model, settings)
        self.decoders = None if model is None else Decoders(settings, model.recipe.data)

    @property
    def waiting(self) -> int:
        """Requests that wait for the gallery, or are with it."""
        return self._waiting

    async def start(self) -> None:
        """Begin; inside of the event loop."""
        if self.embedder is not None:
            self.embedder.start()
        await self._ask(self._retain)
        self.ready = True

    async def close(self) -> None:
        """Finish what was accepted, then close the gallery."""
        self.ready = False
        if self.embedder is not None:
            await self.embedder.close()
        if self.decoders is not None:
            await self.decoders.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self.gallery.close)
        self._thread.shutdown(wait=True)

    async def search(self, request: SearchRequest, images: Sequence[bytes], who: Who) -> SearchAnswer:
        """One search.

        Raises:
            Problem: nothing to search for, limits, a full queue.
            GloamError: unknown keys, options that exclude each other.
        """
        if request.longest > self.settings.filters:
            raise Problem(400, f"A list has more than {self.settings.filters} entries.", "Send fewer.")
        if request.top > self.settings.top:
            raise Problem(400, f"At most {self.settings.top} hits are told, not {request.top}.", "Ask for fewer.")
        if len(request.images) not in (0, len(images)):
            raise Problem(
                400, f"{len(request.images)} entries describe {len(images)} images.", "Send one each, or none."
            )
        query: list[object] = list(request.keys)
        facts = request.images or [ImageFacts()] * len(images)
        decoded = await self._decode(images, [fact.box for fact in facts])
        if decoded:
            query.append(await self._embed(decoded, [fact.modality for fact in facts]))
        if request.vectors is not None:
            query.append(self._vectors(request))
        if not query:
            raise Problem(400, "What to look for?", "Send an image, keys of rows, or vectors.")
        where = request.where.where()

        def find() -> Hits:
            self._retain()
            with _as(who):
                # Rows are looked up before anything else: a key is never taken for a file of the server.
                self._known([key for key in request.keys if not key.startswith("tracklet:")])
                return self.gallery.search(
                    query,
                    where=where,
                    top=request.top,
                    group=request.group,
                    group_score=request.group_score,
                    group_top=request.group_top,
                    rerank=request.rerank,
                    expand=request.expand,
                    like=request.like,
                    unlike=request.unlike,
                    fmr=request.fmr,
                    prior=request.prior,
                    exact=request.exact,
                )

        hits = await self._ask(find)
        sizes = [f"{one.width} x {one.height}" for one in decoded]
        return SearchAnswer(hits=[_found(hit) for hit in hits], notes=list(hits.notes), exact=hits.exact, query=sizes)

    async def add(self, request: AddRequest, images: Sequence[bytes], who: Who) -> AddAnswer:
        """Add rows; answered when the disk has confirmed them.

        Raises:
            Problem: limits, numbers of rows and images that differ.
            GloamError: keys that cannot be, times that are none.
        """
        if len(request.rows) != len(images):
            raise Problem(400, f"{len(request.rows)} rows come with {len(images)} images.", "Send one image each.")
        decoded = await self._decode(images, [row.box for row in request.rows])
        features = await self._embed(decoded, [row.modality for row in request.rows])
        rows = [
            Row(
                new.key,
                camera=new.camera,
                time=microseconds(new.time),
                modality=_MODALITY_NUMBERS[new.modality],
                tracklet=new.tracklet,
                person=new.person,
                sha256=hashlib.sha256(image).digest(),
            )
            for new, image in zip(request.rows, images, strict=True)
        ]

        def store() -> AddAnswer:
            keep = self.gallery.catalogue.setting("thumbnails") == "yes"
            self.gallery.space.require(features.fingerprint, "the server's features")
            with _as(who):
                done = self.gallery.index.upsert(
                    rows, features.numpy(), [one.thumbnail for one in decoded] if keep else None
                )
            return AddAnswer(added=done.new, updated=done.updated)

        return await self._ask(store)

    async def erase(self, request: EraseRequest, who: Who) -> EraseAnswer:
        """Erase rows, or say which.

        Raises:
            Problem: neither keys nor a filter.
            GloamError: unknown keys.
        """
        if not request.keys and request.where is None:
            raise Problem(400, "What to erase?", "Send keys, or a filter with at least one condition.")
        where = None if request.where is None else request.where.where()
        if where is not None and where.empty:
            raise Problem(
                400, "A filter without conditions would erase everything.", "Name a camera, time or tracklet."
            )

        def remove() -> EraseAnswer:
            with _as(who):
                keys = self.gallery.select(keys=request.keys, where=where)
                if request.preview:
                    return EraseAnswer(keys=keys, erased=False, done=False)
                done = self.gallery.erase(keys, patience=_PURGE_PATIENCE)
            return EraseAnswer(keys=keys, erased=True, done=done.done, reason=done.reason)

        return await self._ask(remove)

    async def row(self, key: str) -> RowAnswer:
        """What is known of one row.

        Raises:
            Problem: 404.
        """
        return await self._ask(lambda: self._answer(self._known([key])[key]))

    async def tracklet(self, name: str) -> list[RowAnswer]:
        """Rows of a tracklet in the order of time, at most ``NEIGHBOURS``.

        Raises:
            Problem: 404.
        """

        def read() -> list[RowAnswer]:
            self._retain()
            rows = [row for block in self.gallery.catalogue.scan(Where(tracklets=(name,))) for row in block]
            if not rows:
                raise Problem(404, "There is no such tracklet.")
            rows.sort(key=lambda row: (row.time is None, row.time or 0, row.frame or 0, row.key))
            return [self._answer(row) for row in rows[:NEIGHBOURS]]

        return await self._ask(read)

    async def crop(self, key: str) -> bytes:
        """A small WebP image of one row: the stored one, or one of the source if that is still the same file.

        Raises:
            Problem: 404, no such row or no image of it.
        """

        def read() -> bytes:
            row = self._known([key])[key]
            stored = self.gallery.catalogue.thumbnails([key]).get(key)
            if stored is None:
                stored = thumbnail_of(row)
            if stored is None:
                raise Problem(404, "There is no image of this row.", "Galleries made with --thumbnails keep them.")
            return stored

        return await self._ask(read)

    async def info(self, who: Who) -> Info:
        """What the gallery holds."""

        def read() -> Info:
            self._retain()
            space = self.gallery.space
            return Info(
                name=Path(self.gallery.catalogue.name).name,
                rows=len(self.gallery),
                model=str(space.fingerprint),
                fingerprint=space.digest,
                dim=space.dim,
                calibrated=space.calibration is not None,
                calibration=describe_calibration(space),
                role=who.role,
                can_edit=who.may("edit"),
                can_embed=self.embedder is not None,
                cameras=[
                    CameraInfo(
                        camera=camera,
                        modality=MODALITIES[kind],
                        rows=rows,
                        first=time_text(first),
                        last=time_text(last),
                    )
                    for camera, kind, rows, first, last in self.gallery.catalogue.cameras()
                ],
                upload=self.settings.upload,
                top=self.settings.top,
            )

        return await self._ask(read)

    async def _decode(self, images: Sequence[bytes], boxes: Sequence[Box | None]) -> list[Decoded]:
        if not images:
            return []
        if self.decoders is None:
            raise Problem(
                409, "This server has no model.", "Search with keys or vectors, or start it with --model RUN."
            )
        if len(images) > self.settings.images:
            raise Problem(413, f"At most {self.settings.images} images are taken at once.", "Send fewer.")
        decoders = self.decoders
        # All are waited for: a decoder is not left in the middle of an answer.
        found = await asyncio.gather(
            *(decoders.decode(image, box) for image, box in zip(images, boxes, strict=True)), return_exceptions=True
        )
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [one for one in found if isinstance(one, Decoded)]

    async def _embed(self, decoded: Sequence[Decoded], modalities: Sequence[ModalityName]) -> Features:
        if self.embedder is None:
            raise Problem(
                409, "This server has no model.", "Search with keys or vectors, or start it with --model RUN."
            )
        return await self.embedder.embed([one.pixels for one in decoded], modalities)

    def _vectors(self, request: SearchRequest) -> Features:
        from gloam.inference.features import Features, Fingerprint

        given = request.vectors
        if given is None or not given.rows or any(len(row) != self.gallery.space.dim for row in given.rows):
            raise Problem(400, f"Vectors have {self.gallery.space.dim} numbers each, and there is at least one.")
        if len(given.rows) > self.settings.filters:
            raise Problem(400, f"A list has more than {self.settings.filters} entries.", "Send fewer.")
        return Features.of_arrays(given.rows, model=Fingerprint(given.fingerprint, "the client's model"))

    def _known(self, keys: Sequence[str]) -> dict[str, Row]:
        """Rows of these keys, which all must be there and be within their time."""
        self._retain()
        rows = self.gallery.catalogue.rows(keys)
        if any(key not in rows for key in keys):
            raise Problem(404, "There is no row of this key.", "It may have been erased, or its time is over.")
        return rows

    def _answer(self, row: Row) -> RowAnswer:
        return RowAnswer(
            key=row.key,
            camera=row.camera,
            time=time_text(row.time),
            modality=MODALITIES[row.modality],
            tracklet=row.tracklet,
            person=row.person,
            frames=row.frames,
            frame=row.frame,
            box=row.box,
            has_crop=row.key in self.gallery.catalogue.thumbnails([row.key]) or row.path is not None,
        )

    def _retain(self) -> None:
        """Rows whose time is over are gone before anything is shown; their bytes leave the files at the next erasure,
        expire or verify that writes the file anew."""
        began = time.monotonic()
        if began < self._next_check:
            return
        if keys := expired(self.gallery.catalogue):
            with _as(None):
                erase(self.gallery.catalogue, self.gallery.index, keys, action="expired", patience=0, rewrite=False)
        now = time.monotonic()
        self._next_check = now + max(self.settings.retention_seconds, _RARELY * (now - began))

    async def _ask(self, work: Callable[[], T]) -> T:
        """Run something in the gallery's thread.

        Raises:
            Problem: 503, too many wait; 504, it takes too long.
        """
        if self._waiting >= self.settings.queue:
            raise busy(f"{self._waiting} requests wait for the gallery")
        self._waiting += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        future.add_done_callback(self._finished)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self.settings.seconds)
        except TimeoutError as error:
            raise Problem(504, "The gallery did not answer in time.", "Ask again, for less.") from error

    def _finished(self, future: asyncio.Future[T]) -> None:
        self._waiting -= 1
        if not future.cancelled() and future.exception() is not None:
            _log.debug("the gallery refused: %s", type(future.exception()).__name__)


def _without_model() -> Problem:
    return Problem(409, "This server has no model.", "Search with keys or vectors, or start it with --model RUN.")


def _as(who: Who | None) -> AbstractContextManager[None]:
    """Lines of the audit say which role asked."""
    return acting("server" if who is None else f"{who.role} by server")


def _found(hit: Hit) -> FoundHit:
    row = hit.row
    return FoundHit(
        key=row.key,
        score=round(hit.score, 6),
        probability=hit.probability,
        prior=None if hit.probability is None else hit.prior,
        distance=None if hit.distance is None else round(hit.distance, 6),
        camera=row.camera,
        time=time_text(row.time),
        modality=MODALITIES[row.modality],
        tracklet=row.tracklet,
        person=row.person,
        group=hit.group,
        members=list(hit.members[:MEMBERS]),
        marked=hit.marked,
    )
