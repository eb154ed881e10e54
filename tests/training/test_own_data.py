"""Training on own data that nobody has labelled or divided, from the command line's door."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from gloam import cli
from gloam.drawing.dataset import draw_dataset
from gloam.recipes import recipe as recipes
from gloam.training.context import pseudo_label_quality

PUBLISHED = Path(recipes.__file__).parent / "market1501" / "cluster_contrast.yaml"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain folder of drawn people; the names say who they are, but nobody reads them."""
    root = tmp_path_factory.mktemp("own") / "market"
    draw_dataset("market1501", root, ids=10, height=32, width=16)
    return root / "bounding_box_train"


def _recipe(folder: Path, **options: Any) -> Path:
    content = yaml.safe_load(PUBLISHED.read_text())
    content["data"] = {"name": "table", "height": 32, "width": 16, "cache": "off", "options": options}
    content["method"] |= {"arch": "tiny", "eps": 0.5, "k1": 6, "k2": 2, "min_samples": 2}
    content["sampler"] |= {"identities": 2, "instances": 4}
    content["train"] = {"epochs": 2, "iterations": 2}
    content |= {"weights": "none", "expected": [], "evaluation": {"every": 1}}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_unlabelled_photos_train_a_method_without_labels(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = _recipe(tmp_path, labels="none"), tmp_path / "run"
    assert cli.main(["train", str(recipe), "--data.root", str(photos), "--output", str(run), "--quiet"]) == 0
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert float(rows[0]["pseudo_labels_clusters"]) >= 2
    assert "no scores: these data have no test set" in capsys.readouterr().out
    # Nobody knows who is who, so nothing is said about it.
    assert not [name for name in rows[0] if name.endswith(("nmi", "ari", "pair_f", "identities"))]


@pytest.mark.parametrize(
    ("flags", "options", "words"),
    [
        (["--evaluation.selection", "validation"], {"labels": "none"}, "nobody can be held out"),
        (["--evaluation.selection", "test"], {"labels": "none"}, "has no test set"),
    ],
)
def test_what_needs_names_or_a_test_set_is_refused(
    photos: Path,
    tmp_path: Path,
    flags: list[str],
    options: dict[str, str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, run = _recipe(tmp_path, **options), tmp_path / "run"
    assert cli.main(["train", str(recipe), "--data.root", str(photos), "--output", str(run), "--quiet", *flags]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not run.exists()


def test_supervised_methods_refuse_photos_without_names(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(_recipe(tmp_path, labels="none").read_text())
    content["method"] = {"name": "base", "arch": "tiny"}
    del content["sampler"], content["augment"]
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(content))
    assert cli.main(["train", str(tmp_path / "base.yaml"), "--data.root", str(photos), "--quiet"]) == 2
    assert "does not say who is in its training images" in " ".join(capsys.readouterr().err.split())


def test_quality_of_labels_that_nobody_can_judge() -> None:
    import torch

    labels = torch.tensor([0, 0, 1, -1])
    assert pseudo_label_quality(labels, None) == {"clusters": 2.0, "outliers": 1.0}
    judged = pseudo_label_quality(labels, torch.tensor([3, 3, 4, 4]))
    assert judged == {"clusters": 2.0, "identities": 2.0, "outliers": 1.0, "nmi": 1.0, "ari": 1.0, "pair_f": 1.0}
