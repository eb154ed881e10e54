"""Every sampler has options of its own; old names and old sections are still read; anybody can add a sampler."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from pydantic import Field, ValidationError

from gloam.cli.recipe_flags import parse_overrides
from gloam.errors import GloamError
from gloam.recipes.recipe import load_recipe, validate
from gloam.sampling import (
    PlainBatches,
    Strategy,
    create_sampler,
    get_sampler,
    list_samplers,
    register,
    sampler_options,
)
from gloam.sampling.base import registry
from gloam.sampling.create import OLD_NAMES
from tests.sampling.sizes import sized
from tests.training.tiny import tiny_recipe

DATA = (np.repeat(np.arange(9), 8), np.tile([0, 0, 0, 1, 1, 1, 0, 1], 9), np.arange(72) % 3)


# Another value of every option; incomplete_ids has tests of its own, because these data are complete.
OTHER = {
    "identities": 2, "instances": 6, "batch_size": 6, "draw": "without_when_possible", "independent_modalities": True,
    "epoch_multiplier": 2, "extra_batch": False, "infrared_share": 0.25, "use_cameras": False, "partners": True,
    "iterations": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", list_samplers())
def test_every_option_changes_the_batches(name: str) -> None:
    cls = get_sampler(name).Options
    assert cls.model_fields["name"].default == name
    plain = list(create_sampler(sampler_options(sized(name)), *DATA, seed=0))
    for option in cls.model_fields.keys() - {"name", "incomplete_ids"}:
        changed = sampler_options({**sized(name), option: OTHER[option]})
        assert list(create_sampler(changed, *DATA, seed=0)) != plain, option


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_old_names_give_the_same_batches_and_a_warning(old: str, new: str, caplog: pytest.LogCaptureFixture) -> None:
    given = sized(new)
    options = sampler_options({**given, "name": old})
    assert f"{old!r} is now called {new!r}" in caplog.text
    assert options == sampler_options(given)
    assert list(create_sampler(options, *DATA, seed=0)) == list(create_sampler(sampler_options(given), *DATA, seed=0))


def test_an_option_of_another_sampler_is_named_with_its_owner() -> None:
    with pytest.raises(ValueError, match=r"use_cameras is no option of sampler 'shuffle', but of camera_identity"):
        sampler_options({"name": "shuffle", "use_cameras": False})
    with pytest.raises(ValueError, match="epoch_multiplier is no option of sampler 'identity'"):
        get_sampler("identity").Options(epoch_multiplier=2)
    content = tiny_recipe(Path("x")).model_dump(mode="json")
    with pytest.raises(GloamError, match=r"sampler: infrared_share .* but of identity_share"):
        validate({**content, "sampler": {"name": "identity", "infrared_share": 0.25}}, "mine")
    with pytest.raises(GloamError, match=r"sampler\.identites.*'identities'"):
        validate({**content, "sampler": {"identites": 3}}, "mine")
    with pytest.raises(GloamError, match=r"no sampler called 'identty'.*'identity'"):
        validate({**content, "sampler": {"name": "identty"}}, "mine")


@pytest.mark.parametrize(
    "options",
    [
        {"name": "identity", "identities": 0},
        {"name": "shuffle", "batch_size": 10**20},
        {"name": "modality_halves", "batch_size": 1},
        {"name": "identity_share", "infrared_share": float("nan")},
        {"name": "identity_alternating", "instances": 5},
        {"name": "identity_halves", "instances": 1},
        {"epoch_multiplier": 10**9},
        {"iterations": 10**12},
        {"independent_modalities": True, "incomplete_ids": "skip"},
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        sampler_options(options)


@pytest.fixture
def every_third() -> Iterator[str]:
    """A sampler from outside the package."""
    with registry.temporarily():

        class EveryThirdOptions(PlainBatches):
            name: Literal["every_third"] = "every_third"
            offset: int = Field(0, ge=0, le=2, description="first sample")

        @register("every_third")
        class EveryThird(Strategy[EveryThirdOptions]):
            Options: ClassVar = EveryThirdOptions

            def make(self, random: np.random.RandomState) -> list[np.ndarray]:
                rows = random.permutation(np.arange(self.options.offset, len(self.samples.labels), 3))
                return [rows[: self.options.batch_size]]

        yield "every_third"


def test_a_registered_sampler_has_a_typed_section_and_flags(every_third: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, sampler={"name": every_third, "offset": 1})
    assert recipe.sampler.name == every_third
    changed, _ = parse_overrides(recipe, ["--sampler.offset", "2", "--sampler.batch-size", "5"])
    (batch,) = create_sampler(changed.sampler, *DATA, seed=0)
    assert len(batch) == 5
    assert {i % 3 for i in batch} == {2}
    changed.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == changed
    with pytest.raises(GloamError, match=r"sampler\.offset"):
        validate({**changed.model_dump(mode="json"), "sampler": {"name": every_third, "offset": 3}}, "mine")
    switched, _ = parse_overrides(tiny_recipe(tmp_path), ["--sampler.name", every_third, "--sampler.offset", "1"])
    assert switched.sampler.model_dump() == {
        "name": every_third, "offset": 1, "batch_size": 32, "partners": False, "iterations": None
    }  # fmt: skip


# --- what an earlier gloam saved: every sampler carried the same thirteen keys

OLD = {
    "identities": 8, "instances": 4, "batch_size": None, "draw": "with_replacement", "independent_modalities": False,
    "epoch_multiplier": 1, "extra_batch": True, "incomplete_ids": "fail", "infrared_share": 0.5, "use_cameras": True,
    "partners": False, "iterations": None,
}  # fmt: skip


@pytest.mark.parametrize("name", [*list_samplers(), *OLD_NAMES])
def test_a_saved_section_loads_with_what_acted(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = tiny_recipe(tmp_path).model_dump(mode="json")
    recipe = validate({**content, "sampler": {"name": name, **OLD}}, "old")
    assert recipe.sampler == get_sampler(OLD_NAMES.get(name, name)).Options()
    assert "never acted" not in caplog.text
    rich = validate({**content, "sampler": {"name": name, **OLD, "identities": 3, "instances": 6}}, "old").sampler
    # Where no identities are looked for, P x K was the number of rows.
    assert rich.model_dump().items() >= sized(OLD_NAMES.get(name, name), 3, 6).items()


def test_a_saved_option_that_never_acted_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = tiny_recipe(tmp_path).model_dump(mode="json")
    section = {"name": "modality_shuffle", **OLD, "identities": 2, "batch_size": 6, "use_cameras": False}
    assert validate({**content, "sampler": section}, "old").sampler.model_dump() == {
        "name": "modality_shuffle", "batch_size": 6, "partners": False, "iterations": None
    }  # fmt: skip
    assert "use_cameras: False never acted with sampler 'modality_shuffle'" in caplog.text
    del section["draw"]  # no gloam wrote that
    with pytest.raises(GloamError, match="is no option of sampler 'modality_shuffle'"):
        validate({**content, "sampler": section}, "mine")


def test_a_saved_stage_keeps_what_it_inherited(tmp_path: Path) -> None:
    content = tiny_recipe(tmp_path).model_dump(mode="json")
    content["sampler"] = {
        "name": "modality_shuffle",
        **OLD,
        "identities": 5,
        "batch_size": 6,
        "draw": "without_when_possible",
    }
    content["stages"] = {"first": {}, "second": {"sampler": {"name": "cross_modality_identity", "instances": 3}}}
    first, second = validate(content, "old").resolved_stages().values()
    assert first.sampler.model_dump().items() >= {"name": "modality_shuffle", "batch_size": 6}.items()
    assert (
        second.sampler.model_dump().items()
        >= {"identities": 5, "instances": 3, "draw": "without_when_possible"}.items()
    )


def test_handwritten_sections_in_the_old_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    content = tiny_recipe(tmp_path).model_dump(mode="json")
    recipe = validate({**content, "sampler": {"name": "shuffle", "identities": 4, "instances": 4}}, "mine")
    assert recipe.sampler.model_dump()["batch_size"] == 16
    assert validate({**content, "sampler": {"name": "norm_triplet", "use_cameras": True}}, "mine").sampler == (
        get_sampler("identity").Options()
    )
