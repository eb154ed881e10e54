"""Run the application with uvicorn."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from fastapi import FastAPI

from gloam.errors import GloamError, describe
from gloam.serve.settings import Settings

_log = logging.getLogger("gloam.serve")
_HEAD = 16_384  # bytes of a request line and its headers
_GRACE = 30  # seconds that open requests have at the end


def listen(settings: Settings) -> socket.socket:
    """Take the port, before anything expensive is loaded.

    Raises:
        GloamError: the address is in use, or none of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((settings.host, settings.port))
        taken.listen(256)
    except OSError as error:
        taken.close()
        place = f"{settings.host}:{settings.port}"
        raise GloamError(f"{describe(error, place)} Choose another --port, or --port 0 for any free one.") from error
    return taken


def run(app: FastAPI, place: socket.socket, *, ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; what was accepted is finished.

    Args:
        app: the application.
        place: from :func:`listen`.
        ready: called when requests are answered.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and ready is not None:
                ready()

    config = uvicorn.Config(
        app,
        access_log=False,  # a line for every request would name people's keys
        log_level="warning",
        server_header=False,
        date_header=False,
        proxy_headers=False,  # whoever asks could claim any address
        h11_max_incomplete_event_size=_HEAD,
        http="h11",
        ws="none",
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=1000,
    )
    Server(config).run([place])
