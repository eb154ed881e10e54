import pytest

from gloam.datasets import get_dataset, load_dataset
from gloam.datasets.records import Modality
from gloam.datasets.table import write_table
from gloam.errors import GloamError
from tests.datasets import trees


def table(root, header, *rows, name="people.csv", put=True):
    lines = [header, *rows]
    trees.text(root, name, "\n".join(lines) + "\n")
    if put:
        trees.put(root, *(row.replace(";", ",").split(",")[0] for row in rows))
    return root / name


def test_explicit_splits_and_modalities(tmp_path):
    path = table(
        tmp_path,
        "Path,pid,cam,modality,tracklet,split",
        "a/1.jpg,zoe,gate,RGB,,train",
        "a/2.jpg,zoe,yard,Thermal,,training",
        "b/1.jpg,p10,gate,nir,,query",
        "b/2.jpg,p10,yard,vis,,gallery",
        "c/1.jpg,p9,gate,visible,,gallery",
        "d/1.jpg,val1,gate,ir,,val",
        "e/1.jpg,x,gate,ir,,aux",
    )
    splits = load_dataset("table", path)
    # Texts stay, and are numbered in natural order: p9, p10, val1, x, zoe.
    assert splits.label_map == {"val1": 0, "zoe": 1}
    assert [(r.pid, r.pid_raw, r.cam, r.modality) for r in splits.train] == [
        (1, "zoe", 0, Modality.VISIBLE),
        (1, "zoe", 1, Modality.INFRARED),
        (0, "val1", 0, Modality.INFRARED),
    ]
    assert splits.validation_pids == ("val1",)
    assert [(r.pid, r.pid_raw) for r in splits.gallery] == [(1, "p10"), (0, "p9")]
    assert splits.root == tmp_path
    assert len(splits.auxiliary) == 1
    assert [(p.name, p.swapped, p.camera_rule) for p in splits.protocols.values()] == [
        ("table/default", False, "none"),
        ("table/visible_to_infrared", True, "none"),
    ]
    assert splits.notice is None


def test_default_split_of_one_modality(tmp_path):
    rows = [f"p{p}/c{c}_{n}.jpg,{p},{c}" for p in range(10, 20) for c in (1, 2) for n in range(3)]
    path = table(tmp_path, "path,pid,cam", *rows)
    splits = load_dataset("table", path)
    counts = splits.counts()
    assert (counts["train_ids"], counts["query_ids"], counts["gallery_ids"]) == (5, 5, 5)
    # One query per (id, camera), the other two images in the gallery.
    assert (counts["query_records"], counts["gallery_records"]) == (10, 20)
    assert not {r.paths for r in splits.query} & {r.paths for r in splits.gallery}
    assert not {r.pid_raw for r in splits.train} & {r.pid for r in splits.gallery}
    assert [(p.name, p.camera_rule) for p in splits.protocols.values()] == [("table/default", "same_id_same_cam")]
    assert load_dataset("table", path) == splits
    assert load_dataset("table", path, seed=1).label_map != splits.label_map
    assert load_dataset("table", path, test_fraction=0.2).counts()["query_ids"] == 2


@pytest.mark.parametrize("header", ["path,pid", "path,pid,cam"])
def test_one_camera_data(tmp_path, header):
    rows = [f"{p}_{n}.jpg,{p}" + (",7" if "cam" in header else "") for p in range(6) for n in range(3)]
    splits = load_dataset("table", table(tmp_path, header, *rows))
    # Under the usual camera rule no query would have a match.
    assert splits.protocols["table/default"].camera_rule == "none"
    assert "one-camera data" in splits.notice
    assert len(splits.query) == 3


def test_each_person_in_one_camera(tmp_path):
    """Several cameras, but nobody crosses: the same problem as one camera."""
    rows = [f"{p}_{n}.jpg,{p},{p % 3}" for p in range(6) for n in range(3)]
    splits = load_dataset("table", table(tmp_path, "path,pid,cam", *rows))
    assert splits.protocols["table/default"].camera_rule == "none"
    assert "one-camera data" in splits.notice


def test_query_and_gallery_without_common_people(tmp_path):
    splits = load_dataset(
        "table", table(tmp_path, "path,pid,split", "a.jpg,1,train", "b.jpg,2,query", "c.jpg,3,gallery")
    )
    assert "share no identity" in splits.notice


