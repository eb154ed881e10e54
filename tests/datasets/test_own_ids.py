"""Ids and cameras of own data: numbers stay numbers, texts survive to the end, and odd cells are named."""

import json
import os
import random

import pytest

from gloam.atomic import write_text
from gloam.datasets import load_dataset
from gloam.datasets.records import raw_id
from gloam.datasets.table import write_table
from gloam.datasets.validation import hold_out
from gloam.errors import GloamError
from tests.datasets import trees


def table(root, header, rows, name="people.csv", **options):
    trees.put(root, *(f"{n}.jpg" for n in range(len(rows))))
    write_text(root / name, "\n".join([f"path,{header}", *(f"{n}.jpg,{row}" for n, row in enumerate(rows))]) + "\n")
    return load_dataset("table", root / name, **options)


def test_zero_padded_ids_and_names_survive(tmp_path):
    splits = table(tmp_path, "pid,cam", ["0001,1", "0001,2", "O'Brien,1", '"Müller, Anna",2'], test_fraction=0)
    assert splits.label_map == {"0001": 0, "Müller, Anna": 1, "O'Brien": 2}
    assert [(r.pid, r.pid_raw) for r in splits.train] == [(0, "0001"), (0, "0001"), (2, "O'Brien"), (1, "Müller, Anna")]


def test_numbers_stay_numbers(tmp_path):
    ids = ["7", "-1", "0", "9223372036854775807", "-9223372036854775808"]
    splits = table(tmp_path, "pid", ids, test_fraction=0)
    assert [r.pid_raw for r in splits.train] == [int(text) for text in ids]
    assert splits.label_map == {pid: label for label, pid in enumerate(sorted(map(int, ids)))}


@pytest.mark.parametrize("ids", [[f"{n:04d}" for n in range(1, 13)], [f"p{n}" for n in range(1, 13)]])
def test_texts_are_divided_and_labelled_as_their_numbers_would_be(tmp_path, ids):
    """The draw of test people and the labels do not depend on how ids are written."""
    rows = [f"{text},{cam}" for text in ids for cam in (1, 1, 2, 2)]
    texts = table(tmp_path, "pid,cam", rows)
    numbers = table(tmp_path, "pid,cam", [f"{ids.index(r.split(',')[0]) + 1},{r[-1]}" for r in rows], name="n.csv")
    for part in ("train", "query", "gallery"):
        assert [r.paths for r in getattr(texts, part)] == [r.paths for r in getattr(numbers, part)]
    assert [r.pid for r in texts.train] == [r.pid for r in numbers.train]
    for part in ("query", "gallery"):
        pairs = {(r.pid, s.pid) for r, s in zip(getattr(texts, part), getattr(numbers, part), strict=True)}
        assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
        assert {r.pid_raw for r in getattr(texts, part)} <= set(ids)


def test_held_out_people_keep_their_names(tmp_path):
    splits = table(tmp_path, "pid,cam", [f"p{p},{c}" for p in range(9) for c in (1, 1, 2)], test_fraction=0)
    held = hold_out(splits, fraction=0.4)
    assert {r.pid_raw for r in held.query} | set(held.label_map) == {f"p{p}" for p in range(9)}
    assert all(isinstance(r.pid, int) for r in (*held.query, *held.gallery))
    by_name = {(r.pid, r.pid_raw) for r in (*held.query, *held.gallery)}
    assert len(by_name) == len({raw for _, raw in by_name}) == 4
    with pytest.raises(GloamError, match=r"Ids p7x are not among .*Did you mean 'p7'"):
        hold_out(splits, pids=["p7x"])


def test_written_tables_keep_texts(tmp_path):
    splits = table(tmp_path, "pid,cam", [f"{p:03d},{c}" for p in range(6) for c in (1, 1, 2)])
    write_table(splits, tmp_path / "again.csv")
    assert "005" in (tmp_path / "again.csv").read_text()
    assert load_dataset("table", tmp_path / "again.csv") == splits


def test_texts_of_numbers_become_numbers_only_where_nothing_is_lost():
    for value in (0, 7, -1, 2**63 - 1, -(2**63)):
        assert raw_id(str(value)) == value
    for text in ("0001", "-0", "+1", "1.0", " 1", "", "²", "٣", str(2**63), "9" * 5000, "O'Brien"):
        assert raw_id(text) == text
    mapping = {7: 0, 10: 1}
    assert {raw_id(key): value for key, value in json.loads(json.dumps(mapping)).items()} == mapping


