"""The commands, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gloam.cli.main import main
from gloam.gallery.gallery import open_gallery
from gloam.inference.features import Features, Fingerprint
from tests.gallery.people import draw


@pytest.fixture
def gallery(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "200")
    rows, vectors = draw(60)
    table = Features.of_arrays(
        vectors,
        model=Fingerprint("a" * 64, "model a"),
        path=[row.key for row in rows],
        cam=[row.camera for row in rows],
        pid=[row.person or -1 for row in rows],
        modality=["infrared" if row.modality else "visible" for row in rows],
        time=[None if row.time is None else row.time / 1e6 for row in rows],
    )
    table.save(tmp_path / "people.parquet")
    assert (
        main(["gallery", "create", str(tmp_path / "g"), str(tmp_path / "people.parquet"), "--retention", "keep"]) == 0
    )
    assert main(["gallery", "add", str(tmp_path / "g"), str(tmp_path / "people.parquet")]) == 0
    assert "60 new" in capsys.readouterr().out
    return tmp_path / "g"


def run(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert main(["gallery", *map(str, words)]) == code
    told = capsys.readouterr()
    return told.out + told.err


def test_search_info_audit(gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = draw(60)[0][8].key
    output = tmp_path / "hits.json"
    out = run(
        capsys, "search", gallery, key, "--top", 5, "--not-camera", 6, "--modality", "visible", "--output", output
    )
    assert "uncalibrated" in out
    assert "exact" in out
    told = json.loads(output.read_text())
    assert len(told["hits"]) == 5
    assert all(hit["camera"] != 6 and hit["modality"] == "visible" and hit["key"] in out for hit in told["hits"])
    assert "nothing found" in run(capsys, "search", gallery, key, "--camera", 99)
    out = run(capsys, "search", gallery, key, "--group", "person", "--top", 2, "--like", told["hits"][3]["key"])
    assert "none is hidden" in out
    out = run(capsys, "search", gallery, key, "--rerank", 30, "--top", 40, "--output", output)
    assert "distance" in out
    assert "the best 30 are in the order of their re-ranked distances" in out
    distances = [hit["distance"] for hit in json.loads(output.read_text())["hits"]]
    assert distances[:30] == sorted(distances[:30])
    assert distances[30:] == [None] * 10
    assert f"{distances[0]:.3f}" in out
    assert "60 (" in run(capsys, "info", gallery)
    audit = run(capsys, "audit", gallery)
    assert audit.count("searched") == 4
    assert key not in audit


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["search", "G", "nobody"], "neither a key"),
        (["search", "G", "KEY", "--fmr", "1e-3"], "uncalibrated"),
        (["search", "G", "KEY", "--output", "hits.xlsx"], "must end in"),
        (["search", "G", "KEY", "--after", "noon"], "is no time"),
        (["search", "absent", "KEY"], "There is no gallery"),
        (["add", "G", "absent"], "does not know where that model is"),
        (["import", "G", "absent.parquet"], "no file of features"),
        (["erase", "G"], "What to erase"),
        (["erase", "G", "--near", "KEY"], "How near"),
        (["merge", "G", "absent"], "There is no gallery"),
        (["create", "new", "people.parquet"], "--retention"),
        (["create", "new", "people.parquet", "--retention", "3", "--retention-camera", "left"], "CAMERA=DAYS"),
        (
            ["create", "new", "people.parquet", "--retention", "3", "--shards", "4"],
            "only galleries in a Qdrant cluster",
        ),
        (["create", "G", "people.parquet", "--retention", "3"], "exists already"),
        (["search", "qdrant://host", "KEY"], "is no gallery's address"),
    ],
)
def test_mistakes_are_told_with_code_2(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], cause: str
) -> None:
    key = draw(60)[0][0].key
    places = {"G": str(gallery), "KEY": key, "people.parquet": str(tmp_path / "people.parquet")}
    told = run(capsys, *(places.get(word, word) for word in words), code=2)
    assert cause in told
    assert "Traceback" not in told
    with open_gallery(gallery) as opened:
        assert len(opened) == 60


def test_erase_shows_first(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "erase", gallery, "--person", "P7")
    assert "would be erased" in out
    assert "--yes" in out
    listed = [row for row in draw(60)[0] if row.person == "P7"]
    assert all(f"{row.key}  camera {row.camera}  visible" in out.replace("infrared", "visible") for row in listed)
    assert out.count("person P7") == len(listed) > 0
    with open_gallery(gallery) as opened:
        assert len(opened) == 60
    out = run(capsys, "erase", gallery, "--person", "P7", "--yes")
    assert "2 rows erased; their bytes are in none of" in out or "3 rows erased; their bytes are in none of" in out
    assert "no row matches" in run(capsys, "erase", gallery, "--person", "P7", "--yes")
    assert "nothing is damaged" in run(capsys, "verify", gallery)
    assert "0 rows would be erased" in run(capsys, "expire", gallery, "--dry-run")


def test_export_import_merge(gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "60 rows" in run(capsys, "export", gallery, tmp_path / "out.parquet")
    assert "60 rows" in run(capsys, "export", gallery, tmp_path / "copy")
    assert "60 updated" in run(capsys, "import", gallery, tmp_path / "out.parquet")
    assert "60 unchanged" in run(capsys, "merge", gallery, tmp_path / "copy", "--conflict", "skip")
    assert "120 rows in all" in run(capsys, "merge", gallery, tmp_path / "copy", "--prefix", "again/")


def test_damage_ends_with_code_2(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_gallery(gallery) as opened:
        connection = opened.catalogue.store.connection  # type: ignore[attr-defined]
        connection.execute("UPDATE crop SET camera = camera + 1 WHERE id = 4")
    assert "damaged" in run(capsys, "verify", gallery, code=2)


def test_names_are_never_obeyed_by_the_terminal(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = draw(60)[0][0].key
    with open_gallery(gallery) as opened:
        opened.name_person("[bold]\x1b]0;title\x07", key)
        near = opened.search(key, top=1).keys[0]
    out = run(capsys, "search", gallery, near, "--top", 60)
    assert "\x1b" not in out
    assert "[bold]" in out
