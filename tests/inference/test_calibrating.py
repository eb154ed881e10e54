"""Calibrating runs: who may take part, where the result lies, whose model it belongs to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import gloam
from gloam.cli import main
from gloam.datasets import get_dataset, load_dataset
from gloam.errors import GloamError
from gloam.evaluation.calibration import Calibration
from gloam.inference.calibrating import calibrate_run, people_to_calibrate, require_other_people
from gloam.inference.checkpoint import Checkpoint, find_checkpoint
from gloam.training.run import train
from tests.people_tree import write_sysu
from tests.training.tiny import tiny_recipe

QUICK = {"resamples": 20, "targets": (0.3,)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sysu(tmp_path_factory.mktemp("people") / "sysu", train=6, val=3, test=8)


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe(root, train={"epochs": 1, "iterations": 1})
    return train(recipe, output=tmp_path_factory.mktemp("all") / "run", progress=False).path


@pytest.fixture(scope="module")
def validated(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = tiny_recipe(root, train={"epochs": 1, "iterations": 1}, evaluation={"selection": "validation"})
    return train(recipe, output=tmp_path_factory.mktemp("part") / "run", progress=False).path


def checkpoint_of(run: Path) -> Checkpoint:
    return Checkpoint.load(find_checkpoint(run))


def test_test_people_are_checked_and_the_file_travels_with_the_run(run: Path) -> None:
    assert gloam.load_model(run).calibration is None
    found, file = calibrate_run(run, device="cpu", **QUICK)
    assert file == run / "calibration.json"
    assert (found.data.disjoint, found.data.identities, found.data.part) == ("checked", 8, "test")
    assert found.data.images == 8 * 6 * 3  # once, though query and gallery of other protocols share images
    assert found.camera_rule == "sysu"
    model = gloam.load_model(run)
    assert model.calibration == found == gloam.load_model(find_checkpoint(run)).calibration
    assert found.model.digest == model.fingerprint.digest
    # Another feature lies in another space.
    assert gloam.load_model(run, mirror=not model.mirror).calibration is None
    # The same from features, but for what is known of the data.
    splits = model.load_splits()
    features = model.embed(splits, split="query") + model.embed(splits, split="gallery")
    own = gloam.calibrate(features, camera_rule="sysu", **QUICK)
    assert own.pairs == found.pairs
    file.unlink()


def test_held_out_people_are_those_of_the_validation(run: Path, validated: Path, root: Path) -> None:
    splits = load_dataset("sysu_mm01", root)
    checkpoint = checkpoint_of(validated)
    chosen = people_to_calibrate(splits, checkpoint, "held-out")
    assert {record.pid_raw for record in chosen} == set(splits.validation_pids)
    assert require_other_people(splits, chosen, checkpoint, other_people=False) == "checked"
    with pytest.raises(GloamError, match="nobody was held out"):
        people_to_calibrate(splits, checkpoint_of(run), "held-out")


def test_people_who_were_trained_on_are_refused_whatever_is_said(run: Path, root: Path, tmp_path: Path) -> None:
    # The lists of another copy call training people test people.
    other = tmp_path / "other"
    shutil.copytree(root, other)
    train_ids = (other / "exp" / "train_id.txt").read_text()
    (other / "exp" / "train_id.txt").write_text((other / "exp" / "test_id.txt").read_text())
    (other / "exp" / "test_id.txt").write_text(train_ids)
    for vouched in (False, True):
        with pytest.raises(GloamError, match=r"6 of the people .* were trained on"):
            calibrate_run(run, data_root=other, other_people=vouched, device="cpu", **QUICK)
    assert not (run / "calibration.json").exists()


def test_weak_labels_hide_nobody(root: Path, run: Path) -> None:
    from dataclasses import replace

    from gloam.datasets.fingerprint import data_fingerprint
    from gloam.datasets.weak import shuffle_labels_per_modality

    splits = load_dataset("sysu_mm01", root)
    weak_splits, weak = shuffle_labels_per_modality(splits, 0)
    checkpoint = replace(
        checkpoint_of(run),
        weak=weak.to_dict(),
        label_map=dict(weak_splits.label_map),
        fingerprint=data_fingerprint(weak_splits.train, splits.query, splits.gallery),
    )
    chosen = people_to_calibrate(splits, checkpoint, "test")
    assert require_other_people(splits, chosen, checkpoint, other_people=False) == "checked"
    with pytest.raises(GloamError, match="were trained on"):
        require_other_people(splits, splits.train[:5], checkpoint, other_people=False)


def test_other_data_need_a_word(run: Path, root: Path, tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    lines = ["path,pid,cam,modality,split"]
    for record in load_dataset("sysu_mm01", root).gallery:
        part = "query" if record.cam == 1 else "gallery"
        lines.append(f"{root / record.paths[0]},p{record.pid},{record.cam},{record.modality.name.lower()},{part}")
    table.write_text("\n".join(lines) + "\n")
    given = {"data_root": table, "data_name": "table", "device": "cpu", "output": tmp_path / "own.json"}
    with pytest.raises(GloamError, match=r"another dataset, so nobody can tell.*--other-people"):
        calibrate_run(run, **given, **QUICK)
    found, file = calibrate_run(run, **given, other_people=True, **QUICK)
    assert (found.data.name, found.data.disjoint) == ("table", "stated")
    assert list(found.pairs) == ["visible-visible"]
    assert Calibration.load(file) == found
    with pytest.raises(GloamError, match="Where is table"):
        calibrate_run(run, data_name="table")
    changed = write_sysu(tmp_path / "changed", train=6, val=3, test=9)
    with pytest.raises(GloamError, match="fingerprint differs"):
        calibrate_run(run, data_root=changed, device="cpu", **QUICK)


def test_equal_ids_of_benchmarks_that_number_anew_are_different_people() -> None:
    assert get_dataset("msmt17").numbers_test_ids_anew
    assert not get_dataset("sysu_mm01").numbers_test_ids_anew


def test_unknown_people_are_left_out(run: Path, root: Path) -> None:
    model = gloam.load_model(run)
    features = model.embed(model.load_splits(), split="gallery")
    with pytest.raises(GloamError, match="Nobody knows who is in these images"):
        gloam.calibrate(model.embed([root / features.columns["path"][0]]))


def test_the_command_writes_file_and_figure_and_says_what_it_found(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["calibrate", str(run), "--data.root", str(root), "--device", "cpu", "--resamples", "20", "--fmr", "0.3"]
    assert main([*words, "1e-3", "--prior", "50"]) == 0
    shown = capsys.readouterr().out
    assert "none of them was trained on (checked)" in shown
    assert "one in 50 is" in shown
    assert "needs 10,000 impostor pairs of about 78 identities" in " ".join(shown.split())
    assert "warning: visible-visible: 8 identities" in " ".join(shown.split())
    assert (run / "det.png").read_bytes()[:4] == b"\x89PNG"
    first = (run / "calibration.json").read_bytes()
    figure = tmp_path / "det.svg"
    assert main([*words, "1e-3", "--json", "--figure", str(figure)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(first)
    assert (run / "calibration.json").read_bytes() == first
    assert "false match rate" in figure.read_text()
    assert main([*words, "--prior", "1"]) == 2
    assert "one in so many" in capsys.readouterr().err
    assert main([*words, "--figure", "x.txt"]) == 2
    assert "must end in" in capsys.readouterr().err
    (run / "calibration.json").unlink()
