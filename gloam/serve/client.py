"""A server's gallery, used like a local one."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gloam.errors import GloamError
from gloam.gallery.hits import Hit, Hits
from gloam.gallery.rows import MODALITIES, Row, microseconds, time_text
from gloam.gallery.search import Group, GroupScore
from gloam.gallery.where import EVERYTHING, Moment, Where

if TYPE_CHECKING:
    import httpx
    import numpy as np
    from numpy.typing import NDArray

_NUMBERS = {word: number for number, word in MODALITIES.items()}


class Client:
    """Asks a server that ``gloam serve`` runs.

    Args:
        address: ``http://127.0.0.1:8000`` or ``https://...``.
        token: of a reader or editor; None where the server needs none. Over plain HTTP it is sent to this machine
            only.
        timeout: seconds for one request.
        transport: of httpx, for tests.

    Raises:
        GloamError: no address, or a token that would travel unencrypted.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise GloamError("gloam.Client needs httpx: pip install 'gloam[serve]'") from error
        url = httpx.URL(address)
        if url.scheme not in ("http", "https") or not url.host:
            raise GloamError(f"{address!r} is no address. Write http://127.0.0.1:8000.")
        if token and url.scheme == "http" and url.host not in ("127.0.0.1", "localhost", "::1"):
            raise GloamError(f"The token would travel to {url.host} unencrypted. Use https://.")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout, transport=transport)

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
        modality: str = "visible",
    ) -> Hits:
        """Look for one person; see :meth:`gloam.gallery.gallery.Gallery.search`.

        Args:
            query: an image (``Path``, PIL image, ``(H, W, 3)`` uint8 array), a key of the gallery (a text; a text that
                names a file of this machine is an image), ``tracklet:NAME``, ``Features``, or several of those.
            where: which rows may be found.
            top: hits (or groups) wanted.
            group: see there, as all further ones.
            group_score: see there.
            group_top: see there.
            rerank: see there.
            expand: see there.
            like: see there.
            unlike: see there.
            fmr: see there.
            prior: see there.
            exact: see there.
            modality: of query images.

        Raises:
            GloamError: the server refuses, or cannot be reached.
        """
        asked: dict[str, Any] = {"keys": [], "images": []}
        files = []
        for item in query if isinstance(query, list | tuple) else [query]:
            if isinstance(item, str) and not Path(item).is_file():
                asked["keys"].append(item)
            elif hasattr(item, "fingerprint") and hasattr(item, "vectors"):
                asked["vectors"] = {"fingerprint": item.fingerprint.digest, "rows": item.numpy().tolist()}
            else:
                files.append(("image", _file(item)))
                asked["images"].append({"modality": modality})
        asked |= {
            "where": _filter(where),
            "top": top,
            "group": group,
            "group_score": group_score,
            "group_top": group_top,
            "rerank": rerank,
            "expand": expand,
            "like": _several(like),
            "unlike": _several(unlike),
            "fmr": fmr,
            "prior": prior,
            "exact": exact,
        }
        return self._search(asked, files)

    def info(self) -> dict[str, Any]:
        """What the gallery holds, and what this client may do."""
        found: dict[str, Any] = self._ask("GET", "/v1/info").json()
        return found

    def add(
        self,
        image: Any,
        *,
        key: str,
        camera: int = 0,
        time: Any = None,
        modality: str = "visible",
        tracklet: str | None = None,
        person: str | None = None,
        box: Sequence[float] | None = None,
    ) -> bool:
        """Add one image of a person, or replace the row of that key.

        Returns:
            Whether the row is new. The disk has confirmed it.

        Raises:
            GloamError: the server refuses, or cannot be reached.
        """
        row = {"key": key, "camera": camera, "modality": modality, "tracklet": tracklet, "person": person}
        row |= {"time": time_text(microseconds(time)) or None, "box": None if box is None else list(box)}
        answer = self._ask("POST", "/v1/rows", {"rows": [row]}, [("image", _file(image))]).json()
        return bool(answer["added"])

    def erase(
        self, keys: str | Sequence[str] = (), *, where: Where | None = None, preview: bool = True
    ) -> dict[str, Any]:
        """Erase rows by key or filter; with ``preview`` only say which.

        Raises:
            GloamError: the server refuses, or cannot be reached.
        """
        asked = {"keys": _several(keys), "where": None if where is None else _filter(where), "preview": preview}
        found: dict[str, Any] = self._ask("DELETE", "/v1/rows", asked).json()
        return found

    def crop(self, key: str) -> bytes:
        """A small image (WebP) of one row.

        Raises:
            GloamError: there is none, or the server refuses.
        """
        return self._ask("GET", f"/v1/crops/{quote(key, safe='')}").content

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _search(self, asked: dict[str, Any], files: Sequence[tuple[str, Any]]) -> Hits:
        answer = self._ask("POST", "/v1/search", asked, files).json()

        def again(like: Sequence[str], unlike: Sequence[str]) -> Hits:
            liked = [*(key for key in asked["like"] if key not in unlike), *like]
            unliked = [*(key for key in asked["unlike"] if key not in like), *unlike]
            marks = {"like": list(dict.fromkeys(liked)), "unlike": list(dict.fromkeys(unliked))}
            return self._search({**asked, **marks}, files)

        return Hits(
            tuple(_hit(found) for found in answer["hits"]),
            tuple(answer["notes"]),
            answer["exact"],
            again,
            self._crops,
            lambda: [_small(content) for _, (_, content, _) in files],
        )

    def _crops(self, keys: Sequence[str]) -> dict[str, bytes]:
        found = {}
        for key in keys:
            answer = self._http.get(f"/v1/crops/{quote(key, safe='')}")
            if answer.status_code == 200:
                found[key] = answer.content
        return found

    def _ask(
        self, method: str, path: str, asked: dict[str, Any] | None = None, files: Sequence[tuple[str, Any]] = ()
    ) -> httpx.Response:
        import httpx

        try:
            if files:
                parts = [("request", (None, json.dumps(asked), "application/json")), *files]
                answer = self._http.request(method, path, files=parts)
            else:
                answer = self._http.request(method, path, json=asked)
        except httpx.HTTPError as error:
            raise GloamError(f"{self._http.base_url} does not answer ({error}). Does gloam serve run there?") from error
        if answer.is_success:
            return answer
        try:
            told = answer.json()
            raise GloamError(f"{told['detail']} {told.get('cure', '')}".strip())
        except (ValueError, KeyError) as error:
            raise GloamError(f"{self._http.base_url} answered {answer.status_code}.") from error