HOSTILE = [
    ("9" * 5000, "pid", "5,000 digits"),
    ("x" * 201, "pid", "201 characters"),
    ("²", "pid", "raised or circled digits"),
    ("1²", "pid", "raised or circled digits"),
    ("①", "cam", "raised or circled digits"),
    ("-③", "cam", "raised or circled digits"),
    ("9223372036854775808", "pid", "more than 64 bits"),
    ("-9223372036854775809", "cam", "more than 64 bits"),
    ("9" * 5000, "cam", "5,000 digits"),
    ("a\0b", "pid", "null byte"),
    ("1\0", "cam", "null byte"),
    ("\0ir", "modality", "null byte"),
]


@pytest.mark.parametrize(("cell", "column", "problem"), HOSTILE)
def test_cells_that_cannot_be_are_named_with_row_and_column(tmp_path, cell, column, problem):
    good = {"pid": "2", "cam": "2", "modality": "visible"}
    rows = ["1,2,visible", ",".join({**good, column: cell}.values())]
    with pytest.raises(GloamError, match=rf"people\.csv: row 2, column {column}: .*{problem}") as error:
        table(tmp_path, "pid,cam,modality", rows)
    assert len(str(error.value)) < 400


def test_paths_with_null_bytes(tmp_path):
    trees.text(tmp_path, "t.csv", "path,pid\na.jpg,1\nb\0.jpg,2\n")
    with pytest.raises(GloamError, match=r"row 2, column path: .* null byte"):
        load_dataset("table", tmp_path / "t.csv")


def test_raised_digits_inside_words_are_fine(tmp_path):
    splits = table(tmp_path, "pid,cam", ["x²,a²", "x10,b", "x9,a²"], test_fraction=0)
    assert splits.label_map == {"x9": 0, "x10": 1, "x²": 2}


def test_one_number_in_two_ways_is_refused(tmp_path):
    with pytest.raises(GloamError, match=r"row 3, column pid: '1' and '01' \(.*row 1\) are one number"):
        table(tmp_path, "pid", ["01", "2", "1"])


def test_rows_with_a_cell_too_many(tmp_path):
    trees.put(tmp_path, "a.jpg")
    trees.text(tmp_path, "t.csv", "path,pid\na.jpg,1,\nb.jpg,O'Brien, Pat\n")
    with pytest.raises(GloamError, match=r"row 2 has 3 cells, but there are 2 columns"):
        load_dataset("table", tmp_path / "t.csv")
    trees.text(tmp_path, "t.csv", "path,pid,Pid\na.jpg,1,2\n")
    with pytest.raises(GloamError, match="two columns 'pid'"):
        load_dataset("table", tmp_path / "t.csv")


def test_parquet_keeps_texts_and_reads_bytes(tmp_path):
    import pandas as pd

    trees.put(tmp_path, "0.jpg", "1.jpg")
    for pids, expected in ((["0001", "0002"], ["0001", "0002"]), ([1.0, 2.0], [1, 2]), ([b"a", b"b"], ["a", "b"])):
        pd.DataFrame({"path": ["0.jpg", "1.jpg"], "pid": pids}).to_parquet(tmp_path / "t.parquet")
        splits = load_dataset("table", tmp_path / "t.parquet", test_fraction=0)
        assert [r.pid_raw for r in splits.train] == expected
    pd.DataFrame({"path": ["0.jpg", "1.jpg"], "pid": [b"\xff", b"b"]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(GloamError, match="cannot be read as a Parquet table"):
        load_dataset("table", tmp_path / "t.parquet")


def test_damaged_parquet_files_are_one_sentence(tmp_path):
    import pandas as pd

    trees.put(tmp_path, "0.jpg", "1.jpg")
    pd.DataFrame({"path": ["0.jpg", "1.jpg"], "pid": [1, 2]}).to_parquet(tmp_path / "good.parquet")
    whole = (tmp_path / "good.parquet").read_bytes()
    generator = random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        (tmp_path / "t.parquet").write_bytes(damaged)
        try:
            load_dataset("table", tmp_path / "t.parquet", check_files=False, test_fraction=0)
        except GloamError as error:
            assert str(error)  # noqa: PT017 - whichever way the damage goes


def test_names_that_are_not_utf8_are_named(tmp_path):
    trees.put(tmp_path, "0001/a.jpg", "0002/a.jpg")
    os.rename(tmp_path / "0002", os.fsencode(tmp_path) + b"/\xff\xfe")
    with pytest.raises(GloamError, match=r"not UTF-8\. Rename it"):
        load_dataset("table", tmp_path)


def test_columns_that_are_not_read_are_told(tmp_path):
    from gloam.datasets.check import check

    trees.put(tmp_path, "0.jpg", "1.jpg")
    trees.text(tmp_path, "t.csv", "path,pid,camera,comment\n0.jpg,1,2,x\n1.jpg,2,2,y\n")
    assert "columns that are not read: camera, comment" in check("table", tmp_path / "t.csv", workers=1).remarks
