"""Loggers: what reaches Weights & Biases and MLflow offline, what a failing one does to a run, and mistakes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gloam.errors import GloamError
from gloam.losses import registry as losses
from gloam.recipes.recipe import Recipe
from gloam.training import loggers
from gloam.training.loggers import check_loggers, open_loggers
from gloam.training.logs import RunLogs
from gloam.training.run import train
from tests.training.tiny import tiny_recipe


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("MLFLOW_TRACKING_URI", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    with loggers.registry.temporarily():
        yield


class Kept:
    """A logger that keeps what it is told."""

    made: list[Kept] = []  # noqa: RUF012

    def __init__(self, folder: Path, run_id: str | None = None, fail: str | None = None) -> None:
        self.folder, self.run_id, self.fail = folder, run_id, fail
        self.version = run_id or f"run{len(Kept.made)}"
        self.numbers: list[tuple[int, dict[str, float]]] = []
        self.parameters: dict[str, Any] | None = None
        self.status: str | None = None
        if fail == "start":
            raise OSError("no server")
        Kept.made.append(self)

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.parameters = params

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if self.fail == "log":
            raise OSError("connection lost")
        self.numbers.append((step, metrics))

    def finalize(self, status: str) -> None:
        if self.fail == "finish":
            raise OSError("connection lost")
        self.status = status


@pytest.fixture
def kept() -> list[Kept]:
    Kept.made = []
    loggers.register("kept")(Kept)
    return Kept.made


def _recipe(root: Path, **sections: Any) -> Recipe:
    return tiny_recipe(root, **{"train": {"epochs": 2, "iterations": 1}, **sections})


def test_a_users_logger_gets_the_recipe_the_epochs_and_the_scores(
    kept: list[Kept], sysu_root: Path, tmp_path: Path
) -> None:
    result = train(_recipe(sysu_root, loggers=["kept"]), output=tmp_path / "run", progress=False)
    (logger,) = kept
    assert logger.folder == tmp_path / "run"
    assert logger.parameters is not None
    assert logger.parameters["method"]["name"] == "base"
    assert [step for step, _ in logger.numbers] == [1, 2, 2]
    assert {"train/loss", "train/lr", "train/identity"} <= logger.numbers[0][1].keys()
    assert "train/epoch" not in logger.numbers[0][1]
    assert result.results is not None
    mean = result.results.mean("sysu_mm01/all_single")
    assert logger.numbers[2][1]["test/sysu_mm01/all_single/mAP"] == mean["mAP"]
    assert logger.status == "success"
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert (tmp_path / "run" / "metrics.csv").is_file()


def test_a_resumed_run_goes_on_with_its_loggers_run(kept: list[Kept], sysu_root: Path, tmp_path: Path) -> None:
    recipe = _recipe(sysu_root, loggers=["kept"])
    train(recipe, output=tmp_path / "run", stop_after=1, progress=False)
    train(recipe, resume=tmp_path / "run", progress=False)
    first, second = kept
    assert (first.run_id, second.run_id) == (None, first.version)
    assert [step for step, _ in first.numbers] == [1]
    assert [step for step, _ in second.numbers] == [2, 2]
    # Trackers refuse another value of a parameter that they know.
    assert second.parameters is None


def test_a_run_may_go_on_without_its_loggers(kept: list[Kept], sysu_root: Path, tmp_path: Path) -> None:
    train(_recipe(sysu_root, loggers=["kept"]), output=tmp_path / "run", stop_after=1, progress=False)
    result = train(_recipe(sysu_root), resume=tmp_path / "run", progress=False)
    assert result.results is not None
    assert len(kept) == 1


def test_a_logger_that_fails_is_dropped_and_training_goes_on(
    kept: list[Kept], sysu_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loggers.register("lost")(lambda folder, **options: Kept(folder, fail="log"))
    loggers.register("late")(lambda folder, **options: Kept(folder, fail="finish"))
    with caplog.at_level(logging.WARNING, logger="gloam"):
        result = train(_recipe(sysu_root, loggers=["lost", "kept", "late"]), output=tmp_path / "run", progress=False)
    assert result.results is not None
    assert [len(logger.numbers) for logger in kept] == [0, 3, 3]
    assert caplog.text.count("gets no more numbers") == 1
    assert caplog.text.count("did not finish") == 1
    assert "connection lost" in (tmp_path / "run" / "log.txt").read_text()


def test_a_logger_that_does_not_start_stops_the_run_and_leaves_nothing(
    kept: list[Kept], sysu_root: Path, tmp_path: Path
) -> None:
    recipe = _recipe(sysu_root, loggers=["kept"], logger_options={"kept": {"fail": "start"}})
    with pytest.raises(GloamError, match=r"logger kept did not start \(OSError: no server\)"):
        train(recipe, output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_failing_training_ends_its_loggers_as_failed(kept: list[Kept], sysu_root: Path, tmp_path: Path) -> None:
    with losses.registry.temporarily():
        losses.register("hopeless")(lambda features, labels: features.mean() * float("nan"))
        recipe = _recipe(sysu_root, loggers=["kept"], method={"triplet": "hopeless"})
        with pytest.raises(GloamError, match="loss"):
            train(recipe, output=tmp_path / "run", progress=False)
    assert kept[0].status == "failed"


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["wandbb"], {}, "'wandb'"),
        (["csv"], {"kept": {}}, "options for kept"),
        (["kept"], {"kept": {"colour": 1}}, "colour"),
    ],
)
def test_mistakes(
    names: list[str], options: dict[str, dict[str, Any]], message: str, kept: list[Kept], tmp_path: Path
) -> None:
    with pytest.raises(GloamError, match=message):
        check_loggers(names, options)
        open_loggers(names, options, tmp_path, hyperparameters=None)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(GloamError, match=r"pip install 'gloam\[loggers\]'"):
        check_loggers([name], {})


def test_what_every_run_writes_may_be_named(tmp_path: Path) -> None:
    check_loggers(["csv", "tensorboard"], {})
    assert open_loggers(["csv", "tensorboard"], {}, tmp_path, hyperparameters={}) == []
    assert list(tmp_path.iterdir()) == []


def _write(folder: Path, name: str, options: dict[str, Any], epochs: range) -> str:
    """What a run does with a logger; returns the id of the logger's run."""
    new = epochs.start == 0
    opened = open_loggers([name], {name: options}, folder, hyperparameters={"a": {"b": 1}} if new else None)
    logs = RunLogs(folder, [{"stage": "train", "epoch": e} for e in range(epochs.start)], opened)
    for epoch in epochs:
        logs.write({"stage": "train", "epoch": epoch, "loss": 1 / (epoch + 1)})
    logs.line("still here")
    logs.close()
    logs.close()
    return str(json.loads((folder / "loggers.json").read_text())[name])


