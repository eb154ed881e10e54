"""Uploaded images become pixels in processes of their own, which are ended when they take too long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gloam.recipes.sections import DataConfig
from gloam.serve.decode_worker import LENGTH, message
from gloam.serve.problems import Problem
from gloam.serve.settings import Settings

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Decoded:
    """One image of a request.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 at the model's size.
        width: of the upright image, in pixels.
        height: the same.
        thumbnail: WebP.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    thumbnail: bytes


class Decoders:
    """A few processes that decode images; one image each at a time.

    Args:
        settings: limits.
        data: image size, filter and stretch of the model.
    """

    def __init__(self, settings: Settings, data: DataConfig) -> None:
        self._settings, self._data = settings, data
        self._free: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()
        for _ in range(settings.decoders):
            self._free.put_nowait(None)

    async def decode(self, content: bytes, box: Box | None = None) -> Decoded:
        """Decode one image.

        Raises:
            Problem: 415: no image; 413: too many pixels or too slow.
        """
        height, width = self._data.height, self._data.width
        order = {
            "pixels": self._settings.pixels,
            "box": box,
            "height": height,
            "width": width,
            "interpolation": self._data.interpolation,
            "stretch": self._data.stretch,
        }
        process = await self._free.get()
        try:
            if process is None or process.returncode is not None:
                process = await self._start()
            try:
                told, answer = await asyncio.wait_for(_exchange(process, order, content), self._settings.decode_seconds)
            except TimeoutError as error:
                raise Problem(413, "Decoding the image took too long.", "Send a smaller one.") from error
            except (OSError, EOFError, ValueError) as error:
                raise Problem(415, "The image cannot be decoded.", "Send a JPEG, PNG or WebP.") from error
        except BaseException:  # of no use any more: a half-read answer, or a decoder that died
            await _end(process)
            process = None
            raise
        finally:
            self._free.put_nowait(process)
        if "error" in told:
            status = 413 if "pixels; at most" in told["error"] else 415
            raise Problem(status, f"The image cannot be used: {told['error']}.", "Send a JPEG, PNG or WebP.")
        count = 3 * height * width
        pixels = np.frombuffer(answer[:count], np.uint8).reshape(3, height, width).transpose(1, 2, 0)
        return Decoded(np.ascontiguousarray(pixels), told["width"], told["height"], answer[count:])

    async def _start(self) -> asyncio.subprocess.Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GLOAM_QDRANT")}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gloam.serve.decode_worker",
            str(self._settings.decode_memory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            limit=2**24,
        )

    async def close(self) -> None:
        """End the processes."""
        while not self._free.empty():
            await _end(self._free.get_nowait())


async def _exchange(
    process: asyncio.subprocess.Process, order: dict[str, Any], content: bytes
) -> tuple[dict[str, Any], bytes]:
    if process.stdin is None or process.stdout is None:
        raise EOFError
    process.stdin.write(message(order, content))
    await process.stdin.drain()
    length = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))[0]
    told: dict[str, Any] = json.loads(await process.stdout.readexactly(length))
    return told, await process.stdout.readexactly(told["size"])


async def _end(process: asyncio.subprocess.Process | None) -> None:
    if process is None or process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
