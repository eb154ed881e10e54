"""Frame choice: the worked examples of the specifications and properties of the random rules."""

from __future__ import annotations

import numpy as np
import pytest

from gloam.batches.clips import all_clips, choose_frames
from gloam.errors import GloamError


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (5, [0, 1, 2, 3, 4, 4]),
        (6, [0, 1, 2, 3, 4, 5]),
        (7, [0, 2, 4, 6, 6, 6]),
        (12, [0, 2, 4, 6, 8, 10]),
        (13, [0, 3, 6, 9, 12, 12]),
        (24, [0, 4, 8, 12, 16, 20]),
        (25, [0, 5, 10, 15, 20, 24]),
        (1, [0] * 6),
    ],
)
def test_evenly_worked_examples(length: int, expected: list[int]) -> None:
    assert choose_frames(length, 6).tolist() == expected
    assert all_clips(length, 6)[0].tolist() == expected


def _oracle_entry_list(length: int, frames: int) -> list[int]:
    order = list(range(length))
    while len(order) < frames or len(order) % frames:
        order.append(length - 1)
    return order


@pytest.mark.parametrize("frames", [1, 4, 6, 10])
def test_random_rules_against_the_padded_list(frames: int) -> None:
    generator = np.random.default_rng(0)
    for length in [1, 2, 3, 5, 6, 7, 11, 24, 25]:
        entries = _oracle_entry_list(length, frames)
        segment = len(entries) // frames
        seen: list[set[int]] = [set() for _ in range(frames)]
        starts = set()
        for _ in range(1000):
            for j, frame in enumerate(choose_frames(length, frames, "evenly_random", generator)):
                seen[j].add(int(frame))
            clip = choose_frames(length, frames, "random", generator).tolist()
            possible = [s for s in range(len(entries) - frames + 1) if entries[s : s + frames] == clip]
            assert possible
            starts.update(possible)
        assert seen == [set(entries[j * segment : (j + 1) * segment]) for j in range(frames)]
        assert starts == set(range(len(entries) - frames + 1))
        clips = all_clips(length, frames)
        assert clips.shape == (segment, frames)
        assert clips.T.reshape(-1).tolist() == entries


def test_spaced_and_halves() -> None:
    assert choose_frames(24, 10, "spaced").tolist() == [k * 24 // 10 for k in range(10)]
    assert choose_frames(3, 10, "spaced").tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert choose_frames(25, 4, "first_half").tolist() == [0, 3, 6, 9]
    assert choose_frames(25, 4, "second_half").tolist() == [12, 15, 18, 21]
    assert choose_frames(1, 3, "first_half").tolist() == choose_frames(1, 3, "second_half").tolist() == [0, 0, 0]


def test_mistakes() -> None:
    with pytest.raises(GloamError, match="tracklet of 0"):
        choose_frames(0, 6)
    with pytest.raises(ValueError, match="generator"):
        choose_frames(9, 6, "evenly_random")