def test_mlflow_keeps_a_run_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="needs the extra loggers")
    pytest.importorskip("sqlalchemy", reason="needs the extra loggers")
    from lightning.fabric.utilities.rank_zero import rank_zero_only
    from mlflow.tracking import MlflowClient

    # As a Fabric leaves it that was told of several processes.
    monkeypatch.setattr(rank_zero_only, "rank", 3)
    run = tmp_path / "run"
    run.mkdir()
    first = _write(run, "mlflow", {"tags": {"kind": "test"}}, range(2))
    assert _write(run, "mlflow", {}, range(2, 3)) == first
    client = MlflowClient(f"sqlite:///{run.resolve().as_posix()}/mlflow.db")
    found = client.get_run(first)
    assert found.info.run_name == "run"
    assert found.info.status == "FINISHED"
    assert found.data.params == {"a/b": "1"}
    assert found.data.tags["kind"] == "test"
    history = client.get_metric_history(first, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1), (2, 0.5), (3, 1 / 3)]
    # Its database tool configures logging; ours must survive that.
    assert (run / "log.txt").read_text().count("still here") == 2


def test_mlflow_writes_where_its_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="needs the extra loggers")
    pytest.importorskip("sqlalchemy", reason="needs the extra loggers")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path.as_posix()}/all_runs.db")
    ids = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        ids.append(_write(tmp_path / name, "mlflow", {"experiment_name": "mine"}, range(1)))
        assert not (tmp_path / name / "mlflow.db").exists()
    client = MlflowClient(f"sqlite:///{tmp_path.as_posix()}/all_runs.db")
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    assert {run.info.run_id for run in client.search_runs([experiment.experiment_id])} == set(ids)


def test_wandb_writes_offline_below_the_run_folder(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra loggers")
    ids = []
    for name in ("one", "two"):
        run = tmp_path / name
        run.mkdir()
        ids.append(_write(run, "wandb", {"tags": ["test"]}, range(2)))
        assert wandb.run is None
        assert len(list(run.glob(f"wandb/offline-run-*-{ids[-1]}/run-{ids[-1]}.wandb"))) == 1
    assert ids[0] != ids[1]
    assert _write(tmp_path / "one", "wandb", {}, range(2, 3)) == ids[0]
    wandb.teardown()  # its own process writes
    # Records of a wandb file are uncompressed; names and numbers stand in it as text.
    before, after = (file.read_bytes() for file in sorted(tmp_path.glob("one/wandb/offline-run-*/*.wandb")))
    assert before.count(b"train/loss") >= 2
    assert b"0.5" in before
    assert b"train/loss" in after
    assert str(1 / 3).encode() in after
    assert str(1 / 3).encode() not in before
