"""Hostile requests, each with the answer that it must get; the server lives on after all of them."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from gloam.gallery.gallery import open_gallery
from gloam.inference.model import Model
from gloam.serve.settings import Settings
from gloam.serve.tokens import Tokens
from tests.serve.conftest import Running, Serve, exchange, picture, start_server

TOKEN = "t" * 24
LIMIT = 300_000


@pytest.fixture(scope="module")
def server(filled: Path, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    import shutil

    folder = Path(shutil.copytree(filled, tmp_path_factory.mktemp("abuse") / "people.gallery"))
    settings = Settings(
        port=0,
        tokens=Tokens({TOKEN: "editor"}),
        upload=LIMIT,
        pixels=100_000,
        body_seconds=1.0,
        decode_seconds=5.0,
        rate=1e6,
        burst=10**6,
    )
    running = start_server(open_gallery(folder), settings, model)
    yield running
    running.stop()


def bomb() -> bytes:
    """A PNG of a few kilobytes that claims 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    size = 30_000
    head = size.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 10**6)) + chunk(b"IEND", b"")
    )


def tiff_with_postscript() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) run\n"


def svg() -> bytes:
    return b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


def form(*parts: tuple[str, str, bytes], boundary: str = "XX", closed: bool = True) -> tuple[bytes, str]:
    lines = b""
    for name, filename, content in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"' + (
            f'; filename="{filename}"' if filename else ""
        )
        lines += head.encode() + b"\r\n\r\n" + content + b"\r\n"
    return lines + (f"--{boundary}--\r\n".encode() if closed else b""), f"multipart/form-data; boundary={boundary}"


def search(image: bytes, request: bytes = b"{}") -> dict[str, Any]:
    content, media = form(("request", "", request), ("image", "a.jpg", image))
    return {"method": "POST", "path": "/v1/search", "content": content, "headers": {"content-type": media}}


def post(value: Any, path: str = "/v1/search", method: str = "POST") -> dict[str, Any]:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return {"method": method, "path": path, "content": text, "headers": {"content-type": "application/json"}}


def get(path: str, method: str = "GET", **headers: str) -> dict[str, Any]:
    return {"method": method, "path": path, "content": b"", "headers": headers}


