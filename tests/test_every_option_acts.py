"""Every option of every method, sampler, augmentation, optimiser and schedule does something.

Options are read off the models, so a new one is tested as soon as it exists: set to another value it must change what
can be observed on fixed data (losses, labels, features and parameter groups; batches; images; weights; rates). What
acts only beside another option gets that in a ``..._WITH`` table. What cannot change anything stands in a ``..._IDLE``
table with the reason, and the test fails if it does change something after all, or is gone.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from gloam.augmentation.augmenter import Augmenter
from gloam.augmentation.config import AugmentConfig, ViewConfig, ViewOverrides
from gloam.batches.batch import Batch
from gloam.errors import GloamError
from gloam.methods import create_method, get_method, list_methods
from gloam.methods.contract import Method
from gloam.sampling.base import SamplerConfig, SamplerName, create_sampler
from gloam.training.optimizers import OptimizerConfig, create_optimizer, set_learning_rate
from gloam.training.schedule import ScheduleConfig, learning_rate_factor
from tests.methods.contract import MemoryContext
from tests.tiny_people import joined, second_views, tiny_people, visible_twice

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


# --- methods

# What makes a method small and quick to reach all its parts; everything else stays at its default.
METHOD_BASE: dict[str, Values] = {
    "cluster_contrast": {"k1": 6, "k2": 2, "min_samples": 2},
    "spcl": {"k1": 6, "k2": 2, "min_samples": 2},
    "metaprd": {"k1": 6, "k2": 2, "min_samples": 2, "eps": 0.5},
    "ddag": {"hidden": 8},
    "pf_mgcd": {"num_parts": 3, "feature_dim": 8, "warmup_epochs": 0, "top_k": 2},
    "wsl_vireid": {"weak_from_epoch": 0},
    "simsiam": {"hidden_dim": 16, "out_dim": 16, "predictor_dim": 8},
    "ntxent": {"hidden_dim": 16, "out_dim": 8},
    "mmgl": {"num_stripes": 3, "cl_dim": 8},
}


class Beside(dict[str, Any]):
    """Another value of an option that has to come with others."""


GCN: Values = {"gcn": True, "gcn_hidden": 4, "gcn_neighbours": 4, "gcn_sort_k": 10, "gcn_batch": 8}
# What an option needs beside it, and its own value to start from where the default says "off".
METHOD_WITH: dict[tuple[str, str], Values] = {
    ("agw", "margin"): {"triplet": "hard"},
    **{("agw", name): {"triplet": "adp"} for name in ("alpha", "gamma", "square")},
    **{("agw", name): {"consistency": "caj", "kl": 1.0} for name in ("consistency", "kl")},
    ("mmgl", "gumbel_samples"): {"gumbel_noise": 1.0},
    ("metaprd", "hsd_fallback"): {"eps": 0.4},
    **{("metaprd", name): GCN for name in get_method("metaprd").Options.model_fields if name.startswith("gcn_")},
    ("pf_mgcd", "lambda_adv"): {"lambda_adv": 0.5},
    ("wsl_vireid", "smoothing_neighbours"): {"smoothing": 0.9, "smoothing_from_epoch": 0},
    ("wsl_vireid", "smoothing_from_epoch"): {"smoothing": 0.9, "smoothing_from_epoch": 0},
    ("wsl_vireid", "smoothing"): {"smoothing": 0.9, "smoothing_from_epoch": 0},
}
# Other values than the types suggest; ``None`` as the method: of every method.
METHOD_OTHERS: dict[tuple[str | None, str], list[Any]] = {
    (None, "arch"): ["tiny_ibn_a"],
    (None, "nonlocal_blocks"): [(0, 0, 1, 0)],
    (None, "eps"): [0.2],
    (None, "k1"): [3],
    (None, "min_samples"): [3],
    (None, "width"): [8],
    ("spcl", "eps_gap"): [0.3],
    ("agw", "consistency"): ["weak_from_strong", "strong_from_weak", "all_from_strong"],
    ("cgrnet", "independent_stages"): [0],
    ("metaprd", "gcn"): [Beside(GCN)],
    ("metaprd", "gcn_labelled"): ["0,1;4,5"],
    ("metaprd", "gcn_sort_k"): [12],
    ("metaprd", "gcn_weight_decay"): [2.0],
    ("mmgl", "num_stripes"): [2],
    ("pf_mgcd", "num_parts"): [2],
    ("pf_mgcd", "style_hidden"): [5],
    ("ddag", "num_parts"): [2],
    ("wsl_vireid", "smoothing_from_epoch"): [6],
    ("wsl_vireid", "smoothing_neighbours"): [2],
    ("wsl_vireid", "temperature"): [0.1],
}
METHOD_IDLE: dict[tuple[str, str], str] = {
    ("mmgl", "report_every"): "says only how often the accuracy of recovered orders is logged",
}
EPOCHS = (0, 12)  # the first, and one at which everything that starts late has started
STAGES: dict[str, tuple[str, ...]] = {"wsl_vireid": ("experts", "collaboration")}


def _tiny(name: str, values: Values) -> Values:
    return {"arch": "tiny", **METHOD_BASE.get(name, {}), **values}


def _same_start(method: Method[Any]) -> None:
    """Weights that depend on nothing but their names and shapes: an option must act, not only disturb the draws."""
    for name, parameter in method.named_parameters():
        if parameter.dim() > 1:
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            with torch.no_grad():
                parameter.normal_(std=math.sqrt(2 / parameter[0].numel()), generator=generator)


def _batch(method: Method[Any], data: Batch, context: MemoryContext) -> Batch:
    """The rows that train, as the method's sampler and augmentation give them."""
    keep = context.labels >= 0
    batch = data.select(keep)
    batch.pids = context.labels[keep]
    if "agw" in type(method).__module__:
        return visible_twice(batch)
    if "contrastive_baselines" in type(method).__module__:
        return second_views(batch)
    if context.stage == "gcn_meta":
        return second_views(batch)
    if context.stage == "train" and getattr(method.options, "ppa", False):
        # The next image of the same label is the partner.
        order = batch.pids.argsort(stable=True)
        batch = batch.select(order)
        following = torch.arange(len(batch)).roll(-1)
        partners = torch.where(batch.pids[following] == batch.pids, following, following - 1)
        return joined(batch, batch.select(partners))
    return batch


