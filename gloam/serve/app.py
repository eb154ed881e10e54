"""The application: routes, roles, and what they answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from gloam import __version__
from gloam.gallery.gallery import Gallery
from gloam.inference.model import Model
from gloam.serve.gate import Gate
from gloam.serve.metrics import MEDIA, Metrics
from gloam.serve.problems import Problem, install, validation
from gloam.serve.schemas import (
    AddAnswer,
    AddRequest,
    EraseAnswer,
    EraseRequest,
    Info,
    RowAnswer,
    SearchAnswer,
    SearchRequest,
)
from gloam.serve.service import Service
from gloam.serve.settings import Access, Settings, Who

Asked = TypeVar("Asked", bound=BaseModel)
_JSON = 2**20  # bytes of a request's JSON: 1,000 vectors of 2,048 numbers come as parts of this size at most
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
_TYPES |= {".json": "application/json; charset=utf-8", ".svg": "image/svg+xml"}
_PROBLEM = {"description": "application/problem+json with the cause (detail) and what to do (cure)"}
_REFUSALS: dict[int | str, dict[str, Any]] = dict.fromkeys((400, 401, 403, 404, 408, 413, 415, 429, 503), _PROBLEM)


def create_app(gallery: Gallery, settings: Settings | None = None, *, model: Model | None = None) -> FastAPI:
    """The application of one gallery; any ASGI server runs it.

    Args:
        gallery: open; the application closes it.
        settings: limits and roles.
        model: embeds images; None: only keys and vectors can be searched for.

    Raises:
        GloamError: the model is not that of the gallery.
    """
    settings = settings or Settings()
    if model is not None:
        gallery.space.require(model.fingerprint, "the server's model")
    metrics = Metrics()
    service = Service(gallery, settings, model)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = FastAPI(
        title="gloam gallery",
        version=__version__,
        docs_url=None,  # FastAPI's page for it loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
        responses=_REFUSALS,
    )
    app.state.service = service
    install(app)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    _watch(metrics, service)
    _add_api(app, service, settings, metrics)
    _add_page(app)
    _add_probes(app, service, metrics, settings)
    return app


def _watch(metrics: Metrics, service: Service) -> None:
    metrics.watch("gloam_waiting_for_gallery", "Requests that wait for the gallery.", lambda: service.waiting)
    if (embedder := service.embedder) is not None:
        metrics.watch("gloam_waiting_images", "Images that wait for the model.", lambda: embedder.waiting)
        metrics.watch("gloam_embedded_images", "Images embedded since the start.", lambda: embedder.images)
        metrics.watch("gloam_forward_passes", "Batches embedded since the start.", lambda: embedder.batches)


def _add_api(app: FastAPI, service: Service, settings: Settings, metrics: Metrics) -> None:
    reader: Any = Depends(_needs("search", settings))
    editor: Any = Depends(_needs("edit", settings))

    @app.get("/v1/info", tags=["gallery"])
    async def info(who: Who = reader) -> Info:
        """What the gallery holds, and what the caller may do."""
        return await service.info(who)

    @app.post("/v1/search", tags=["search"], openapi_extra=_body(SearchRequest))
    async def search(request: Request, who: Who = reader) -> SearchAnswer:
        """Look for one person: by uploaded images, by rows of the gallery, or by vectors; several show one person."""
        asked, images = await _read(request, SearchRequest, settings)
        answer = await service.search(asked, images, who)
        metrics.searched()
        return answer

    @app.post("/v1/rows", tags=["edit"], openapi_extra=_body(AddRequest))
    async def add(request: Request, who: Who = editor) -> AddAnswer:
        """Add images of single people, or replace rows of the same keys; answered when the disk has confirmed it."""
        asked, images = await _read(request, AddRequest, settings)
        return await service.add(asked, images, who)

    @app.delete("/v1/rows", tags=["edit"], openapi_extra=_body(EraseRequest))
    async def erase(request: Request, who: Who = editor) -> EraseAnswer:
        """Erase rows for good; with ``preview`` (the default) only say which."""
        asked, images = await _read(request, EraseRequest, settings)
        if images:
            raise Problem(400, "Erasing takes no images.", "Send keys, or a filter.")
        return await service.erase(asked, who)

    @app.get("/v1/rows/{key:path}", tags=["gallery"])
    async def row(key: str, who: Who = reader) -> RowAnswer:
        """What is known of one row."""
        return await service.row(key)

    @app.get("/v1/tracklets/{name:path}", tags=["gallery"])
    async def tracklet(name: str, who: Who = reader) -> list[RowAnswer]:
        """Rows of one tracklet, in the order of time."""
        return await service.tracklet(name)

    @app.get("/v1/crops/{key:path}", tags=["gallery"], response_class=Response)
    async def crop(key: str, who: Who = reader) -> Response:
        """A small image (WebP) of one row. The key is looked up in the gallery; it is never a path."""
        return Response(await service.crop(key), media_type="image/webp")


def _add_page(app: FastAPI) -> None:
    folder = resources.files("gloam.serve") / "page"
    for file in folder.iterdir():
        suffix = f".{file.name.rpartition('.')[2]}"
        if suffix in _TYPES:
            answer = _file(file.read_bytes(), _TYPES[suffix])
            app.add_api_route("/" if file.name == "index.html" else f"/{file.name}", answer, include_in_schema=False)


def _file(content: bytes, media: str) -> Any:
    async def answer() -> Response:
        return Response(content, media_type=media)

    return answer


def _add_probes(app: FastAPI, service: Service, metrics: Metrics, settings: Settings) -> None:
    reader: Any = Depends(_needs("search", settings))

    @app.get("/healthz", tags=["operation"], response_class=PlainTextResponse)
    async def health() -> str:
        """The process answers."""
        return "ok"

    @app.get("/readyz", tags=["operation"], response_class=PlainTextResponse)
    async def ready() -> str:
        """Searches are answered."""
        if not service.ready:
            raise Problem(503, "The server is starting or stopping.", "Ask again later.", {"Retry-After": "1"})
        return "ok"

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def figures(who: Who = reader) -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=MEDIA)


def _needs(access: Access, settings: Settings) -> Any:
    """A dependency: who asks, if that may be asked."""

    async def check(request: Request) -> Who:
        client = request.client.host if request.client else ""
        if settings.tokens is None:
            who = Who(settings.open_role, client)
        else:
            kind, _, token = request.headers.get("authorization", "").partition(" ")
            role = settings.tokens.role_of(token.strip()) if kind.lower() == "bearer" and token.strip() else None
            if role is None:
                raise Problem(
                    401,
                    "A token is missing, or it is not known.",
                    "Send the header Authorization: Bearer TOKEN.",
                    {"WWW-Authenticate": 'Bearer realm="gloam"'},
                )
            who = Who(role, client)
        if not who.may(access):
            raise Problem(
                403,
                f"The role {who.role} may not do this.",
                "Use an editor's token." if settings.tokens is not None else "Start the server with --role editor.",
            )
        return who

    return check


class _Parser(MultiPartParser):
    """Keeps uploads in memory, never in a file of the system's temporary folder; their size is limited before."""

    spool_max_size = 2**31


