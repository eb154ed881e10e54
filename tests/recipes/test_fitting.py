"""Recipes and methods that fit what was read, and why others do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gloam import cli
from gloam.datasets import load_dataset
from gloam.methods import list_methods
from gloam.recipes.fitting import find_fitting, misfit
from gloam.recipes.recipe import list_recipes, load_recipe
from tests.datasets import trees


def _folder(root: Path, *names: str, **options: str | float) -> tuple[Path, dict[str, str | float]]:
    trees.put(root, *names)
    return root, options


def test_visible_labelled_images(tmp_path: Path) -> None:
    root, options = _folder(tmp_path, *(f"p{p}/{n}.jpg" for p in range(20) for n in range(4)), test_fraction=0)
    fit = find_fitting(load_dataset("table", root, **options))
    assert {"cluster_contrast", "spcl", "metaprd"} <= {name.split("/")[-1] for name in fit.fitting}
    assert "agw" not in fit.fitting
    (reason,) = [reason for reason, names in fit.others.items() if any("agw" in name for name in names)]
    assert reason == "visible and infrared images are needed, these are visible"


def test_nobody_known_across_modalities(tmp_path: Path) -> None:
    root, options = _folder(
        tmp_path, *(f"{m}_{n}.jpg" for m in ("ir", "vis") for n in range(9)), labels="none", pattern="{modality}_*"
    )
    fit = find_fitting(load_dataset("table", root, **options))
    names = {name.split("/")[-1] for name in fit.fitting}
    assert {"cluster_contrast", "spcl", "metaprd", "mmgl"} <= names
    assert not {"agw", "base", "m3reid", "wsl_vireid"} & names
    assert any("agw" in name for name in fit.others["nobody is known"])


def test_tracklets_want_a_video_method(tmp_path: Path) -> None:
    splits = load_dataset("hitsz_vcm", trees.vcm(tmp_path, "A"))
    fit = find_fitting(splits)
    assert fit.kind == "recipes"
    # Three people are too few for its batches.
    (reason,) = fit.others
    assert reason.startswith("a batch shows")
    assert set(fit.others[reason]) == set(list_recipes("hitsz_vcm/*"))
    assert misfit(splits, load_recipe("sysu_mm01/agw")) == "these are tracklets"
    images = load_dataset("sysu_mm01", trees.sysu(tmp_path / "sysu"))
    assert misfit(images, load_recipe("hitsz_vcm/m3reid")) == "tracklets are needed, these are single images"


def test_a_test_set_alone_trains_nothing(tmp_path: Path) -> None:
    trees.put(tmp_path, "query/cy/1.jpg", "gallery/cy/1.jpg")
    fit = find_fitting(load_dataset("table", tmp_path, query="query", gallery="gallery"))
    assert fit.fitting == ()
    assert list(fit.others) == ["there is nothing to train on"]
    assert len(fit.others["there is nothing to train on"]) in (len(list_methods()), len(list_recipes("table/*")))


@pytest.mark.parametrize(("people", "fits"), [(7, False), (8, True)])
def test_batches_need_their_people(tmp_path: Path, people: int, fits: bool) -> None:
    rows = [f"{p}_{m}.jpg,{p},{m}" for p in range(people) for m in ("ir", "vis")]
    trees.put(tmp_path, *(row.split(",")[0] for row in rows))
    trees.text(tmp_path, "t.csv", "\n".join(["path,pid,modality", *rows]))
    splits = load_dataset("table", tmp_path / "t.csv", test_fraction=0)
    reason = misfit(splits, load_recipe("sysu_mm01/base"))
    assert reason is None if fits else reason == "a batch shows 8 people and there are 7 to train on"


def test_the_check_command_takes_patterns_as_they_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _folder(tmp_path, *(f"p{p}/c{c}_{n}.jpg" for p in range(20) for c in (1, 2) for n in range(4)))
    words = ["data", "check", "table", str(tmp_path), "--option"]
    assert cli.main([*words, "pattern={pid}/c{cam}_*", "test_fraction=0.25"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "No query has a match in another camera" not in shown
    assert "train_ids │ 15" in shown
    assert cli.main([*words, "test_fraction={pid}/x"]) == 2
    assert "test_fraction" in " ".join(capsys.readouterr().err.split())


def test_the_check_command_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _folder(tmp_path, *(f"p{p}/{n}.jpg" for p in range(20) for n in range(4)))
    assert cli.main(["data", "check", "table", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "that fit: " in shown
    assert "cluster_contrast" in shown.split("that fit: ")[1].split("do not fit")[0]
    assert "agw" in shown.split("do not fit, visible and infrared images are needed")[1]
