import pytest

from gloam.datasets.files import (
    is_image,
    list_images,
    natural_key,
    numbered_folders,
    read_ids,
    read_lines,
    read_path_labels,
    render_tree,
    side_by_side,
    walk_images,
)
from gloam.errors import GloamError
from tests.datasets import trees


@pytest.mark.parametrize("content", ["6,10,17", "\ufeff 17, 10 ,6,\r\n", "6,10,17,\n99,100\n", "10;6;17", "6 10 17 17"])
def test_ids(tmp_path, content):
    trees.text(tmp_path, "ids.txt", content)
    assert read_ids(tmp_path / "ids.txt") == (6, 10, 17)


@pytest.mark.parametrize(
    ("content", "message"), [("", "holds no ids"), (",\n", "holds no ids"), ("6,-1", "'-1' is no id")]
)
def test_bad_ids(tmp_path, content, message):
    trees.text(tmp_path, "ids.txt", content)
    with pytest.raises(GloamError, match=message):
        read_ids(tmp_path / "ids.txt")


def test_lines(tmp_path):
    trees.text(tmp_path, "a.txt", "\ufeffone \r\n\r\n  two\n\n")
    assert read_lines(tmp_path / "a.txt") == ["one", "two"]
    (tmp_path / "b.txt").write_bytes(trees.jpeg())
    with pytest.raises(GloamError, match="is not a text file"):
        read_lines(tmp_path / "b.txt")


def test_path_labels(tmp_path):
    trees.text(tmp_path, "l.txt", "a/1.bmp 0\r\n./a\\2.bmp 12,\n\na/3.bmp, 3 and more\n")
    assert read_path_labels(tmp_path / "l.txt") == [("a/1.bmp", 0), ("a/2.bmp", 12), ("a/3.bmp", 3)]
    trees.text(tmp_path, "l.txt", "\n")
    with pytest.raises(GloamError, match="is empty"):
        read_path_labels(tmp_path / "l.txt")


def test_images_of_a_folder(tmp_path):
    trees.put(tmp_path, "b.JPG", "a.jpeg", "c.PNG", "d.bmp", "._a.jpg", "e.svg")
    assert list_images(tmp_path) == ["a.jpeg", "b.JPG", "c.PNG", "d.bmp"]
    assert list_images(tmp_path / "none") == []
    assert not is_image("jpg")


def test_numbered_folders(tmp_path):
    for name in ("0010", "2", "x", "0001"):
        (tmp_path / name).mkdir()
    trees.text(tmp_path, "0003", "a file")
    assert list(numbered_folders(tmp_path).items()) == [(1, "0001"), (2, "2"), (10, "0010")]


def test_walk_is_in_natural_order(tmp_path):
    trees.put(tmp_path, "p10/f1.jpg", "p2/f10.jpg", "p2/f9.jpg", "top.jpg", ".hidden/x.jpg")
    assert list(walk_images(tmp_path)) == ["top.jpg", "p2/f9.jpg", "p2/f10.jpg", "p10/f1.jpg"]
    assert sorted(["a10", "a9", "10", "9b"], key=natural_key) == ["9b", "10", "a9", "a10"]


def test_tree_is_cut(tmp_path):
    trees.put(tmp_path, *(f"many/{n}.jpg" for n in range(1, 9)), "deep/er/est/x.jpg")
    for n in range(30):
        trees.text(tmp_path, f"file{n}", "")
    lines = render_tree(tmp_path, depth=2, entries=4).splitlines()
    assert lines == [
        "deep/",
        "  er/",
        "many/",
        "  1.jpg",
        "  2.jpg",
        "  3.jpg",
        "  ... 5 more",
        "file0",
        "file1",
        "... 28 more",
    ]
    assert render_tree(tmp_path / "none") == "(does not exist)"


def test_columns():
    assert side_by_side("aaa\nb", "c", ("L", "R")) == "  L   | R\n  aaa | c\n  b   |"