async def _read(request: Request, kind: type[Asked], settings: Settings) -> tuple[Asked, list[bytes]]:
    """The JSON and the images of a request.

    Raises:
        Problem: 400 or 415: neither JSON nor multipart, unknown parts, JSON that does not fit.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    images: list[bytes] = []
    if media == "application/json":
        text = await request.body()
    elif media == "multipart/form-data":
        text, images = await _read_parts(request, settings)
    else:
        raise Problem(
            415,
            "The body is neither application/json nor multipart/form-data.",
            "Send JSON, or multipart with a part 'request' (JSON) and parts 'image'.",
        )
    try:
        return kind.model_validate_json(text or b"{}"), images
    except ValidationError as error:
        raise validation(error.errors()) from error
    except RecursionError as error:
        raise Problem(400, "The JSON is nested too deeply.") from error


async def _read_parts(request: Request, settings: Settings) -> tuple[bytes, list[bytes]]:
    parser = _Parser(
        request.headers, request.stream(), max_files=settings.images + 1, max_fields=4, max_part_size=_JSON
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        told = str(error) if isinstance(error, MultiPartException) else "it has no boundary, or is cut off"
        raise Problem(400, f"The multipart body cannot be read: {told}", "Send at most a few small parts.") from error
    text, images = b"{}", []
    try:
        for name, part in form.multi_items():
            content = await part.read() if isinstance(part, UploadFile) else part.encode()
            if name == "request":
                if len(content) > _JSON:
                    raise Problem(413, f"The part 'request' is larger than {_JSON:,} bytes.")
                text = content
            elif name == "image":
                images.append(content)
            else:
                raise Problem(400, f"There is no part {name[:40]!r}.", "Parts are 'request' (JSON) and 'image'.")
    finally:
        await form.close()
    if len(images) > settings.images:
        raise Problem(413, f"At most {settings.images} images are taken at once.", "Send fewer.")
    return text, images


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a body that is JSON or multipart."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema = json.loads(json.dumps(_inlined(schema)))
    image = {"type": "array", "items": {"type": "string", "format": "binary"}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schema},
                "multipart/form-data": {
                    "schema": {"type": "object", "properties": {"request": schema, "image": image}},
                    "encoding": {"request": {"contentType": "application/json"}},
                },
            },
        }
    }


def _inlined(schema: dict[str, Any]) -> Any:
    """The schema with its definitions where they are used: OpenAPI has no place for them inside of an operation."""
    definitions = schema.pop("$defs", {})

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return walk(definitions[value["$ref"].rpartition("/")[2]])
            return {key: walk(one) for key, one in value.items()}
        return [walk(one) for one in value] if isinstance(value, list) else value

    return walk(schema)