def _stages(method: Method[Any], name: str) -> tuple[str, ...]:
    return ("gcn_meta", "gcn", "train") if getattr(method.options, "gcn", False) else STAGES.get(name, ("train",))


def play(name: str, values: Values) -> Trace:
    """Two epochs of two steps per stage: parameter groups, labels, losses, and the features at the end."""
    cls = get_method(name)
    if cls.is_cross_modal:
        data = tiny_people(ids=4, images=3, video=cls.is_video, noise=0.7)
    else:
        data = tiny_people(ids=5, images=6, both_modalities=False, noise=1.5)
    seen: Trace = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = create_method(name, 4, **_tiny(name, values))
        _same_start(method)
        for stage in _stages(method, name):
            method.train()
            method.start_stage(stage)
            groups = method.parameter_groups(0.05)
            seen.append([(sum(p.numel() for p in group["params"]), group["lr"]) for group in groups])
            optimizer = torch.optim.SGD(groups)
            labels = torch.arange(len(data)) if cls.is_unsupervised else data.pids.clone()
            for epoch in EPOCHS:
                torch.manual_seed(epoch)
                context = MemoryContext(method, data, epoch=epoch, num_epochs=EPOCHS[-1] + 1, stage=stage)
                context.labels = labels
                method.on_epoch_start(context)
                method.train()
                labels = context.labels
                seen.append(labels)
                batch = _batch(method, data, context)
                for _ in range(2):
                    loss = method.training_step(batch)["loss"]
                    seen.append(loss.item())
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    method.after_step()
        method.eval()
        with torch.no_grad():
            seen.append(method.extract(data.images, data.modalities))
    return seen


@functools.cache
def _played(name: str, values: tuple[tuple[str, Any], ...]) -> Trace:
    return play(name, dict(values))


def _method_options() -> list[tuple[str, str]]:
    return [(name, option) for name in list_methods() for option in get_method(name).Options.model_fields]


