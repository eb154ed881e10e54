"""Every option of every method acts, and what acts only together with another option is refused without it.

Two directions on fixed data and fixed initial weights: an option set to another value changes a number of training
(losses, labels, features, parameter groups); an option that is refused as idle changes none.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args, get_origin

import pytest
import torch

from gloam.batches.batch import Batch
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint, restore_method
from gloam.methods import create_method, get_method, list_methods
from gloam.methods.contract import Method, MethodOptions
from gloam.methods.contrastive_baselines import TwoViewMethod
from gloam.recipes.recipe import load_recipe, resolve
from tests.methods.contract import MemoryContext, people, with_views

# A small network and little data for each method; everything else is the method's default.
CLUSTERS = {"k1": 5, "k2": 2, "min_samples": 2}
BASE: dict[str, dict[str, Any]] = {
    "cluster_contrast": CLUSTERS,
    "spcl": CLUSTERS,
    "metaprd": {**CLUSTERS, "eps": 0.6},
    "ddag": {"hidden": 8},
    "pf_mgcd": {"num_parts": 2, "feature_dim": 8, "warmup_epochs": 0, "top_k": 2},
    "wsl_vireid": {"weak_from_epoch": 0},
    "simsiam": {"hidden_dim": 16, "out_dim": 16, "predictor_dim": 8},
    "ntxent": {"hidden_dim": 16, "out_dim": 8},
    "mmgl": {"num_stripes": 3, "cl_dim": 8},
}
# Options whose other value is not found by the rules of `_others`.
OTHERS: dict[str, list[Any]] = {
    "arch": ["tiny_ibn_a"],
    "nonlocal_blocks": [(0, 1, 0, 0)],
    "style_hidden": [5],
    "gcn_labelled": ["0,1;8,9"],
    "gcn_sort_k": [12],
    "num_stripes": [2],
    "num_parts": [3],
    "eps": [0.3],
    "eps_gap": [0.2],
    "k1": [3],
    "k2": [1],
    "min_samples": [1],
    "gcn_batch": [4],
    "report_every": [1],
    "warmup_epochs": [1],
    "weak_from_epoch": [1],
    "smoothing_from_epoch": [0],
    "smoothing_neighbours": [2],
    "smoothing": [0.3],
    "top_k": [1],
}
# Names that a package may register stand beside those built in (tests/plugins trains with one).
OTHERS_OF: dict[tuple[str, str], list[Any]] = {
    ("base", "triplet"): ["soft_margin_triplet"],
    ("agw", "triplet"): ["hard", "adp", "soft_margin_triplet"],
    ("wsl_vireid", "temperature"): [0.1],
}
# What an option needs beside it: the other half of a pair that acts together, or its absence from BASE.
WITH: dict[tuple[str, str], dict[str, Any]] = {
    ("cgrnet", "independent_stages"): {"graph": False},
    ("cluster_contrast", "clustering"): {"k2": 6},
    **{(name, "min_samples"): {"eps": 0.1} for name in ("cluster_contrast", "spcl", "metaprd")},
    ("ddag", "graph"): {"hidden": 512},
    ("mmgl", "pcc"): {"cl_dim": 256},
    ("wsl_vireid", "supervision"): {"weak_from_epoch": 30},
    ("wsl_vireid", "weak_weight"): {},
    **{(name, "center_lr"): {"weight_center": 0.1} for name in ("base", "agw")},
    ("agw", "nonlocal_width"): {},
    ("agw", "margin"): {"triplet": "hard"},
    ("agw", "alpha"): {"triplet": "adp"},
    ("agw", "gamma"): {"triplet": "adp"},
    ("agw", "square"): {"triplet": "adp"},
    ("agw", "consistency"): {"kl": 1.0},
    ("agw", "kl"): {"consistency": "caj"},
    ("mmgl", "gumbel_samples"): {"gumbel_noise": 1.0},
    ("metaprd", "hsd_fallback"): {},
    ("pf_mgcd", "top_k"): {},
    ("wsl_vireid", "smoothing"): {"smoothing_from_epoch": 0},
    ("wsl_vireid", "temperature"): {"smoothing": 0.9, "smoothing_from_epoch": 0},
    ("wsl_vireid", "smoothing_neighbours"): {"smoothing": 0.9, "smoothing_from_epoch": 0},
    ("wsl_vireid", "smoothing_from_epoch"): {"smoothing": 0.9},
    **{("metaprd", f"gcn_{name}"): {"gcn": True} for name in (
        "neighbours", "hidden", "sort_k", "inner_steps", "inner_lr", "weight_decay", "reptile_eps", "meta_eps",
        "labelled", "batch",
    )},
}  # fmt: skip
# (method, options) -> what makes each of them idle, once per condition.
TIMM = {"arch": "timm:test_vit"}
NO_MEMORY = {"lambda_graph": 0.0, "match": False, "warmup_epochs": 10, "top_k": 5}
NO_WEAK = {"supervision": "baseline", "weak_from_epoch": 30}
IDLE: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {
    ("base", ("last_stride",)): [TIMM],
    ("base", ("margin",)): [{"triplet": "soft_margin_triplet"}],
    **{(name, ("center_lr",)): [{}] for name in ("base", "agw")},
    ("agw", ("last_stride", "nonlocal_blocks")): [TIMM],
    ("agw", ("nonlocal_width",)): [{"nonlocal_blocks": (0, 0, 0, 0)}, TIMM],
    ("agw", ("wrt",)): [{"triplet": "hard"}],
    ("agw", ("margin",)): [{}, {"triplet": "adp"}],
    ("agw", ("alpha", "gamma", "square")): [{}, {"triplet": "hard"}],
    ("agw", ("consistency", "kl")): [{}],
    ("ddag", ("last_stride",)): [TIMM],
    ("ddag", ("num_parts",)): [{"wpa": False}],
    ("ddag", ("heads", "hidden", "dropout", "slope")): [{"graph": False, "hidden": 512}],
    ("cgrnet", ("similarity_loss_weight", "similarity_energy_scale")): [{"similarity": False}],
    ("cgrnet", ("graph_fusion",)): [{"graph": False}],
    ("cgrnet", ("independent_stages",)): [{"similarity": False, "graph": False, "streams": 1}],
    ("m3reid", ("last_stride",)): [{**TIMM, "nonlocal_blocks": (0, 0, 0, 0)}],
    ("m3reid", ("nonlocal_reduction",)): [{"nonlocal_blocks": (0, 0, 0, 0)}],
    ("m3reid", ("weight_diversity",)): [{"heads": 1}],
    ("cluster_contrast", ("k2",)): [{"clustering": "infomap", "k2": 6}],
    ("metaprd", ("hsd_alpha", "hsd_negative_weight")): [{"hsd": False}],
    ("metaprd", ("hsd_positive",)): [{"hsd": False}, {"hsd_alpha": 0.0}],
    ("metaprd", ("hsd_fallback",)): [{"hsd": False, "ppa": False}],
    ("metaprd", ("ppa_weight",)): [{"ppa": False}],
    ("metaprd", ("ppa_rate", "ppa_temperature")): [{"ppa": False}],
    ("metaprd", tuple(n for n in get_method("metaprd").Options.model_fields if n.startswith("gcn_"))): [{}],
    ("mmgl", ("sinkhorn_iterations", "sinkhorn_temperature", "gumbel_noise", "permutation_loss", "report_every")): [
        {"permutation": False}
    ],
    ("mmgl", ("gumbel_samples",)): [{}, {"permutation": False}],
    ("mmgl", ("cl_weight",)): [{"pcc": False, "cl_dim": 256}],
    ("mmgl", ("part", "cl_temp", "cl_dim", "pcc_scope", "pcc_negatives", "pcc_center")): [
        {"pcc": False, "cl_dim": 256}
    ],
    ("mmgl", ("shared_projection",)): [{"pcc": False, "cl_dim": 256}, {"part": False}],
    ("mmgl", ("pcc_target",)): [{"pcc": False, "cl_dim": 256}, {"part": False}],
    ("pf_mgcd", ("id_pool",)): [{"isg": "readme-v0"}, {"isg": "attention-v2"}, {"isg": "residual-v3"}],
    ("pf_mgcd", ("style_hidden",)): [{"isg": "attention-v2"}],
    ("pf_mgcd", ("pool_parts",)): [{"num_parts": 1}],
    (
        "pf_mgcd",
        ("memory_momentum", "init_memory", "teacher", "top_k", "temperature", "sim_scale", "warmup_epochs"),
    ): [NO_MEMORY, {**NO_MEMORY, "relabel": False, "match": True}],
    ("pf_mgcd", ("temperature", "sim_scale")): [{"top_k": 1}],
    ("wsl_vireid", ("stem_relu",)): [{"arch": "timm:test_resnet"}],
    (
        "wsl_vireid",
        (
            *("weak_weight", "sigma", "temperature", "relation_rule", "extract_stem", "matcher", "strong_weight"),
            *("smoothing", "weak_from_epoch"),
        ),
    ): [NO_WEAK, {**NO_WEAK, "supervision": "supervised"}],
    ("wsl_vireid", ("temperature", "smoothing")): [{"matcher": "sinkhorn"}],
    ("wsl_vireid", ("smoothing",)): [{"smoothing_neighbours": 1}],
    ("wsl_vireid", ("smoothing_neighbours", "smoothing_from_epoch")): [{}],
}
# Idle options whose numbers are equal up to rounding only: a mean of equal samples, a vector normalised once more.
ROUNDED = {("mmgl", "gumbel_samples"), ("mmgl", "pcc_target")}


def _options(name: str, values: dict[str, Any]) -> dict[str, Any]:
    return {"arch": "tiny", **BASE.get(name, {}), **values}


def _others(name: str, option: str) -> list[Any]:
    """Other values of an option than the one it has."""
    field = get_method(name).Options.model_fields[option]
    current = _options(name, WITH.get((name, option), {})).get(option, field.default)
    if (name, option) in OTHERS_OF:
        return OTHERS_OF[name, option]
    if option in OTHERS:
        return [value for value in OTHERS[option] if value != current]
    if isinstance(current, bool):
        return [not current]
    if get_origin(field.annotation) is Literal:
        return [value for value in get_args(field.annotation) if value != current]
    if isinstance(current, int):
        return [current + 1]
    assert isinstance(current, float), option
    return [current / 2 if current else 0.5]


# Noise that makes clusters change and experts disagree: (strength, seed) of each data set that is played.
NOISE = {"metaprd": [(1, 1)], "wsl_vireid": [(1, 1), (3, 2), (2, 5), (4, 7)]}


def _data(name: str) -> list[Batch]:
    method = get_method(name)
    found = []
    for strength, seed in NOISE.get(name, [(0, 0)]):
        data = people(video=method.is_video, both_modalities=method.is_cross_modal)
        images = data.images[..., ::2, :32]
        data.images = images + strength * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
        found.append(data)
    return found


def training_batch(method: Method[Any], data: Batch, context: MemoryContext) -> Batch:
    """What the method's sampler and augmentation make of the data: labelled rows, second views, partners."""
    keep = context.labels >= 0
    batch = data.select(keep)
    batch.pids = context.labels[keep]
    stage = context.stage
    if getattr(method.options, "consistency", "none") != "none" and method.options.kl:
        visible = batch.select(batch.modalities == Modality.VISIBLE)
        second = dataclasses.replace(visible, images=visible.images.flip(1), views=torch.ones_like(visible.views))
        batch = _joined(batch, second)
    if getattr(method.options, "ppa", False) and stage == "train":
        # The next image of the same label.
        order = torch.argsort(batch.pids, stable=True)
        batch = batch.select(order)
        partner = torch.arange(len(batch)).roll(-1)
        partner = torch.where(batch.pids[partner] == batch.pids, partner, torch.arange(len(batch)))
        batch = _joined(batch, batch.select(partner))
    if stage == "gcn_meta":
        batch = _joined(batch, dataclasses.replace(batch, images=batch.images + 0.1 * batch.images.flip(3)))
    return with_views(method, batch) if isinstance(method, TwoViewMethod) else batch


