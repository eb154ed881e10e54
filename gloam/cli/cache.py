"""Commands about pixel caches and kept features: ``gloam cache list``, ``check`` and ``clear``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gloam.console import console

if TYPE_CHECKING:
    from gloam.pixels.cache_folder import CacheEntry

Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME [NAME ...]]")]


def cache_list(folder: Path | None = None) -> None:
    """Table of the pixel caches, and the features of runs: which images, how large, when last used.

    Example:
        gloam cache list

    Args:
        folder: where caches live; $GLOAM_CACHE or the user's cache folder if not given.
    """
    from gloam.inference.feature_cache import list_features
    from gloam.pixels.cache_folder import cache_table, size_text

    entries, place = _entries(folder)
    if entries:
        console().print(cache_table(entries, place))
    _say(f"{place}: {len(entries)} caches, {size_text(sum(entry.size for entry in entries))}")
    kept = list_features(place)
    for one in kept:
        used = time.strftime("%Y-%m-%d", time.localtime(one.used))
        _say(f"{one.name}: {one.count:,} features of {one.root}, {size_text(one.size)}, used {used}, by {one.model}")
    if kept:
        _say(f"{place / 'features'}: {len(kept)} files, {size_text(sum(one.size for one in kept))}")


def cache_check(names: Names = (), /, folder: Path | None = None) -> int:
    """Read every cached image and compare it with its checksum. Damaged ones are decoded again when next opened.

    Example:
        gloam cache check

    Args:
        names: which caches, by name or by the folder of their images; all if not given.
        folder: where caches live; $GLOAM_CACHE or the user's cache folder if not given.
    """
    from gloam.pixels.cache_folder import check_caches, choose

    entries, place = _entries(folder)
    chosen = choose(entries, names)
    damaged = 0
    for entry, rows in check_caches(chosen):
        if rows is None:
            _say(f"{entry.name}: no checksums (built by an older version); clear it to have it built anew")
            continue
        damaged += len(rows)
        state = "sound" if not rows else f"{len(rows):,} damaged, the first is image {rows[0]}"
        _say(f"{entry.name}: {entry.images:,} images, {state}")
    for entry in chosen:
        if entry.state != "complete":
            _say(f"{entry.name}: {entry.state}")
    if not chosen:
        _say(f"{place}: no caches")
    return 2 if damaged or any(entry.state == "broken" for entry in chosen) else 0


def cache_clear(
    names: Names = (), /, folder: Path | None = None, days: float | None = None, unfinished: bool = False
) -> None:
    """Delete pixel caches and kept features; they are made again when needed.

    Example:
        gloam cache clear --days 30

    Args:
        names: which, by name or by the folder of their images; all if not given.
        folder: where caches live; $GLOAM_CACHE or the user's cache folder if not given.
        days: only those that nobody has opened for so many days.
        unfinished: only those whose building was interrupted.
    """
    from gloam.inference.feature_cache import choose_features, clear_features, list_features
    from gloam.pixels.cache_folder import choose, clear_caches, size_text

    entries, place = _entries(folder)
    features, others = choose_features([] if unfinished else list_features(place), names, days=days)
    # A folder names the features and the pixels of its images; what names neither is told.
    roots = [name for name in names if any(name in (e.name, e.root) for e in entries)]
    wanted = list(dict.fromkeys([*others, *roots]))
    chosen = choose(entries, wanted, days=days, unfinished=unfinished) if wanted or not names else []
    clear_features(features)
    for one in features:
        _say(f"{one.name}: {size_text(one.size)} of features deleted")
    gone, busy = clear_caches(chosen)
    for entry in gone:
        _say(f"{entry.name}: {size_text(entry.size)} deleted")
    for entry in busy:
        _say(f"{entry.name}: left alone, a process is building it")
    _say(f"{place}: {size_text(sum(entry.size for entry in gone) + sum(one.size for one in features))} freed")


def _say(text: str) -> None:
    console().print(text, soft_wrap=True)


def _entries(folder: Path | None) -> tuple[list[CacheEntry], Path]:
    from gloam.pixels.cache import cache_folder
    from gloam.pixels.cache_folder import list_caches

    place = folder or cache_folder()
    return list_caches(place), place
