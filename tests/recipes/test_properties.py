"""What holds for every recipe: found by trying many."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gloam.recipes.merge import merge
from gloam.recipes.recipe import differing_keys, load_recipe, resolve, validate
from gloam.sampling import list_samplers
from tests.sampling.sizes import sized

_RATE = st.floats(1e-6, 1, allow_nan=False)
_EPOCHS = st.integers(1, 90)
_METHODS = st.sampled_from(
    [
        {"name": "agw", "arch": "tiny", "wrt": "exact"},
        {"name": "base", "margin": 0.5},
        {"name": "mmgl", "num_stripes": 4},
    ]
)
_DATA = st.sampled_from(
    [
        {"name": "sysu_mm01", "height": 96},
        {"name": "regdb", "options": {"trial": 3}},
        {"name": "msmt17", "root": "/ä b"},
    ]
)
_OPTIMIZERS = st.one_of(
    st.fixed_dictionaries(
        {"name": st.just("sgd")}, optional={"lr": _RATE, "momentum": _RATE, "nesterov": st.booleans()}
    ),
    st.fixed_dictionaries({"name": st.just("adam")}, optional={"lr": _RATE, "eps": _RATE}),
)
_SCHEDULES = st.one_of(
    st.fixed_dictionaries({"name": st.just("multistep"), "milestones": st.lists(_EPOCHS, max_size=3)}),
    st.fixed_dictionaries({"name": st.just("cosine")}, optional={"length": _EPOCHS, "warmup_epochs": _EPOCHS}),
    st.fixed_dictionaries({"name": st.just("step")}, optional={"step_size": _EPOCHS, "gamma": _RATE}),
)
_SAMPLERS = st.builds(
    sized, st.sampled_from(list_samplers()), st.integers(1, 9), st.integers(1, 4).map(lambda half: 2 * half)
)
_AUGMENTS = st.fixed_dictionaries(
    {},
    optional={
        "pad": st.integers(0, 20),
        "flip": st.floats(0, 1),
        "infrared": st.fixed_dictionaries({"erase": st.floats(0.1, 1), "erase_tries": st.integers(1, 9)}),
    },
)
_TRAINS = st.fixed_dictionaries(
    {}, optional={"epochs": _EPOCHS, "seed": st.integers(0, 2**63 - 1), "clip_norm": _RATE | st.none()}
)
_CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "optimizer": _OPTIMIZERS, "schedule": _SCHEDULES, "sampler": _SAMPLERS, "augment": _AUGMENTS, "train": _TRAINS,
    "method": _METHODS,
}  # fmt: skip
_STAGES = st.dictionaries(
    st.sampled_from(["first", "second", "pre-train"]), st.fixed_dictionaries({}, optional=_CHANGES)
)
_CONTENTS = st.fixed_dictionaries(
    {"data": _DATA, "method": _METHODS},
    optional={
        **{key: value for key, value in _CHANGES.items() if key != "method"},
        "description": st.text(max_size=20),
        "stages": _STAGES,
    },
)
_QUICK = settings(max_examples=60, derandomize=True, deadline=None)


@_QUICK
@given(_CONTENTS)
def test_saving_and_resolving_lose_nothing(content: dict[str, Any]) -> None:
    recipe = validate(content, "mine")
    complete = resolve(recipe)
    with tempfile.TemporaryDirectory() as folder:
        for one in (recipe, complete.recipe):
            one.save(Path(folder) / "recipe.yaml")
            assert load_recipe(Path(folder) / "recipe.yaml") == one
    # What is written out once stays as it is.
    again = resolve(complete.recipe)
    assert again.recipe == complete.recipe
    assert {name: stage.recipe for name, stage in again.stages.items()} == {
        name: stage.recipe for name, stage in complete.stages.items()
    }
    assert differing_keys(recipe, recipe) == []


@_QUICK
@given(_CONTENTS, st.fixed_dictionaries({}, optional={**_CHANGES, "data": _DATA, "stages": _STAGES}))
def test_changes_laid_over_twice_are_laid_over_once(content: dict[str, Any], changes: dict[str, Any]) -> None:
    before = repr(content), repr(changes)
    once = merge(content, changes)
    assert merge(once, changes) == once
    assert merge(content, {}) == content
    assert merge(content, content) == content
    assert (repr(content), repr(changes)) == before
    # Every value of the changes is there.
    validate(once, "mine")
    for section, values in changes.items():
        assert {**once[section], **values}.keys() == once[section].keys()
