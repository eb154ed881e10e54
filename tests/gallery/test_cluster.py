"""The way to a Qdrant cluster, seen from a server that only listens: addresses, the key, encryption."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gloam.errors import GloamError
from gloam.gallery.engines.cluster import KEY_VARIABLE, TLS_VARIABLE, connect, guarded
from gloam.gallery.gallery import Gallery, open_gallery
from tests.gallery.people import space


class Listener(http.server.BaseHTTPRequestHandler):
    """Says that no collection exists, and remembers what it was asked."""

    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("api-key")))
        body = json.dumps({"result": {"exists": False}, "status": "ok", "time": 0.0}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing to the terminal."""


@contextlib.contextmanager
def listening(certificate: Path | None = None) -> Iterator[tuple[int, list[tuple[str, str | None]]]]:
    seen: list[tuple[str, str | None]] = []
    handler = type("Handler", (Listener,), {"seen": seen})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    place = tmp_path / "server.pem"
    command = [openssl, *words.split(), "-keyout", str(place.with_suffix(".key")), "-out", str(place)]
    subprocess.run(command, check=True, capture_output=True)
    return place


@pytest.mark.parametrize("scheme", ["qdrant", "qdrants"])
def test_the_key_travels_encrypted_to_trusted_servers_only(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with listening(certificate) as (port, seen):
        address = f"{scheme}://localhost:{port}/people"
        monkeypatch.setenv(TLS_VARIABLE, "1")
        with pytest.raises(GloamError, match="did not do what was asked"):  # nobody vouches for this certificate
            open_gallery(address)
        assert not seen
        monkeypatch.setenv(TLS_VARIABLE, str(certificate))
        with pytest.raises(GloamError, match="There is no gallery"):
            open_gallery(address)
        assert ("/collections/people/exists", "secret") in seen


def test_without_encryption_the_key_reaches_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TLS_VARIABLE, raising=False)
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with listening() as (port, seen):
        assert not guarded(connect(f"qdrant://127.0.0.1:{port}/people")).collection_exists("people")
        assert ("/collections/people/exists", "secret") in seen
    with pytest.raises(GloamError, match=f"not encrypted.*{TLS_VARIABLE}=1"):
        connect("qdrant://qdrant.example/people")


@pytest.mark.parametrize(
    "address",
    ["qdrant://", "qdrant://host", "qdrant://host/a/b", "qdrant://host:99999/a", "qdrant://host:port/a",
     "qdrant://host/a__gloam", "qdrant://user:key@host/a", "qdrant://host/a?key=1", "qdrant://[::1/a"],
)  # fmt: skip
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(GloamError, match="address"):
        open_gallery(address)
    with pytest.raises(GloamError, match="address"):
        Gallery.create(address, space(), retention="keep")


@pytest.mark.parametrize("told", ["yes", "absent.pem", "no certificate"])
def test_what_is_no_certificate_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    if " " in told:
        (tmp_path / "file.pem").write_text("hello")
        told = str(tmp_path / "file.pem")
    monkeypatch.setenv(TLS_VARIABLE, told)
    with pytest.raises(GloamError, match=TLS_VARIABLE):
        connect("qdrant://localhost/people")


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(GloamError, match="Is it running"):
        open_gallery("qdrant://127.0.0.1:9/people")