def _joined(first: Batch, second: Batch) -> Batch:
    pairs = {f.name: (getattr(first, f.name), getattr(second, f.name)) for f in dataclasses.fields(Batch)}
    return Batch(**{name: torch.cat(pair) for name, pair in pairs.items()})


def _stages(name: str, options: MethodOptions) -> list[str]:
    if getattr(options, "gcn", False):
        return ["gcn_meta", "gcn", "train"]
    return ["experts", "collaboration"] if name == "wsl_vireid" else ["train"]


class Groups(tuple[Any, ...]):
    """What an optimiser was given."""


def play(name: str, options: MethodOptions) -> list[Any]:
    """Every number of two short epochs per stage, and the features at the end."""
    return [number for data in _data(name) for number in _play(name, options, data)]


def _play(name: str, options: MethodOptions, data: Batch) -> list[Any]:
    seen: list[Any] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = get_method(name)(4, options)
        for stage in _stages(name, options):
            method.train()
            method.start_stage(stage)
            groups = method.parameter_groups(0.05)
            seen.append(Groups((len(group["params"]), group["lr"]) for group in groups))
            optimizer = torch.optim.SGD(groups, lr=0.05)
            labels = torch.arange(len(data)) if method.is_unsupervised else data.pids.clone()
            for epoch in (0, 11):  # ramps and delays of the defaults end at epoch 10
                context = MemoryContext(method, data, epoch=epoch, num_epochs=20, stage=stage)
                context.labels = labels
                torch.manual_seed(epoch)
                method.on_epoch_start(context)
                method.train()
                labels = context.labels
                seen += [labels.tolist(), context.logged]
                batch = training_batch(method, data, context)
                for _ in range(2):
                    outputs = method.training_step(batch)
                    seen.append({key: value.item() for key, value in outputs.items()})
                    optimizer.zero_grad()
                    outputs["loss"].backward()
                    optimizer.step()
                    method.after_step()
                method.on_epoch_end(context)
        method.eval()
        with torch.no_grad():
            seen.append(method.extract(data.images, data.modalities).tolist())
    return seen


