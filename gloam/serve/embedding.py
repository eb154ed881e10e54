"""One forward pass for the images of many requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gloam.serve.problems import busy
from gloam.serve.settings import Settings

if TYPE_CHECKING:
    from gloam.inference.features import Features
    from gloam.inference.model import Model
    from gloam.inference.sources import ModalityName


class _Wanted(NamedTuple):
    pixels: NDArray[np.uint8]
    modality: ModalityName
    answer: asyncio.Future[NDArray[np.float32]]


class Embedder:
    """Gathers images from all requests and embeds them in batches, one batch at a time.

    Memory: ``settings.queue`` images of the model's size and one batch of the network.

    Args:
        model: embeds.
        settings: queue, batch and how long to gather.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model, self._settings = model, settings
        self._queue: asyncio.Queue[_Wanted] = asyncio.Queue(settings.queue)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._task: asyncio.Task[None] | None = None
        self.batches = 0
        self.images = 0

    @property
    def waiting(self) -> int:
        """Images that wait for a batch."""
        return self._queue.qsize()

    def start(self) -> None:
        """Begin to serve; inside of the event loop."""
        self._task = asyncio.create_task(self._serve())

    async def embed(self, images: Sequence[NDArray[np.uint8]], modalities: Sequence[ModalityName]) -> Features:
        """Features of ``(H, W, 3)`` images.

        Raises:
            Problem: 503, the queue is full.
        """
        from gloam.inference.features import Features

        if self._queue.qsize() + len(images) > self._settings.queue:
            raise busy(f"{self._queue.qsize()} images wait for the model")
        loop = asyncio.get_running_loop()
        wanted = [
            _Wanted(pixels, modality, loop.create_future()) for pixels, modality in zip(images, modalities, strict=True)
        ]
        for one in wanted:
            self._queue.put_nowait(one)
        vectors = await asyncio.gather(*(one.answer for one in wanted))
        return Features.of_arrays(np.stack(vectors), model=self._model.fingerprint, modality=list(modalities))

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            await asyncio.sleep(self._settings.gather)
            while len(batch) < self._settings.batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            batch = [one for one in batch if not one.answer.done()]  # a client that left
            if not batch:
                continue
            try:
                vectors = await loop.run_in_executor(self._thread, self._forward, batch)
            except Exception as error:
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error)
                continue
            self.batches += 1
            self.images += len(batch)
            for one, vector in zip(batch, vectors, strict=True):
                if not one.answer.done():
                    one.answer.set_result(vector)

    def _forward(self, batch: Sequence[_Wanted]) -> NDArray[np.float32]:
        found = self._model.embed(
            [one.pixels for one in batch], modality=[one.modality for one in batch], workers=0, progress=False
        )
        return found.numpy()

    async def close(self) -> None:
        """Stop; requests that still wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=True)
