"""Hits as one HTML file: images inside, no scripts, no request to anywhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gloam.gallery.confidence import chance
from gloam.gallery.rows import MODALITIES, plain, time_text

if TYPE_CHECKING:
    from gloam.gallery.hits import Hit


def hits_page(hits: Sequence[Hit], images: Mapping[str, bytes], asked: Sequence[bytes], notes: Sequence[str]) -> str:
    """The page.

    Args:
        hits: best first.
        images: WebP by key.
        asked: WebP images of what was searched for.
        notes: how the search was done.
    """
    queries = "".join(_image(image, "query") for image in asked) or "<p>no image of the query is kept</p>"
    cards = "\n".join(_card(rank, hit, images.get(hit.key)) for rank, hit in enumerate(hits, start=1))
    told = "".join(f"<li>{_text(note)}</li>" for note in notes)
    found = f'<ol class="hits">{cards}</ol>' if hits else "<p>nothing found</p>"
    parts = {"QUERIES": queries, "HITS": found, "NOTES": told, "COUNT": f"{len(hits)}"}
    page = _PAGE
    for name, text in parts.items():
        before, _, after = page.partition(f"<!--{name}-->")
        page = before + text + after
    return page


def _card(rank: int, hit: Hit, image: bytes | None) -> str:
    row = hit.row
    facts = [
        ("camera", str(row.camera)),
        ("modality", MODALITIES[row.modality]),
        ("time", time_text(row.time).replace("T", " ")),
        ("tracklet", row.tracklet or ""),
        ("person", row.person or ""),
        ("rows", str(len(hit.members)) if hit.group is not None else ""),
        ("probability", chance(hit.probability, hit.prior)),
        ("distance", "" if hit.distance is None else f"{hit.distance:.3f}"),
    ]
    lines = "".join(f"<div><dt>{name}</dt><dd>{_text(fact)}</dd></div>" for name, fact in facts if fact)
    mark = f' <span class="{hit.marked}">{hit.marked}</span>' if hit.marked else ""
    shown = '<div class="none">no image</div>' if image is None else _image(image, plain(hit.key))
    head = f'<p class="score"><b>{rank}</b> {hit.score:.3f}{mark}</p>'
    return f"<li>{shown}{head}<p class=key>{_text(hit.key)}</p><dl>{lines}</dl></li>"


def _image(webp: bytes, what: str) -> str:
    return f'<img src="data:image/webp;base64,{base64.b64encode(webp).decode()}" alt="{html.escape(what)}">'


def _text(text: object) -> str:
    return html.escape(plain(text))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>hits</title>
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
body{font:14px/1.4 system-ui,sans-serif;margin:24px;color:#1a1a1a;background:#fff}
h2{font-size:15px;margin:20px 0 8px} p{margin:4px 0} img{height:128px;width:auto;display:block;border-radius:3px}
.asked{display:flex;gap:8px} .warn{color:#7a4b00} .hits{list-style:none;padding:0;margin:0;display:grid;gap:10px;
grid-template-columns:repeat(auto-fill,minmax(150px,1fr))}
.hits>li{border:1px solid #d5d5d5;border-radius:6px;padding:8px;overflow-wrap:anywhere}
.none{height:128px;display:grid;place-items:center;color:#777;background:#f3f3f3;border-radius:3px}
.score{font-size:16px;font-variant-numeric:tabular-nums} .key{font:12px ui-monospace,monospace}
dl{margin:4px 0 0;font-size:12px} dl div{display:flex;gap:6px} dt{color:#666;min-width:52px} dd{margin:0}
.like{color:#0a6b2d} .unlike{color:#a11}
.notes{color:#444;font-size:13px;padding-left:18px}
@media (prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616} .hits>li{border-color:#444}
.none{background:#262626} dt,.notes{color:#aaa} .warn{color:#e0a94a} .like{color:#6fcf8f} .unlike{color:#ff8a80}}
</style></head><body>
<p class="warn">This page shows images of people. Keep it to those who need it, and delete it afterwards.</p>
<h2>asked for</h2><div class="asked"><!--QUERIES--></div>
<h2><!--COUNT--> found, best first; the numbers are cosines</h2>
<!--HITS-->
<h2>how</h2><ul class="notes"><!--NOTES--></ul>
</body></html>
"""
