"""A gallery of drawn people with a tiny model, and servers for it."""

from __future__ import annotations

import io
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import gloam
from gloam.gallery.gallery import Gallery, open_gallery
from gloam.inference.model import Model
from gloam.serve.app import create_app
from gloam.serve.server import listen
from gloam.serve.settings import Settings
from gloam.training.run import train
from tests.training.tiny import tiny_recipe

Serve = Callable[..., "Running"]


@pytest.fixture(scope="session")
def run_folder(sysu_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe(sysu_root, train={"epochs": 1, "iterations": 1})
    return train(recipe, output=tmp_path_factory.mktemp("serve") / "run", progress=False).path


@pytest.fixture(scope="session")
def model(run_folder: Path) -> Model:
    return gloam.load_model(run_folder)


@pytest.fixture(scope="session")
def filled(model: Model, sysu_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of the drawn people; tests copy it."""
    folder = tmp_path_factory.mktemp("gallery") / "people.gallery"
    with Gallery.create(folder, model, retention="keep", thumbnails=True) as gallery:
        gallery.add(sysu_root, split="gallery", progress=False, time="2026-03-01T08:00:00Z")
        gallery.add(sysu_root, split="query", progress=False, tracklet="walk 1", time="2026-03-02T08:00:00Z")
    return folder


@pytest.fixture
def folder(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "people.gallery"))


@dataclass
class Running:
    """A server in a thread."""

    address: str
    port: int
    app: Any
    stop: Callable[[], None]

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.address, timeout=30, **options)


@pytest.fixture
def serve(folder: Path, model: Model) -> Iterator[Serve]:
    """Starts servers; they end with the test."""
    running: list[Running] = []

    def start(*, with_model: bool = True, gallery: Gallery | None = None, **options: Any) -> Running:
        server = start_server(
            gallery or open_gallery(folder), replace(Settings(port=0), **options), model if with_model else None
        )
        running.append(server)
        return server

    yield start
    for one in running:
        one.stop()


def start_server(gallery: Gallery, settings: Settings, model: Model | None) -> Running:
    import uvicorn

    app = create_app(gallery, settings, model=model)
    place = listen(settings)
    config = uvicorn.Config(app, log_level="error", h11_max_incomplete_event_size=16_384, http="h11", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([place],), daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)

    def stop() -> None:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()

    port = place.getsockname()[1]
    return Running(f"http://127.0.0.1:{port}", port, app, stop)


def picture(kind: str = "PNG", size: tuple[int, int] = (32, 64), seed: int = 0) -> bytes:
    """An image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def exchange(port: int, content: bytes, *, wait: float = 5.0) -> bytes:
    """Send bytes as they are and read what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as line:
        line.sendall(content)
        found = b""
        try:
            while part := line.recv(65536):
                found += part
        except TimeoutError:
            pass
        return found