def _file(image: Any) -> tuple[str, bytes, str]:
    """An image as the part of a request."""
    import numpy as np
    from PIL import Image

    if isinstance(image, str | Path):
        try:
            return "image", Path(image).read_bytes(), "application/octet-stream"
        except OSError as error:
            raise GloamError(f"{image} cannot be read: {error.strerror}.") from error
    if isinstance(image, bytes):
        return "image", image, "application/octet-stream"
    if isinstance(image, np.ndarray):
        image = Image.fromarray(_pixels(image))
    if not isinstance(image, Image.Image):
        raise GloamError(f"A {type(image).__name__} is no query: give an image, a key or Features.")
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return "image.png", buffer.getvalue(), "image/png"


def _small(content: bytes) -> bytes:
    """A small copy of a query, for a page of hits."""
    import numpy as np
    from PIL import Image

    from gloam.gallery.thumbnails import thumbnail

    with Image.open(io.BytesIO(content)) as image:
        return thumbnail(np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def _pixels(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != "uint8":
        raise GloamError(f"An image is an array (H, W, 3) of uint8, not {array.shape} of {array.dtype}.")
    return array


def _several(keys: str | Sequence[str]) -> list[str]:
    return [keys] if isinstance(keys, str) else list(keys)


def _filter(where: Where) -> dict[str, Any]:
    def moment(value: Any) -> str | None:
        return time_text(int(value)) if isinstance(value, Moment) else None

    return {
        "cameras": list(where.cameras),
        "not_cameras": list(where.not_cameras),
        "after": moment(where.after),
        "before": moment(where.before),
        "modality": where.modality,
        "tracklets": list(where.tracklets),
        "persons": list(where.persons),
    }


def _hit(found: dict[str, Any]) -> Hit:
    row = Row(
        found["key"],
        camera=found["camera"],
        time=microseconds(found["time"]),
        modality=_NUMBERS[found["modality"]],
        tracklet=found["tracklet"],
        person=found["person"],
    )
    return Hit(
        found["score"],
        row,
        found["group"],
        tuple(found["members"]),
        found["distance"],
        found["marked"],
        found["probability"],
        found["prior"],
    )
