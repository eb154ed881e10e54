"""Carrying out protocols: which records take part, and what each trial draws."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from gloam.datasets.records import Modality, Protocol
from gloam.errors import GloamError
from gloam.evaluation.protocols import find_protocols, select, trials
from tests.evaluation.records import record, splits

VIS, IR = Modality.VISIBLE, Modality.INFRARED
LENGTHS = [20, 13, 42, 25, 10, 1, 7]


def _gallery(lengths: list[int]) -> list:
    """One id per length, all from camera 1, given in a shuffled order."""
    records = [record(pid, 1, VIS, number) for pid, length in enumerate(lengths, start=1) for number in range(length)]
    random.Random(5).shuffle(records)
    return records


def _drawn(protocol: Protocol, gallery: list) -> list[list[int]]:
    """Per trial the numbers of the images drawn, in order."""
    found = select(splits([record(1, 3, IR)], gallery, protocol), protocol)
    chosen = [entries for _, entries in trials(protocol, found)]
    return [[int(gallery[found.gallery[e]].paths[0][-8:-4]) for e in entries] for entries in chosen]


def test_single_shot_draws_are_those_of_the_references() -> None:
    drawn = _drawn(Protocol("x/all", shots=1, trials=10), _gallery(LENGTHS))
    assert len(drawn) == 10
    assert drawn[0] == [12, 12, 26, 1, 4, 0, 3]
    assert drawn[1] == [4, 9, 4, 8, 1, 0, 6]
    assert drawn[2] == [1, 1, 5, 11, 2, 0, 2]
    assert drawn[9] == [14, 9, 23, 8, 2, 0, 6]


def test_multi_shot_draws_are_those_of_the_references() -> None:
    drawn = _drawn(Protocol("x/all", shots=10, trials=1), _gallery([20, 13]))
    assert drawn == [[12, 13, 1, 8, 15, 6, 19, 4, 7, 5, 9, 3, 8, 2, 4, 12, 6, 0, 10, 7]]


def test_the_global_generator_is_left_alone() -> None:
    random.seed(7)
    before = random.getstate()
    _drawn(Protocol("x/all", shots=1, trials=10), _gallery(LENGTHS))
    assert random.getstate() == before


def test_draws_go_through_ids_then_cameras_in_the_protocols_order() -> None:
    gallery = [record(pid, cam, VIS, n) for cam in (1, 2, 4) for pid in (10, 9) for n in range(3)]
    protocol = Protocol("x/indoor", shots=1, trials=1, gallery_cams=(2, 1))
    found = select(splits([record(9, 3, IR)], gallery, protocol), protocol)
    [(queries, entries)] = trials(protocol, found)
    drawn = [gallery[found.gallery[e]] for e in entries]
    assert [(r.pid, r.cam) for r in drawn] == [(9, 2), (9, 1), (10, 2), (10, 1)]
    assert queries.tolist() == [0]


def test_fewer_images_than_shots_are_all_taken() -> None:
    assert sorted(_drawn(Protocol("x/multi", shots=10, trials=1), _gallery([4]))[0]) == [0, 1, 2, 3]


def test_modalities_and_swapped_sides() -> None:
    query = [record(1, 1, VIS), record(1, 2, IR)]
    gallery = [record(1, 4, IR), record(1, 5, VIS), record(2, 5, VIS)]
    protocol = Protocol("x/a", query_modality=IR, gallery_modality=VIS)
    found = select(splits(query, gallery, protocol), protocol)
    assert (found.query.tolist(), found.gallery.tolist()) == ([1], [1, 2])
    swapped = replace(protocol, swapped=True)
    found = select(splits(query, gallery, swapped), swapped)
    assert (found.query.tolist(), found.gallery.tolist()) == ([0], [0])
    assert found.query_side[0].cam == 4
    [(queries, entries)] = trials(swapped, found)
    assert (queries.tolist(), entries.tolist()) == ([0], [0])


def test_the_query_side_may_be_sampled_instead() -> None:
    query = [record(pid, 1, IR, n) for pid in (1, 2) for n in range(5)]
    gallery = [record(pid, 2, VIS, n) for pid in (1, 2) for n in range(3)]
    protocol = Protocol("x/released", shots=1, trials=3, sampled="query", gallery_cams=(1,))
    found = select(splits(query, gallery, protocol), protocol)
    drawn = list(trials(protocol, found))
    assert [len(queries) for queries, _ in drawn] == [2, 2, 2]
    assert all(len(entries) == 6 for _, entries in drawn)
    assert [query[q].pid for q in drawn[0][0]] == [1, 2]


def test_explicit_galleries_are_used_as_given() -> None:
    gallery = _gallery([3, 3])
    names = [record(1, 1, VIS, 2).paths[0], record(2, 1, VIS, 0).paths[0]]
    protocol = Protocol("x/official", shots=1, trials=2, galleries=(tuple(names), tuple(names[::-1])))
    found = select(splits([record(1, 3, IR)], gallery, protocol), protocol)
    drawn = [[gallery[found.gallery[e]].paths[0] for e in entries] for _, entries in trials(protocol, found)]
    assert drawn == [names, names[::-1]]
    broken = replace(protocol, galleries=(("nowhere.jpg",),))
    with pytest.raises(GloamError, match=r"nowhere\.jpg"):
        list(trials(broken, found))


def test_empty_sides_are_named() -> None:
    protocol = Protocol("x/a", query_modality=IR)
    with pytest.raises(GloamError, match="no queries"):
        select(splits([record(1, 1, VIS)], _gallery([2]), protocol), protocol)
    protocol = Protocol("x/a", gallery_cams=(9,))
    with pytest.raises(GloamError, match="no gallery entries"):
        select(splits([record(1, 1, VIS)], _gallery([2]), protocol), protocol)


def test_protocols_by_name_and_wildcard() -> None:
    names = ["x/all_single", "x/indoor_single", "x/all_multi"]
    found = splits([record(1, 1, IR)], _gallery([1]), *(Protocol(name) for name in names))
    assert [p.name for p in find_protocols(found)] == names
    assert [p.name for p in find_protocols(found, "x/all_multi")] == ["x/all_multi"]
    assert [p.name for p in find_protocols(found, ["*_single"])] == names[:2]
    assert [p.name for p in find_protocols(found, ["all_multi", "all_single"])] == ["x/all_single", "x/all_multi"]
    with pytest.raises(GloamError, match="'all_single'"):
        find_protocols(found, ["all_singel"])
    with pytest.raises(GloamError, match="'x/all_single'"):
        find_protocols(found, ["x/all_singel"])


def test_positions_are_int64() -> None:
    protocol = Protocol("x/a", shots=1)
    found = select(splits([record(1, 3, IR)], _gallery([2]), protocol), protocol)
    assert found.query.dtype == found.gallery.dtype == np.int64
