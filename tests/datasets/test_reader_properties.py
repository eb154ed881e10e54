"""Readers under any input: a dataset or one sentence, and what was written is what is read."""

from __future__ import annotations

import csv
import itertools
import shutil
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gloam.datasets import DatasetSplits, load_dataset
from gloam.datasets.base import id_key, relabel
from gloam.datasets.files import natural_key, read_ids, read_lines, read_path_labels, whole_number
from gloam.datasets.folder_pattern import FIELDS, compile_pattern
from gloam.datasets.records import raw_id
from gloam.datasets.table import write_table
from gloam.errors import GloamError
from tests.datasets import trees

QUICK = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# What readers meet in bad files: separators, numbers of every kind, controls, raised digits, marks of other alphabets.
SPICE = ["", " ", ",", ";", "\t", '"', "\n", "\r", "\0", "\ufeff", "²", "٣", "-", "0001", "9" * 25, "9" * 4400, "1e9"]
words = st.one_of(st.sampled_from(SPICE), st.text(max_size=6), st.integers().map(str))
texts = st.lists(words, max_size=12).map("".join)


def _dataset_or_one_sentence(read: Callable[[], object]) -> object:
    try:
        return read()
    except GloamError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
        return None


# -- names ---------------------------------------------------------------------------------------------------------


@QUICK
@given(st.lists(st.one_of(texts, st.text(max_size=30)), max_size=8))
@example(["5²", "²", "5", "9" * 4400 + "x", "٣"])
def test_natural_order_is_an_order_of_all_texts(names: list[str]) -> None:
    ordered = sorted(names, key=natural_key)
    assert all(natural_key(a) <= natural_key(b) for a, b in itertools.combinations(ordered, 2))


@QUICK
@given(st.text(string.ascii_letters, max_size=4), st.integers(0, 10**20), st.integers(0, 10**20))
def test_numbers_in_names_are_compared_as_numbers(stem: str, a: int, b: int) -> None:
    assert (natural_key(f"{stem}{a}") < natural_key(f"{stem}{b}")) == (a < b)


@QUICK
@given(st.one_of(texts, st.integers().map(str)))
def test_ids_from_texts_come_back_as_written(text: str) -> None:
    assert str(raw_id(text)) == text
    assert isinstance(raw_id(text), int) == (text in {str(n) for n in [raw_id(text)] if isinstance(n, int)})


@QUICK
@given(st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=8)), max_size=20))
def test_labels_are_ranks(pids: list[int | str]) -> None:
    labels = relabel(pids)
    assert sorted(labels.values()) == list(range(len(set(pids))))
    ordered = sorted(labels, key=lambda pid: labels[pid])
    assert all(id_key(a) < id_key(b) for a, b in itertools.pairwise(ordered))


# -- patterns ------------------------------------------------------------------------------------------------------

pieces = st.one_of(
    st.sampled_from(["*", "?", "**/", "/", "{", "}", "_c", ".jpg", ".JPG", "(", "[", "\\", "|", "+"]),
    st.sampled_from([f"{{{field}}}" for field in FIELDS]),
    st.text(max_size=3),
)


@QUICK
@given(
    st.lists(pieces, max_size=7).map(lambda found: "".join([*found, "{pid}"])),
    st.lists(st.text(max_size=8), max_size=4).map("/".join),
)
def test_any_pattern_compiles_or_is_refused_and_any_path_can_be_asked(pattern: str, path: str) -> None:
    match = _dataset_or_one_sentence(lambda: compile_pattern(pattern))
    if match is not None:
        found = match(path)  # type: ignore[operator]
        assert found is None or all(value in path for value in found.values())


plain = st.text(string.ascii_letters + "äß' ", min_size=1, max_size=5)
numbers = st.integers(0, 9999).map(lambda n: f"{n:04d}")


