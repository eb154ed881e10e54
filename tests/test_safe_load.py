"""Files of tensors from strangers: no code runs, every fault is one sentence, and none advises to trust the file."""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.models.weights import read_state
from gloam.safe_load import load_safetensors, load_torch_file, plain_tensors

READERS = [load_torch_file, read_state, Checkpoint.load]
ADVICE = ("weights_only", "trust", "safe_globals", "PyTorch 2.6", "arbitrary")


class _Program:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("read", READERS)
def test_programs_and_objects_are_named_and_not_built(tmp_path: Path, read: Any) -> None:
    torch.save({"net": _Program(tmp_path / "ran")}, tmp_path / "program.pth")
    torch.save({"args": argparse.Namespace(lr=1)}, tmp_path / "object.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    expected = {"program": "mkdir", "object": "argparse.Namespace", "module": r"torch\.nn\.modules\.linear\.Linear"}
    for name, word in expected.items():
        with pytest.raises(GloamError, match=f"{name}.pth could not be read: it holds the Python object .*{word}") as e:
            read(tmp_path / f"{name}.pth")
        assert not any(advice in str(e.value) for advice in ADVICE)
        assert e.value.__cause__ is None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"hello", b"PK\x03\x04 cut", b"\x80\x02}q\x00."])
def test_files_that_are_none(tmp_path: Path, read: Any, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(GloamError, match=r"x\.pth") as e:
        read(tmp_path / "x.pth")
    assert not any(advice in str(e.value) for advice in ADVICE)


@pytest.mark.parametrize("zip_file", [True, False])
def test_damaged_files_give_one_sentence_whatever_the_damage(tmp_path: Path, zip_file: bool) -> None:
    torch.save({"a.weight": torch.zeros(3)}, tmp_path / "x.pth", _use_new_zipfile_serialization=zip_file)
    whole = (tmp_path / "x.pth").read_bytes()
    generator = random.Random(0)
    messages: list[str] = []
    for _ in range(400):
        damaged = bytearray(whole[: generator.choice([len(whole), generator.randrange(len(whole))])])
        for _ in range(generator.randint(1, 4)):
            if damaged:
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        (tmp_path / "x.pth").write_bytes(damaged)
        try:
            read_state(tmp_path / "x.pth")
        except GloamError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not [message for message in messages if "\n" in message or any(advice in message for advice in ADVICE)]


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 99, b"\xff" * 16, b"\x02\0\0\0\0\0\0\0{}{}", b"\x04\0\0\0\0\0\0\0[{}]"]
)
def test_safetensors_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(GloamError, match=r"x\.safetensors (could not be read|holds no tensors)"):
        read_state(tmp_path / "x.safetensors")
    if content[8:] != b"{}{}":
        with pytest.raises(GloamError, match="no complete safetensors file"):
            load_safetensors(tmp_path / "x.safetensors")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: torch.zeros(3, 3).to_sparse(), "a sparse tensor"),
        (lambda: torch.eye(3).to_sparse_csr(), "a sparse tensor"),
        (lambda: torch.empty(3, device="meta"), "a valueless"),
        (lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8), "a quantised tensor"),
        (lambda: [[1.0, 2.0]], "a list, not a tensor"),
        (lambda: "0.1 0.2", "a str, not a tensor"),
    ],
)
def test_what_is_no_weight_is_named(tmp_path: Path, make: Any, word: str) -> None:
    torch.save({"state_dict": {"layer1.0.conv1.weight": make(), "fine": torch.zeros(2)}}, tmp_path / "odd.pth")
    with pytest.raises(GloamError, match=rf"layer1\.0\.conv1\.weight is {word}"):
        read_state(tmp_path / "odd.pth")


def test_nested_dictionaries_become_dotted_names(tmp_path: Path) -> None:
    content = {"a": {"b": {"c": torch.zeros(1)}, "epoch": 3}, "d": torch.ones(2), "names": ["x"]}
    assert plain_tensors(content, tmp_path).keys() == {"a.b.c", "d"}


def test_dictionaries_without_end_are_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": torch.zeros(1)}
    content["self"] = content
    torch.save(content, tmp_path / "loop.pth")
    with pytest.raises(GloamError, match="deeper"):
        read_state(tmp_path / "loop.pth")


def test_numpy_results_beside_tensors_are_fine_only_where_asked_for(tmp_path: Path) -> None:
    import numpy as np

    torch.save({"net": {"a": torch.zeros(1)}, "cmc": np.ones(3), "mAP": np.float64(0.5)}, tmp_path / "agw.t")
    assert read_state(tmp_path / "agw.t").keys() == {"a"}
    with pytest.raises(GloamError, match="Python object numpy"):
        load_torch_file(tmp_path / "agw.t")