def _method_case(name: str, option: str) -> tuple[Values, Any, list[Any]]:
    """Companions, the value to start from, and the others."""
    field = get_method(name).Options.model_fields[option]
    base = dict(METHOD_WITH.get((name, option), {}))
    current = _tiny(name, base).get(option, field.default)
    given = METHOD_OTHERS.get((name, option), METHOD_OTHERS.get((None, option)))
    base.pop(option, None)
    return base, current, other_values(field.annotation, current, given)


def _needs_packages(name: str, others: list[Any]) -> None:
    if "contrastive_baselines" in get_method(name).__module__:
        pytest.importorskip("lightly")
    if "infomap" in others:
        pytest.importorskip("infomap")


@pytest.mark.parametrize(("name", "option"), [pytest.param(*case, id="-".join(case)) for case in _method_options()])
def test_options_of_methods(name: str, option: str) -> None:
    base, current, others = _method_case(name, option)
    _needs_packages(name, others)

    def trace(value: Any) -> Trace:
        values = {**base, **(value if isinstance(value, Beside) else {option: value})}
        # What is the value anyway need not be said: the plain method is then played once for all of its options.
        known = {key: field.default for key, field in get_method(name).Options.model_fields.items()} | _tiny(name, {})
        return _played(name, tuple(sorted((key, kept) for key, kept in values.items() if kept != known[key])))

    if (name, option) in METHOD_IDLE:
        assert all(alike(trace(value), trace(current)) for value in others), "it does act: remove it from METHOD_IDLE"
    else:
        assert_all_differ(trace, current, others)


@pytest.mark.parametrize("name", list_methods())
def test_methods_are_played_alike_twice(name: str) -> None:
    """Without this a difference would say nothing."""
    _needs_packages(name, [])
    assert alike(play(name, {}), _played(name, ()))


def test_tables_of_methods_name_options_that_exist() -> None:
    known = set(_method_options())
    for table in (METHOD_WITH, METHOD_IDLE):
        assert set(table) <= known
    options = {option for _, option in known}
    assert all(option in options if name is None else (name, option) in known for name, option in METHOD_OTHERS)


# --- samplers

SAMPLER_BASE: Values = {"identities": 3, "instances": 4}
SAMPLER_OTHERS: dict[str, list[Any]] = {"batch_size": [5], "iterations": [9], "instances": [6]}
# Options that only some samplers have; the others must leave them alone.
SAMPLERS_WITH: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("draw", "independent_modalities", "epoch_multiplier", "extra_batch", "incomplete_ids"),
        ("cross_modality_identity",),
    ),
    "batch_size": ("modality_shuffle", "shuffle", "cross_modality_random"),
    "infrared_share": ("cross_modality_triplet",),
    "use_cameras": ("camera_identity",),
}


def sampler_cases() -> Iterator[tuple[str, str, Any, list[Any]]]:
    """Sampler, option, its value in these tests, and other values."""
    for name in get_args(SamplerName):
        for option, field in SamplerConfig.model_fields.items():
            if option != "name":
                current = SAMPLER_BASE.get(option, field.default)
                yield name, option, current, other_values(field.annotation, current, SAMPLER_OTHERS.get(option))


def _drawn(name: str, values: Values) -> Trace:
    """All batches of two epochs; identities of different sizes, some smaller than a batch wants."""
    sizes = [(7, 5), (6, 2), (3, 9), (5, 5), (8, 3)] + [(4, 0)] * ("incomplete_ids" in values)
    labels = np.concatenate([np.full(sum(size), number) for number, size in enumerate(sizes)])
    modalities = np.concatenate([np.repeat([0, 1], size) for size in sizes])
    config = SamplerConfig(name=name, **{**SAMPLER_BASE, **values})  # type: ignore[arg-type]
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
    if name not in SAMPLERS_WITH.get(option, (name,)):
        assert all(_drawn(name, {option: value}) == _drawn(name, {option: current}) for value in others)
    else:
        assert_all_differ(lambda value: _drawn(name, {option: value}), current, others)