@QUICK
@given(
    st.one_of(plain, numbers), numbers, st.sampled_from(["ir", "rgb"]), plain, st.sampled_from(["jpg", "PNG", "tiff"])
)
def test_patterns_read_what_names_were_made_of(pid: str, cam: str, modality: str, rest: str, suffix: str) -> None:
    found = compile_pattern("{pid}/c{cam}_{modality}_*.jpg")(f"{pid}/c{cam}_{modality}_{rest}.{suffix}")
    assert found == {"pid": pid, "cam": cam, "modality": modality}
    deep = compile_pattern("**/{pid}/{cam}-{modality}-{tracklet}.bmp")(f"a/b/{pid}/{cam}-{modality}-{rest}.{suffix}")
    assert deep == {"pid": pid, "cam": cam, "modality": modality, "tracklet": rest}


# -- lists ---------------------------------------------------------------------------------------------------------


@QUICK
@given(st.one_of(texts.map(str.encode), st.binary(max_size=40)))
def test_list_files_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    lines = _dataset_or_one_sentence(lambda: read_lines(path))
    assert lines is None or all(line == line.strip() != "" for line in lines)  # type: ignore[attr-defined]
    ids = _dataset_or_one_sentence(lambda: read_ids(path))
    assert ids is None or list(ids) == sorted(set(ids))  # type: ignore[call-overload]
    pairs = _dataset_or_one_sentence(lambda: read_path_labels(path))
    assert pairs is None or all(0 <= label < 2**63 for _, label in pairs)  # type: ignore[attr-defined]


@QUICK
@given(st.sets(st.integers(0, 10**17), min_size=1, max_size=9), st.sampled_from([",", ", ", " ,", ";", " ", ",\t"]))
def test_written_ids_are_read(tmp_path: Path, ids: set[int], separator: str) -> None:
    path = tmp_path / "ids.txt"
    for end in ("", ",", "\r\n", ",\n\nmore"):
        path.write_text("\ufeff" + separator.join(map(str, ids)) + end)
        assert read_ids(path) == tuple(sorted(ids))


@QUICK
@given(texts)
def test_whole_numbers_fit_64_bits(text: str) -> None:
    number = whole_number(text)
    assert number is None or 0 <= number < 2**63


LISTS = {
    "sysu_mm01": (trees.sysu, ("exp/train_id.txt", "exp/val_id.txt", "exp/test_id.txt")),
    "regdb": (trees.regdb, ("idx/train_visible_1.txt", "idx/test_thermal_1.txt")),
    "llcm": (trees.llcm, ("idx/train_vis.txt", "idx/train_nir.txt", "idx/test_id.txt")),
    "hitsz_vcm": (
        lambda root: trees.vcm(root, "A"),
        ("info/train_name.txt", "info/track_train_info.txt", "info/query_IDX.txt"),
    ),
    "bupt_campus": (trees.bupt, ("train.txt", "query.txt", "data_paths.json")),
    "msmt17": (lambda root: trees.msmt(root, "V1"), ("list_train.txt", "list_val.txt", "list_query.txt")),
}


@pytest.mark.parametrize("name", LISTS)
def test_benchmarks_with_damaged_lists_load_or_are_refused(name: str, tmp_path: Path) -> None:
    make, lists = LISTS[name]
    root = make(tmp_path / "tree")
    whole = {relative: (root / relative).read_text() for relative in lists}

    @settings(QUICK, max_examples=40)
    @given(st.sampled_from(lists), st.integers(0, 400), st.integers(0, 12), texts)
    def damage(relative: str, start: int, length: int, spice: str) -> None:
        content = whole[relative]
        start %= len(content) + 1
        (root / relative).write_text(content[:start] + spice + content[start + length :], newline="")
        splits = _dataset_or_one_sentence(lambda: load_dataset(name, root))
        (root / relative).write_text(content, newline="")
        if isinstance(splits, DatasetSplits):
            for record in (*splits.train, *splits.query, *splits.gallery):
                assert -(2**63) <= record.pid < 2**63
                assert "\0" not in "".join(record.paths)

    damage()


# -- tables --------------------------------------------------------------------------------------------------------


