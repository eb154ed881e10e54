"""The device that a user names, or the list of those there are."""

from __future__ import annotations

import pytest
import torch

from gloam.devices import available_devices, choose_device, largest_memory
from gloam.errors import GloamError


def test_every_device_there_is_can_be_chosen() -> None:
    assert available_devices()[-1] == "cpu"
    for name in available_devices():
        assert torch.zeros(1, device=choose_device(name)).device.type == name.partition(":")[0]
    assert choose_device(" CPU ") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    "name", ["", "gpu", "cuda:99", "cpu:7", "meta", "cuda:-1", "0", "[/x]", "a" * 5000, "cuda:x", "\0"]
)
def test_anything_else_lists_them(name: str) -> None:
    with pytest.raises(GloamError, match=r"There is no device.*cpu") as error:
        choose_device(name)
    assert len(str(error.value)) < 300


def test_gpus_are_listed_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert available_devices()[:3] == ["cuda", "cuda:0", "cuda:1"]
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(GloamError, match="auto, cuda or cuda:0 or cuda:1 or"):
        choose_device("cuda:2")


def test_this_machine_has_some_memory() -> None:
    assert (largest_memory() or 2**30) >= 2**28
