"""The page as text: what stands in it, privacy, sizes, same bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gloam import cli
from gloam.errors import GloamError
from gloam.report.finished_runs import read_systems
from gloam.report.html_report import TestFeatures, render, section_of, write_report
from gloam.report.thumbnails import blur_head
from tests.report.made_runs import made_features, made_images, made_run


def _page(folder: Path, faces: str = "blur", methods: tuple[str, ...] = ("agw",)) -> str:
    splits = made_images(folder / "data") if not (folder / "data").exists() else None
    splits = splits or made_images(folder / "data")
    places = [folder / method for method in methods]
    for place in places:
        if not place.exists():
            expected = [{"protocol": "x/whole", "rank1": 50.0, "source": "A paper, table 1"}]
            trains_on = {"images": 100, "identities": 10, "source": "their words"}
            made_run(place, method=place.name, expected=expected, trains_on=trains_on)
            counts = {"train_records": 80, "train_ids": 8}
            (place / "environment.json").write_text(json.dumps({"gloam": "0.1.0", "data_counts": counts}))
            (place / "log.txt").write_text(
                "2026-01-01 00:00:00 all is well\n2026-01-01 00:00:01 WARNING: <loss> stands still\n"
            )
            (place / "metrics.csv").write_text(
                "stage,epoch,loss,images_per_second,seconds\ntrain,0,2.0,100,61\ntrain,1,1.5,300,61\n"
            )
    features = TestFeatures(splits, *made_features(splits), "cosine")
    systems = read_systems(places, queries=True)
    return render([section_of(n, s, features, None, faces=faces, queries=4) for n, s in enumerate(systems)])


def test_what_stands_in_it(tmp_path: Path) -> None:
    page = _page(tmp_path)
    text = re.sub(r"<[^>]+>", " ", page)
    for words in (
        "80 records of 8 people; the published data have 100 of 10",
        "A paper, table 1",
        "2 min 2 s",
        "300 (median of the epochs)",
        "&lt;loss&gt; stands still",
        "camera 6",
        "Cumulative matching",
        "equal error",
        "first match at rank",
    ):
        assert words in text, words
    assert "all is well" not in text
    assert page.count("<svg") == 5  # four charts and the training curves
    assert 'xlink:href="http' not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def test_the_same_bytes_twice_and_small(tmp_path: Path) -> None:
    first = _page(tmp_path)
    assert _page(tmp_path) == first
    assert len(first.encode()) < 5e6


def test_faces_are_blurred_kept_or_no_image_is_there(tmp_path: Path) -> None:
    pages = {faces: _page(tmp_path, faces) for faces in ("blur", "keep", "none")}
    images = {faces: re.findall(r"data:image/webp;base64,[^\"]+", page) for faces, page in pages.items()}
    assert images["none"] == []
    assert "images of people" not in pages["none"]
    assert len(images["blur"]) == len(images["keep"]) > 0
    assert not set(images["blur"]) & set(images["keep"])
    assert "images of people" in pages["keep"]


def test_a_blurred_head_cannot_be_told_from_one_with_the_same_few_colours() -> None:
    """All that is left of the upper part are 15 mean colours: fine detail does not change the result."""
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 255, (112, 56, 3), dtype=np.uint8)
    detailed = pixels.copy()
    detailed[:30:2], detailed[1:30:2] = pixels[1:30:2], pixels[:30:2]
    one, other = (np.asarray(blur_head(Image.fromarray(p)), dtype=int) for p in (pixels, detailed))
    assert np.abs(one[:34] - other[:34]).mean() < 4 < np.abs(pixels[:34].astype(int) - detailed[:34]).mean()
    assert (one[34:] == pixels[34:]).all()
    assert one[:34].std() < pixels[:34].std() / 3


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    page = _page(tmp_path, "none", ("base", "agw"))
    assert "Which differences are real?" in page
    assert "not told apart" in page or "better" in page
    assert 'data-chart="all-cmc"' in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_names_from_files_are_text_never_markup(tmp_path: Path) -> None:
    place = made_run(tmp_path / "run")
    (place / "log.txt").write_text("2026-01-01 00:00:01 WARNING: <script>alert(1)</script>\n")
    page = render([section_of(0, read_systems([place], queries=True)[0], None, "no </script> data")])
    assert "<script>alert" not in page
    assert page.count("</script>") == 2


def test_scores_without_data_or_single_queries_make_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = made_run(tmp_path / "run")
    assert cli.main(["report", str(place), "--output", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert "left out:" in page  # no checkpoint
    assert "holds no checkpoint" in page
    old = json.loads((place / "results.json").read_text())
    (place / "results.json").write_text(json.dumps({k: old[k] for k in ("notes", "protocols")}))
    assert cli.main(["report", str(place), "--output", str(tmp_path / "old.html"), "--scores-only"]) == 0
    assert "<svg" not in (tmp_path / "old.html").read_text()
    assert cli.main(["report", str(place), "--output", str(tmp_path / "r.pdf")]) == 2
    assert cli.main(["report", str(tmp_path / "nowhere")]) == 2
    with pytest.raises(GloamError, match="at least one query"):
        write_report([place], tmp_path / "r.html", queries=0)