@QUICK
@given(st.one_of(texts.map(str.encode), st.binary(max_size=60)), st.booleans(), st.sampled_from(["given", "none"]))
def test_any_file_is_a_table_or_refused(tmp_path: Path, content: bytes, has_header: bool, labels: str) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes((b"path,pid,cam,modality,tracklet,split\n" if has_header else b"") + content)
    _dataset_or_one_sentence(lambda: load_dataset("table", path, check_files=False, labels=labels))


cells = st.fixed_dictionaries(
    {
        "path": st.one_of(words, st.text(string.ascii_letters + "/.", max_size=8)),
        "pid": words,
        "cam": words,
        "modality": st.sampled_from(["", "ir", "RGB", "x"]),
        "tracklet": words,
        "split": st.sampled_from(["", "train", "Val", "query", "gallery", "test", "aux", "y"]),
    }
)


@settings(QUICK, max_examples=150)
@given(st.lists(cells, max_size=6), st.sampled_from([",", ";", "\t"]))
def test_any_cells_are_read_or_refused(tmp_path: Path, rows: list[dict[str, str]], delimiter: str) -> None:
    path = tmp_path / "cells.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", "pid", "cam", "modality", "tracklet", "split"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    splits = _dataset_or_one_sentence(lambda: load_dataset("table", path, check_files=False))
    if isinstance(splits, DatasetSplits):
        parts = (splits.train, splits.query, splits.gallery, splits.auxiliary)
        # Nothing is lost and nothing is read twice.
        assert sum(len(record.paths) for part in parts for record in part) == sum(any(row.values()) for row in rows)
        assert [splits.label_map[record.pid_raw] for record in splits.train] == [record.pid for record in splits.train]


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=8)


@settings(QUICK, max_examples=80)
@given(
    st.lists(
        st.tuples(names, st.integers(0, 3), st.sampled_from(["visible", "infrared"]), st.integers(0, 2)),
        min_size=2,
        max_size=12,
    ),
    st.booleans(),
    st.integers(0, 5),
)
def test_written_tables_are_read_as_they_were(
    tmp_path: Path, people: list[tuple[str, int, str, int]], numbered: bool, seed: int
) -> None:
    if numbered:
        people = [(str(len(name)), *rest) for name, *rest in people]  # type: ignore[misc]
    path = tmp_path / "first.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "pid", "cam", "modality", "tracklet"])
        for number, (pid, cam, modality, tracklet) in enumerate(people):
            writer.writerow([f"{number}.jpg", pid, cam, modality, tracklet or ""])
    first = _dataset_or_one_sentence(lambda: load_dataset("table", path, check_files=False, seed=seed))
    if isinstance(first, DatasetSplits):
        assert {r.pid_raw for part in (first.train, first.query, first.gallery) for r in part} == {
            raw_id(pid) if all(str(raw_id(p)) == p and isinstance(raw_id(p), int) for p, *_ in people) else pid
            for pid, *_ in people
        }
        write_table(first, tmp_path / "second.csv")
        second = load_dataset("table", tmp_path / "second.csv", check_files=False)
        for part in ("train", "query", "gallery", "label_map", "protocols"):
            assert getattr(second, part) == getattr(first, part)


folder_names = st.text(st.characters(codec="utf-8", exclude_characters="/\0\\"), min_size=1, max_size=6).filter(
    lambda name: not name.startswith(".") and name == name.strip()
)


@settings(QUICK, max_examples=40)
@given(st.sets(folder_names, min_size=1, max_size=4))
def test_folders_of_people_are_read_or_refused(tmp_path: Path, people: set[str]) -> None:
    root = tmp_path / "people"
    shutil.rmtree(root, ignore_errors=True)
    for name in people:
        trees.put(root, f"{name}/1.jpg")
    splits = _dataset_or_one_sentence(lambda: load_dataset("table", root, test_fraction=0))
    if isinstance(splits, DatasetSplits):
        assert {str(record.pid_raw) for record in splits.train} == people
