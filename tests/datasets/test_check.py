import io
import json

import pytest
from PIL import Image
from rich.console import Console

from gloam.datasets.check import check, decode_problem
from gloam.errors import GloamError
from tests.datasets import trees


def shown(thing) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(thing)
    return console.file.getvalue()


def test_counts_warn_and_fail_only_under_strict(tmp_path):
    root = trees.sysu(tmp_path)
    report = check("sysu_mm01", root, workers=1)
    assert report.ok
    rows = {row.what: (row.found, row.published) for row in report.counts}
    assert rows["train_ids"] == (4, 395)
    assert rows["gallery of sysu_mm01/all_single"] == (6, 301)
    assert rows["gallery of sysu_mm01/indoor_multi"] == (20, 1120)
    assert "train_images" not in rows
    assert "warning: 14 counts differ" in " ".join(shown(report).split())
    strict = check("sysu_mm01", root, strict=True, workers=1)
    assert not strict.ok
    assert "error: 14 counts differ" in " ".join(shown(strict).split())


def test_broken_images_are_all_found(tmp_path):
    root = trees.market(tmp_path)
    whole = (root / "query/0003_c1s1_000001_00.jpg").read_bytes()
    (root / "query/0003_c1s1_000001_00.jpg").write_bytes(whole[:-40])
    (root / "query/0005_c2s1_000001_00.jpg").write_bytes(b"")
    (root / "bounding_box_test/0000_c1s1_000151_01.jpg").write_bytes(b"this is no image")
    report = check("market1501", root, workers=2, progress=False)
    assert not report.ok
    assert dict(report.unreadable).keys() == {
        "query/0003_c1s1_000001_00.jpg",
        "query/0005_c2s1_000001_00.jpg",
        "bounding_box_test/0000_c1s1_000151_01.jpg",
    }
    assert "truncated" in dict(report.unreadable)["query/0003_c1s1_000001_00.jpg"]
    assert dict(report.unreadable)["query/0005_c2s1_000001_00.jpg"] == "zero bytes"
    text = shown(report)
    assert "3 unreadable files" in text
    assert "query/0005_c2s1_000001_00.jpg: zero bytes" in text
    assert "expected" in text
    assert "Market-1501-v15.09.15/" in text


def test_listed_but_missing(tmp_path):
    root = trees.regdb(tmp_path)
    (root / "Visible/285/male_front_v_00001_285.bmp").unlink()
    report = check("regdb", root, workers=1)
    assert report.missing == ("Visible/285/male_front_v_00001_285.bmp",)
    assert not report.ok
    # Trial 2 tests on id 285.
    assert check("regdb", root, workers=1, trial=2).missing == report.missing


def test_tracklets_check_every_frame(tmp_path):
    root = trees.vcm(tmp_path, "A")
    (root / "Train/0002/ir/D1/107.jpg").write_bytes(b"")
    report = check("hitsz_vcm", root, workers=1)
    assert [path for path, _ in report.unreadable] == ["Train/0002/ir/D1/107.jpg"]
    assert {row.what: row.found for row in report.counts}["train_images"] == 37
    assert any("fewer than 12 frames" in remark for remark in report.remarks)


def test_report_as_plain_values(tmp_path):
    report = check("dukemtmc", duke(tmp_path), workers=1)
    values = json.loads(json.dumps(report.to_dict()))
    assert values["ok"] is True
    assert values["counts"]["train_ids"] == {"found": 1, "published": 702}
    assert "withdrawn" in values["notice"]
    assert "notice:" in shown(report)


def duke(root):
    trees.put(root, "bounding_box_train/0001_c2_f1.jpg", "query/0005_c2_f1.jpg", "bounding_box_test/0005_c1_f1.jpg")
    return root


def test_own_table_reports_missing_files(tmp_path):
    trees.put(tmp_path, "a1.jpg", "b1.jpg")
    trees.text(tmp_path, "t.csv", "path,pid,split\na1.jpg,a,train\nb1.jpg,b,train\nb2.jpg,b,train\n")
    report = check("table", tmp_path / "t.csv", workers=1)
    assert report.missing == ("b2.jpg",)


def test_wrong_root_raises(tmp_path):
    with pytest.raises(GloamError, match="expected"):
        check("llcm", tmp_path)


@pytest.mark.parametrize(("mode", "extension"), [("L", "png"), ("P", "png"), ("I;16", "png"), ("RGB", "bmp")])
def test_unusual_images_are_fine(tmp_path, mode, extension):
    path = tmp_path / f"x.{extension}"
    Image.new(mode, (1, 1)).save(path)
    assert decode_problem(path) is None


def test_deep_images_are_told(tmp_path):
    trees.put(tmp_path, "a/1.jpg", "b/1.jpg")
    assert not any("data.stretch" in remark for remark in check("table", tmp_path, workers=1).remarks)
    Image.new("I;16", (8, 16)).save(tmp_path / "a" / "2.png")
    Image.new("F", (8, 16)).save(tmp_path / "b" / "2.tif")
    Image.new("L", (8, 16)).save(tmp_path / "b" / "3.png")
    report = check("table", tmp_path, workers=1)
    assert report.ok
    assert any(remark.startswith("2 images have more than 8 bits") for remark in report.remarks)
