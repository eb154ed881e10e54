"""What a method may see and report at the start of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import gloam.methods
from gloam.datasets.weak import WeakLabels
from gloam.inference.checkpoint import Checkpoint
from gloam.methods import create_method
from gloam.methods.contract import EpochContext
from gloam.training import training_data
from gloam.training.context import TrainingContext, epoch_numbers, mix_seed, pseudo_label_quality
from gloam.training.run import train
from gloam.training.stage import Stage
from tests.training.spy import Spy, WeakSpy
from tests.training.tiny import tiny_recipe

TRUTH, PARTNERS = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([2, 0, -1])


def _context(**changes: Any) -> TrainingContext:
    options: dict[str, Any] = {
        "stage": "train",
        "epoch": 2,
        "num_epochs": 5,
        "labels": torch.arange(6),
        "modalities": torch.zeros(6, dtype=torch.int64),
        "cams": torch.zeros(6, dtype=torch.int64),
        "seed": 3,
        "extract": lambda function, rows: torch.zeros(6, 2),
    }
    return TrainingContext(create_method("base", 3, arch="tiny"), **(options | changes))


def test_draws_depend_on_seed_stage_and_epoch_only() -> None:
    def draw(**changes: Any) -> Tensor:
        return torch.rand(4, generator=_context(**changes).generator)

    assert torch.equal(draw(), draw(num_epochs=9))
    assert not torch.equal(draw(), draw(epoch=3))
    assert not torch.equal(draw(), draw(seed=4))
    assert not torch.equal(draw(), draw(stage="other"))
    assert mix_seed(0, "train", 1) == mix_seed(0, "train", 1) < 2**63


def test_labels_are_replaced_as_a_whole() -> None:
    context = _context()
    context.set_labels(torch.tensor([0, 0, 1, 1, -1, -1], dtype=torch.int32))
    assert context.labels.dtype == torch.int64
    assert context.labels.tolist() == [0, 0, 1, 1, -1, -1]
    with pytest.raises(ValueError, match="6 samples"):
        context.set_labels(torch.zeros(5))


@pytest.mark.parametrize("seed", range(4))
def test_pair_f_score_counts_pairs_of_clustered_samples(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 4, (30,), generator=generator)
    labels = torch.randint(-1, 5, (30,), generator=generator)
    kept = [i for i in range(30) if labels[i] >= 0]
    both = found = true = 0
    for i, j in combinations(kept, 2):
        together, same = bool(labels[i] == labels[j]), bool(truth[i] == truth[j])
        both, found, true = both + (together and same), found + together, true + same
    quality = pseudo_label_quality(labels, truth)
    assert quality["pair_f"] == pytest.approx(2 * both / (found + true))
    assert quality["outliers"] == 30 - len(kept)
    assert quality["clusters"] == len({int(labels[i]) for i in kept})


def test_perfect_labels_score_one_whatever_their_names() -> None:
    quality = pseudo_label_quality(torch.tensor([7, 7, 2, 2, 5]), torch.tensor([0, 0, 1, 1, 2]))
    assert (quality["nmi"], quality["ari"], quality["pair_f"]) == pytest.approx((1, 1, 1))
    assert pseudo_label_quality(torch.full((3,), -1), torch.arange(3)) == {"clusters": 0.0, "outliers": 3.0}


def test_reports_become_numbers_of_the_epoch() -> None:
    context = _context()
    context.log("loss", 1)
    context.report_pseudo_labels(torch.tensor([0, 0, 0, 1, 1, -1]))
    context.report_correspondence(torch.tensor([0, 1, 1]), torch.tensor([2, 1, 0]), "pair")
    numbers = epoch_numbers(context, TRUTH, PARTNERS)
    assert next(iter(numbers)) == "loss"
    assert numbers["pseudo_labels_nmi"] == pytest.approx(1)
    assert numbers["pair_precision"] == pytest.approx(2 / 3)
    assert numbers["pair_recall"] == pytest.approx(1)
    assert numbers["pair_count"] == 3


def test_without_weak_labels_only_the_number_of_pairs_is_known() -> None:
    context = _context()
    context.report_correspondence(torch.tensor([0]), torch.tensor([1]))
    assert epoch_numbers(context, TRUTH, None) == {"match_count": 1.0}


def test_reports_of_another_size_are_refused_at_once() -> None:
    context = _context()
    with pytest.raises(ValueError, match="6 samples"):
        context.report_pseudo_labels(torch.zeros(5))
    with pytest.raises(ValueError, match="equally long"):
        context.report_correspondence(torch.zeros(2), torch.zeros(3))


def test_a_report_is_a_copy() -> None:
    context = _context()
    labels = torch.tensor([0, 0, 0, 1, 1, -1])
    context.report_pseudo_labels(labels)
    labels.fill_(0)
    assert epoch_numbers(context, TRUTH, None)["pseudo_labels_nmi"] == pytest.approx(1)


def _everything(thing: Any, seen: dict[int, Any]) -> Iterator[Any]:
    """All values that attributes, items and bound objects lead to (what closures hide is out of reach)."""
    if id(thing) in seen or isinstance(thing, type | ModuleType):
        return
    seen[id(thing)] = thing
    yield thing
    parts: list[Any] = [getattr(thing, "__self__", None)]
    parts += list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    if isinstance(thing, dict):
        parts += [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        parts += list(thing)
    for part in parts:
        yield from _everything(part, seen)


class Attacker(WeakSpy):
    """Probes every pair and every label, and remembers all that it can read afterwards."""

    readable: ClassVar[list[Any]] = []
    objects: ClassVar[list[Any]] = []

    def on_epoch_start(self, context: EpochContext) -> None:
        Spy.on_epoch_start(self, context)
        for visible in range(self.num_classes):
            for infrared in range(self.num_classes):
                pair = (torch.tensor([visible]), torch.tensor([infrared]))
                self.readable.append(context.report_correspondence(*pair, f"probe_{visible}_{infrared}"))
        for sample in range(len(context.labels)):
            labels = torch.full((len(context.labels),), -1)
            labels[[0, sample]] = 0
            self.readable.append(context.report_pseudo_labels(labels))
        found = [value for value in _everything(context, {}) if not isinstance(value, nn.Module)]
        self.objects.extend(found)
        self.readable.extend(value.tolist() if isinstance(value, Tensor) else value for value in found)


@pytest.fixture
def _attacker() -> Iterator[None]:
    with gloam.methods.registry.temporarily():
        gloam.methods.register("attacker")(Attacker)
        yield


@pytest.mark.usefixtures("_attacker")
def test_an_attacker_reads_the_same_whatever_the_truth_is(
    sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(
        sysu_root, method={"name": "attacker", "arch": "none"}, data={"relabel": "per_modality"}, train={"epochs": 2}
    )

    def attack(folder: Path) -> tuple[list[str], list[Any]]:
        Attacker.readable.clear()
        Attacker.objects.clear()
        path = train(recipe, output=folder, progress=False).path
        history = Checkpoint.load(path / "checkpoints" / "last.ckpt").history
        probes = [row[name] for row in history for name in row if name.endswith("_precision")]
        plain = [repr(x) for x in Attacker.readable if isinstance(x, str | int | float | list | tuple | dict | None)]
        return plain, probes

    seen, probes = attack(tmp_path / "one")
    assert {0.0, 1.0} == set(probes)  # the truth is in the log, one pair at a time
    for kind in (training_data.TrainingData, WeakLabels, Stage):
        assert not any(isinstance(thing, kind) for thing in Attacker.objects)

    opened = training_data.DataLists.open

    def falsified(lists: training_data.DataLists, **options: Any) -> training_data.TrainingData:
        found = opened(lists, **options)
        found.truth = torch.randint(0, 10**6, found.truth.shape, generator=torch.Generator().manual_seed(1))
        monkeypatch.setattr(found, "partners", lambda: torch.full((8,), 7))
        return found

    monkeypatch.setattr(training_data.DataLists, "open", falsified)
    others, other_probes = attack(tmp_path / "two")
    assert other_probes != probes
    assert seen == others