KEYS = {"keys": ["tracklet:walk 1"]}
HOSTILE: dict[str, tuple[dict[str, Any], int]] = {
    # images
    "decompression bomb": (search(bomb()), 413),
    "larger than the pixels allowed": (search(picture("JPEG", (400, 400))), 413),
    "postscript": (search(tiff_with_postscript()), 415),
    "svg with a link to a file": (search(svg()), 415),
    "html called jpg": (search(b"<script>alert(1)</script>"), 415),
    "empty image": (search(b""), 415),
    "cut-off png": (search(picture()[:200]), 415),
    "cut-off jpeg": (search(picture("JPEG")[:100]), 415),
    "flipped bytes in a png": (search(picture()[:60] + b"\0\0\0\0" + picture()[64:]), 415),
    "png and zip in one file": (search(picture() + b"PK\3\4" + b"a" * 100), 200),
    "png and script in one file": (search(picture() + b"<script>alert(1)</script>"), 200),
    "pickle": (search(b"\x80\x04cposix\nsystem\n(S'true'\ntR."), 415),
    "executable": (search(b"\x7fELF" + b"\0" * 500), 415),
    "pdf": (search(b"%PDF-1.7\n1 0 obj"), 415),
    "random bytes": (search(os.urandom(5000)), 415),
    "seventeen images": (
        {
            **post({}),
            **dict(zip(("content", "media"), form(*(("image", "a", picture()) for _ in range(17))), strict=True)),
        },
        413,
    ),
    "box outside": (search(picture(), b'{"images": [{"box": [900, 900, 5, 5]}]}'), 415),
    "box of nothing": (search(picture(), b'{"images": [{"box": [1, 1, 0, 0]}]}'), 415),
    "negative box": (search(picture(), b'{"images": [{"box": [5, 5, -4, -4]}]}'), 415),
    "infinite box": (search(picture(), b'{"images": [{"box": [0, 0, 1e999, 5]}]}'), 400),
    "nan box": (search(picture(), b'{"images": [{"box": [NaN, 0, 5, 5]}]}'), 400),
    "two descriptions of one image": (search(picture(), b'{"images": [{}, {}]}'), 400),
    # multipart
    "multipart without boundary": ({**post(b"x"), "headers": {"content-type": "multipart/form-data"}}, 400),
    "multipart that never ends": (
        {**post(b""), **dict(zip(("content", "media"), form(("request", "", b"{}"), closed=False), strict=True))},
        400,
    ),
    "multipart of another boundary": (
        {**post(form(("request", "", b"{}"))[0]), "media": "multipart/form-data; boundary=YY"},
        400,
    ),
    "part without a name": (
        {
            **post(b"--XX\r\nContent-Disposition: form-data\r\n\r\na\r\n--XX--\r\n"),
            "media": "multipart/form-data; boundary=XX",
        },
        400,
    ),
    "unknown part": ({**post(form(("path", "", b"/etc/passwd"))[0]), "media": "multipart/form-data; boundary=XX"}, 400),
    "hundred fields": (
        {**post(form(*((f"f{i}", "", b"x") for i in range(100)))[0]), "media": "multipart/form-data; boundary=XX"},
        400,
    ),
    "path as file name": (
        {
            **post(
                form(("request", "", b'{"keys": ["tracklet:walk 1"]}'), ("image", "../../etc/cron.d/x", picture()))[0]
            ),
            "media": "multipart/form-data; boundary=XX",
        },
        200,
    ),
    "request part is no json": (search(picture(), b"\xff\xfe"), 400),
    # bodies and types
    "no content type": ({**post(KEYS), "headers": {}}, 415),
    "urlencoded": ({**post(b"keys=a"), "headers": {"content-type": "application/x-www-form-urlencoded"}}, 415),
    "xml": ({**post(b"<a/>"), "headers": {"content-type": "text/xml"}}, 415),
    "too long with a length": (post(b" " * (LIMIT + 1)), 413),
    "no json": (post(b"{"), 400),
    "json of another kind": (post([1, 2]), 400),
    "deeply nested json": (post(b"[" * 100_000), 400),
    "unknown field": (post({**KEYS, "path": "/etc/passwd"}), 400),
    "nothing to search for": (post({}), 400),
    # values
    "key that is a file of the server": (post({"keys": ["/etc/passwd"]}), 404),
    "key that climbs": (post({"keys": ["../../../etc/passwd"]}), 404),
    "key of a million characters": (post({"keys": ["a" * 100_000]}), 400),
    "null byte in a key": (post({"keys": ["a\0b"]}), 404),
    "sql in a key": (post({"keys": ["' OR 1=1; DROP TABLE crop; --"]}), 404),
    "sql in a tracklet": (post({**KEYS, "where": {"tracklets": ["x' OR '1'='1"]}}), 200),
    "ten thousand filters": (post({**KEYS, "where": {"cameras": list(range(10_000))}}), 400),
    "ten thousand keys": (post({"keys": [str(i) for i in range(10_000)]}), 400),
    "camera beyond 32 bits": (post({**KEYS, "where": {"cameras": [2**40]}}), 400),
    "no time": (post({**KEYS, "where": {"after": "yesterday; rm -rf /"}}), 400),
    "time of the year 10^9": (post({**KEYS, "where": {"after": "999999999-01-01"}}), 400),
    "unknown modality": (post({**KEYS, "where": {"modality": "x-ray"}}), 400),
    "top of zero": (post({**KEYS, "top": 0}), 400),
    "top of 10^20": (post({**KEYS, "top": 10**20}), 400),
    "re-ranking a million": (post({**KEYS, "rerank": 10**6}), 400),
    "expansion by a million": (post({**KEYS, "expand": 10**6}), 400),
    "fmr of two": (post({**KEYS, "fmr": 2}), 400),
    "fmr without calibration": (post({**KEYS, "fmr": 0.001}), 400),
    "liked and disliked": (post({**KEYS, "like": ["a"], "unlike": ["a"]}), 400),
    "vectors of nan": (post(b'{"vectors": {"fingerprint": "a", "rows": [[NaN]]}}'), 400),
    "vectors of another width": (post({"vectors": {"fingerprint": "a", "rows": [[1.0, 2.0]]}}), 400),
    "text as a number": (post({**KEYS, "top": "20; DROP TABLE crop"}), 400),
    "lone surrogate": (post(b'{"keys": ["\\ud800"]}'), 400),
    # paths and methods
    "climbing path": (get("/../../etc/passwd"), 404),
    "climbing path, encoded": (get("/..%2f..%2fetc%2fpasswd"), 404),
    "crop of a file of the server": (get("/v1/crops/%2Fetc%2Fpasswd"), 404),
    "crop that climbs": (get("/v1/crops/..%2f..%2f..%2fetc%2fpasswd"), 404),
    "crop with a null byte": (get("/v1/crops/a%00.jpg"), 404),
    "row of bytes that are no utf-8": (get("/v1/rows/%ff%fe"), 404),
    "page file that climbs": (get("/page/..%2fapp.py"), 404),
    "source of the server": (get("/app.py"), 404),
    "put": (get("/v1/rows", "PUT"), 405),
    "trace": (get("/v1/search", "TRACE"), 405),
    "get of a search": (get("/v1/search"), 405),
    "method override": (get("/v1/rows", "POST", **{"x-http-method-override": "DELETE"}), 415),
    "erase everything": (post({"where": {}, "preview": False}, "/v1/rows", "DELETE"), 400),
    "erase nothing": (post({"preview": False}, "/v1/rows", "DELETE"), 400),
    "erase with images": ({**search(picture()), "path": "/v1/rows", "method": "DELETE"}, 400),
    "rows without images": (post({"rows": [{"key": "a"}]}, "/v1/rows"), 400),
    "key that looks like a file": ({**search(picture(), b'{"rows": [{"key": "./a"}]}'), "path": "/v1/rows"}, 400),
    "key that looks like a tracklet": (
        {**search(picture(), b'{"rows": [{"key": "tracklet:a"}]}'), "path": "/v1/rows"},
        400,
    ),
    "empty key": ({**search(picture(), b'{"rows": [{"key": ""}]}'), "path": "/v1/rows"}, 400),
    # who asks
    "wrong token": ({**post(KEYS), "token": "w" * 24}, 401),
    "no token": ({**post(KEYS), "authorization": "Bearer"}, 401),
    "token of another scheme": (
        {**post(KEYS), "authorization": "Basic " + base64.b64encode(b"a:" + TOKEN.encode()).decode()},
        401,
    ),
    "token in the address": ({**get(f"/v1/info?token={TOKEN}"), "token": "x"}, 401),
    "page of another origin": ({**post(KEYS), "origin": "https://evil.example"}, 403),
    "form of another site": ({**post(KEYS), "site": "cross-site"}, 403),
    "another name for this machine": ({**get("/v1/info"), "host": "evil.example"}, 421),
    "no host at all": ({**get("/v1/info"), "host": ""}, 421),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_requests_get_their_answers(name: str, server: Running) -> None:
    asked, status = HOSTILE[name]
    headers = {"authorization": f"Bearer {asked.get('token', TOKEN)}", **asked["headers"]}
    for header, key in (
        ("content-type", "media"),
        ("origin", "origin"),
        ("sec-fetch-site", "site"),
        ("host", "host"),
        ("authorization", "authorization"),
    ):
        if key in asked:
            headers[header] = asked[key]
    with server.client() as client:
        answer = client.request(asked["method"], asked["path"], content=asked["content"], headers=headers)
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            told = answer.json()
            assert told["detail"]
            assert "Traceback" not in answer.text
            assert str(Path(__file__).parents[2]) not in answer.text
            assert str(Path.home()) not in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert client.get("/healthz").text == "ok"


POST = (
    b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer TOKEN\r\nContent-Type: application/json\r\n"
)
RAW: dict[str, tuple[bytes, bytes]] = {
    "body without a length, too long": (
        POST
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"10000\r\n" + b" " * 0x10000 + b"\r\n" for _ in range(8))
        + b"0\r\n\r\n",
        b"413",
    ),
    "body that never comes": (
        POST + b"Content-Length: 100\r\n\r\n{",
        b"408",
    ),
    "line feed in a header": (b"GET /v1/info HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\nb\0c\r\n\r\n", b"400"),
    "header of a megabyte": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 10**6 + b"\r\n\r\n", b"400"),
    "ten thousand headers": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: a\r\n" * 10_000 + b"\r\n", b"431"),
    "two lengths": (
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"400",
    ),
    "negative length": (b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n", b"400"),
    "no http": (b"\x16\x03\x01\x02\0\x01\0" + b"\0" * 50 + b"\r\n\r\n", b"400"),
    "line that is no request": (b"HELO example\r\n\r\n", b"400"),
}


