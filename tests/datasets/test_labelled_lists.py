from gloam.datasets.labelled_lists import labelled_records
from gloam.datasets.records import Modality


def records(pairs):
    return labelled_records({Modality.VISIBLE: pairs}, camera=lambda _, modality: 1)


def test_folder_numbers_are_the_original_ids():
    found, label_map, remarks = records([("Visible/285/a.bmp", 0), ("Visible/0007/a.bmp", 1)])
    assert (label_map, remarks) == ({7: 1, 285: 0}, [])
    assert [(r.pid, r.pid_raw) for r in found] == [(0, 285), (1, 7)]


def test_holes_in_the_labels_are_closed():
    found, label_map, remarks = records([("a/9/x.jpg", 30), ("a/2/x.jpg", 10), ("a/2/y.jpg", 10)])
    assert [r.pid for r in found] == [1, 0, 0]
    assert label_map == {9: 1, 2: 0}
    assert "not contiguous" in remarks[0]


def test_labels_win_over_folders_that_are_no_ids():
    found, label_map, remarks = records([("day1/x.jpg", 0), ("day2/x.jpg", 0), ("day2/y.jpg", 1)])
    assert [(r.pid, r.pid_raw) for r in found] == [(0, 0), (0, 0), (1, 1)]
    assert label_map == {0: 0, 1: 1}
    assert "disagree" in remarks[0]
