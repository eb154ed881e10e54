"""Going on with a run: its own recipe, its own permutations, its stages, and what a crash leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import gloam.methods
from gloam import cli
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.inference.loading import load_model
from gloam.recipes.recipe import load_recipe
from gloam.training import training_data as data
from gloam.training.run import train
from tests.training.spy import Spy, WeakSpy
from tests.training.tiny import tiny_recipe

SPY = {"method": {"name": "spy"}, "train": {"epochs": 3, "iterations": 2}}


@pytest.fixture(autouse=True)
def _spies() -> Iterator[None]:
    with gloam.methods.registry.temporarily():
        gloam.methods.register("spy")(Spy)
        gloam.methods.register("spy_weak")(WeakSpy)
        Spy.events.clear()
        yield


def _last(run: Path) -> Checkpoint:
    return Checkpoint.load(run / "checkpoints" / "last.ckpt")


def _stopped(root: Path, folder: Path, **changes: Any) -> Path:
    return train(tiny_recipe(root, **(SPY | changes)), output=folder, stop_after=1, progress=False).path


def test_other_flags_are_refused_by_name(sysu_root: Path, tmp_path: Path) -> None:
    run = _stopped(sysu_root, tmp_path / "run")
    other = tiny_recipe(sysu_root, **(SPY | {"optimizer": {"lr": 0.5}, "augment": {"pad": 0}}))
    with pytest.raises(GloamError, match=r"augment\.pad, optimizer\.lr cannot change"):
        train(other, resume=run, progress=False)
    assert _last(run).epoch == 1


def test_the_machine_may_change(sysu_root: Path, tmp_path: Path) -> None:
    run = _stopped(sysu_root, tmp_path / "run")
    moved = tmp_path / "moved"
    moved.symlink_to(sysu_root)
    other = tiny_recipe(moved, **(SPY | {"data": {"cache": "off"}, "train": {**SPY["train"], "log_every": 1}}))
    train(other, resume=run, progress=False)
    assert _last(run).epoch == 3
    assert "batch 1/2" in (run / "log.txt").read_text()


def test_the_command_line_resumes_a_run_or_its_checkpoint(
    sysu_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _stopped(sysu_root, tmp_path / "run", method={"name": "base", "arch": "tiny"})
    assert cli.main(["train", "--resume", str(run), "--optimizer.lr", "0.3", "--quiet"]) == 2
    assert "optimizer.lr" in capsys.readouterr().err
    assert cli.main(["train", f"--resume={run / 'checkpoints' / 'last.ckpt'}", "--quiet"]) == 0
    assert _last(run).epoch == 3


def test_saved_recipes_work_from_any_folder(sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sysu_root.parent)
    run = _stopped(Path(sysu_root.name), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(run)
    assert recipe.data.root == sysu_root.resolve()
    assert train(recipe, resume=run, progress=False).results is not None


def test_a_resume_uses_the_saved_permutations(sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weak = {"method": {"name": "spy_weak"}, "data": {"relabel": "per_modality"}}
    run = _stopped(sysu_root, tmp_path / "run", **weak)
    before = _last(run).weak

    def never(*_: Any) -> None:
        raise AssertionError("drew new permutations")

    monkeypatch.setattr(data, "shuffle_labels_per_modality", never)
    train(tiny_recipe(sysu_root, **(SPY | weak)), resume=run, progress=False)
    assert _last(run).weak == before


def test_stopping_at_the_end_of_a_stage_starts_no_other(sysu_root: Path, tmp_path: Path) -> None:
    stages = {"first": {"train": {"epochs": 1}}, "second": {"train": {"epochs": 2}}}
    run = _stopped(sysu_root, tmp_path / "run", stages=stages)
    assert [event[1] for event in Spy.events if event[0] == "stage"] == ["first"]
    assert (_last(run).stage, _last(run).epoch) == ("first", 1)
    Spy.events.clear()
    train(tiny_recipe(sysu_root, **SPY, stages=stages), resume=run, progress=False)
    assert [event[1] for event in Spy.events if event[0] == "stage"] == ["first", "second"]
    assert [event[1] for event in Spy.events if event[0] == "epoch"] == [0, 1]
    assert (_last(run).stage, _last(run).epoch) == ("second", 2)


def test_the_best_of_an_earlier_stage_does_not_stay(sysu_root: Path, tmp_path: Path) -> None:
    stages = {
        "first": {"train": {"epochs": 2}, "evaluation": {"selection": "validation"}},
        "second": {"method": {"name": "base", "arch": "tiny"}, "train": {"epochs": 1}},
    }
    recipe = tiny_recipe(sysu_root, method={"name": "agw", "arch": "tiny", "wrt": "exact"}, stages=stages)
    run = train(recipe, output=tmp_path / "run", stop_after=2, progress=False).path
    assert (run / "checkpoints" / "best.ckpt").exists()
    assert _last(run).best is not None
    train(recipe, resume=run, progress=False)
    assert not (run / "checkpoints" / "best.ckpt").exists()
    assert type(load_model(run).method).__name__ == "BaseSoftmax"


def test_validation_in_a_stage_holds_people_out_for_all(sysu_root: Path, tmp_path: Path) -> None:
    stages = {"first": {}, "second": {"evaluation": {"selection": "validation"}}}
    run = train(tiny_recipe(sysu_root, **SPY, stages=stages), output=tmp_path / "run", progress=False).path
    history = _last(run).history
    assert _last(run).num_classes == 6
    assert not any(key.startswith("test_") for row in history for key in row)
    assert "validation_mAP" in history[-1]


def test_selecting_on_the_test_set_is_warned_about_and_written_down(
    sysu_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny_recipe(sysu_root, **SPY, evaluation={"selection": "test"})
    result = train(recipe, output=tmp_path / "run", progress=False)
    assert any("no clean result" in record.message for record in caplog.records)
    assert result.results is not None
    assert "test set" in result.results.notes["selection"]


def test_left_over_parts_of_a_killed_save_go_away(sysu_root: Path, tmp_path: Path) -> None:
    run = _stopped(sysu_root, tmp_path / "run")
    part = run / "checkpoints" / ".last.ckpt.0123abcd.tmp"
    part.write_bytes(b"half")
    train(tiny_recipe(sysu_root, **SPY), resume=run, progress=False)
    assert not part.exists()


def test_a_full_disk_keeps_the_checkpoint_and_names_the_cure(
    sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _stopped(sysu_root, tmp_path / "run")

    def full(content: Any, path: Path) -> None:
        path.write_bytes(b"half a file")
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(GloamError, match=r"no space is left.*one before it is intact.*--resume"):
        train(tiny_recipe(sysu_root, **SPY), resume=run, progress=False)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert _last(run).epoch == 1


def test_a_folder_that_cannot_be_made_is_named(sysu_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(GloamError, match="Choose another --output"):
        train(tiny_recipe(sysu_root, **SPY), output=tmp_path / "file" / "run", progress=False)


def test_weights_of_another_method_are_named(sysu_root: Path, tmp_path: Path) -> None:
    checkpoint = _last(_stopped(sysu_root, tmp_path / "run", method={"name": "base", "arch": "tiny"}))
    checkpoint.recipe = checkpoint.recipe.model_copy(update={"method": {"name": "mmgl", "arch": "tiny"}})
    checkpoint.save(tmp_path / "other.ckpt")
    with pytest.raises(GloamError, match="another method"):
        load_model(tmp_path / "other.ckpt")
