"""The record of bits: what is measured again is equal, and any number that changed is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import same_bits
from benchmarks.same_bits import CASES, differences, main


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of one case, one stage of two epochs; read only."""
    file = tmp_path_factory.mktemp("bits") / "before.json"
    assert main(["record", str(file), "base"]) == 0
    return file


def test_a_record_holds_ten_steps_features_and_results(recorded: Path) -> None:
    case = json.loads(recorded.read_text(encoding="utf-8"))["cases"]["base"]
    assert len(case["losses"]["steps"]) == 10
    assert all(" loss " in line for line in case["losses"]["steps"])
    assert len({row["loss"] for row in case["losses"]["epochs"]}) == 2
    query, gallery = case["features"]["query"], case["features"]["gallery"]
    assert query["shape"][1] == gallery["shape"][1] == 64
    assert query["sha256"] != gallery["sha256"]
    assert any(float.fromhex(value) for value in query["first"])
    assert case["results"]["train"]["protocols"].keys() == case["results"]["evaluate"]["protocols"].keys()


def test_the_same_code_gives_the_same_bits(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(recorded), "base"]) == 0
    assert capsys.readouterr().out.split()[-4:] == ["base", "equal", "equal", "equal"]


def test_another_weight_decay_is_found(
    recorded: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, flags = CASES["base"]
    monkeypatch.setitem(same_bits.CASES, "base", (recipe, f"{flags} --optimizer.weight-decay 0.00051"))
    assert main(["compare", str(recorded), "base"]) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("base "))
    assert line.split()[2] == "different"  # features: the losses' four decimals may hide it, the bytes do not


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("losses", ("losses", "epochs", 1, "loss")),
        ("features", ("features", "gallery", "sha256")),
        ("results", ("results", "train", "protocols", "sysu_mm01/all_single", "mean", "mAP")),
    ],
)
def test_one_changed_number_is_reported(
    part: str,
    place: tuple[str | int, ...],
    recorded: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = json.loads(recorded.read_text(encoding="utf-8"))
    measured = json.loads(recorded.read_text(encoding="utf-8"))["cases"]["base"]
    monkeypatch.setattr(same_bits, "measure", lambda case, folder: measured)
    target = content["cases"]["base"]
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = "0" if isinstance(target[place[-1]], str) else target[place[-1]] + 1e-16 + 2**-50
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(content), encoding="utf-8")
    assert main(["compare", str(changed)]) == 1
    out = capsys.readouterr().out
    words = dict(
        zip(same_bits.PARTS, next(row for row in out.splitlines() if row[:5] == "base ").split()[1:], strict=True)
    )
    assert words == {name: "different" if name == part else "equal" for name in same_bits.PARTS}
    assert f"base/{'/'.join(map(str, place))}: " in out


def test_what_counts_as_a_difference() -> None:
    assert differences({"a": 1.0, "n": float("nan")}, {"a": 1.0, "n": float("nan"), "new": 2}) == []
    assert differences({"a": 1}, {}) == ["/a is gone"]
    assert differences({"a": [1, 2]}, {"a": [1]}) == ["/a: [1, 2] -> [1]"]
    assert differences([{"a": "x"}], [{"a": "y"}], "c") == ['c/0/a: "x" -> "y"']


def test_every_case_that_is_named_elsewhere_exists() -> None:
    assert set(same_bits.STAGED) | set(same_bits.OPTIONAL) <= CASES.keys()
    assert {"recipes", "demo"}.isdisjoint(CASES)


def test_a_record_is_never_overwritten(recorded: Path) -> None:
    before = recorded.read_bytes()
    with pytest.raises(SystemExit, match="exists"):
        main(["record", str(recorded), "base"])
    assert recorded.read_bytes() == before


def test_unknown_cases_are_named(recorded: Path) -> None:
    with pytest.raises(SystemExit, match="no case agwx"):
        main(["compare", str(recorded), "agwx"])
    with pytest.raises(SystemExit, match="has no case agw"):
        main(["compare", str(recorded), "agw"])
