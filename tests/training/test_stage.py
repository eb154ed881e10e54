"""The epoch loop: the order of its calls, relabelling, learning rates, precision, clipping, and its guards."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gloam.methods
from gloam.analysis.clips import score_clip_controls
from gloam.batches.clips import FrameChoice, choose_frames
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results
from gloam.inference.checkpoint import Checkpoint
from gloam.inference.loading import load_model
from gloam.inference.scoring import evaluate_runs
from gloam.methods.contract import EpochContext
from gloam.models.batch_norm_groups import group_batch_norm
from gloam.recipes.recipe import Recipe
from gloam.training.run import train
from gloam.training.schedule import learning_rate_factor
from tests.analysis.clip_run import draw_clips
from tests.training.spy import Spy, UnsupervisedSpy, WeakSpy
from tests.training.tiny import tiny_recipe

SPIES = {"spy": Spy, "spy_unsupervised": UnsupervisedSpy, "spy_weak": WeakSpy}


@pytest.fixture(autouse=True)
def _spies() -> Iterator[None]:
    with gloam.methods.registry.temporarily():
        for name, cls in SPIES.items():
            gloam.methods.register(name)(cls)
        Spy.events.clear()
        yield


def _train(root: Path, folder: Path, **sections: Any) -> Path:
    resume = sections.pop("resume", None)
    stop_after = sections.pop("stop_after", None)
    recipe = tiny_recipe(root, **({"method": {"name": "spy"}} | sections))
    output = None if resume else folder
    return train(recipe, output=output, resume=resume, stop_after=stop_after, progress=False).path


def _last(run: Path) -> Checkpoint:
    return Checkpoint.load(run / "checkpoints" / "last.ckpt")


def _kinds() -> list[str]:
    return [str(event[0]) for event in Spy.events]


def test_calls_come_in_order_and_once_per_epoch(sysu_root: Path, tmp_path: Path) -> None:
    _train(sysu_root, tmp_path / "run", train={"epochs": 3, "iterations": 2}, stop_after=2)
    epoch = ["epoch", *["step", "after"] * 2]
    assert _kinds() == ["init", "stage", *epoch, *epoch]
    Spy.events.clear()
    _train(sysu_root, tmp_path, train={"epochs": 3, "iterations": 2}, resume=tmp_path / "run")
    assert _kinds() == ["init", "stage", *epoch]
    assert Spy.events[2][1] == 2


def test_fixed_iterations_and_the_samplers_own_number(sysu_root: Path, tmp_path: Path) -> None:
    _train(sysu_root, tmp_path / "fixed", train={"epochs": 1, "iterations": 7})
    assert _kinds().count("step") == 7
    Spy.events.clear()
    # 6 + 2 identities, 4 visible cameras x 3 images: floor(96 / (3 x 2)) + 1.
    _train(sysu_root, tmp_path / "own", train={"epochs": 1, "iterations": None})
    assert _kinds().count("step") == 17


def test_unsupervised_methods_only_see_the_labels_they_made(sysu_root: Path, tmp_path: Path) -> None:
    sections = {
        "method": {"name": "spy_unsupervised"},
        "sampler": {"name": "identity"},
        "train": {"epochs": 2, "iterations": 5},
    }
    run = _train(sysu_root, tmp_path / "run", **sections)
    assert Spy.events[0] == ("init", 1)
    starts = [event for event in Spy.events if event[0] == "epoch"]
    count = len(starts[0][2])
    assert torch.equal(starts[0][2], torch.arange(count))
    current = None
    for event in Spy.events:
        if event[0] == "epoch":
            current = (torch.arange(count) + event[1]) // 3
        elif event[0] == "step":
            assert current is not None
            assert event[2] == current[event[1]].tolist()
            assert max(event[1]) < count - 10
    row = _last(run).history[0]
    assert row["pseudo_labels_outliers"] == 10
    # Every third group of neighbours is an image folder of one person and camera: pure clusters.
    assert 0 < row["pseudo_labels_nmi"] <= 1
    assert torch.equal(_last(run).labels[:-10], ((torch.arange(count) + 1) // 3)[:-10])


def test_pseudo_labels_survive_a_resume(sysu_root: Path, tmp_path: Path) -> None:
    sections = {
        "method": {"name": "spy_unsupervised"},
        "sampler": {"name": "identity"},
        "train": {"epochs": 3, "iterations": 2},
    }
    _train(sysu_root, tmp_path / "run", **sections, stop_after=1)
    Spy.events.clear()
    _train(sysu_root, tmp_path, **sections, resume=tmp_path / "run")
    seen = next(event for event in Spy.events if event[0] == "epoch")[2]
    assert seen[:4].tolist() == [0, 0, 0, 1]
    assert (seen[-10:] == -1).all()


def test_weak_labels_hide_the_partners_and_report_against_them(sysu_root: Path, tmp_path: Path) -> None:
    sections = {"method": {"name": "spy_weak"}, "data": {"relabel": "per_modality"}, "train": {"epochs": 1}}
    run = _train(sysu_root, tmp_path / "run", **sections)
    weak = _last(run).weak
    assert weak is not None
    agree = sum(left == right for left, right in zip(weak["visible"], weak["infrared"], strict=True))
    assert agree < len(weak["visible"])
    row = _last(run).history[0]
    assert row["match_count"] == len(weak["visible"])
    assert row["match_precision"] == row["match_recall"] == pytest.approx(agree / len(weak["visible"]))


def test_a_method_may_extract_one_modality_only(
    sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def compare(_: Spy, context: EpochContext) -> None:
        infrared = context.modalities == 1
        some = context.extract(lambda images, modalities: modalities[:, None].float(), infrared)
        torch.testing.assert_close(context.extract(rows=infrared), context.extract()[infrared])
        seen.append((some, infrared))

    monkeypatch.setattr(Spy, "on_epoch_start", compare)
    _train(sysu_root, tmp_path / "run", train={"epochs": 1, "iterations": 1})
    some, infrared = seen[0]
    assert 0 < len(some) == int(infrared.sum()) < len(infrared)
    assert some.min() == 1


def test_learning_rates_follow_the_schedule_epoch_by_epoch(sysu_root: Path, tmp_path: Path) -> None:
    schedule = {"name": "multistep", "milestones": [3], "warmup_epochs": 2}
    recipe = tiny_recipe(sysu_root, schedule=schedule)
    run = _train(sysu_root, tmp_path / "run", schedule=schedule, train={"epochs": 5, "iterations": 1})
    with (run / "metrics.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.05 * learning_rate_factor(recipe.schedule, epoch, 5) for epoch in range(5)])
    assert rates == pytest.approx([0.025, 0.05, 0.05, 0.005, 0.005])


def test_clipping_bounds_the_step(sysu_root: Path, tmp_path: Path) -> None:
    sections = {
        "optimizer": {"lr": 0.5, "momentum": 0.0, "weight_decay": 0.0},
        "schedule": {"name": "constant", "warmup_epochs": 0},
    }
    moved = []
    for number, clip in enumerate((1e-3, None)):
        before = _train(sysu_root, tmp_path / f"a{number}", **sections, train={"epochs": 0, "clip_norm": clip})
        assert not (before / "checkpoints" / "last.ckpt").exists()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            start = gloam.methods.create_method("spy", 8).state_dict()
        run = _train(
            sysu_root, tmp_path / f"b{number}", **sections, train={"epochs": 1, "iterations": 1, "clip_norm": clip}
        )
        end = _last(run).method
        moved.append(float(sum((end[k] - start[k]).square().sum() for k in start).sqrt()))
    assert moved[0] == pytest.approx(0.5e-3, rel=1e-3)
    assert moved[1] > 10 * moved[0]


def test_bf16_trains_float32_weights_and_scores_in_float32(sysu_root: Path, tmp_path: Path) -> None:
    sections = {"method": {"name": "base", "arch": "tiny"}, "train": {"epochs": 2, "precision": "bf16"}}
    run = _train(sysu_root, tmp_path / "bf16", **sections)
    plain = _train(sysu_root, tmp_path / "float", **sections | {"train": {"epochs": 2}})
    left, right = _last(run).method, _last(plain).method
    names = [name for name in left if name.endswith(("weight", "bias"))]
    assert all(left[name].dtype == torch.float32 for name in names)
    assert any(not torch.equal(left[name], right[name]) for name in names)
    for name in names:
        torch.testing.assert_close(left[name], right[name], atol=0.1, rtol=0.5)
    again = evaluate_runs([run], protocols=["all_single"], device="cpu", output=tmp_path)
    assert again.trials == Results.load(run / "results.json").trials


@pytest.mark.parametrize(
    ("train_section", "message"),
    [({"accelerator": "cuda"}, "sees no GPU")],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_what_needs_a_gpu_says_so(train_section: dict[str, Any], message: str, sysu_root: Path, tmp_path: Path) -> None:
    with pytest.raises(GloamError, match=message):
        _train(sysu_root, tmp_path / "run", train=train_section)
    assert not (tmp_path / "run").exists()


def test_nan_stops_the_run_and_keeps_the_checkpoint(sysu_root: Path, tmp_path: Path) -> None:
    method = {"name": "spy", "trouble": "nan", "from_epoch": 1}
    with pytest.raises(GloamError, match=r"loss became nan.*epoch 2, batch 1.*optimizer\.lr"):
        _train(sysu_root, tmp_path / "run", method=method, train={"epochs": 3})
    checkpoint = _last(tmp_path / "run")
    assert checkpoint.epoch == 1
    assert all(torch.isfinite(value).all() for value in checkpoint.method.values())


@pytest.mark.parametrize(
    ("trouble", "message"), [("constant", r"stayed at 1\.25"), ("collapse", "same feature.*method.wrt exact")]
)
def test_collapse_is_named(trouble: str, message: str, sysu_root: Path, tmp_path: Path) -> None:
    with pytest.raises(GloamError, match=message):
        _train(sysu_root, tmp_path / "run", method={"name": "spy", "trouble": trouble}, train={"iterations": 20})


def test_a_triplet_at_ln_2_gives_a_hint(sysu_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gloam"):
        _train(sysu_root, tmp_path / "run", method={"name": "spy", "trouble": "ln2", "from_epoch": 1})
    hints = [record.message for record in caplog.records if "ln 2" in record.message]
    assert len(hints) == 1
    assert "epoch 2" in hints[0]
    assert "ln 2" in (tmp_path / "run" / "log.txt").read_text()


def test_one_modality_in_a_batch_is_warned_about_once(
    sysu_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sections = {"method": {"name": "spy_weak"}, "sampler": {"name": "shuffle", "batch_size": 1}}
    with caplog.at_level(logging.WARNING, "gloam"):
        _train(sysu_root, tmp_path / "run", **sections, train={"epochs": 1, "iterations": 4})
    assert sum("images, so" in record.message for record in caplog.records) == 1


def test_too_few_identities_are_named(sysu_root: Path, tmp_path: Path) -> None:
    with pytest.raises(GloamError, match=r"sampler\.identities"):
        _train(sysu_root, tmp_path / "run", sampler={"identities": 99})


def test_groups_of_rows_have_their_own_batch_norm_statistics() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn((9, 4, 3, 3), generator=generator) * 2 + 1
    grouped = group_batch_norm(nn.Sequential(nn.BatchNorm2d(4)), 4)
    plain = [nn.BatchNorm2d(4) for _ in range(2)]
    assert list(grouped.state_dict()) == [f"0.{name}" for name in plain[0].state_dict()]
    # Nine rows: four, and five, as one row alone has no variance.
    expected = torch.cat([plain[0](rows[:4]), plain[1](rows[4:])])
    torch.testing.assert_close(grouped(rows), expected)
    torch.testing.assert_close(grouped[0].running_mean, plain[0].running_mean)
    assert int(grouped[0].num_batches_tracked) == 1
    torch.testing.assert_close(grouped.eval()(rows), plain[0].eval()(rows))
    with pytest.raises(GloamError, match="at least 2"):
        group_batch_norm(grouped, 1)


def test_a_run_with_batch_norm_groups_differs_and_loads(sysu_root: Path, tmp_path: Path) -> None:
    sections = {"method": {"name": "base", "arch": "tiny"}}
    losses = []
    for rows in (None, 6, 1000):
        run = _train(sysu_root, tmp_path / str(rows), **sections, train={"epochs": 1, "bn_group": rows})
        losses.append(_last(run).history[0]["loss"])
        assert not load_model(run).method.training
    assert losses[0] == pytest.approx(losses[2], rel=1e-6)
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)


def _clip_recipe(folder: Path, **data: Any) -> Recipe:
    return tiny_recipe(
        draw_clips(folder / "data"),
        data={"name": "hitsz_vcm", "frames": 3, **data},
        method={"name": "m3reid", "arch": "tiny"},
        sampler={"name": "identity"},
        train={"epochs": 1, "iterations": 2},
        evaluation={"protocols": None},
    )


def test_every_frame_of_a_clip_counts_as_an_image(tmp_path: Path) -> None:
    run = train(_clip_recipe(tmp_path), output=tmp_path / "run", progress=False).path
    with (run / "metrics.csv").open() as file:
        epoch = next(csv.DictReader(file))
    assert float(epoch["images_per_second"]) * float(epoch["seconds"]) == pytest.approx(2 * 6 * 3)


def test_clips_follow_the_rules_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []

    def note(length: int, frames: int, choice: FrameChoice, generator: np.random.Generator) -> Any:
        chosen.append(choice)
        return choose_frames(length, frames, choice, generator)

    monkeypatch.setattr("gloam.batches.loaders.choose_frames", note)
    recipe = _clip_recipe(tmp_path, train_clip="random", test_clip="spaced")
    run = train(recipe, output=tmp_path / "run", progress=False).path
    assert chosen[:12] == ["random"] * 12
    assert set(chosen[12:]) == {"spaced"}
    chosen.clear()
    evaluate_runs([run], device="cpu")
    evaluated = len(chosen)
    score_clip_controls(run, device="cpu")
    controlled = len(chosen) - evaluated
    load_model(run).embed(tmp_path / "data", split="query").save(tmp_path / "features.npz")
    assert evaluated == controlled < len(chosen) - evaluated
    assert set(chosen) == {"spaced"}
