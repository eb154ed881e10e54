"""A query and a gallery for people that no benchmark divided: own data and held-out training identities.

Across modalities: infrared queries, visible gallery, no camera rule. Within one: one query per (id, camera), the rest
is the gallery, same-id-same-camera entries do not count - unless every person was seen by one camera only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gloam.datasets.records import CameraRule, Modality, Protocol, Record

ONE_CAMERA = (
    "No query has a match in another camera (one-camera data, or no camera numbers), so matches in the same camera "
    "count: scores are optimistic and cannot be compared with benchmarks."
)
NO_QUERY = "Nobody in the test part has a second image, so there is no query and nothing can be scored."
NO_MATCH = "No query has a match in the gallery: query and gallery share no identity."


class QueryGallery(NamedTuple):
    """Query and gallery records with the protocols that fit them, headline first."""

    query: tuple[Record, ...]
    gallery: tuple[Record, ...]
    protocols: dict[str, Protocol]
    notice: str | None


def divide(records: Sequence[Record], dataset: str, headline: str = "default") -> QueryGallery:
    """Divide test records into query and gallery.

    Args:
        records: test records, ``pid`` = original id; order is kept.
        dataset: first half of the protocols' names.
        headline: second half of the first protocol's name.
    """
    if len({record.modality for record in records}) == 2:
        query = [record for record in records if record.modality is Modality.INFRARED]
    else:
        query = _one_per_camera(records)
    # Records may be equal only if an image was listed twice; identity keeps such twins apart.
    chosen = {id(record) for record in query}
    gallery = tuple(record for record in records if id(record) not in chosen)
    protocols, notice = fitting_protocols(query, gallery, dataset, headline)
    return QueryGallery(tuple(query), gallery, protocols, NO_QUERY if gallery and not query else notice)


def fitting_protocols(
    query: Sequence[Record], gallery: Sequence[Record], dataset: str, headline: str = "default"
) -> tuple[dict[str, Protocol], str | None]:
    """Protocols for a given query and gallery, and a remark the user must see.

    The camera rule is dropped where it would leave no query with a match.
    """
    if not query or not gallery:
        return {}, None
    modalities = [frozenset(record.modality for record in part) for part in (query, gallery)]
    crossing = not (modalities[0] & modalities[1])
    notice = None
    rule: CameraRule = "none" if crossing else "same_id_same_cam"
    if not has_match(query, gallery, rule):
        notice = ONE_CAMERA if has_match(query, gallery, "none") else NO_MATCH
        rule = "none"
    words = [" and ".join(sorted(modality.name.lower() for modality in side)) for side in modalities]
    first = Protocol(
        f"{dataset}/{headline}", f"{words[0]} queries, {words[1]} gallery, camera rule {rule}", camera_rule=rule
    )
    protocols = [first]
    if crossing:
        name = f"{dataset}/{words[1]}_to_{words[0]}"
        protocols.append(Protocol(name, f"{words[1]} queries, {words[0]} gallery", swapped=True, camera_rule="none"))
    elif len(modalities[0]) == len(modalities[1]) == 2:
        for one, other in ((Modality.INFRARED, Modality.VISIBLE), (Modality.VISIBLE, Modality.INFRARED)):
            direction = f"{one.name.lower()}_to_{other.name.lower()}"
            protocols.append(
                Protocol(
                    f"{dataset}/{direction}",
                    f"{one.name.lower()} queries, {other.name.lower()} gallery",
                    query_modality=one,
                    gallery_modality=other,
                    camera_rule="none",
                )
            )
    return {protocol.name: protocol for protocol in protocols}, notice


def has_match(query: Sequence[Record], gallery: Sequence[Record], rule: CameraRule) -> bool:
    """True if at least one query keeps a gallery entry of its id under ``none`` or ``same_id_same_cam``."""
    cams: dict[int, set[int]] = {}
    for record in gallery:
        cams.setdefault(record.pid, set()).add(record.cam)
    if rule == "none":
        return any(record.pid in cams for record in query)
    return any(cams.get(record.pid, set()) - {record.cam} for record in query)


def _one_per_camera(records: Sequence[Record]) -> list[Record]:
    """The first record of every (id, camera) that has a second one.

    A person of whom no camera has two gives the first record of all, if there is another for the gallery.
    """
    people: dict[int, dict[int, list[Record]]] = {}
    for record in records:
        people.setdefault(record.pid, {}).setdefault(record.cam, []).append(record)
    chosen: set[int] = set()
    for cams in people.values():
        groups = list(cams.values())
        picks = [group[0] for group in groups if len(group) > 1]
        if not picks and len(groups) > 1:
            picks = [groups[0][0]]
        chosen.update(id(record) for record in picks)
    return [record for record in records if id(record) in chosen]
