"""Samplers where a group is exactly as large as a batch wants, one smaller and one larger."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gloam.errors import GloamError
from gloam.sampling import create_sampler, sampler_options

Indices = NDArray[np.int64]
Data = tuple[Indices, Indices, Indices]
EPOCHS = 12  # enough that a draw with replacement repeats something


def _batches(data: Data, name: str, *, epochs: int = EPOCHS, **options: Any) -> list[Indices]:
    """All batches of some epochs."""
    sampler = create_sampler(sampler_options({"name": name, **options}), *data, seed=0)
    found = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        found += [np.array(batch) for batch in sampler]
    return found


def _people(*groups: tuple[int, int], cameras: int = 1) -> Data:
    """Per person the number of visible and of infrared samples."""
    labels, modalities = [], []
    for label, (visible, infrared) in enumerate(groups):
        labels += [label] * (visible + infrared)
        modalities += [0] * visible + [1] * infrared
    return np.array(labels), np.array(modalities), np.arange(len(labels)) % cameras


def _repeats(batches: list[Indices], chunk: int) -> float:
    """Share of chunks (one person, one modality) that hold a sample twice."""
    chunks = np.concatenate(batches).reshape(-1, chunk)
    return float(np.mean([len(set(rows)) < chunk for rows in chunks.tolist()]))


@pytest.mark.parametrize(("size", "repeats"), [(2, True), (3, False), (4, False)])
def test_cross_modality_identity_repeats_only_where_it_must(size: int, repeats: bool) -> None:
    for groups in ([(size, 5)] * 4, [(5, size)] * 4):
        data = _people(*groups)
        modality = 0 if groups[0][0] == size else 1
        for draw in ("without_when_possible", "without_when_both_possible"):
            batches = _batches(data, "cross_modality_identity", identities=4, instances=3, draw=draw)
            halves = [batch.reshape(2, -1)[modality] for batch in batches]
            others = [batch.reshape(2, -1)[1 - modality] for batch in batches]
            assert (_repeats(halves, 3) > 0) == repeats
            # The larger group follows the smaller one where the pair decides.
            assert (_repeats(others, 3) > 0) == (repeats and draw == "without_when_both_possible")


def test_drawing_with_replacement_repeats_also_where_it_need_not() -> None:
    batches = _batches(_people(*[(6, 6)] * 3), "cross_modality_identity", identities=3, instances=3)
    assert 0 < _repeats(batches, 3) < 1


@pytest.mark.parametrize(
    ("images", "instances", "extra", "count"),
    [(12, 3, True, 3), (12, 3, False, 2), (11, 3, True, 2), (11, 3, False, 1), (5, 3, False, 0)],
)
def test_length_of_an_epoch(images: int, instances: int, extra: bool, count: int) -> None:
    """``floor(N / PK)``, one more with the extra batch; N is that of the larger modality."""
    half = images // 2
    data = _people((half, 2), (images - half, 2))
    options = {"identities": 2, "instances": instances, "extra_batch": extra}
    if count == 0:
        with pytest.raises(GloamError, match="0 batches"):
            _batches(data, "cross_modality_identity", epochs=1, **options)
        return
    assert len(_batches(data, "cross_modality_identity", epochs=1, **options)) == count
    swapped = data[0], 1 - data[1], data[2]
    assert len(_batches(swapped, "cross_modality_identity", epochs=1, **options)) == count


@pytest.mark.parametrize(("others", "repeats"), [(2, True), (3, True), (4, False), (5, False)])
def test_camera_identity_compares_with_k_although_it_draws_one_less(others: int, repeats: bool) -> None:
    """K = 4: three more images; three others are still drawn with replacement, as in the reference."""
    labels = np.repeat([0, 1], 1 + others)
    cams = np.tile([7, *[8] * others], 2)
    data = labels, np.zeros_like(labels), cams
    batches = _batches(data, "camera_identity", identities=2, instances=4, epochs=60)
    mates = []
    for rows in np.concatenate(batches).reshape(-1, 4):
        if cams[rows[0]] == 7:
            assert (cams[rows[1:]] == 8).all()
            mates.append(len(set(rows[1:].tolist())))
    assert (min(mates) < 3) == repeats


@pytest.mark.parametrize(("images", "batches"), [(7, 1), (8, 2), (9, 2), (11, 2), (12, 3)])
def test_shuffle_drops_what_does_not_fill_a_batch(images: int, batches: int) -> None:
    data = np.zeros(images, int), np.zeros(images, int), np.zeros(images, int)
    found = _batches(data, "shuffle", batch_size=4, epochs=1)
    assert [len(batch) for batch in found] == [4] * batches
    assert len(set(np.concatenate(found).tolist())) == 4 * batches


def test_camera_identity_needs_no_second_pass_for_an_exact_batch() -> None:
    """Two identities x two images fill one batch of 2 x 2 in one pass: exactly one batch."""
    data = np.array([0, 0, 1, 1]), np.zeros(4, int), np.array([0, 1, 0, 1])
    assert len(_batches(data, "camera_identity", identities=2, instances=2, epochs=1)) == 1


@pytest.mark.parametrize(("visible", "infrared", "count"), [(8, 3, 2), (9, 4, 2), (11, 4, 2), (12, 4, 3), (3, 8, 2)])
def test_modality_shuffle_covers_the_longer_and_extends_the_shorter(visible: int, infrared: int, count: int) -> None:
    data = _people((visible, infrared))
    found = _batches(data, "modality_shuffle", batch_size=4, epochs=1)
    assert [len(batch) for batch in found] == [8] * count
    drawn = [np.concatenate([batch.reshape(2, 4)[m] for batch in found]) for m in (0, 1)]
    for rows, size in zip(drawn, (visible, infrared), strict=True):
        counts = np.unique(rows, return_counts=True)[1]
        # Whole permutations: nothing comes a third time before everything has come twice.
        assert counts.max() <= -(-4 * count // size)
        if size <= 4 * count:
            assert len(counts) == size
            assert counts.min() >= 4 * count // size


@pytest.mark.parametrize("name", ["identity", "norm_triplet"])
@pytest.mark.parametrize(("size", "chunks", "repeats"), [(3, 1, True), (4, 1, False), (5, 1, False), (8, 2, False)])
def test_identity_chunks(name: str, size: int, chunks: int, repeats: bool) -> None:
    """K = 4: as many chunks as fit; fewer than K images are drawn with replacement."""
    data = _people((size, 0), (size, 0), (size, 0))
    found = _batches(data, name, identities=3, instances=4, epochs=1)
    assert len(found) == chunks
    many = _batches(data, name, identities=3, instances=4)
    assert (_repeats(many, 4) > 0) == repeats


def test_identities_are_drawn_until_fewer_than_a_batch_are_left() -> None:
    """Three identities with one chunk each fill one batch of three; four leave one over."""
    for people in (3, 4, 5):
        found = _batches(_people(*[(2, 0)] * people), "identity", identities=3, instances=2, epochs=1)
        assert [len(batch) for batch in found] == [6]
    assert len(_batches(_people(*[(2, 0)] * 6), "identity", identities=3, instances=2, epochs=1)) == 2


@pytest.mark.parametrize(("share", "reds"), [(0.5, 2), (0.4, 2), (0.39, 1), (0.7, 3), (0.0, 0), (1.0, 5)])
def test_the_infrared_share_is_rounded_down(share: float, reds: int) -> None:
    data = _people(*[(9, 9)] * 3)
    for batch in _batches(data, "cross_modality_triplet", identities=3, instances=5, infrared_share=share):
        assert (data[1][batch].reshape(3, 5).sum(1) == reds).all()


@pytest.mark.parametrize(("infrared", "chunks"), [(1, 1), (2, 1), (3, 1), (5, 2)])
def test_short_groups_are_topped_up_to_the_quota(infrared: int, chunks: int) -> None:
    """K = 4, half infrared: chunks are as many as the samples (topped up to two of each) fill."""
    data = _people(*[(3, infrared)] * 2)
    found = _batches(data, "cross_modality_triplet", identities=2, instances=4, epochs=1)
    assert len(found) == chunks
    drawn = {i for batch in _batches(data, "cross_modality_triplet", identities=2, instances=4) for i in batch.tolist()}
    # What is topped up with replacement may lose samples within an epoch, never over all of them.
    assert drawn == set(range(len(data[0])))


def test_a_group_of_exactly_the_quota_keeps_all_its_samples_in_every_epoch() -> None:
    """Two infrared samples for a quota of two: nothing is redrawn before the chunk is."""
    data = _people(*[(2, 2)] * 2)
    found = _batches(data, "cross_modality_triplet", identities=2, instances=4, epochs=200)
    pairs = [sorted(set(rows[data[1][rows] == 1].tolist())) for batch in found for rows in batch.reshape(2, 4)]
    # A chunk draws two of two with replacement: both in half of the cases. After a redraw it would be a quarter
    # (1/2 both are left, 1/2 both are drawn).
    assert np.mean([len(pair) == 2 for pair in pairs]) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(("length", "batches"), [(7, 2), (6, 2), (8, 2), (9, 3), (3, 1)])
def test_halves_cover_the_longer_modality(length: int, batches: int) -> None:
    """Batches of 6: three of each modality."""
    for data in (_people((length, 2)), _people((2, length))):
        found = _batches(data, "cross_modality_random", batch_size=6, epochs=1)
        assert len(found) == batches
        for batch in found:
            assert data[1][batch].tolist() == [1] * 3 + [0] * 3
        longer = np.concatenate([batch.reshape(2, 3)[int(data[1].mean() < 0.5)] for batch in found])
        assert len(set(longer.tolist())) == 3 * batches


@pytest.mark.parametrize(("size", "repeats"), [(1, True), (2, False), (3, False)])
def test_tracklets_repeat_only_where_half_a_chunk_is_not_there(size: int, repeats: bool) -> None:
    data = _people(*[(4, size)] * 3)
    found = _batches(data, "cross_modality_identity_tracklet", identities=3, instances=4)
    assert (_repeats([batch[:6] for batch in found], 2) > 0) == repeats
    assert _repeats([batch[6:] for batch in found], 2) == 0


@pytest.mark.parametrize(
    ("per_modality", "instances", "passes"), [(2, 4, 1), (3, 4, 1), (4, 4, 2), (6, 4, 3), (6, 5, 3)]
)
def test_passes_over_the_identities(per_modality: int, instances: int, passes: int) -> None:
    """``floor(N / (C 2 floor(K/2)))``: samples per person over those a batch takes of a person."""
    data = _people(*[(per_modality, per_modality)] * 4)
    options = {"identities": 2, "instances": instances}
    assert len(_batches(data, "cross_modality_identity_tracklet", epochs=1, **options)) == 2 * passes


def test_the_last_group_is_filled_with_identities_that_are_not_in_it() -> None:
    data = _people(*[(2, 2)] * 5)
    for batch in _batches(data, "cross_modality_identity_tracklet", identities=3, instances=2, epochs=40):
        assert len(set(data[0][batch[:3]].tolist())) == 3


@pytest.mark.parametrize(("size", "redrawn"), [(1, True), (2, False), (3, False)])
def test_alternating_chunks_redraw_only_short_lists(size: int, redrawn: bool) -> None:
    """K = 4: two of each modality. A list of exactly two is used as it is."""
    data = _people(*[(size, 5)] * 2)
    found = _batches(data, "identity_cross_modality", identities=2, instances=4, epochs=40)
    assert found
    for batch in found:
        assert data[1][batch].tolist() == [1, 0] * 4
    visible = [rows[1::2] for batch in found for rows in batch.reshape(2, 4)]
    assert any(len(set(pair.tolist())) < 2 for pair in visible) == redrawn


def test_partners_are_drawn_from_the_whole_label() -> None:
    """Also the first and the last sample of a label, and never one of the next."""
    labels = np.array([0, 0, 0, 1, 1, 1])
    data = labels, np.zeros(6, int), np.zeros(6, int)
    found = _batches(data, "shuffle", batch_size=6, partners=True, epochs=40)
    pairs = {(int(a), int(b)) for batch in found for a, b in batch.reshape(2, 6).T}
    assert pairs == {(a, b) for a in range(6) for b in range(6) if labels[a] == labels[b]}


def test_processes_share_whole_rounds_only() -> None:
    """Seven batches for three processes are two each; the seventh is left out, and so are none of the first six."""
    data = np.zeros(28, int), np.zeros(28, int), np.zeros(28, int)
    config = sampler_options({"name": "shuffle", "batch_size": 4})
    whole = list(create_sampler(config, *data, seed=0))
    assert len(whole) == 7
    parts = [list(create_sampler(config, *data, seed=0, rank=rank, world_size=3)) for rank in range(3)]
    assert parts == [[whole[rank], whole[rank + 3]] for rank in range(3)]


def test_iterations_are_per_process_and_restart_the_pass() -> None:
    data = np.zeros(8, int), np.zeros(8, int), np.zeros(8, int)
    config = sampler_options({"name": "shuffle", "batch_size": 4, "iterations": 5})
    parts = [list(create_sampler(config, *data, seed=0, rank=rank, world_size=2)) for rank in range(2)]
    assert [len(part) for part in parts] == [5, 5]
    for first, second in zip(*parts, strict=True):
        assert sorted(first + second) == list(range(8))  # two batches a pass
