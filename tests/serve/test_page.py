"""The page's files: complete, small, and with nothing from elsewhere."""

from __future__ import annotations

import json
import re
from importlib import resources

import pytest

from tests.serve.conftest import Serve

PAGE = {file.name: file.read_text(encoding="utf-8") for file in (resources.files("gloam.serve") / "page").iterdir()}
SCRIPTS = {name: text for name, text in PAGE.items() if name.endswith(".js")}


def test_nothing_is_loaded_from_elsewhere() -> None:
    for name, text in PAGE.items():
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not addresses, name
        assert "innerHTML" not in text, name
        assert "eval(" not in text, name
    assert not re.search(r"\son\w+=|<style|style=|<script>", PAGE["index.html"])


def test_every_word_is_in_the_file_of_texts() -> None:
    texts = json.loads(PAGE["texts.en.json"])
    asked = set(re.findall(r'data-(?:text|label)="([^"]+)"', PAGE["index.html"]))
    for text in SCRIPTS.values():
        asked |= set(re.findall(r"""\b(?:t|lines)\("([^"]+)\"""", text))
    asked |= {"hit.like", "hit.unlike", "hit.mark", "visible", "infrared"}  # by variable
    assert asked - set(texts) == set()
    assert set(texts) - asked == set()


def test_the_page_is_small() -> None:
    assert sum(len(text.encode()) for text in PAGE.values()) < 60_000


@pytest.mark.parametrize("name", sorted(PAGE))
def test_every_file_is_served_with_its_type_and_policy(name: str, serve: Serve) -> None:
    types = {
        "html": "text/html",
        "js": "text/javascript",
        "css": "text/css",
        "json": "application/json",
        "svg": "image/svg+xml",
    }
    with serve(with_model=False).client() as client:
        answer = client.get("/" if name == "index.html" else f"/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(types[name.rpartition(".")[2]])
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers


def test_named_origins_may_call_and_others_not(serve: Serve) -> None:
    with serve(with_model=False, origins=("https://desk.example",)).client() as client:
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        yes = client.options("/v1/search", headers={"Origin": "https://desk.example", **asked})
        no = client.options("/v1/search", headers={"Origin": "https://evil.example", **asked})
        searched = client.post(
            "/v1/search",
            json={"keys": ["tracklet:walk 1"]},
            headers={"Origin": "https://desk.example", "Sec-Fetch-Site": "cross-site"},
        )
    assert yes.headers["access-control-allow-origin"] == "https://desk.example"
    assert "access-control-allow-origin" not in no.headers
    assert searched.status_code == 200
