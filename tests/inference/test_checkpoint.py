"""Checkpoints that are damaged, mistyped, foreign or of another version: one error each, never wrong weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gloam import __version__
from gloam.errors import GloamError
from gloam.inference.checkpoint import FORMAT, Checkpoint
from gloam.models.weights import load_weights
from gloam.recipes.recipe import Recipe
from tests.training.test_interruption import assert_same
from tests.training.tiny import tiny_recipe

Change = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    recipe = Recipe(**tiny_recipe(Path("/data")).model_dump())
    checkpoint = Checkpoint(
        recipe=recipe,
        stage="train",
        epoch=1,
        num_classes=3,
        label_map={10: 0, 11: 1, 17: 2},
        method={"weight": torch.arange(12.0).reshape(3, 4), "count": torch.tensor(5)},
        optimizer={"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        precision={},
        labels=torch.tensor([0, 1, 2, -1]),
        best={"score": 1.5, "epoch": 1.0},
        history=[{"stage": "train", "epoch": 1, "loss": float("nan"), "lr": 1e-3}],
        weak={"seed": 1, "visible": [0, 1, 2], "infrared": [2, 1, 0]},
        fingerprint="abc",
        files="def",
        unfinished={"processes": [{"step": 2}]},
    )
    path = tmp_path / "last.ckpt"
    checkpoint.save(path)
    return path


def _rewrite(path: Path, change: Change) -> None:
    content = torch.load(path, weights_only=True)
    before = content["text"]
    text = json.loads(before)
    change(content, text)
    if content.get("text") == before:  # else the change was made to the text as it is written
        content["text"] = json.dumps(text)
    torch.save(content, path)


def test_what_is_saved_comes_back(saved: Path) -> None:
    one = Checkpoint.load(saved)
    assert one.label_map == {10: 0, 11: 1, 17: 2}
    assert (one.best, one.files, one.unfinished) == ({"score": 1.5, "epoch": 1.0}, "def", {"processes": [{"step": 2}]})
    assert one.history[0]["epoch"] == 1
    assert one.history[0]["loss"] != one.history[0]["loss"]
    one.save(saved)
    assert_same(Checkpoint.load(saved).method, one.method)


def test_no_flipped_byte_is_used(saved: Path, tmp_path: Path) -> None:
    """Every byte of a small checkpoint, one after another: refused, or without any effect."""
    good = Checkpoint.load(saved)
    content = saved.read_bytes()
    harmless = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 0x10
        (tmp_path / "changed.ckpt").write_bytes(changed)
        try:
            found = Checkpoint.load(tmp_path / "changed.ckpt")
        except GloamError:
            continue
        harmless += 1
        for name in ("method", "optimizer", "labels", "unfinished", "best", "label_map", "weak", "epoch", "stage"):
            assert_same(getattr(good, name), getattr(found, name))
        assert found.recipe == good.recipe
    assert harmless < len(content) / 2  # padding, and times and names that the archive holds twice


def test_flipped_weights_are_refused_as_weights_too(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    position = content.index(torch.arange(12.0).numpy().tobytes())
    content[position + 6] ^= 1
    saved.write_bytes(content)
    with pytest.raises(GloamError, match=r"is damaged: the checksum of .*data/\d+ is wrong"):
        Checkpoint.load(saved)
    with pytest.raises(GloamError, match=r"the checksum of .* is wrong\. Copy it again"):
        load_weights(torch.nn.Linear(4, 3), saved)


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_cut_off_files_are_named(size: int, saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(GloamError, match="empty" if size == 0 else "cut off"):
        Checkpoint.load(saved)
    with pytest.raises(GloamError, match="empty" if size == 0 else "cut off"):
        load_weights(torch.nn.Linear(4, 3), saved)


def _text(**values: Any) -> Change:
    return lambda content, text: text.update(values)


def _content(**values: Any) -> Change:
    return lambda content, text: content.update(values)


def _without(key: str) -> Change:
    return lambda content, text: (text.pop(key, None), content.pop(key, None))[0]


HOSTILE: dict[str, tuple[Change, str]] = {
    "epoch is a word": (_text(epoch="one"), "epoch"),
    "epoch is true": (_text(epoch=True), "epoch"),
    "epoch below 0": (_text(epoch=-1), "epoch"),
    "no classes": (_text(num_classes=0), "num_classes"),
    "no stage": (_without("stage"), "stage"),
    "unknown stage": (_text(stage="warmup"), "no stage 'warmup'"),
    "history is a word": (_text(history="abc"), "history"),
    "rows hold lists": (_text(history=[{"loss": [1, 2]}]), r"history\.0\.loss"),
    "best is a list": (_text(best=[1, 2]), "best"),
    "best without an epoch": (_text(best={"score": 1.0}), r"best\.epoch"),
    "best of words": (_text(best={"score": "high", "epoch": 1.0}), r"best\.score"),
    "label map of words": (_text(label_map={"10": "zero"}), r"label_map\.10"),
    "label map with a gap": (_text(label_map={"10": 0, "11": 2}), "label map"),
    "an epoch of 5,000 digits": (_content(text='{"epoch": ' + "1" * 5000 + "}"), "damaged"),
    "recipe is a list": (_text(recipe=[]), "recipe"),
    "recipe of another program": (_text(recipe={"model": "x"}), "not a valid recipe"),
    "text is no JSON": (_content(text="{"), "damaged"),
    "text is a number": (_content(text=5), "damaged"),
    "text is too deep": (_content(text="[" * 100_000), "damaged"),
    "no weights": (_without("method"), "method"),
    "weights are a list": (_content(method=[torch.zeros(1)]), "method is no mapping"),
    "optimiser is a tensor": (_content(optimizer=torch.zeros(1)), "optimizer is no mapping"),
    "sparse weights": (_content(method={"weight": torch.eye(3).to_sparse()}), "not dense"),
    "sparse in the optimiser": (_content(optimizer={"state": {0: {"m": torch.eye(2).to_sparse_csr()}}}), "not dense"),
    "meta weights": (_content(method={"weight": torch.empty(2, device="meta")}), "damaged|could not be read"),
    "quantised weights": (
        _content(method={"weight": torch._empty_affine_quantized([2], scale=0.1, zero_point=0, dtype=torch.quint8)}),
        "not dense",
    ),
    "labels of floats": (_content(labels=torch.zeros(4)), "labels"),
    "labels in a square": (_content(labels=torch.zeros(2, 2, dtype=torch.int64)), "labels"),
    "labels too large": (_content(labels=torch.tensor([0, 1, 2, 3])), r"0 \.\. 3, not in -1 \.\. 2"),
    "labels too small": (_content(labels=torch.tensor([0, -2])), r"-2 \.\. 0"),
    "labels are a list": (_content(labels=[0, 1]), "labels"),
    "unfinished is a number": (_content(unfinished=3), "inside the epoch"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_run_writes_is_refused(name: str, saved: Path) -> None:
    change, message = HOSTILE[name]
    _rewrite(saved, change)
    with pytest.raises(GloamError, match=message) as caught:
        Checkpoint.load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_format_says_who_wrote_it(saved: Path) -> None:
    _rewrite(saved, _content(format=99, gloam="7.1.0"))
    with pytest.raises(GloamError, match=rf"written by gloam 7\.1\.0 in format 99; this is gloam {__version__}"):
        Checkpoint.load(saved)


def test_options_of_another_version_say_who_wrote_them(saved: Path) -> None:
    def change(content: dict[str, Any], text: dict[str, Any]) -> None:
        content["gloam"] = "7.1.0"
        text["recipe"]["data"]["colour_space"] = "lab"

    _rewrite(saved, change)
    with pytest.raises(GloamError, match=r"data\.colour_space.*It was written by gloam 7\.1\.0, this is"):
        Checkpoint.load(saved)


@pytest.mark.parametrize("content", [{"weights": torch.zeros(3)}, [1, 2], {"format": FORMAT}])
def test_files_of_other_software_are_told_apart(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(GloamError, match="not a gloam checkpoint"):
        Checkpoint.load(tmp_path / "foreign.ckpt")


def test_the_first_format_is_still_read(saved: Path) -> None:
    def change(content: dict[str, Any], text: dict[str, Any]) -> None:
        content["format"] = 1
        del content["unfinished"], text["files"]

    _rewrite(saved, change)
    found = Checkpoint.load(saved)
    assert (found.files, found.unfinished, found.epoch) == (None, None, 1)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(GloamError, match="There is no checkpoint"):
        Checkpoint.load(tmp_path)
