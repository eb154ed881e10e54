"""What all samplers share, and the image strategies."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from gloam.errors import GloamError
from gloam.sampling.base import SamplerConfig, create_sampler, random_state

NAMES = [
    "identity", "cross_modality_identity", "camera_identity", "modality_shuffle", "shuffle", "norm_triplet",
    "cross_modality_triplet", "cross_modality_random", "cross_modality_identity_tracklet", "identity_cross_modality",
]  # fmt: skip


def _data(
    ids: int = 12, visible: int = 7, infrared: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples of every id in both modalities, shuffled."""
    labels = np.repeat(np.arange(ids), visible + infrared)
    modalities = np.tile([0] * visible + [1] * infrared, ids)
    cams = np.arange(len(labels)) % 3
    order = np.random.default_rng(seed).permutation(len(labels))
    return labels[order], modalities[order], cams[order]


def _make(
    data: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int = 0, rank: int = 0, world_size: int = 1, **options: Any
) -> Any:
    return create_sampler(SamplerConfig(**options), *data, seed=seed, rank=rank, world_size=world_size)


@pytest.mark.parametrize("name", NAMES)
def test_deterministic_in_seed_and_epoch(name: str) -> None:
    data = _data()
    sampler = _make(data, name=name, identities=3)
    first = list(sampler)
    assert first
    assert len(sampler) == len(first)
    assert list(sampler) == first
    assert all(isinstance(i, int) for i in first[0])
    sampler.set_epoch(3)
    later = list(sampler)
    assert later != first
    assert len(sampler) == len(later)
    resumed = _make(data, name=name, identities=3)
    resumed.set_epoch(3)
    assert list(resumed) == later
    assert list(_make(data, seed=1, name=name, identities=3)) != first


@pytest.mark.parametrize("name", NAMES)
def test_processes_share_an_epoch_without_overlap(name: str) -> None:
    data = _data()
    whole = list(_make(data, name=name, identities=3))
    parts = [list(_make(data, rank=r, world_size=2, name=name, identities=3)) for r in range(2)]
    assert len(parts[0]) == len(parts[1]) == len(whole) // 2
    assert [b for pair in zip(*parts, strict=True) for b in pair] == whole[: 2 * len(parts[0])]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "modality_shuffle"])
def test_outliers_are_never_drawn(name: str) -> None:
    labels, modalities, cams = _data()
    labels = labels.copy()
    labels[::5] = -1
    drawn = np.concatenate(list(_make((labels, modalities, cams), name=name, identities=3)))
    assert (labels[drawn] >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_iterations_restart_the_strategy(name: str) -> None:
    data = _data()
    once = list(_make(data, name=name, identities=3))
    many = list(_make(data, name=name, identities=3, iterations=2 * len(once) + 1))
    assert len(many) == 2 * len(once) + 1
    assert many[: len(once)] == once
    assert many[len(once) : len(once) + 3] != once[:3]
    assert len(_make(data, name=name, identities=3, iterations=5, world_size=2, rank=1)) == 5


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("modality_shuffle", "shuffle", "cross_modality_random")]
)
def test_too_few_identities(name: str) -> None:
    with pytest.raises(GloamError, match=r"needs 13 .*has 12.*sampler.identities"):
        _make(_data(), name=name, identities=13)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_draw(name: str) -> None:
    empty = (np.full(4, -1), np.array([0, 1, 0, 1]), np.zeros(4, int))
    with pytest.raises(GloamError):
        list(_make(empty, name=name))


def test_more_processes_than_batches() -> None:
    with pytest.raises(GloamError, match="1 batches an epoch for 2 processes"):
        list(_make(_data(2, 4, 4), name="shuffle", batch_size=16, world_size=2))


# --- cross_modality_identity


def test_first_identities_of_the_published_run() -> None:
    """SYSU-MM01, numpy seed 0: 329, 318, 317, 65, 59, 287, 212, 60, whatever the number of images of each identity."""
    labels, modalities, cams = _data(395, 3, 2)
    batch = next(iter(_make((labels, modalities, cams))))
    assert labels[batch[0::4]].tolist()[:8] == [329, 318, 317, 65, 59, 287, 212, 60]


