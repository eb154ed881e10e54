"""Every number of a recipe has a range in its model."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from gloam.datasets import get_dataset, list_datasets
from gloam.errors import GloamError
from gloam.methods import get_method, list_methods
from gloam.methods.contract import create_options
from gloam.recipes.recipe import Recipe, dataset_options, validate
from gloam.sampling import get_sampler, list_samplers
from tests.training.tiny import tiny_recipe

HUGE: list[Any] = [float("inf"), float("-inf"), float("nan"), 1e308, -1e308, 10**20, -(10**20), "9" * 5000]


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types in an annotation, those inside tuples and optionals too."""
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif hasattr(annotation, "__metadata__"):
        yield from _kinds(annotation.__origin__)
    else:
        yield annotation


def _numbers(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return [
        (name, field)
        for name, field in model.model_fields.items()
        if any(kind in (int, float) for kind in _kinds(field.annotation))
    ]


def _sections() -> Iterator[tuple[str, str, FieldInfo]]:
    for section, field in Recipe.model_fields.items():
        for kind in _kinds(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel) and section not in ("sampler", "expected"):
                yield from ((section, name, option) for name, option in _numbers(kind))


def _filled(field: FieldInfo, value: Any) -> Any:
    """The value, or as many of it as the field holds."""
    inner = next((a for a in (field.annotation, *get_args(field.annotation)) if get_origin(a) is tuple), None)
    return value if inner is None else [value] * max(1, len([a for a in get_args(inner) if a is not ...]))


@pytest.mark.parametrize(
    ("section", "name", "field"), list(_sections()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_no_section_takes_what_is_out_of_all_measure(section: str, name: str, field: FieldInfo) -> None:
    content = tiny_recipe(Path("x"), trains_on={"images": 3, "identities": 2, "source": "me"}).model_dump(mode="json")
    for value in HUGE:
        if section == "trains_on" and value == 10**20:
            continue  # a count of what exists; nothing is made of it
        with pytest.raises(GloamError, match=f"{section}.*{name}"):
            validate({**content, section: {**content[section], name: _filled(field, value)}}, "mine")


@pytest.mark.parametrize("name", list_samplers())
def test_no_sampler_does(name: str) -> None:
    model = get_sampler(name).Options
    for option, field in _numbers(model):
        for value in HUGE:
            with pytest.raises(ValidationError, match=option):
                model(**{option: _filled(field, value)})


@pytest.mark.parametrize("name", list_methods())
def test_no_method_does(name: str) -> None:
    cls = get_method(name)
    for option, field in _numbers(cls.Options):
        for value in HUGE:
            with pytest.raises(GloamError, match=option):
                create_options(cls, {option: _filled(field, value)})


@pytest.mark.parametrize("name", list_datasets())
def test_no_dataset_does(name: str) -> None:
    for option, declared in get_dataset(name).options.items():
        if isinstance(declared.default, int | float) and not isinstance(declared.default, bool):
            for value in HUGE:
                with pytest.raises(GloamError, match=option):
                    dataset_options(name, {option: value})
