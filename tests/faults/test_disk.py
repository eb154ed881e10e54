"""A full disk, a read-only folder, a path below a file: one message from every command, and no half file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.driver import can_mount
from tests.faults.runs import drive, make_runs
from tests.small_recipes import small_words

KINDS = ("full", "readonly", "limit", "below_file")


@pytest.fixture(scope="module")
def runs(sysu_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_runs(sysu_root, tmp_path_factory.mktemp("runs"))


def _commands(runs: dict[str, Path], sysu_root: Path, drawn: Path) -> dict[str, list[str]]:
    """Name -> words of every command that writes; ``{place}`` is where."""
    run = str(runs["finished"])
    score = ["--protocol", "all_single"]
    words = {
        f"extract {suffix}": ["extract", run, str(sysu_root), f"{{place}}/f.{suffix}", "--split", "query"]
        for suffix in ("npz", "csv", "parquet")
    }
    words |= {
        "evaluate": ["evaluate", run, *score, "--output", "{place}/scores"],
        "rank-list": ["rank-list", run, "--output", "{place}/list.png", "--queries", "2", "--top", "3"],
        "embedding": ["embedding", run, "--output", "{place}/embedding.png"],
        "curves": ["curves", run, "--output", "{place}/curves.png"],
        "stripes": ["stripes", str(runs["stripes"]), "--output", "{place}/stripes.png", "--images", "1"],
        "clips": ["clips", str(runs["clips"]), "--output", "{place}/clips.csv"],
        "draw": ["data", "draw", "sysu_mm01", "{place}/drawn", "--ids", "4", "--images", "1"],
        "gallery create": ["gallery", "create", "{place}/people.gallery", run, "--retention", "3"],
        "export torch-export": ["export", run, "--output", "{place}/exported", "--format", "torch-export"],
        "export safetensors": ["export", run, "--output", "{place}/exported", "--format", "safetensors"],
        "export onnx": ["export", run, "--output", "{place}/exported", "--format", "onnx"],
        "demo": ["demo", "--output", "{place}/demo"],
        "train": ["train", "sysu_mm01/base", *small_words("sysu_mm01/base", drawn), "--output", "{place}/run"],
    }
    return words


def _case(kind: str, words: list[str], **more: Any) -> dict[str, Any]:
    return {"place": kind, "words": words, **more}


def _resume(kind: str, runs: dict[str, Path], *words: str, **more: Any) -> dict[str, Any]:
    """Commands whose place is the run itself."""
    return _case(kind, list(words), prepare={"run": str(runs["stopped"])}, **more)


def check(answer: dict[str, Any]) -> None:
    """One message, code 2, nothing half-written."""
    told = f"{answer['place']}: gloam {' '.join(answer['words'])}\n{answer['err']}"
    assert answer["code"] == 2, told
    assert answer["err"].count("error:") == 1, told
    assert "Traceback" not in answer["err"] + answer["out"], told
    assert "Logging error" not in answer["err"], told
    assert not [name for name in answer["left"] if ".tmp" in name or ".export-" in name], told


def test_representatives(runs: dict[str, Path], sysu_root: Path, drawn: Path, tmp_path: Path) -> None:
    commands = _commands(runs, sysu_root, drawn)
    cases = [
        _case("limit", commands[name])
        for name in ("extract parquet", "evaluate", "curves", "export safetensors", "train")
    ]
    cases += [_case("below_file", commands[name]) for name in ("extract npz", "embedding")]
    cases.append(_resume("limit", runs, "train", "--resume", "{place}/run", "--quiet"))
    for answer in drive(cases, tmp_path / "places"):
        check(answer)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_in_every_place(
    kind: str, runs: dict[str, Path], sysu_root: Path, drawn: Path, tmp_path: Path
) -> None:
    mounts = kind in ("full", "readonly")
    (tmp_path / "probe").mkdir()
    if mounts and not can_mount(tmp_path / "probe"):
        pytest.skip("mounting a small file system takes root or user namespaces, which this machine refuses")
    commands = _commands(runs, sysu_root, drawn).values()
    # Drawn images are small.
    cases = [_case(kind, words, limit=64 if "draw" in words else 512) for words in commands]
    if kind != "below_file":
        cases.append(_resume(kind, runs, "train", "--resume", "{place}/run", "--quiet"))
        # The run folder is where evaluation.json goes by default.
        cases.append(_resume(kind, runs, "evaluate", "{place}/run", "--protocol", "all_single"))
    if kind == "full":
        # Space runs out at one step after another: the log, TensorBoard, the table, the checkpoint, the results.
        resumed = ("train", "--resume", "{place}/run", "--quiet")
        cases += [_resume(kind, runs, *resumed, free=free) for free in (4096, 16384, 65536, 262144, 1 << 20)]
    answers = drive(cases, tmp_path / "places", mounts=mounts)
    failed = []
    for answer in answers:
        if answer["code"] == 0 and "--resume" in answer["words"]:
            continue  # the space was enough
        try:
            check(answer)
        except AssertionError as error:
            failed.append(str(error))
    assert not failed, f"{len(failed)} of {len(answers)}\n" + "\n".join(failed)
