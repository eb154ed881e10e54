"""Run folders: names, locks, where a run stands, and one command that begins, goes on and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gloam.methods
from gloam import cli
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.training.run import train
from gloam.training.run_folder import LOCK, RunFolder, default_folder
from tests.training.spy import Spy
from tests.training.test_interruption import same_end
from tests.training.tiny import tiny_recipe

SPY = {"method": {"name": "spy"}, "train": {"epochs": 2, "iterations": 1}}


@pytest.fixture(autouse=True)
def _spy() -> Iterator[None]:
    Spy.events.clear()
    with gloam.methods.registry.temporarily():
        gloam.methods.register("spy")(Spy)
        yield


def test_default_names_are_unique_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "2026-01-31_12-00-00")
    wanted = tmp_path / default_folder("sysu_mm01", "agw")
    folders = [RunFolder(wanted) for _ in range(4)]
    for folder in folders:
        folder.create(unique=True, begin_again=False)
    assert [folder.path.name for folder in folders] == [wanted.name + end for end in ("", "_2", "_3", "_4")]
    for folder in folders:
        folder.release()


def test_two_runs_without_a_name_do_not_meet(sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gloam.training.run_folder.default_folder", None)
    monkeypatch.setattr("gloam.training.run.default_folder", lambda *_: Path("runs/a/b/now"))
    paths = [train(tiny_recipe(sysu_root, **SPY), progress=False).path for _ in range(2)]
    assert [path.name for path in paths] == ["now", "now_2"]
    assert all((path / "results.json").exists() for path in paths)


_HOLD = """
import sys, time
from pathlib import Path
from gloam.training.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
folder.hold()
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_belongs_to_one_process_until_it_dies(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(GloamError, match=rf"in use by process {process.pid} on .* \(since "):
        RunFolder(tmp_path).hold()
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = RunFolder(tmp_path)
    folder.hold()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    with pytest.raises(GloamError, match="in use by this process"):
        RunFolder(tmp_path).hold()
    folder.release()
    RunFolder(tmp_path).hold()


def test_forked_children_do_not_hold_the_lock_on(tmp_path: Path) -> None:
    """Loader processes are forked and may outlive a killed run by some seconds."""
    code = _HOLD.replace(
        'print("held", flush=True)',
        "import os\nchild = os.fork()\nif child == 0:\n    time.sleep(60)\n    os._exit(0)\nprint(child, flush=True)",
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        os.kill(child, 0)
        folder = RunFolder(tmp_path)
        folder.hold()
        folder.release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_lock_is_not_made_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(GloamError, match="cannot be written"):
        RunFolder(tmp_path / "run").hold()
    assert (tmp_path / "precious").read_text() == "keep"


def test_where_a_run_stands(sysu_root: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.state() == "new"
    folder.path.mkdir()
    (folder.path / LOCK).touch()
    (folder.path / ".recipe.yaml.0123abcd.tmp").touch()
    assert folder.state() == "new"
    (folder.path / "recipe.yaml").touch()
    (folder.path / "checkpoints").mkdir()
    assert folder.state() == "unstarted"
    (folder.path / "photo.jpg").touch()
    with pytest.raises(GloamError, match="is not empty and holds no run"):
        folder.state()
    run = train(tiny_recipe(sysu_root, **SPY), output=tmp_path / "real", stop_after=1, progress=False).path
    assert RunFolder(run).state() == "started"
    train(tiny_recipe(sysu_root, **SPY), resume=run, progress=False)
    assert RunFolder(run).state() == "finished"
    with pytest.raises(GloamError, match="not a folder"):
        RunFolder(run / "results.json" / "below").state()


def test_foreign_folders_are_refused_and_left_as_they_are(sysu_root: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    for resume in (None, "auto"):
        with pytest.raises(GloamError, match="holds no run"):
            train(tiny_recipe(sysu_root, **SPY), output=tmp_path / "photos", resume=resume, progress=False)  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_one_command_begins_goes_on_and_ends(sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = tiny_recipe(sysu_root, **SPY), tmp_path / "run"
    whole = train(recipe, output=tmp_path / "whole", progress=False).path
    if (child := os.fork()) == 0:  # killed before the first checkpoint
        monkeypatch.setattr(Spy, "training_step", lambda *_: os._exit(9))
        train(recipe, output=run, progress=False)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert RunFolder(run).state() == "unstarted"
    (run / ".metrics.csv.0123abcd.tmp").write_text("half")
    with pytest.raises(GloamError, match=r"ended before its first checkpoint\. Begin it again with --resume"):
        train(recipe, output=run, progress=False)
    result = train(recipe, output=run, resume="auto", stop_after=1, progress=False)
    assert (result.results, result.was_finished) == (None, False)
    assert not list(run.rglob("*.tmp"))
    assert len(list((run / "tensorboard").iterdir())) == 1
    result = train(recipe, output=run, resume="auto", progress=False)
    assert result.results is not None
    assert not result.was_finished
    same_end(whole, run)
    Spy.events.clear()
    again = train(recipe, output=run, resume="auto", progress=False)
    assert again.was_finished
    assert again.results is not None
    assert again.results.trials == result.results.trials
    assert not Spy.events


def test_resuming_a_run_without_a_checkpoint_begins_it(sysu_root: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(sysu_root, **SPY)
    whole = train(recipe, output=tmp_path / "whole", progress=False).path
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    recipe.save(run / "recipe.yaml")
    # best.ckpt is written first: killed between the two, there is one without the other.
    Checkpoint.load(whole / "checkpoints" / "last.ckpt").save(run / "checkpoints" / "best.ckpt")
    assert train(recipe, resume=run, progress=False).results is not None
    same_end(whole, run)
    assert not (run / "checkpoints" / "best.ckpt").exists()


def test_auto_means_the_same_run(sysu_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny_recipe(sysu_root, **SPY)
    with pytest.raises(GloamError, match="Give --output DIR"):
        train(recipe, resume="auto", progress=False)
    run = train(recipe, output=tmp_path / "run", progress=False).path
    other = tiny_recipe(sysu_root, **SPY | {"optimizer": {"lr": 0.5}})
    with pytest.raises(GloamError, match=r"optimizer\.lr cannot change"):
        train(other, output=run, resume="auto", progress=False)
    recipe.save(tmp_path / "recipe.yaml")
    words = ["train", str(tmp_path / "recipe.yaml"), "--output", str(run), "--resume", "auto", "--quiet"]
    assert cli.main(words) == 0
    assert "already finished" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["train", "--resume", "auto"]) == 2
    assert "takes the whole command" in capsys.readouterr().err


def test_what_another_process_has_done_meanwhile_is_noticed(
    sysu_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is read before the lock is there; it must still be the same one afterwards."""
    recipe = tiny_recipe(sysu_root, **SPY)
    run = train(recipe, output=tmp_path / "run", stop_after=1, progress=False).path
    hold = RunFolder.hold

    def overtaken(self: RunFolder) -> None:
        monkeypatch.setattr(RunFolder, "hold", hold)
        train(recipe, resume=run, progress=False)
        hold(self)

    monkeypatch.setattr(RunFolder, "hold", overtaken)
    with pytest.raises(GloamError, match="went on in another process meanwhile"):
        train(recipe, resume=run, progress=False)


def test_leftovers_of_the_dead_are_swept_from_the_whole_run(sysu_root: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(sysu_root, **SPY)
    run = train(recipe, output=tmp_path / "run", stop_after=1, progress=False).path
    for name in (".metrics.csv.0123abcd.tmp", ".results.json.0123abcd.tmp", "checkpoints/.best.ckpt.0123abcd.tmp"):
        (run / name).write_text("half")
    train(recipe, resume=run, progress=False)
    assert not list(run.rglob("*.tmp"))