def test_draw_order_of_the_reference() -> None:
    """Per identity the visible draw, then the infrared draw, from one generator through the whole epoch."""
    labels, modalities, _ = data = _data(9, 6, 3)
    sampler = _make(data, seed=5, identities=4, instances=2)
    random = np.random.RandomState(5)
    for batch in sampler:
        visible, infrared = [], []
        for i in random.choice(np.arange(9), 4, replace=False):
            visible += random.choice(np.flatnonzero((labels == i) & (modalities == 0)), 2).tolist()
            infrared += random.choice(np.flatnonzero((labels == i) & (modalities == 1)), 2).tolist()
        assert batch == visible + infrared


@pytest.mark.parametrize(
    ("visible", "infrared", "options", "batches"),
    [
        (22258, 11909, {}, 696),
        (2060, 2060, {}, 65),
        (22258, 11909, {"extra_batch": False}, 695),
        (2060, 2060, {"extra_batch": False, "epoch_multiplier": 5}, 321),
        (2060, 2060, {"extra_batch": False, "epoch_multiplier": 5, "identities": 5}, 515),
        (16946, 13975, {"extra_batch": False}, 529),
        (64, 32, {}, 3),
    ],
)
def test_published_epoch_lengths(visible: int, infrared: int, options: dict[str, Any], batches: int) -> None:
    labels = np.concatenate([np.arange(visible) % 8, np.arange(infrared) % 8])
    modalities = np.repeat([0, 1], [visible, infrared])
    assert len(_make((labels, modalities, labels), **options)) == batches


def test_batches_are_balanced_blocks() -> None:
    labels, modalities, cams = _data()
    for batch in _make((labels, modalities, cams), identities=5, instances=3):
        assert modalities[batch].tolist() == [0] * 15 + [1] * 15
        assert labels[batch[:15]].tolist() == labels[batch[15:]].tolist()
        assert len(set(labels[batch[:15]])) == 5
        assert (labels[batch].reshape(10, 3) == labels[batch].reshape(10, 3)[:, :1]).all()


def test_draws_without_replacement() -> None:
    data = _data(6, visible=4, infrared=2)
    labels, modalities, _ = data

    def repeats(draw: str) -> tuple[bool, bool]:
        drawn = [
            np.array(b).reshape(2, 4, 3) for b in _make(data, identities=4, instances=3, draw=draw, epoch_multiplier=9)
        ]
        return tuple(any(len(set(row)) < 3 for b in drawn for row in b[m]) for m in (0, 1))  # type: ignore[return-value]

    assert repeats("with_replacement") == (True, True)
    assert repeats("without_when_possible") == (False, True)  # infrared has only two images
    assert repeats("without_when_both_possible") == (True, True)
    assert (modalities[labels == 0] == 1).sum() == 2


def test_independent_modalities_have_their_own_identities() -> None:
    labels, modalities, cams = _data()
    labels = np.where(modalities == 1, labels + 3, labels)  # labels 0..11 visible, 3..14 infrared
    sampler = _make((labels, modalities, cams), identities=4, independent_modalities=True, epoch_multiplier=9)
    batches = [labels[b].reshape(2, 4, 4)[:, :, 0] for b in sampler]
    assert any(set(b[0]) != set(b[1]) for b in batches)
    assert {i for b in batches for i in b[0]} == set(range(12))
    assert {i for b in batches for i in b[1]} == set(range(3, 15))


def test_identities_of_one_modality_are_named_or_skipped() -> None:
    labels, modalities, cams = _data()
    keep = ~((labels == 4) & (modalities == 1)) & ~((labels == 7) & (modalities == 0))
    data = labels[keep], modalities[keep], cams[keep]
    with pytest.raises(GloamError, match=r"2 of 12 .* 4 \(no infrared\), 7 \(no visible\).*incomplete_ids=skip"):
        _make(data, identities=4)
    drawn = {int(data[0][i]) for b in _make(data, identities=4, incomplete_ids="skip", epoch_multiplier=9) for i in b}
    assert drawn == set(range(12)) - {4, 7}
    with pytest.raises(GloamError, match=r"no training sample is infrared.*sampler.name=identity"):
        _make((labels, np.zeros_like(labels), cams), identities=4)


# --- camera_identity