@pytest.mark.parametrize("name", RAW)
def test_hostile_bytes_get_their_answers(name: str, server: Running) -> None:
    content, status = RAW[name]
    try:
        found = exchange(server.port, content.replace(b"TOKEN", TOKEN.encode()))
    except (ConnectionResetError, BrokenPipeError):
        found = b"HTTP/1.1 " + status  # closed while too much was still being sent
    assert found.startswith(b"HTTP/1.1 " + status), found[:200]
    with server.client() as client:
        assert client.get("/healthz").text == "ok"


def test_there_are_enough_hostile_requests() -> None:
    assert len(HOSTILE) + len(RAW) >= 60


def test_open_connections_that_say_nothing_do_not_block_others(server: Running) -> None:
    lines = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    for line in lines:
        line.sendall(b"GET / HT")
    with server.client() as client:
        assert client.get("/healthz").text == "ok"
    for line in lines:
        line.close()


def test_a_decoder_that_hangs_or_dies_is_replaced(serve: Serve) -> None:
    server = serve(decoders=1, decode_seconds=2.0)
    content, media = form(("request", "", b"{}"), ("image", "a.jpg", picture()))
    with server.client(headers={"content-type": media}) as client:
        assert client.post("/v1/search", content=content).status_code == 200
        decoders = server.app.state.service.decoders
        process = decoders._free._queue[0]
        os.kill(process.pid, signal.SIGSTOP)  # as a decoder in an endless loop
        assert client.post("/v1/search", content=content).status_code == 413
        assert client.post("/v1/search", content=content).status_code == 200
        os.kill(decoders._free._queue[0].pid, signal.SIGKILL)
        time.sleep(0.2)
        assert client.post("/v1/search", content=content).status_code in (200, 415)
        assert client.post("/v1/search", content=content).status_code == 200