_played: dict[tuple[str, str], list[Any]] = {}


def _reference(name: str, values: dict[str, Any]) -> list[Any]:
    key = (name, repr(sorted(values.items())))
    if key not in _played:
        _played[key] = play(name, get_method(name).Options(**values))
    return _played[key]


def _cases() -> list[Any]:
    return [
        pytest.param(name, option, value, id=f"{name}-{option}-{value}")
        for name in list_methods()
        for option in get_method(name).Options.model_fields
        for value in _others(name, option)
    ]


def _needs_packages(name: str) -> None:
    if issubclass(get_method(name), TwoViewMethod):
        pytest.importorskip("lightly")


@pytest.mark.parametrize(("name", "option", "value"), _cases())
def test_every_option_changes_a_number_of_training(name: str, option: str, value: Any) -> None:
    _needs_packages(name)
    if (option, value) == ("clustering", "infomap"):
        pytest.importorskip("infomap")
    values = _options(name, WITH.get((name, option), {}))
    options = get_method(name).Options(**{**values, option: value})
    options.refuse_idle()
    assert play(name, options) != _reference(name, values)


def _idle_cases() -> list[Any]:
    return [
        pytest.param(name, option, value, without, id=f"{name}-{option}-{value}-{number}")
        for (name, options), contexts in IDLE.items()
        for option in options
        for number, without in enumerate(contexts)
        for value in _others(name, option)[:1]
    ]


