"""Every option of every sampler, augmentation, optimiser and schedule acts (methods: methods/test_options.py).

Options are read off the models, so a new one is tested as soon as it exists: set to another value it must change what
can be observed on fixed data (losses, labels, features and parameter groups; batches; images; weights; rates). What
acts only beside another option gets that in a ``..._WITH`` table; what cannot act is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from gloam.augmentation.augmenter import Augmenter
from gloam.augmentation.config import AugmentConfig, ViewConfig, ViewOverrides
from gloam.batches.batch import Batch
from gloam.errors import GloamError
from gloam.options import Options
from gloam.sampling import create_sampler, get_sampler, list_samplers, sampler_options
from gloam.training.optimizers import OptimizerConfig, create_optimizer, set_learning_rate
from gloam.training.schedule import ScheduleConfig, learning_rate_factor

Values = dict[str, Any]
Trace = list[Any]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors this small are slower on several threads, and much slower where other work competes for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def other_values(annotation: Any, current: Any, given: list[Any] | None) -> list[Any]:
    """Values of an option besides the current one: those of a table, or what its type suggests."""
    if given is not None:
        return given
    if isinstance(current, bool):
        return [not current]
    if get_origin(annotation) is Literal:
        return [value for value in get_args(annotation) if value != current]
    if isinstance(current, int):
        return [current + 1]
    if isinstance(current, float):
        return [current / 2 if current else 0.5]
    raise AssertionError(f"Another value than {current!r} cannot be guessed: name one in the table of other values.")


def alike(first: Any, second: Any) -> bool:
    """Equal up to rounding; a change of rounding is no effect."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.shape != second.shape:
            return False
        return torch.allclose(first.double(), second.double(), rtol=1e-6, atol=1e-9)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(alike(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)
    return bool(first == second)


def assert_all_differ(trace: Callable[[Any], Trace], current: Any, others: list[Any]) -> None:
    """Every value of an option leaves another trace, also among the other values."""
    found: list[tuple[Any, Trace]] = []
    for value in [current, *others]:
        own = trace(value)
        for earlier, seen in found:
            assert not alike(own, seen), f"{value!r} changes nothing against {earlier!r}"
        found.append((value, own))


# --- samplers

SAMPLER_BASE: Values = {"identities": 3, "instances": 4, "batch_size": 8}
SAMPLER_OTHERS: dict[str, list[Any]] = {"batch_size": [6], "iterations": [9], "instances": [6]}


def sampler_cases() -> Iterator[tuple[str, str, Any, list[Any]]]:
    """Sampler, option, its value in these tests, and other values."""
    for name in list_samplers():
        for option, field in get_sampler(name).Options.model_fields.items():
            if option != "name":
                current = SAMPLER_BASE.get(option, field.default)
                yield name, option, current, other_values(field.annotation, current, SAMPLER_OTHERS.get(option))


def _drawn(name: str, values: Values) -> Trace:
    """All batches of two epochs; identities of different sizes, some smaller than a batch wants."""
    sizes = [(7, 5), (6, 2), (3, 9), (5, 5), (8, 3)] + [(4, 0)] * ("incomplete_ids" in values)
    labels = np.concatenate([np.full(sum(size), number) for number, size in enumerate(sizes)])
    modalities = np.concatenate([np.repeat([0, 1], size) for size in sizes])
    known = get_sampler(name).Options.model_fields
    config = sampler_options({"name": name, **{k: v for k, v in SAMPLER_BASE.items() if k in known}, **values})
    try:
        sampler = create_sampler(config, labels, modalities, np.arange(len(labels)) % 3, seed=0)
        batches = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            batches.append(list(sampler))
        return batches
    except GloamError:
        if "incomplete_ids" in values:  # an identity that lacks a modality is refused, or left out
            return ["refused"]
        raise


@pytest.mark.parametrize(
    ("name", "option", "current", "others"),
    [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in sampler_cases()],
)
def test_options_of_samplers(name: str, option: str, current: Any, others: list[Any]) -> None:
    assert_all_differ(lambda value: _drawn(name, {option: value}), current, others)


# --- augmentation

# Every step is on, so that each of its numbers can act.
VIEW_BASE: Values = {
    "weighted_grey": 0.4,
    "random_grey": 0.3,
    "pad": 3,
    "flip": 0.5,
    "style_jitter": True,
    "erase": 0.9,
    "erase_area": (0.2, 0.9),
    "channels": "exchange",
    "style": "one",
}
AUGMENT_BASE: Values = {**VIEW_BASE, "visible_views": 2, "infrared_views": 2}
ROWS = 60  # so many that every probability decides some
VIEW_OTHERS: dict[str, list[Any]] = {
    "erase_area": [(0.05, 0.1)],
    "erase_aspect": [(0.9, 1.1)],
    "erase_tries": [1],
    "grey_probability": [0.02],
    "erase_fill": [(0.0, 1.0, 2.0)],
    "style_range": [(0.9, 1.1)],
}
VIEW_WITH: dict[str, Values] = {"grey_probability": {"channels": "adaptive_grey"}}
SECTIONS = tuple(name for name, f in AugmentConfig.model_fields.items() if f.annotation is ViewOverrides)


def _augmented(values: Values) -> Trace:
    """A batch of noise in both modalities, as a training batch."""
    images = torch.randint(256, (ROWS, 3, 16, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rows = torch.arange(ROWS)
    batch = Batch(images, rows, rows, rows % 2, rows, torch.zeros_like(rows))
    made = Augmenter(AugmentConfig(**{**AUGMENT_BASE, **values}))(batch, torch.Generator().manual_seed(1))
    return [made.images, made.pids, made.modalities, made.views]


def _view_case(option: str, current: Any) -> list[Any]:
    return other_values(ViewConfig.model_fields[option].annotation, current, VIEW_OTHERS.get(option))


@pytest.mark.parametrize("option", [name for name in AugmentConfig.model_fields if name not in SECTIONS])
def test_options_of_the_augmentation(option: str) -> None:
    base = VIEW_WITH.get(option, {})
    current = {**AUGMENT_BASE, **base}.get(option, AugmentConfig.model_fields[option].default)
    annotation = AugmentConfig.model_fields[option].annotation
    others = other_values(annotation, current, VIEW_OTHERS.get(option))
    assert_all_differ(lambda value: _augmented({**base, option: value}), current, others)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("option", ViewOverrides.model_fields)
def test_options_of_one_modality_or_view(section: str, option: str) -> None:
    assert set(ViewOverrides.model_fields) == set(ViewConfig.model_fields)
    base = VIEW_WITH.get(option, {})
    own = {**VIEW_BASE, **base}.get(option, ViewConfig.model_fields[option].default)
    others = _view_case(option, own)
    plain = _augmented({section: base})
    for value in others:
        changed = _augmented({section: {**base, option: value}})
        assert not alike(changed, plain), f"{value!r} changes nothing"
        # Nor does it reach other rows than those of its modality and view.
        modality, second = int("infrared" in section), section.startswith("second_")
        concerned = (plain[2] == modality) & ((plain[3] == 1) | (not second))
        assert alike(changed[0][~concerned], plain[0][~concerned])


# --- optimisers and schedules

OPTIMIZER_OTHERS: dict[str, list[Any]] = {"betas": [(0.5, 0.9)], "eps": [0.1]}
SCHEDULE_BASE: Values = {"milestones": (6, 11), "warmup_epochs": 3}
SCHEDULE_OTHERS: dict[str, list[Any]] = {
    "milestones": [(6, 12)],
    "length": [9],
    "warmup_start": [0.2],
    "minimum": [0.1],
}
# Names that are built in; what timm or a package brings has its own tests.
OPTIMIZERS, SCHEDULES = ("sgd", "adam", "adamw"), ("multistep", "step", "cosine", "constant")


def _optimised(values: Values) -> Trace:
    """Two weights in groups of their own after four steps, the second group at a tenth of the rate."""
    config = OptimizerConfig(**values)
    weights = [torch.nn.Parameter(torch.tensor([0.7, -0.4], dtype=torch.float64)) for _ in range(2)]
    groups = [{"params": [w], "lr": rate * config.lr} for w, rate in zip(weights, (1, 0.1), strict=True)]
    optimizer = create_optimizer(config, groups, [[[weights[1]], []]])
    set_learning_rate(optimizer, 0.5)
    for step in range(4):
        for weight in weights:
            weight.grad = torch.tensor([math.cos(step), 1.0], dtype=torch.float64) + 0.3 * weight.detach()
        optimizer.step()
    return [w.detach() for w in weights]


def _rates(values: Values) -> Trace:
    base = {key: value for key, value in SCHEDULE_BASE.items() if _reads(ScheduleConfig, values["name"], key)}
    config = ScheduleConfig(**{**base, **values})
    return [learning_rate_factor(config, epoch, 45) for epoch in range(45)]


def _reads(model: type[Options], kind: str, option: str) -> bool:
    """Whether a kind reads an option: the model refuses those that it does not."""
    other, idle = model.idle_when.get(option, ("", ()))
    return other != "name" or kind not in idle


def _named_cases(model: type[Options], kinds: tuple[str, ...]) -> list[Any]:
    """A kind and an option; the kind itself is an option too."""
    options = [option for option in model.model_fields if option != "options"]  # of timm's and of registered ones
    return [pytest.param(kind, option, id=f"{kind}-{option}") for kind in kinds for option in options]


def _check_named(
    model: type[Options],
    kinds: tuple[str, ...],
    kind: str,
    option: str,
    base: Values,
    given: dict[str, list[Any]],
    observe: Callable[[Values], Trace],
) -> None:
    """An option that a kind reads acts; one that it does not read is refused."""
    field = model.model_fields[option]
    current = kind if option == "name" else base.get(option, field.default)
    others = (
        [k for k in kinds if k != kind]
        if option == "name"
        else other_values(field.annotation, current, given.get(option))
    )
    if _reads(model, kind, option):
        assert_all_differ(lambda value: observe({"name": kind, option: value}), current, others)
        return
    for value in others:
        with pytest.raises(ValidationError, match=f"{option} does nothing"):
            model(name=kind, **{option: value})  # type: ignore[call-arg]


@pytest.mark.parametrize(("kind", "option"), _named_cases(OptimizerConfig, OPTIMIZERS))
def test_options_of_optimisers(kind: str, option: str) -> None:
    _check_named(OptimizerConfig, OPTIMIZERS, kind, option, {}, OPTIMIZER_OTHERS, _optimised)


@pytest.mark.parametrize(("kind", "option"), _named_cases(ScheduleConfig, SCHEDULES))
def test_options_of_schedules(kind: str, option: str) -> None:
    _check_named(ScheduleConfig, SCHEDULES, kind, option, SCHEDULE_BASE, SCHEDULE_OTHERS, _rates)


def test_other_tables_name_options_that_exist() -> None:
    for model, tables in (
        (OptimizerConfig, (OPTIMIZER_OTHERS,)),
        (ScheduleConfig, (SCHEDULE_OTHERS, SCHEDULE_BASE)),
        (AugmentConfig, (AUGMENT_BASE, VIEW_OTHERS, VIEW_WITH)),
    ):
        options = {key for table in tables for key in table}
        assert options <= set(model.model_fields)
