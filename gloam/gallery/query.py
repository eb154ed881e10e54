"""What is searched for: images, features, stored rows or tracklets become one vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gloam.errors import GloamError
from gloam.gallery.contract import Catalogue
from gloam.gallery.engines.contract import Float, VectorIndex
from gloam.gallery.rows import plain
from gloam.gallery.tables import modality_number
from gloam.gallery.thumbnails import thumbnail
from gloam.gallery.where import Where

if TYPE_CHECKING:
    from gloam.inference.model import Model

TRACKLET = "tracklet:"
SHOWN = 8  # images of a query that a page of hits shows
_ALIKE = 0.5  # cosine of a query with the mean of all, below which they hardly show one person


class Query(NamedTuple):
    """One person to look for.

    Attributes:
        vector: ``(D,)`` of unit length.
        keys: stored rows that it was made from: they leave the gallery before anything is ranked.
        notes: what the user should know.
        images: small WebP copies of the first query images.
        modality: of the images (or tracklets) that it was made of; None: of both.
        size: how many these were.
    """

    vector: Float
    keys: tuple[str, ...]
    notes: tuple[str, ...]
    images: tuple[bytes, ...] = ()
    modality: int | None = None
    size: int = 1


def read_query(
    asked: Any,
    catalogue: Catalogue,
    index: VectorIndex,
    load_model: Callable[[], Model],
    *,
    modality: str = "visible",
) -> Query:
    """One vector of everything that is asked for: several images, keys or features show one person.

    Args:
        asked: a key, ``tracklet:NAME``, a path, a PIL image, an array, ``Features``, or several of those.
        catalogue: of the gallery.
        index: of the gallery.
        load_model: gives the model, called for images only.
        modality: of images.

    Raises:
        GloamError: nothing is asked for, an unknown key or file, features of another model.
    """
    items = list(asked) if isinstance(asked, list | tuple) else [asked]
    if not items:
        raise GloamError("What to look for? Give an image, a key of the gallery, tracklet:NAME or features.")
    parts: list[Float] = []
    keys: list[str] = []
    images: list[Any] = []
    shown: tuple[bytes, ...] = ()
    kinds: set[int] = set()
    stored = catalogue.rows([item for item in items if isinstance(item, str)])
    for item in items:
        if _is_features(item):
            catalogue.space.require(item.fingerprint, "the features of the query")
            parts.append(item.numpy())
            kinds |= set(item.modalities.tolist())
        elif isinstance(item, str) and item in stored:
            keys.append(item)
            kinds.add(stored[item].modality)
        elif isinstance(item, str) and item.startswith(TRACKLET):
            name = item.removeprefix(TRACKLET)
            members = [row for block in catalogue.scan(Where(tracklets=(name,))) for row in block]
            if not members:
                raise GloamError(f"The gallery has no tracklet {plain(name)!r}.")
            keys += [row.key for row in members]
            kinds |= {row.modality for row in members}
        elif isinstance(item, str | Path) and not Path(item).is_file():
            raise GloamError(f"{plain(item)!r} is neither a key of the gallery nor an image file.")
        else:
            images.append(item)
    keys = list(dict.fromkeys(keys))
    if keys:
        parts.append(index.vectors(keys))
    if images:
        embedded, shown = _embed(images, load_model(), catalogue, modality)
        parts.append(embedded)
        kinds.add(modality_number(modality))
    vectors = np.concatenate(parts)
    if not len(vectors):
        raise GloamError("The features of the query have no rows.")
    mean = unit(vectors.mean(axis=0))
    notes: tuple[str, ...] = ()
    worst = float((vectors @ mean).min() / max(float(np.linalg.norm(vectors, axis=1).max()), 1e-12))
    if len(vectors) > 1 and worst < _ALIKE:
        notes = (f"the {len(vectors)} queries differ much (cosine with their mean down to {worst:.2f}): one person?",)
    return Query(mean, tuple(keys), notes, shown, kinds.pop() if len(kinds) == 1 else None, len(vectors))


def _is_features(item: Any) -> bool:
    if isinstance(item, str | Path):
        return False  # who searches by keys needs no torch
    from gloam.inference.features import Features

    return isinstance(item, Features)


def unit(vector: Float) -> Float:
    """A vector scaled to length 1.

    Raises:
        GloamError: it is zero or has NaN.
    """
    length = float(np.linalg.norm(vector))
    if not length > 1e-12:
        raise GloamError("The queries cancel each other out (or are NaN): there is no direction to search in.")
    result: Float = (vector / length).astype(np.float32)
    return result


def feedback(vector: Float, liked: Float, unliked: Float) -> Float:
    """Move a query towards what was marked right and away from what was marked wrong.

    *Source*: Rocchio, in: Salton, The SMART Retrieval System, 1971, with weights 1, 1 and 0.3.
    """
    moved = vector.astype(np.float64)
    if len(liked):
        moved = moved + liked.mean(axis=0)
    if len(unliked):
        moved = moved - 0.3 * unliked.mean(axis=0)
    return unit(moved.astype(np.float32))


def expand(vector: Float, neighbours: Float, alpha: float = 3.0) -> Float:
    """Mean of a query and its neighbours, weighted by the power ``alpha`` of their cosines.

    *Source*: Radenovic et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2019, alpha query
    expansion.
    """
    weights = np.clip(neighbours @ vector, 0, None) ** alpha
    return unit(vector + weights @ neighbours)


def _embed(images: Sequence[Any], model: Model, catalogue: Catalogue, modality: str) -> tuple[Float, tuple[bytes, ...]]:
    """Features of query images, and small copies of the first ones."""
    from gloam.inference.sources import open_source

    catalogue.space.require(model.fingerprint, "the query images")
    # No cache of decoded images: what is searched for leaves no trace on the disk.
    config = model.recipe.data.model_copy(update={"cache": "off", "on_bad_image": "fail"})
    kinds: Any = modality
    parts, shown = [], list[bytes]()
    for group in _kinds(images):
        records, store = open_source(group, config, modality=kinds, progress=False)
        parts.append(model.embed_records(records, store, workers=0).numpy())
        firsts = np.cumsum([0, *(len(record.paths) for record in records[:-1])])[: SHOWN - len(shown)]
        shown += [thumbnail(image) for image in store.read(firsts)]
    return np.concatenate(parts), tuple(shown)


def _kinds(images: Sequence[Any]) -> list[list[Any]]:
    """Paths and images in memory apart: a source is of one kind."""
    paths = [str(image) for image in images if isinstance(image, str | Path)]
    others = [image for image in images if not isinstance(image, str | Path)]
    return [group for group in (paths, *([other] for other in others)) if group]
