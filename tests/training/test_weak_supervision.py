"""Weak supervision through real runs: nothing hidden is read, correspondences are reported, memories are resumed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from gloam.datasets.weak import shuffle_labels_per_modality
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.inference.loading import load_model
from gloam.training import training_data
from gloam.training.run import train
from tests.datasets.test_weak import people
from tests.training.tiny import tiny_recipe

WEAK = {"relabel": "per_modality"}
PF = {"name": "pf_mgcd", "arch": "tiny", "num_parts": 3, "feature_dim": 16, "warmup_epochs": 1}
STAGES = {"experts": {"train": {"epochs": 1}}, "collaboration": {"train": {"epochs": 2}}}
WSL = {"name": "wsl_vireid", "arch": "tiny", "weak_from_epoch": 1, "smoothing": 0.5, "smoothing_from_epoch": 0}


def _recipe(root: Path, method: dict[str, Any], **sections: Any) -> Any:
    stages = STAGES if method["name"] == "wsl_vireid" and "stages" not in sections else {}
    sections = {"data": WEAK, "train": {"epochs": 3, "iterations": 2}, "stages": stages, **sections}
    return tiny_recipe(root, method=method, **sections)


def _last(run: Path) -> Checkpoint:
    return Checkpoint.load(run / "checkpoints" / "last.ckpt")


def _numbers(run: Path) -> list[dict[str, Any]]:
    timing = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in timing} for row in _last(run).history]


@pytest.mark.parametrize("method", [PF | {"teacher": "ema"}, PF | {"lambda_triplet": 0.5}, WSL])
def test_memories_and_correspondences_survive_an_exact_resume(
    method: dict[str, Any], sysu_root: Path, tmp_path: Path
) -> None:
    recipe = _recipe(sysu_root, method)
    whole = train(recipe, output=tmp_path / "whole", progress=False).path
    train(recipe, output=tmp_path / "parts", stop_after=2, progress=False)
    half = _last(tmp_path / "parts")
    parts = train(recipe, resume=tmp_path / "parts", progress=False).path
    left, right = _last(whole).method, _last(parts).method
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name
    assert _numbers(whole) == _numbers(parts)
    if method["name"] == "pf_mgcd":
        # The memory was filled before the break and has moved since: it was restored, not made again.
        assert half.method["memory.initialised"].all()
        assert not torch.equal(half.method["memory.memory"], right["memory.memory"])
        assert bool((half.method["matches"] >= 0).any())
    else:
        assert half.stage == "collaboration"
        assert half.method["prototypes"].abs().amax(dim=2).min() > 0
        assert bool(half.method["trusted"].any())


@pytest.mark.parametrize("method", [PF, WSL])
def test_every_epoch_reports_precision_and_recall(method: dict[str, Any], sysu_root: Path, tmp_path: Path) -> None:
    run = train(_recipe(sysu_root, method), output=tmp_path / "run", progress=False).path
    rows = _numbers(run)
    # The first epoch of both is one in which each modality learns alone.
    assert not any(key.startswith("match_") for key in rows[0])
    for row in rows[1:]:
        assert 0 <= row["match_precision"] <= 1
        assert 0 <= row["match_recall"] <= 1
        right = row["match_precision"] * row["match_count"]
        assert right == pytest.approx(round(right))
        assert right == pytest.approx(row["match_recall"] * 8)
    if method["name"] == "wsl_vireid":
        assert rows[1]["match_count"] == rows[1]["consistent_count"] + rows[1]["single_count"]
        assert "contradictory_precision" in rows[1]
    with (run / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [bool(row["match_precision"]) for row in table] == [False, True, True]
    # The run's own words, for a person who reads the log.
    assert "match_precision" in (run / "log.txt").read_text()


@pytest.mark.parametrize("method", [PF, WSL])
def test_the_hidden_truth_reaches_nothing_but_the_report(
    method: dict[str, Any], sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(sysu_root, method)
    plain = train(recipe, output=tmp_path / "plain", progress=False).path

    opened = training_data.DataLists.open

    def falsified(lists: training_data.DataLists, **options: Any) -> training_data.TrainingData:
        found = opened(lists, **options)
        found.truth = torch.randint(0, 10**6, found.truth.shape, generator=torch.Generator().manual_seed(1))
        monkeypatch.setattr(found, "partners", lambda: torch.full((8,), 7))
        return found

    monkeypatch.setattr(training_data.DataLists, "open", falsified)
    blind = train(recipe, output=tmp_path / "blind", progress=False).path
    left, right = _last(plain).method, _last(blind).method
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    reports = ("precision", "recall")
    rows = [[{k: v for k, v in r.items() if not k.endswith(reports)} for r in _numbers(p)] for p in (plain, blind)]
    assert rows[0] == rows[1]
    assert _numbers(plain) != _numbers(blind)


@pytest.mark.parametrize(("infrared", "known"), [(range(4, 8), False), (range(3, 7), True)])
def test_truth_is_reported_only_where_the_data_carry_it(infrared: range, known: bool) -> None:
    splits, weak = shuffle_labels_per_modality(people(range(4), infrared), seed=0)
    store: Any = None
    data = training_data.TrainingData(splits, splits, None, splits.train, store, torch.zeros(16), weak)
    partners = data.partners()
    assert (partners is not None) == known
    if partners is not None:
        expected = [weak.infrared.index(3) if true == 3 else -1 for true in weak.visible]
        assert partners.tolist() == expected


@pytest.mark.parametrize("name", ["base", "agw", "ddag"])
def test_shuffled_labels_are_never_merged(name: str, sysu_root: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(sysu_root, method={"name": name, "arch": "tiny"}, data=WEAK)
    with pytest.raises(GloamError, match=rf"{name}.*relabel none"):
        train(recipe, output=tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("method", "relabel"),
    [
        (PF | {"relabel": False}, "per_modality"),
        ({"name": "wsl_vireid", "arch": "tiny", "supervision": "supervised"}, "per_modality"),
        (PF, "none"),
        (WSL, "none"),
        ({"name": "wsl_vireid", "arch": "tiny", "supervision": "baseline"}, "none"),
    ],
)
def test_labels_and_supervision_must_agree(
    method: dict[str, Any], relabel: str, sysu_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(GloamError, match=r"data\.relabel"):
        train(_recipe(sysu_root, method, data={"relabel": relabel}), output=tmp_path / "run", progress=False)


@pytest.mark.parametrize("name", ["wsl_vireid", "base"])
def test_a_weight_file_starts_a_timm_backbone_and_the_run_loads_again(
    name: str, sysu_root: Path, tmp_path: Path
) -> None:
    import timm

    network = timm.create_model("test_byobnet", pretrained=False, num_classes=0)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    method = {"name": name, "arch": "timm:test_byobnet"}
    weak = WEAK if name == "wsl_vireid" else {}
    sections = {"data": weak, "weights": str(tmp_path / "weights.pth"), "train": {"epochs": 1, "iterations": 1}}
    recipe = tiny_recipe(sysu_root, method=method, **sections, optimizer={"lr": 1e-6})
    run = train(recipe, output=tmp_path / "run", progress=False).path
    model = load_model(run).method
    backbone = model.net.backbone if name == "base" else model.backbone
    start, end = network.state_dict(), backbone.network.state_dict()
    for modality in ("visible", "infrared"):
        learned = {k.replace(f"stem.{modality}.", "stem."): v for k, v in end.items()}
        for key in (k for k in start if k.endswith("conv.weight")):
            torch.testing.assert_close(learned[key], start[key], atol=1e-4, rtol=1e-3)
