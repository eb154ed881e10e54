"""Errors of the interface: ``application/problem+json`` (RFC 9457) with the cause and what to do about it."""

from __future__ import annotations

import http
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gloam.errors import GloamError, MemoryShortage, WriteError, explain
from gloam.gallery.rows import plain

MEDIA = "application/problem+json"
LONGEST = 600  # characters of a message: what a client sent is not sent back at length
_log = logging.getLogger("gloam.serve")


class Problem(Exception):
    """A request that is not answered as asked.

    Args:
        status: of HTTP.
        cause: what is wrong.
        cure: what to do.
        headers: of the answer.
    """

    def __init__(self, status: int, cause: str, cure: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(cause)
        self.status, self.cause, self.cure = status, cause, cure
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """What the answer holds."""
        told = {
            "type": "about:blank",
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": plain(self.cause)[:LONGEST],
        }
        return told | ({"cure": plain(self.cure)[:LONGEST]} if self.cure else {})

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body(), self.status, self.headers, MEDIA)


def busy(what: str, seconds: int = 1) -> Problem:
    """503: the queue is full."""
    return Problem(503, f"The server is busy: {what}.", "Ask again a little later.", {"Retry-After": str(seconds)})


def install(app: FastAPI) -> None:
    """Make every failure of an application a problem."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> JSONResponse:
        return error.response()

    @app.exception_handler(GloamError)
    async def _mistake(request: Request, error: GloamError) -> JSONResponse:
        return of_error(error).response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return Problem(400, _first(error.errors()), "See /openapi.json for what is expected.").response()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        return Problem(error.status_code, str(error.detail), "", error.headers).response()

    @app.exception_handler(Exception)
    async def _failure(request: Request, error: Exception) -> JSONResponse:
        return of_error(error).response()


def of_error(error: BaseException) -> Problem:
    """What an exception means to a client. Paths of the server are not told."""
    if isinstance(error, Problem):
        return error
    told = explain(error)
    if isinstance(told, MemoryShortage):
        return busy("its memory ran out", 5)
    if isinstance(told, WriteError) or (told is not None and not isinstance(error, GloamError)):
        _log.error("%s", told)
        return Problem(507, "The server cannot write or read its files.", "Its operator finds the cause in the log.")
    if told is not None:
        cause, _, cure = str(told).partition(". ")
        return Problem(400, cause if not cure else f"{cause}.", cure)
    _log.error("a request failed", exc_info=error)
    return Problem(500, "The server failed.", "Its operator finds the cause in the log.")


def validation(errors: Any) -> Problem:
    """400 of a pydantic error list."""
    return Problem(400, _first(errors), "See /openapi.json for what is expected.")


def _first(errors: Any) -> str:
    found = errors[0] if errors else {"loc": (), "msg": "the request is not understood"}
    place = ".".join(str(part) for part in found["loc"] if part != "body")
    return f"{place}: {found['msg']}" if place else str(found["msg"])
