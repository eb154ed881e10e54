"""Seeds of private generators: recorded values, because old runs must repeat."""

from __future__ import annotations

import itertools

import numpy as np

from gloam.seeds import Purpose, mix_seed


def test_recorded_values() -> None:
    assert mix_seed(0, "train", 1) == 7499684185294888355
    assert mix_seed(7, "augment experts", 3, 1) == 1787570473210364194
    assert mix_seed(5, Purpose.BATCHES, 0) == 5
    first, *_ = mix_seed(5, Purpose.BATCHES, 2)  # type: ignore[misc]
    assert first == 3226123765
    assert mix_seed(3, Purpose.CLIPS, 2, 10, 4) == [3 * 65537 + 2, 10, 4]


def test_batches_are_seeded_as_numpys_seed_sequence_says() -> None:
    for numbers in ((1,), (0, 1, 0), (3, 1, 2)):
        words = np.random.SeedSequence([9, *numbers]).generate_state(8)
        assert mix_seed(9, Purpose.BATCHES, *numbers) == words.tolist()
    # RandomState takes 32 bits.
    assert mix_seed(2**40, Purpose.BATCHES, 0) == np.random.SeedSequence([2**40, 0]).generate_state(8).tolist()


def test_every_draw_has_its_own_seed() -> None:
    found = [
        mix_seed(seed, purpose, epoch, rank)
        for seed, purpose, epoch, rank in itertools.product((0, 1, 11), ("train", "augment train"), (0, 1, 10), (0, 1))
    ]
    assert len(set(found)) == len(found)
    assert all(0 <= value < 2**63 for value in found)
