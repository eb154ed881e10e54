"""What every request passes first: names, origins, sizes, times and rates; and the headers of every answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gloam.serve.metrics import Metrics
from gloam.serve.problems import Problem
from gloam.serve.settings import Settings

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
    b"cache-control": b"no-store",
}
_log = logging.getLogger("gloam.serve")
_HEADERS = 16_384  # bytes of all headers: the parser's own limit does not see those that arrive at once
_CLIENTS = 10_000  # whose rates are remembered
_SAFE = ("GET", "HEAD", "OPTIONS")
_PROBES = ("/healthz", "/readyz")


class Gate:
    """ASGI middleware around the application.

    Args:
        app: what it protects.
        settings: limits.
        metrics: counts answers.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._rates = _Rates(settings.rate / 60, settings.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in HEADERS.items() if name not in given),
                ]
            await send(message)

        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            self._check(scope, headers)
            body = _Body(receive, self._settings, headers)
            await self._app(scope, body.receive, answer)
        except Problem as problem:
            await problem.response()(scope, receive, answer)
        except Exception:  # answered and logged where it was caught first
            _log.debug("after an answer", exc_info=True)
        finally:
            route = str(getattr(scope.get("route"), "path", ""))
            self._metrics.answered(route, scope["method"], status, time.perf_counter() - began)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _HEADERS:
            raise Problem(431, f"The headers are larger than {_HEADERS:,} bytes.", "Send fewer.")
        host = headers.get(b"host", b"").decode("latin-1")
        names = self._settings.allowed_names
        if names is not None and _name_of(host) not in names:
            raise Problem(
                421,
                "This server does not answer to the name in the request's Host header.",
                "Use http://127.0.0.1, or start it with --name NAME.",
            )
        if scope["method"] not in _SAFE:
            self._check_origin(headers, host)
        client = scope["client"][0] if scope.get("client") else ""
        if scope["path"] not in _PROBES and (wait := self._rates.wait(client)) > 0:
            raise Problem(429, "Too many requests.", "Ask more slowly.", {"Retry-After": str(max(1, round(wait)))})

    def _check_origin(self, headers: dict[bytes, bytes], host: str) -> None:
        """Pages of other origins must not make a visitor's browser search or erase: without a token, nothing else would
        keep them from it."""
        origin = headers.get(b"origin", b"").decode("latin-1")
        foreign = headers.get(b"sec-fetch-site", b"") in (b"cross-site", b"same-site")
        if origin and origin not in self._settings.origins and (foreign or urlsplit(origin).netloc != host):
            raise Problem(403, "The request comes from a page of another origin.", "Name it with --origin to allow it.")
        if foreign and not origin:
            raise Problem(403, "The request comes from a page of another origin.", "Name it with --origin to allow it.")


class _Body:
    """The body of a request, counted while it is read: a length that is announced proves nothing.

    Args:
        receive: of ASGI.
        settings: limits.
        headers: of the request.
    """

    def __init__(self, receive: Receive, settings: Settings, headers: dict[bytes, bytes]) -> None:
        self._receive, self._limit = receive, settings.upload
        self._until = time.monotonic() + settings.body_seconds
        self._count, self._done = 0, False
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next part."""
        if self._done:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
        except TimeoutError as error:
            raise Problem(408, "The body did not arrive in time.", "", {"Connection": "close"}) from error
        if message["type"] == "http.request":
            self._count += len(message.get("body", b""))
            self._done = not message.get("more_body", False)
            if self._count > self._limit:
                raise self._too_large()
        return message

    def _too_large(self) -> Problem:
        return Problem(
            413, f"The body is larger than {self._limit:,} bytes.", "Send smaller images.", {"Connection": "close"}
        )


class _Rates:
    """A bucket of requests for each client, filled steadily.

    Args:
        rate: requests a second.
        burst: size of a bucket.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, float(burst)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Take one request out; seconds until there will be one, 0 if it was there."""
        now = time.monotonic()
        left, then = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        self._left[client] = (max(0.0, left - 1), now)
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._rate


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()
