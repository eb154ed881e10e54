"""``gloam stripes``: accuracy over every test image with private draws, and the image of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gloam import cli
from gloam.analysis.stripes import report_run_stripes, score_orders
from gloam.datasets.records import Modality
from gloam.drawing.dataset import draw_dataset
from gloam.errors import GloamError
from gloam.inference.loading import load_model
from gloam.inference.sources import open_records
from gloam.training.run import train
from tests.training.tiny import tiny_recipe
from tests.visualize.images import pixels

STRIPES = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "sysu_mm01"
    draw_dataset("sysu_mm01", root, ids=6, images=2, height=48, width=16, progress=False)
    return root


def _run(data: Path, output: Path, **method: object) -> Path:
    recipe = tiny_recipe(
        data,
        method={"name": "mmgl", "num_stripes": STRIPES, "cl_dim": 8, **method},
        sampler={"name": "modality_shuffle", "batch_size": 2},
        train={"epochs": 1, "iterations": 1},
    )
    return train(recipe, output=output, progress=False).path


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _run(data, tmp_path_factory.mktemp("runs") / "run")


def test_the_command_scores_every_test_image_and_draws(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "stripes.png"
    assert cli.main(["stripes", str(run), "--output", str(output), "--images", "2", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "33.3" in shown  # chance of three stripes
    assert "16.67" in shown
    assert pixels(output).std() > 10


def test_scores_are_those_of_all_test_images_and_depend_on_the_seed_only(run: Path, tmp_path: Path) -> None:
    reports = []
    for number, (seed, size) in enumerate(((0, 64), (0, 64), (1, 64), (0, 3))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)  # must not matter: the draws are private
            reports.append(
                report_run_stripes(run, tmp_path / f"{number}.png", images=1, seed=seed, batch_size=size, device="cpu")
            )
    assert reports[0].scores == reports[1].scores
    assert reports[0].scores != reports[2].scores
    assert [s.accuracy for s in reports[3].scores] == pytest.approx([s.accuracy for s in reports[0].scores])
    model = load_model(run)
    splits = model.load_splits()
    wanted = {m: sum(r.modality == m for r in (*splits.query, *splits.gallery)) for m in Modality}
    assert {s.modality: s.images for s in reports[0].scores} == wanted
    for score in reports[0].scores:
        assert 0 <= score.exact <= score.accuracy <= 1
        assert score.accuracy == pytest.approx(1 / STRIPES, abs=0.2)  # one step: still at chance
    # A network that always gives the truth scores one.
    true = lambda images, modalities, generator: torch.ones(len(images), 2)  # noqa: E731
    model.method.score_orders = true  # type: ignore[method-assign]
    records, store = open_records(splits.gallery, splits.root, model.recipe.data, progress=False)
    assert [s.accuracy for s in score_orders(model, records, store)] == [1.0]


def test_tasks_that_were_off_are_left_out(data: Path, tmp_path: Path) -> None:
    path = _run(data, tmp_path / "pcc", permutation=False)
    report = report_run_stripes(path, tmp_path / "pcc.png", images=1, device="cpu")
    assert report.scores == ()
    assert report.path.is_file()


def test_mistakes_are_named(run: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(GloamError, match="Lower --images"):
        report_run_stripes(run, tmp_path / "x.png", images=1000, device="cpu")
    with pytest.raises(GloamError, match="at least one"):
        report_run_stripes(run, tmp_path / "x.png", images=0)
    recipe = tiny_recipe(data, sampler={"identities": 2, "instances": 1}, train={"epochs": 1, "iterations": 1})
    other = train(recipe, output=tmp_path / "base", progress=False).path
    with pytest.raises(GloamError, match=r"'base'.*gloam train sysu_mm01/mmgl"):
        report_run_stripes(other, tmp_path / "x.png", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("streams", [1, 2])
def test_orders_of_people_never_seen_are_recovered(streams: int, tmp_path: Path) -> None:
    root = tmp_path / "sysu_mm01"
    draw_dataset("sysu_mm01", root, ids=24, images=4, height=48, width=24, progress=False)
    recipe = tiny_recipe(
        root,
        data={"width": 24},
        method={"name": "mmgl", "num_stripes": STRIPES, "streams": streams, "pcc": False},
        augment={"erase": 0.0},
        sampler={"name": "modality_shuffle", "batch_size": 16},
        optimizer={"lr": 0.1},
        train={"epochs": 10, "iterations": 30},
    )
    path = train(recipe, output=tmp_path / "run", progress=False).path
    for score in report_run_stripes(path, tmp_path / "stripes.png", device="cpu").scores:
        # Chance is 1/3 and 1/6.
        assert score.accuracy > 0.75
        assert score.exact > 0.6