def test_table_of_samplers_names_options_that_exist() -> None:
    assert set(SAMPLERS_WITH) | set(SAMPLER_OTHERS) <= set(SamplerConfig.model_fields)
    assert {name for names in SAMPLERS_WITH.values() for name in names} <= set(get_args(SamplerName))


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
OPTIMIZER_IDLE: dict[tuple[str, str], str] = {
    **{("sgd", option): "a number of adam and adamw" for option in ("betas", "eps")},
    **{(name, option): "a number of sgd" for name in ("adam", "adamw") for option in ("momentum", "nesterov")},
}
SCHEDULE_BASE: Values = {"milestones": (6, 11), "warmup_epochs": 3}
SCHEDULE_OTHERS: dict[str, list[Any]] = {
    "milestones": [(6, 12)],
    "length": [9],
    "warmup_start": [0.2],
    "minimum": [0.1],
}
_OF_SHAPES = {
    "milestones": ("multistep",),
    "step_size": ("step",),
    "gamma": ("multistep", "step"),
    "length": ("cosine",),
    "minimum": ("cosine",),
}
SCHEDULE_IDLE: dict[tuple[str, str], str] = {
    (shape, option): f"a number of {' and '.join(owners)}"
    for option, owners in _OF_SHAPES.items()
    for shape in get_args(ScheduleConfig.model_fields["name"].annotation)
    if shape not in owners
}


def _optimised(values: Values) -> Trace:
    """Two weights in groups of their own after four steps, the second group at a tenth of the rate."""
    config = OptimizerConfig(**values)
    weights = [torch.nn.Parameter(torch.tensor([0.7, -0.4], dtype=torch.float64)) for _ in range(2)]
    groups = [{"params": [w], "lr": rate * config.lr} for w, rate in zip(weights, (1, 0.1), strict=True)]
    optimizer = create_optimizer(config, groups)
    set_learning_rate(optimizer, 0.5)
    for step in range(4):
        for weight in weights:
            weight.grad = torch.tensor([math.cos(step), 1.0], dtype=torch.float64) + 0.3 * weight.detach()
        optimizer.step()
    return [w.detach() for w in weights]


def _rates(values: Values) -> Trace:
    config = ScheduleConfig(**{**SCHEDULE_BASE, **values})
    return [learning_rate_factor(config, epoch, 45) for epoch in range(45)]


def _named_cases(model: type[BaseModel]) -> list[Any]:
    """A kind (the literal ``name`` of a model) and an option; the kind itself is an option too."""
    kinds = get_args(model.model_fields["name"].annotation)
    return [pytest.param(kind, option, id=f"{kind}-{option}") for kind in kinds for option in model.model_fields]


def _check_named(
    model: type[BaseModel],
    kind: str,
    option: str,
    base: Values,
    given: dict[str, list[Any]],
    idle: dict[tuple[str, str], str],
    observe: Callable[[Values], Trace],
) -> None:
    field = model.model_fields[option]
    current = kind if option == "name" else base.get(option, field.default)
    others = other_values(field.annotation, current, given.get(option))

    def trace(value: Any) -> Trace:
        return observe({"name": kind, option: value})

    if (kind, option) in idle:
        assert all(alike(trace(value), trace(current)) for value in others), "it does act: remove it from the table"
    else:
        assert_all_differ(trace, current, others)


@pytest.mark.parametrize(("kind", "option"), _named_cases(OptimizerConfig))
def test_options_of_optimisers(kind: str, option: str) -> None:
    _check_named(OptimizerConfig, kind, option, {}, OPTIMIZER_OTHERS, OPTIMIZER_IDLE, _optimised)


@pytest.mark.parametrize(("kind", "option"), _named_cases(ScheduleConfig))
def test_options_of_schedules(kind: str, option: str) -> None:
    _check_named(ScheduleConfig, kind, option, SCHEDULE_BASE, SCHEDULE_OTHERS, SCHEDULE_IDLE, _rates)


def test_other_tables_name_options_that_exist() -> None:
    for model, tables in (
        (OptimizerConfig, (OPTIMIZER_IDLE, OPTIMIZER_OTHERS)),
        (ScheduleConfig, (SCHEDULE_IDLE, SCHEDULE_OTHERS, _OF_SHAPES, SCHEDULE_BASE)),
        (AugmentConfig, (AUGMENT_BASE, VIEW_OTHERS, VIEW_WITH)),
    ):
        options = {key[1] if isinstance(key, tuple) else key for table in tables for key in table}
        assert options <= set(model.model_fields)
