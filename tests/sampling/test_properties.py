"""What holds for every sampler, whatever the data: found by trying many."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gloam.errors import GloamError
from gloam.sampling import create_sampler, list_samplers, sampler_options
from tests.sampling.sizes import sized

Column = np.ndarray


@st.composite
def drawn(draw: st.DrawFn) -> tuple[tuple[Column, Column, Column], dict[str, Any]]:
    """Columns of a training set, and the options of a sampler."""
    count = draw(st.integers(1, 60))
    columns = [
        np.array(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))
        for low, high in ((-1, 6), (0, 1), (0, 3))
    ]
    name = draw(st.sampled_from(list_samplers()))
    options = sized(name, draw(st.integers(1, 4)), 2 * draw(st.integers(1, 3)))
    if name == "cross_modality_identity":
        options |= {"independent_modalities": draw(st.booleans()), "extra_batch": True}
        options["incomplete_ids"] = "fail" if options["independent_modalities"] else "skip"
    return (columns[0], columns[1], columns[2]), options


@settings(max_examples=150, derandomize=True, deadline=None)
@given(drawn(), st.integers(0, 3), st.integers(1, 3), st.sampled_from([None, 1, 4]), st.booleans())
def test_batches_are_rows_of_one_size_shared_by_processes(
    case: tuple[tuple[Column, Column, Column], dict[str, Any]],
    epoch: int,
    world: int,
    iterations: int | None,
    partners: bool,
) -> None:
    columns, options = case
    labels = columns[0]
    # Partners need a label for every row, which this sampler does not look at.
    assume(not (partners and options["name"] == "modality_shuffle" and (labels < 0).any()))
    config = sampler_options({**options, "iterations": iterations, "partners": partners})

    def batches(rank: int, processes: int) -> list[list[int]]:
        sampler = create_sampler(config, *columns, seed=1, rank=rank, world_size=processes)
        sampler.set_epoch(epoch)
        found = list(sampler)
        assert len(sampler) == len(found)
        assert list(sampler) == found
        return found

    try:
        parts = [batches(rank, world) for rank in range(world)]
    except GloamError:
        return  # too little data for the options: a message, never anything else
    assert len({len(part) for part in parts}) == 1
    assert len({len(batch) for part in parts for batch in part}) == 1
    if iterations is not None:
        assert len(parts[0]) == iterations
    rows = np.array(parts).reshape(-1)
    assert ((rows >= 0) & (rows < len(labels))).all()
    if options["name"] != "modality_shuffle":
        assert (labels[rows] >= 0).all()
    if partners:
        first, second = np.split(labels[np.concatenate(parts)], 2, axis=1)
        assert (first == second).all()
    elif iterations is None:
        # One process alone draws the same batches, in the order in which processes take turns.
        alone = batches(0, 1)
        assert [batch for turn in zip(*parts, strict=True) for batch in turn] == alone[: world * len(parts[0])]
