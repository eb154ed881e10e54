"""Unreadable images: what training leaves out, and what scoring refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from gloam.datasets import DatasetSplits, load_dataset
from gloam.errors import GloamError
from gloam.inference.sources import open_test_records
from gloam.recipes.recipe import resolve
from gloam.training.training_data import prepare_data
from tests.analysis.clip_run import draw_clips
from tests.training.tiny import tiny_recipe


@pytest.fixture
def damaged(tmp_path: Path) -> DatasetSplits:
    """The first training tracklet has lost its first frame, the fourth all of them; so has the first query."""
    splits = load_dataset("hitsz_vcm", draw_clips(tmp_path))
    for path in (splits.train[0].paths[0], *splits.train[3].paths, *splits.query[0].paths):
        (tmp_path / path).write_bytes(b"")
    return splits


def _clips(root: Path, **data: object) -> dict[str, object]:
    return {"root": str(root), "name": "hitsz_vcm", "frames": 3, "on_bad_image": "skip", **data}


def test_hidden_truth_follows_the_records_that_are_left(damaged: DatasetSplits) -> None:
    method = {"name": "m3reid", "arch": "tiny"}
    evaluation = {"protocols": None}
    recipe = tiny_recipe(damaged.root, data=_clips(damaged.root), method=method, evaluation=evaluation)
    data = prepare_data(resolve(recipe), progress=False)
    kept = [record for place, record in enumerate(damaged.train) if place != 3]
    assert [record.paths[-1] for record in data.records] == [record.paths[-1] for record in kept]
    assert len(data.records[0].paths) == len(kept[0].paths) - 1
    assert data.truth.tolist() == [record.pid for record in kept]


def test_scores_need_every_test_record(damaged: DatasetSplits) -> None:
    config = tiny_recipe(damaged.root, data=_clips(damaged.root)).data
    with pytest.raises(GloamError, match=rf"1 of {len(damaged.query)} test records"):
        open_test_records(damaged.query, damaged.root, config, progress=False)
    assert len(open_test_records(damaged.gallery, damaged.root, config)[0]) == len(damaged.gallery)
