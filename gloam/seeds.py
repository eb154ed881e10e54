"""One rule for all random draws of a run: which seed a private generator gets.

Every draw depends on the run's seed, on what it is for and on numbers such as epoch and process, and on nothing else.
So a resumed run repeats it, and no generator's state has to be saved.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Literal, overload

import numpy as np


class Purpose(Enum):
    """Draws with a rule of their own. Both are older than the common rule, and recorded runs depend on them."""

    BATCHES = "batches"  # numbers: epoch, then anything
    CLIPS = "clips"  # numbers: process, then anything


@overload
def mix_seed(seed: int, purpose: str, *numbers: int) -> int: ...


@overload
def mix_seed(seed: int, purpose: Literal[Purpose.BATCHES, Purpose.CLIPS], *numbers: int) -> int | list[int]: ...


def mix_seed(seed: int, purpose: str | Purpose, *numbers: int) -> int | list[int]:
    """The seed of one private generator, the same on every machine.

    Args:
        seed: run seed.
        purpose: what is drawn, for example a stage's name; or a purpose with a rule of its own.
        *numbers: epoch, process, ...

    Returns:
        For a name a 63-bit number that differs for every (seed, purpose, numbers). For ``BATCHES`` what
        ``numpy.random.RandomState`` takes: the bare seed in epoch 0, which repeats the published runs of AGW, else
        eight words. For ``CLIPS`` what ``numpy.random.default_rng`` takes.
    """
    if purpose is Purpose.BATCHES:
        if numbers == (0,) and 0 <= seed < 2**32:
            return seed
        words: list[int] = np.random.SeedSequence([seed, *numbers]).generate_state(8).tolist()
        return words
    if purpose is Purpose.CLIPS:
        process, *rest = numbers
        return [seed * 65537 + process, *rest]
    digest = hashlib.sha256(f"{seed}|{purpose}|{'|'.join(map(str, numbers))}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
