"""The five tracklet strategies: their invariants, and how long epochs are on the published sets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from gloam.sampling.base import SamplerConfig, create_sampler

Data = tuple[np.ndarray, np.ndarray, np.ndarray]


def _video(ids: int, infrared: int, visible: int, *, paired: bool = False, seed: int = 0) -> Data:
    """Tracklet counts drawn to match a dataset's totals; every identity has at least one tracklet of each modality."""
    generator = np.random.default_rng(seed)

    def spread(total: int) -> np.ndarray:
        return 1 + generator.multinomial(total - ids, np.full(ids, 1 / ids))

    reds = spread(infrared)
    colours = reds if paired else spread(visible)
    labels = np.concatenate([np.repeat(np.arange(ids), reds), np.repeat(np.arange(ids), colours)])
    modalities = np.repeat([1, 0], [reds.sum(), colours.sum()])
    order = generator.permutation(len(labels))
    return labels[order], modalities[order], np.zeros(len(labels), int)


VCM = _video(500, 4291, 5460)
BUPT = _video(1074, 3574, 3574, paired=True)
FIVE = [
    "norm_triplet",
    "cross_modality_triplet",
    "cross_modality_random",
    "cross_modality_identity_tracklet",
    "identity_cross_modality",
]


def _batches(name: str, data: Data, **options: Any) -> np.ndarray:
    config = SamplerConfig(**{"identities": 4, "instances": 8, "name": name, **options})
    return np.array(list(create_sampler(config, *data, seed=0)))


@pytest.mark.parametrize("data", [VCM, BUPT], ids=["hitsz_vcm", "bupt_campus"])
@pytest.mark.parametrize("name", FIVE)
def test_no_strategy_loses_an_epoch(name: str, data: Data) -> None:
    batches = _batches(name, data)
    assert batches.shape[1] == 32
    assert len(batches) >= 120
    if name in ("cross_modality_random", "cross_modality_identity_tracklet"):
        assert len(set(data[0][batches].ravel())) == data[0].max() + 1
    else:  # the loop ends when fewer than P identities own a chunk
        assert len(set(data[0][batches].ravel())) > 0.99 * data[0].max()


def test_worked_lengths() -> None:
    assert 249 <= len(_batches("norm_triplet", VCM)) <= 254
    assert 270 <= len(_batches("norm_triplet", BUPT)) <= 282
    assert len(_batches("cross_modality_random", VCM)) == 2 * 5460 // 32
    assert len(_batches("cross_modality_random", BUPT)) == 2 * 3574 // 32
    assert _batches("cross_modality_identity_tracklet", VCM).size == 8000
    # 0 in the reference; one pass of 1074 identities, two of them drawn again to fill the last group
    assert len(_batches("cross_modality_identity_tracklet", BUPT)) == 269


def test_norm_triplet_batches_and_repeats() -> None:
    labels, _, _ = VCM
    batches = _batches("norm_triplet", VCM)
    chunks = labels[batches].reshape(-1, 4, 8)
    assert (chunks == chunks[:, :, :1]).all()
    assert all(len(set(ids)) == 4 for ids in chunks[:, :, 0].tolist())
    rich = np.bincount(labels) >= 8
    drawn = Counter(batches.ravel().tolist())
    assert max(count for i, count in drawn.items() if rich[labels[i]]) == 1
    assert _batches("identity", VCM).tolist() == batches.tolist()


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_cross_modality_triplet_keeps_the_share(share: float) -> None:
    labels, modalities, _ = BUPT
    batches = _batches("cross_modality_triplet", BUPT, infrared_share=share)
    chunks = batches.reshape(-1, 8)
    assert (labels[chunks] == labels[chunks[:, :1]]).all()
    assert (modalities[chunks].sum(1) == int(8 * share)).all()
    assert len(set(map(tuple, modalities[chunks].tolist()))) > 5  # shuffled inside a chunk


@pytest.mark.parametrize("data", [VCM, BUPT, _video(10, 90, 30)], ids=["hitsz_vcm", "bupt_campus", "mostly_infrared"])
def test_cross_modality_random_halves(data: Data) -> None:
    labels, modalities, _ = data
    batches = _batches("cross_modality_random", data)
    assert (modalities[batches] == np.repeat([1, 0], 16)).all()
    for modality, half in ((1, batches[:, :16]), (0, batches[:, 16:])):
        size = int((modalities == modality).sum())
        counts = np.bincount(half.ravel(), minlength=len(labels))[modalities == modality]
        passes = max(np.bincount(modalities)) / size
        assert counts.max() <= np.ceil(passes)


def test_cross_modality_identity_tracklet_layout() -> None:
    labels, modalities, _ = BUPT
    batches = _batches("cross_modality_identity_tracklet", BUPT)
    assert (modalities[batches] == np.repeat([1, 0], 16)).all()
    ids = labels[batches].reshape(-1, 2, 4, 4)
    assert (ids == ids[..., :1]).all()
    assert (ids[:, 0] == ids[:, 1]).all()
    assert all(len(set(group)) == 4 for group in ids[:, 0, :, 0].tolist())
    counts = np.bincount(ids[:, 0, :, 0].ravel(), minlength=1074)
    assert Counter(counts.tolist()) == {1: 1072, 2: 2}
    rich = _video(6, 60, 60)
    halves = _batches("cross_modality_identity_tracklet", rich).reshape(-1, 4)
    assert all(len(set(half)) == 4 for half in halves.tolist())  # without replacement where there are enough


def test_identity_cross_modality_alternates() -> None:
    labels, modalities, _ = VCM
    batches = _batches("identity_cross_modality", VCM)
    assert (modalities[batches] == np.tile([1, 0], 16)).all()
    chunks = labels[batches].reshape(-1, 8)
    assert (chunks == chunks[:, :1]).all()


def test_identity_short_in_one_modality_is_topped_up() -> None:
    labels = np.repeat(np.arange(4), 11)
    modalities = np.tile([1] * 1 + [0] * 10, 4)
    batches = _batches("identity_cross_modality", (labels, modalities, labels))
    assert batches.shape == (1, 32)
    assert set(labels[batches[0]]) == set(range(4))


@pytest.mark.parametrize("name", FIVE[1:2] + FIVE[3:])
def test_identities_of_one_modality_are_left_out(name: str, caplog: pytest.LogCaptureFixture) -> None:
    labels, modalities, cams = _video(12, 300, 300)
    keep = ~((labels == 3) & (modalities == 0)) & ~((labels == 8) & (modalities == 1))
    drawn = set(labels[keep][_batches(name, (labels[keep], modalities[keep], cams[keep]))].ravel())
    assert drawn == set(range(12)) - {3, 8}
    assert "leaves out 2 identities" in caplog.text