def test_decoders_cannot_take_all_memory_or_write_files(tmp_path: Path) -> None:
    script = (
        "from gloam.serve.decode_worker import limit; limit(2**29)\n"
        "try:\n    x = bytearray(2**30); print('took')\nexcept MemoryError:\n    print('refused')\n"
        f"try:\n    open({str(tmp_path / 'x')!r}, 'w', buffering=1).write('a\\n')\n    print('wrote')\n"
        "except OSError:\n    print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["refused", "refused"], done


def test_an_image_turned_by_its_camera_is_upright(serve: Serve) -> None:
    wide = Image.open(io.BytesIO(picture(size=(64, 32))))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    buffer = io.BytesIO()
    wide.save(buffer, "JPEG", exif=exif)
    content, media = form(("request", "", b"{}"), ("image", "a.jpg", buffer.getvalue()))
    with serve().client(headers={"content-type": media}) as client:
        assert client.post("/v1/search", content=content).json()["query"] == ["32 x 64"]


def test_what_was_acknowledged_survives_a_kill_under_load(folder: Path, run_folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(folder), "--port", str(port), "--role", "editor", "--model", str(run_folder)]
    server = subprocess.Popen(
        [sys.executable, "-m", "gloam", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    acknowledged: list[str] = []

    def add(person: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            for number in range(10_000):
                key = f"new {person} {number}"
                request = json.dumps({"rows": [{"key": key}]}).encode()
                content, media = form(("request", "", request), ("image", "a", picture(seed=number)))
                try:
                    answer = client.post("/v1/rows", content=content, headers={"content-type": media})
                except httpx.HTTPError:
                    return  # the kill
                if answer.status_code == 200:
                    acknowledged.append(key)

    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        with ThreadPoolExecutor(4) as pool:
            for person in range(4):
                pool.submit(add, person)
            while len(acknowledged) < 20 and time.monotonic() < until:
                time.sleep(0.01)
            server.kill()
    finally:
        server.kill()
        server.wait()
    assert len(acknowledged) >= 20
    with open_gallery(folder) as gallery:
        assert set(acknowledged) <= set(gallery.catalogue.rows(acknowledged))
        assert not gallery.verify().problems
