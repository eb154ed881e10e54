"""Published weights: every file in place and true, changed ones refused, up to the Hub and back without the network."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import gloam
from gloam import cli
from gloam.augmentation.augmenter import normalize
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results
from gloam.inference.published import FILES, publish
from gloam.methods import list_methods
from tests.inference.fake_hub import FakeHub, running_hub
from tests.inference.models_to_export import MIXTURES, drawn_model, some_images, write_run

huggingface_hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")

SCORES = Results(
    {
        "sysu_mm01/all_single": [
            {"rank1": 0.5, "mAP": 0.25, "mINP": 0.125, "num_valid": 40.0},
            {"rank1": 0.6, "mAP": 0.35, "mINP": 0.125, "num_valid": 40.0},
        ]
    },
    {"selection": "weights of the last epoch"},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sysu_root: Path) -> Path:
    folder = write_run(tmp_path_factory.mktemp("publish") / "run", drawn_model("agw"), sysu_root)
    SCORES.to_json(folder / "results.json")
    return folder


@pytest.fixture(scope="module")
def released(run: Path, tmp_path_factory: pytest.TempPathFactory, sysu_root: Path) -> Path:
    folder = tmp_path_factory.mktemp("released") / "agw-sysu"
    words = ["publish", str(run), str(folder), "--licence", "cc-by-nc-4.0", "--data.root", str(sysu_root)]
    assert cli.main(words) == 0
    return folder


def test_every_file_is_there_and_hashed(released: Path) -> None:
    assert sorted(entry.name for entry in released.iterdir()) == sorted(FILES)
    lines = [line.split("  ") for line in (released / "SHA256SUMS").read_text().splitlines()]
    told = {name: digest for digest, name in lines}
    assert set(told) == set(FILES) - {"SHA256SUMS"}
    for name, digest in told.items():
        assert hashlib.sha256((released / name).read_bytes()).hexdigest() == digest
    card = (released / "README.md").read_text()
    for name in ("model.safetensors", "config.json", "recipe.yaml"):
        assert f"| {name} | `{told[name]}` |" in card


def test_the_card_says_where_the_weights_come_from(released: Path, run: Path, sysu_root: Path) -> None:
    _, header, card = (released / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(header)
    assert front["license"] == "cc-by-nc-4.0"
    assert front["library_name"] == "gloam"
    model = gloam.load_model(run)
    counts = gloam.load_dataset("sysu_mm01", sysu_root).counts()
    for words in (
        "# agw on SYSU-MM01",
        f"{counts['train_ids']:,} train ids",
        f"{counts['train_records']:,} train records",
        "academic use only, no redistribution",
        "55.00 ± 7.07",
        "30.00 ± 7.07",
        "| 40 | 2 |",
        "weights of the last epoch",
        "Intended use and limits",
        "surveillance",
        model.fingerprint.digest,
        gloam.__version__,
        "48 x 24 RGB",
    ):
        assert words in card, words
    config = json.loads((released / "config.json").read_text())
    assert config["scores"]["protocols"]["sysu_mm01/all_single"]["std"]["mAP"] == pytest.approx(0.0707, abs=1e-4)
    assert (config["method"], config["gloam"]) == ("agw", gloam.__version__)


def test_no_folder_of_this_machine_travels(released: Path, run: Path, sysu_root: Path) -> None:
    for name in FILES:
        content = (released / name).read_bytes()
        for folder in (sysu_root, run, Path.home()):
            assert str(folder).encode() not in content, (name, folder)


@pytest.mark.parametrize("name", list_methods())
def test_every_method_comes_back_with_equal_bits(name: str, tmp_path: Path, sysu_root: Path) -> None:
    model = drawn_model(name, mirror=name == "base")
    run = write_run(tmp_path / "run", model, sysu_root)
    folder = publish(run, tmp_path / "released", force=True)
    origin = gloam.load_model(run)
    for place in (folder, folder / "model.safetensors"):
        loaded = gloam.load_model(place)
        assert loaded.fingerprint == origin.fingerprint
        assert loaded.mirror == origin.mirror
        images, modalities = normalize(some_images(model, 3)), MIXTURES["both"](3)
        with torch.no_grad():
            assert torch.equal(loaded.extract(images, modalities), origin.extract(images, modalities))


def test_released_folders_take_the_place_of_runs(released: Path, sysu_root: Path, tmp_path: Path) -> None:
    root = ["--data.root", str(sysu_root)]
    assert cli.main(["evaluate", str(released), *root, "--feature", "pool", "--output", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "evaluation.json").read_text())["protocols"]
    assert cli.main(["export", str(released), "--output", str(tmp_path), "--format", "torch-export"]) == 0
    assert gloam.load_model(tmp_path / "model.pt2").fingerprint == gloam.load_model(released).fingerprint


def _copy(released: Path, place: Path) -> Path:
    place.mkdir()
    for name in FILES:
        (place / name).write_bytes((released / name).read_bytes())
    return place


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_changed_and_missing_files_are_named(name: str, released: Path, tmp_path: Path) -> None:
    folder = _copy(released, tmp_path / "copy")
    content = bytearray((folder / name).read_bytes())
    content[-5] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(GloamError, match=f"{name} .*differs"):
        gloam.load_model(folder)
    (folder / name).unlink()
    with pytest.raises(GloamError, match=f"lacks {name}|no checkpoint"):
        gloam.load_model(folder)


def test_a_changed_tensor_is_found_without_the_sums(released: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    content = bytearray((released / "model.safetensors").read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(GloamError, match="digest differs"):
        gloam.load_model(file)


def test_a_header_names_no_modules_to_import(released: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    source = released / "model.safetensors"
    with safe_open(source, framework="pt") as opened:
        about = json.loads(opened.metadata()["gloam"])
    (tmp_path / "trap_module.py").write_text("raise SystemExit('ran')\n")
    about["recipe"]["plugins"] = ["trap_module"]
    save_file(load_file(source), tmp_path / "trap.safetensors", metadata={"gloam": json.dumps(about)})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        assert gloam.load_model(tmp_path / "trap.safetensors").recipe.plugins == ()
    del about["options"]
    save_file(load_file(source), tmp_path / "short.safetensors", metadata={"gloam": json.dumps(about)})
    with pytest.raises(GloamError, match="incomplete"):
        gloam.load_model(tmp_path / "short.safetensors")
    save_file(load_file(source), tmp_path / "foreign.safetensors")
    with pytest.raises(GloamError, match="not exported by gloam"):
        gloam.load_model(tmp_path / "foreign.safetensors")


def test_publishing_asks_for_scores_and_an_empty_folder(run: Path, tmp_path: Path, sysu_root: Path) -> None:
    bare = write_run(tmp_path / "bare", drawn_model("base"), sysu_root)
    with pytest.raises(GloamError, match="no scores"):
        publish(bare, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    with pytest.raises(GloamError, match=r"thesis\.tex"):
        publish(run, other)
    folder = publish(bare, tmp_path / "out", force=True)
    assert "None were measured" in (folder / "README.md").read_text()
    publish(run, folder)  # an earlier release is replaced
    assert gloam.load_model(folder).fingerprint == gloam.load_model(run).fingerprint


def test_memories_of_people_are_declared(tmp_path: Path, sysu_root: Path) -> None:
    model = drawn_model("cluster_contrast")
    model.method.load_state_dict(
        {**model.method.state_dict(), "memory.rows": torch.nn.functional.normalize(torch.rand(24, model.feature_dim))}
    )
    folder = publish(write_run(tmp_path / "run", model, sysu_root), tmp_path / "out", force=True)
    assert f"memory.rows (24 x {model.feature_dim})" in (folder / "README.md").read_text()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub of this machine's own, an empty cache, and no way to any other machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "of-somebody")
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: object) -> None:
        assert isinstance(address, tuple)
        assert address[0] in ("127.0.0.1", "localhost"), address
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)
    with running_hub() as server:
        server.token = "of-somebody"
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def test_up_to_the_hub_and_back(run: Path, tmp_path: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["publish", str(run), str(tmp_path / "out"), "--push", "somebody/agw-sysu"]
    assert cli.main(words) == 0
    assert f"{hub.address}/somebody/agw-sysu/commit/" in capsys.readouterr().out
    assert "private" in (hub.created[0].get("visibility"), "private" if hub.created[0].get("private") else "")
    uploaded = hub.commits["somebody/agw-sysu"][-1]
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == uploaded
    model = gloam.load_model("hf://somebody/agw-sysu")
    origin = gloam.load_model(run)
    assert model.fingerprint == origin.fingerprint
    assert model.name == "hf://somebody/agw-sysu"
    commit = hub.oid("somebody/agw-sysu", 1)
    assert gloam.load_model(f"hf://somebody/agw-sysu@{commit}").fingerprint == origin.fingerprint
    # As the command line gives it.
    assert gloam.load_model(Path("hf://somebody/agw-sysu")).fingerprint == origin.fingerprint


def test_files_changed_on_the_hub_are_refused(released: Path, hub: FakeHub) -> None:
    files = {name: (released / name).read_bytes() for name in FILES}
    hub.commits["o/n"] = [{**files, "model.safetensors": files["model.safetensors"][:-1] + b"x"}]
    with pytest.raises(GloamError, match=r"model\.safetensors .*differs"):
        gloam.load_model("hf://o/n")


def test_what_the_hub_says_is_told(released: Path, hub: FakeHub, tmp_path: Path) -> None:
    hub.commits["o/foreign"] = [{"pytorch_model.bin": b""}]
    for address, message in {
        "hf://o/absent": "no model o/absent",
        "hf://o/foreign": "not published by gloam",
        "hf://o/foreign@v9": "no such revision",
        "hf://absent": "OWNER/NAME",
        "hf://a/b/c": "OWNER/NAME",
    }.items():
        with pytest.raises(GloamError, match=message):
            gloam.load_model(address)
    hub.token = "of-somebody-else"
    assert cli.main(["publish", str(tmp_path), str(tmp_path / "x")]) == 2
    from gloam.inference.hub import push

    with pytest.raises(GloamError, match="hf auth login"):
        push(released, "o/n")


def test_offline_it_says_what_is_missing_and_where(
    released: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commits["o/n"] = [{name: (released / name).read_bytes() for name in FILES}]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(GloamError) as told:
        gloam.load_model("hf://o/n")
    for words in ("SHA256SUMS", "config.json", "model.safetensors", str(tmp_path / "hub"), "hf download o/n"):
        assert words in str(told.value)
    assert hub.requests == []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    online = gloam.load_model("hf://o/n")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert gloam.load_model("hf://o/n").fingerprint == online.fingerprint  # from the cache
    assert len(hub.requests) == asked


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(GloamError, match=r"gloam\[hub\]"):
        gloam.load_model("hf://o/n")