def test_camera_identity_prefers_other_cameras() -> None:
    labels, _, cams = data = _data(20, 6, 6)
    batches = list(_make(data, name="camera_identity", identities=4, instances=4))
    assert len(batches) == 20 * 4 // 16
    assert len({int(labels[i]) for b in batches for i in b}) == 20
    for batch in batches:
        chunks = np.array(batch).reshape(4, 4)
        assert (labels[chunks] == labels[chunks[:, :1]]).all()
        assert (cams[chunks[:, 1:]] != cams[chunks[:, :1]]).all()
        assert all(len(set(chunk)) == 4 for chunk in chunks.tolist())
    free = list(_make(data, name="camera_identity", identities=4, instances=4, use_cameras=False))
    chunks = np.concatenate(free).reshape(-1, 4)
    assert (cams[chunks[:, 1:]] == cams[chunks[:, :1]]).any()


def test_camera_identity_with_few_images() -> None:
    # id 0: one image; id 1: two cameras, one image each; id 2: one camera, three images
    labels, cams = np.array([0, 1, 1, 2, 2, 2]), np.array([0, 0, 1, 5, 5, 5])
    data = labels, np.zeros(6, int), cams
    counts: Counter[int] = Counter()
    for seed in range(20):
        (batch,) = _make(data, seed=seed, name="camera_identity", identities=3, instances=3, iterations=1)
        assert len(batch) == 9
        counts.update(labels[batch].tolist())
    assert counts[0] < counts[1]
    singles = np.arange(5), np.zeros(5, int), np.zeros(5, int)
    (batch,) = _make(singles, name="camera_identity", identities=2, instances=4)  # two passes fill one batch
    assert len(batch) == 8


def test_partners_share_the_label() -> None:
    labels, _, _ = data = _data()
    plain = list(_make(data, name="camera_identity", identities=3))
    sampler = _make(data, name="camera_identity", identities=3, partners=True)
    assert [b[:12] for b in sampler] == plain
    seen: Counter[tuple[int, int]] = Counter()
    for epoch in range(30):
        sampler.set_epoch(epoch)
        for batch in sampler:
            assert (labels[batch[:12]] == labels[batch[12:]]).all()
            seen.update((int(a), int(b)) for a, b in zip(batch[:12], batch[12:], strict=True))
    assert any(a == b for a, b in seen)  # the sample itself is allowed
    anchor = seen.most_common(1)[0][0][0]
    assert {b for a, b in seen if a == anchor} <= set(np.flatnonzero(labels == labels[anchor]).tolist())


# --- without labels


def test_modality_shuffle() -> None:
    modalities = np.repeat([0, 1], [50, 23])
    data = np.full(73, -1), modalities, np.zeros(73, int)
    sampler = _make(data, name="modality_shuffle", batch_size=8)
    batches = np.array(list(sampler))
    assert batches.shape == (50 // 8, 16)
    assert (modalities[batches] == np.repeat([0, 1], 8)).all()
    assert np.bincount(batches[:, :8].ravel(), minlength=50).max() == 1
    infrared = np.bincount(batches[:, 8:].ravel(), minlength=73)[50:]
    assert set(infrared) == {2, 3}  # 48 draws: two permutations of 23, then two more
    assert (
        len(
            _make(
                (np.zeros(34167, int), np.repeat([0, 1], [22258, 11909]), np.zeros(34167, int)), name="modality_shuffle"
            )
        )
        == 695
    )
    with pytest.raises(GloamError, match="50 visible and 0 infrared"):
        _make((np.zeros(50), np.zeros(50), np.zeros(50)), name="modality_shuffle")


def test_shuffle() -> None:
    data = _data(5, 3, 1)
    batches = list(_make(data, name="shuffle", batch_size=6))
    assert [len(b) for b in batches] == [6, 6, 6]
    assert len(set(np.concatenate(batches))) == 18
    assert [len(b) for b in _make(data, name="shuffle", batch_size=64)] == [20]


def test_random_state_is_private() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    list(_make(_data(), identities=4))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    first, second = random_state(0, 1).randint(1 << 30, size=4), random_state(1, 0).randint(1 << 30, size=4)
    assert (first != second).all()
    assert random_state(2**40, 0).randint(10) >= 0


def test_fewer_clusters_than_a_batch_needs_are_explained() -> None:
    config = SamplerConfig(name="camera_identity", identities=3, instances=2)
    with pytest.raises(GloamError, match=r"needs 3 .* has 2\. .*method\.eps"):
        create_sampler(config, [0, 0, 1, -1, 1], [0] * 5, [0, 1, 0, 1, 1], seed=0)