def test_default_split_across_modalities(tmp_path):
    rows = [f"{p}_{m}{n}.jpg,{p},{m}" for p in range(8) for m in ("vis", "ir") for n in range(2)]
    splits = load_dataset("table", table(tmp_path, "path,pid,modality", *rows))
    assert {r.modality for r in splits.query} == {Modality.INFRARED}
    assert {r.modality for r in splits.gallery} == {Modality.VISIBLE}
    assert list(splits.protocols) == ["table/default", "table/visible_to_infrared"]
    assert all(p.camera_rule == "none" for p in splits.protocols.values())
    assert splits.notice is None


def test_mixed_query_and_gallery_get_both_directions(tmp_path):
    rows = [
        f"{s}{p}{m}{c}.jpg,{p},{c},{m},{s}"
        for s in ("query", "gallery")
        for p in (1, 2)
        for m in ("vis", "ir")
        for c in (1, 2)
    ]
    splits = load_dataset("table", table(tmp_path, "path,pid,cam,modality,split", *rows))
    assert [(p.name.split("/")[1], p.query_modality, p.gallery_modality) for p in splits.protocols.values()] == [
        ("default", None, None),
        ("infrared_to_visible", Modality.INFRARED, Modality.VISIBLE),
        ("visible_to_infrared", Modality.VISIBLE, Modality.INFRARED),
    ]


def test_split_word_test_is_divided(tmp_path):
    rows = ["t.jpg,9,1,train"] + [f"{p}{c}{n}.jpg,{p},{c},test" for p in (1, 2) for c in (1, 2) for n in (0, 1)]
    splits = load_dataset("table", table(tmp_path, "path,pid,cam,split", *rows))
    assert (len(splits.query), len(splits.gallery), len(splits.train)) == (4, 4, 1)


def test_tracklets_keep_table_order(tmp_path):
    rows = [f"{p}/f{f}.jpg,{p},1,{t}" for p in (1, 2) for t in ("a", "b") for f in (f"{t}10", f"{t}9")]
    splits = load_dataset("table", table(tmp_path, "path,pid,cam,tracklet", *rows), test_fraction=0)
    assert splits.is_video
    assert [r.paths for r in splits.train][:2] == [("1/fa10.jpg", "1/fa9.jpg"), ("1/fb10.jpg", "1/fb9.jpg")]
    assert splits.query == splits.gallery == ()
    assert splits.protocols == {}


def test_spreadsheet_habits(tmp_path):
    """Byte-order mark, semicolons, CRLF, a trailing separator, blank lines, Windows slashes."""
    trees.put(tmp_path, "a/1.jpg", "b/1.jpg")
    trees.text(tmp_path, "t.csv", "\ufeffPATH;PID;cam;\r\na\\1.jpg; 1;2;\r\n;;;\r\n./b/1.jpg;2;3;\r\n")
    splits = load_dataset("table", tmp_path / "t.csv", test_fraction=0)
    assert [(r.paths[0], r.pid_raw, r.cam) for r in splits.train] == [("a/1.jpg", 1, 2), ("b/1.jpg", 2, 3)]


def test_parquet_equals_csv(tmp_path):
    import pandas as pd

    path = table(tmp_path, "path,pid,cam,split", "a.jpg,3,1,train", "b.jpg,5,2,train", "c.jpg,3,2,train")
    frame = pd.read_csv(path)
    frame["cam"] = frame["cam"].astype(float)
    frame["modality"] = [None, None, None]
    frame.to_parquet(tmp_path / "t.parquet")
    assert load_dataset("table", tmp_path / "t.parquet") == load_dataset("table", path)
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(GloamError, match="cannot be read as a Parquet table"):
        load_dataset("table", tmp_path / "bad.parquet")


def test_images_elsewhere(tmp_path):
    path = table(tmp_path / "lists", "path,pid", "1.jpg,1", "2.jpg,2", put=False)
    trees.put(tmp_path / "images", "1.jpg", "2.jpg")
    splits = load_dataset("table", path, images=str(tmp_path / "images"), test_fraction=0)
    assert splits.root == tmp_path / "images"
    absolute = table(
        tmp_path / "lists", "path,pid", f"{tmp_path}/images/1.jpg,1", f"{tmp_path}/images/2.jpg,2", put=False
    )
    again = load_dataset("table", absolute, test_fraction=0)
    assert all((again.root / r.paths[0]).is_file() for r in again.train)
    inside = load_dataset("table", absolute, images=str(tmp_path / "images"), test_fraction=0)
    assert [r.paths[0] for r in inside.train] == ["1.jpg", "2.jpg"]