@pytest.mark.parametrize(("name", "option", "value", "without"), _idle_cases())
def test_an_option_that_is_refused_changes_no_number(
    name: str, option: str, value: Any, without: dict[str, Any]
) -> None:
    if without.get("clustering") == "infomap":
        pytest.importorskip("infomap")
    cls = get_method(name)
    values = _options(name, without)
    values.pop(option, None)
    options = cls.Options(**{**values, option: value})
    with pytest.raises(GloamError, match=rf"method\.{option} .* changes nothing here: it acts only with"):
        options.refuse_idle()
    found, plain = (
        # Parameters that nothing uses may differ in number.
        [x for x in numbers if not isinstance(x, Groups)]
        for numbers in (play(name, options), _reference(name, values))
    )
    if (name, option) in ROUNDED:
        # The first step; later ones amplify the rounding.
        one, other = (next(x for x in numbers if isinstance(x, dict) and "loss" in x) for numbers in (found, plain))
        assert one == pytest.approx(other, rel=1e-5)
    else:
        assert found == plain


@pytest.mark.parametrize("name", list_methods())
def test_every_condition_is_tried(name: str) -> None:
    """Each condition fails for each of its options in a case above."""
    tried = [
        (option, _options(name, c)) for (n, group), cs in IDLE.items() if n == name for option in group for c in cs
    ]
    cls = get_method(name)
    for condition in cls.Options.all_together():
        for option in condition.names:
            assert any(o == option and not condition.holds(cls.Options(**values)) for o, values in tried), (
                option,
                condition.needs,
            )


def test_a_default_or_an_off_value_is_never_refused() -> None:
    create_method("base", 4, arch="tiny", weight_triplet=0.0, margin=0.3)
    create_method("cgrnet", 4, arch="tiny", similarity=False, similarity_loss_weight=0)


@pytest.mark.parametrize("alone", [{"kl": 1.0}, {"consistency": "caj"}])
def test_weight_and_kind_of_the_consistency_are_refused_apart(alone: dict[str, Any]) -> None:
    with pytest.raises(GloamError, match=r"method\.kl"):
        create_method("agw", 4, arch="tiny", triplet="adp", **alone)


def test_a_recipe_with_an_idle_option_is_refused_and_a_saved_run_with_one_goes_on() -> None:
    recipe = load_recipe("sysu_mm01/caj")
    recipe = recipe.model_copy(update={"method": {**recipe.method, "arch": "tiny", "kl": 1.0}})
    with pytest.raises(GloamError, match=r"method\.kl 1\.0 changes nothing here.*method\.consistency"):
        resolve(recipe).stages["train"].options.refuse_idle()
    cls = get_method("agw")
    state = cls(4, cls.Options(**recipe.method_options)).state_dict()
    saved = Checkpoint(
        recipe=recipe.complete(),
        stage="train",
        epoch=1,
        num_classes=4,
        label_map={},
        method=state,
        optimizer={},
        precision={},
        labels=torch.zeros(0),
        best=None,
        history=[],
        weak=None,
        fingerprint="",
    )
    assert restore_method(saved, "old run").options.kl == 1.0
