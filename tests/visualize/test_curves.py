"""Training curves: which numbers share a panel, and runs without epochs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gloam.errors import GloamError
from gloam.visualize import curves
from gloam.visualize.curves import draw_curves
from gloam.visualize.figure_files import save_figure
from tests.visualize.images import pixels

TABLE = """stage,epoch,lr,loss,identity,triplet,identity_correct,clusters,validation_rank1,validation_mAP,seconds
warm,0,0.05,6.5,5.0,1.5,0.1,,,,70
warm,1,0.1,5.5,4.5,1.0,0.2,,0.3,0.2,70
main,0,0.1,4.5,3.6,0.9,0.4,412,,,70
main,1,0.01,3.5,2.9,0.6,0.5,398,0.5,0.4,70
"""


def test_curves_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(TABLE)
    path = save_figure(draw_curves(tmp_path), tmp_path / "plots" / "curves.png")
    image = pixels(path)
    assert image.shape[1] > image.shape[0] > 300
    assert len({tuple(colour) for colour in image.reshape(-1, 3)[::7].tolist()}) > 10


def test_numbers_share_panels_by_kind(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(TABLE)
    rows = [
        dict(zip(TABLE.splitlines()[0].split(","), line.split(","), strict=True)) for line in TABLE.splitlines()[1:]
    ]
    series = {name: curves._points(rows, name) for name in rows[0] if name not in curves._SKIPPED}
    assert series["validation_mAP"] == [(2, 0.2), (4, 0.4)]
    assert curves._panels(series) == {
        "loss": ["loss", "identity", "triplet"],
        "learning rate": ["lr"],
        "scores (%)": ["validation_rank1", "validation_mAP"],
        "share correct": ["identity_correct"],
        "clusters and people": ["clusters"],
    }


@pytest.mark.parametrize("content", [None, "", "stage,epoch,loss\n"])
def test_a_run_without_epochs_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(GloamError, match="no epoch has finished"):
        save_figure(draw_curves(tmp_path), tmp_path / "curves.png")


def test_label_quality_has_its_own_panel() -> None:
    names = ("loss", "pseudo_labels_clusters", "pseudo_labels_identities", "pseudo_labels_nmi", "match_precision")
    assert curves._panels({name: [(1, 0.5)] for name in names}) == {
        "loss": ["loss"],
        "clusters and people": ["pseudo_labels_clusters", "pseudo_labels_identities"],
        "agreement with the hidden ids": ["pseudo_labels_nmi"],
        "share correct": ["match_precision"],
    }


def test_shares_and_masses_are_no_losses() -> None:
    shares = ["accuracy", "permutation_accuracy_visible", "permutation_exact_infrared"]
    names = ("loss", *shares, "part_mass", "place_mass", "single_count", "gate_visible", "infrared_identity")
    assert curves._panels({name: [(1, 0.5)] for name in names}) == {
        "loss": ["loss", "infrared_identity"],
        "share correct": shares,
        "mass of soft neighbours": ["part_mass", "place_mass"],
        "pairs made": ["single_count"],
        "gates": ["gate_visible"],
    }


def test_lines_end_where_stages_end_and_no_colour_comes_twice(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(TABLE)
    loss = draw_curves(tmp_path).axes[0]
    for line in loss.get_lines()[:3]:  # then the border
        values = list(line.get_ydata())
        assert len(values) == 5
        assert values[2] != values[2]  # the gap between epoch 2 and epoch 3
    for count in (3, 7, 16, 40):
        colours = curves._colours(count)
        assert len(set(colours)) == count
