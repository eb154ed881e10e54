"""The Python client against the gallery itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gloam
from gloam.errors import GloamError
from gloam.gallery.gallery import open_gallery
from gloam.gallery.where import Where
from gloam.inference.model import Model
from gloam.serve.client import Client
from gloam.serve.tokens import Tokens
from tests.serve.conftest import Serve


def test_a_server_is_searched_like_a_gallery(serve: Serve, folder: Path, model: Model, tmp_path: Path) -> None:
    gallery = open_gallery(folder, model=model)
    row = next(row for block in gallery.catalogue.scan(Where()) for row in block)
    path = Path(row.root) / str(row.path)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    features = model.embed([pixels], progress=False)
    where = Where(modality="infrared", after="2026-03-01T00:00:00Z")
    with gloam.Client(serve().address) as client:
        for query in (path, str(path), pixels, Image.fromarray(pixels), features, row.key, [row.key, path]):
            there = client.search(query, where=where, top=6)
            here = gallery.search(query, where=where, top=6)
            assert there.keys == here.keys
            np.testing.assert_allclose(there.scores, here.scores, atol=1e-4)
            assert there[0].row.time == here[0].row.time
        again, expected = (
            there.more_like(there.keys[0], unlike=there.keys[1]),
            here.more_like(here.keys[0], unlike=here.keys[1]),
        )
        assert again.keys == expected.keys
        page = there.save(tmp_path / "hits.html").read_text()
        assert page.count("data:image/webp;base64,") == 7  # the hits and the query
        assert client.crop(there.keys[0]) == gallery.catalogue.thumbnails([there.keys[0]])[there.keys[0]]
        grouped = client.search(row.key, group="tracklet", top=3)
        assert [hit.group for hit in grouped] == [hit.group for hit in gallery.search(row.key, group="tracklet", top=3)]
    gallery.close()


def test_adding_and_erasing(serve: Serve) -> None:
    image = Image.new("RGB", (20, 40), (200, 30, 30))
    with Client(serve(open_role="editor").address) as client:
        before = client.info()["rows"]
        assert client.add(image, key="a", camera=4, time="2026-05-01T00:00:00Z") is True
        assert client.add(image, key="a", camera=4, box=(2, 2, 10, 20)) is False
        assert client.info()["rows"] == before + 1
        assert client.erase("a")["erased"] is False
        assert client.erase("a", preview=False)["done"] is True
        assert client.info()["rows"] == before


def test_refusals_are_told_with_cause_and_cure(serve: Serve, tmp_path: Path) -> None:
    server = serve(tokens=Tokens({"r" * 24: "reader"}))
    with Client(server.address) as client, pytest.raises(GloamError, match=r"token is missing.*Authorization"):
        client.search("somebody")
    with Client(server.address, token="r" * 24) as client:
        with pytest.raises(GloamError, match="no row of this key"):
            client.search("somebody")
        with pytest.raises(GloamError, match=r"role reader.*editor"):
            client.erase("a", preview=False)
        with pytest.raises(GloamError, match="uint8"):
            client.search(np.zeros((3, 3)))
        with pytest.raises(GloamError, match="is no query"):
            client.search(3.5)
    server.stop()
    with Client(server.address) as client, pytest.raises(GloamError, match=r"does not answer.*gloam serve"):
        client.info()


@pytest.mark.parametrize(
    ("address", "token"), [("example.org", None), ("ftp://example.org", None), ("http://example.org", "t" * 24)]
)
def test_addresses_that_are_none_or_not_safe(address: str, token: str | None) -> None:
    with pytest.raises(GloamError, match=r"is no address|unencrypted"):
        Client(address, token=token)