def test_folder_with_pattern(tmp_path):
    names = [f"{p:02d}/{c}_{m}_{n}.jpg" for p in range(1, 5) for c, m in (("c1", "vis"), ("c2", "ir")) for n in (1, 2)]
    trees.put(tmp_path, *names, "readme.jpg")
    dataset = get_dataset("table")(tmp_path, pattern="{pid}/c{cam}_{modality}_*.jpg")
    splits = dataset.load()
    assert {r.cam for r in splits.query} == {2}
    assert {r.modality for r in splits.gallery} == {Modality.VISIBLE}
    assert sum(splits.counts()[f"{p}_records"] for p in ("train", "query", "gallery")) == 16
    assert any("readme.jpg" in remark for remark in dataset.remarks)
    with pytest.raises(GloamError, match=r"No image under .* matches the pattern"):
        load_dataset("table", tmp_path, pattern="{pid}_{cam}.png")
    # A folder per person is the default.
    assert load_dataset("table", tmp_path).counts()["train_ids"] == 2


def test_folder_of_tracklets(tmp_path):
    trees.put(tmp_path, *(f"{p}/t{t}/{f}.jpg" for p in (1, 2) for t in (1, 2) for f in (1, 2, 10)))
    splits = load_dataset("table", tmp_path, pattern="{pid}/t{tracklet}/*", test_fraction=0)
    assert splits.train[0].paths == ("1/t1/1.jpg", "1/t1/2.jpg", "1/t1/10.jpg")
    assert len(splits.train) == 4


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("path,person", ["a.jpg,1"], r"has no column 'pid'[\s\S]*path, pid required"),
        ("image,pid", ["a.jpg,1"], "has no column 'path'"),
        ("path,pid", [], "holds no images"),
        ("path,pid", ["a.jpg,1", "b.jpg,2", "./a.jpg,3"], "a.jpg is listed twice, in rows 1 and 3"),
        ("path,pid", ["a.jpg,1", "b.jpg,"], "row 2 has no pid"),
        ("path,pid,cam", ["a.jpg,1,1", "b.jpg,2,"], "row 2 has no cam"),
        (
            "path,pid,modality",
            ["a.jpg,1,infrered", "b.jpg,2,ir"],
            r"row 1, column modality: 'infrered' is no modality\. Did you mean 'infrared'",
        ),
        (
            "path,pid,split",
            ["a.jpg,1,trian", "b.jpg,2,test"],
            r"row 1, column split: 'trian' is no split\. Did you mean 'train",
        ),
        ("path,pid,split", ["a.jpg,1,train", "b.jpg,2,query"], "no image has the split 'gallery'"),
        ("path,pid,split", ["a.jpg,1,test", "b.jpg,2,query"], "'test' cannot be mixed"),
        ("path,pid", ["a.jpg,1", "b.jpg,1"], "shows one person only"),
    ],
)
def test_bad_tables(tmp_path, header, rows, message):
    with pytest.raises(GloamError, match=message):
        load_dataset("table", table(tmp_path, header, *rows))


def test_absent_files_are_counted(tmp_path):
    path = table(tmp_path, "path,pid", *(f"{n}.jpg,{n}" for n in range(8)), put=False)
    trees.put(tmp_path, "0.jpg")
    with pytest.raises(GloamError, match=r"7 of 8 files do not exist under .*: 1\.jpg, .* and 2 more"):
        load_dataset("table", path)
    assert len(load_dataset("table", path, check_files=False, test_fraction=0).train) == 8


def test_other_files(tmp_path):
    trees.text(tmp_path, "t.xlsx", "x")
    with pytest.raises(GloamError, match=r"neither a folder nor a \.csv"):
        load_dataset("table", tmp_path / "t.xlsx")
    trees.text(tmp_path, "t.csv", "")
    with pytest.raises(GloamError, match="is empty"):
        load_dataset("table", tmp_path / "t.csv")


def test_written_split_loads_again(tmp_path):
    rows = [f"{p}_{c}_{n}.jpg,{p},{c}" for p in range(6) for c in (1, 2) for n in (0, 1)]
    path = table(tmp_path, "path,pid,cam", *rows)
    splits = load_dataset("table", path, write_split=str(tmp_path / "divided.csv"))
    assert load_dataset("table", tmp_path / "divided.csv") == splits


def test_any_dataset_as_table(tmp_path):
    video = load_dataset("hitsz_vcm", trees.vcm(tmp_path / "vcm", "A"))
    write_table(video, tmp_path / "vcm" / "table.csv")
    again = load_dataset("table", tmp_path / "vcm" / "table.csv")
    assert (again.train, again.query, again.gallery) == (video.train, video.query, video.gallery)
    sysu = load_dataset("sysu_mm01", trees.sysu(tmp_path / "sysu"))
    write_table(sysu, tmp_path / "sysu.csv")
    again = load_dataset("table", tmp_path / "sysu.csv")
    assert again.validation_pids == sysu.validation_pids
    assert again.label_map == sysu.label_map
