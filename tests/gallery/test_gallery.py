"""Searching as a user does: keys, features, groups, re-ranking, feedback, names, files, moving between galleries."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import gloam
from gloam.errors import GloamError
from gloam.evaluation.rerank import k_reciprocal
from gloam.gallery.gallery import Gallery, open_gallery
from gloam.gallery.rows import Row, microseconds, plain
from gloam.gallery.tables import rows_of_table
from gloam.gallery.where import Where
from gloam.inference.features import Features, Fingerprint
from tests.gallery.people import DIM, HOUR, START, draw, filled, oracle, queries, space

MODEL = Fingerprint("a" * 64, "model a")


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return filled(tmp_path / "g", 300)


def features(vectors: np.ndarray, **columns: object) -> Features:
    return Features.of_arrays(vectors, model=MODEL, **columns)  # type: ignore[arg-type]


def test_a_key_leaves_the_gallery_and_its_copies_stay(gallery: Gallery) -> None:
    rows, vectors = draw(300)
    hits = gallery.search(rows[8].key, top=5)  # row 9 has the same vector
    stored = gallery.index.vectors([rows[8].key])[0]
    expected = oracle(rows, vectors, stored / np.linalg.norm(stored), 5, lambda row: row.key != rows[8].key)
    assert hits.keys == [key for key, _ in expected]
    assert hits.keys[0] == rows[9].key
    assert hits.exact
    assert any("exact" in note for note in hits.notes)
    assert any("uncalibrated" in note for note in hits.notes)


def test_features_tracklets_and_several_queries_are_means(gallery: Gallery) -> None:
    rows, vectors = draw(300)
    asked = queries(vectors, 3)
    mean = asked.mean(axis=0)
    expected = oracle(rows, vectors, mean / np.linalg.norm(mean), 7)
    assert gallery.search(features(asked), top=7).keys == [key for key, _ in expected]
    members = [row.key for row in rows if row.tracklet == "t5"]
    by_tracklet = gallery.search("tracklet:t5", top=7)
    assert by_tracklet.keys == gallery.search(members, top=7).keys
    assert not {*members} & {*by_tracklet.keys}
    far = gallery.search(
        features(
            np.stack([vectors[0], vectors[50], vectors[100], -vectors[0] * 0.98 + vectors[7] * 0.199]), normalise=True
        )
    )
    assert any("differ much" in note for note in far.notes)


def test_what_cannot_be_searched_is_told(gallery: Gallery) -> None:
    _, vectors = draw(300)
    foreign = Features.of_arrays(vectors[:1], model="another model")
    with pytest.raises(GloamError, match=r"model a.*another model"):
        gallery.search(foreign)
    for query in ("nobody", "tracklet:nobody", [], Path("no/file.jpg")):
        with pytest.raises(GloamError):
            gallery.search(query)
    key = draw(1)[0][0].key
    wrong: list[dict[str, object]] = [
        {"top": 0}, {"rerank": 500}, {"rerank": 5, "group": "tracklet", "group_score": "mean"}, {"group": "camera"},
        {"like": key, "unlike": key}, {"like": "nobody"}, {"fmr": 1e-3}, {"fmr": 2.0}, {"expand": -1},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(GloamError):
            gallery.search(key, **options)
    with pytest.raises(GloamError, match="uncalibrated"):
        gallery.search(key, fmr=1e-3)


@pytest.mark.parametrize("group", ["tracklet", "person"])
@pytest.mark.parametrize("score", ["best", "mean"])
@pytest.mark.parametrize("where", [Where(), Where(not_cameras=(1, 2))])
def test_groups_are_those_of_sorting_everything(gallery: Gallery, group: str, score: str, where: Where) -> None:
    rows, vectors = draw(300)
    query = queries(vectors, 1)[0]
    groups: dict[str, list[tuple[float, str]]] = {}
    named = {row.key: row for row in rows}
    for key, value in oracle(rows, vectors, query, 300, lambda row: row.camera not in where.not_cameras):
        name = getattr(named[key], group)
        groups.setdefault(f"group {name}" if name else f"alone {key}", []).append((value, key))
    value_of = {
        name: members[0][0] if score == "best" else float(np.mean([value for value, _ in members[:3]]))
        for name, members in groups.items()
    }
    expected = sorted(groups, key=lambda name: (-value_of[name], groups[name][0][1]))[:12]
    hits = gallery.search(features(query[None]), top=12, where=where, group=group, group_score=score)  # type: ignore[arg-type]
    found = [f"group {hit.group}" if hit.group else f"alone {hit.key}" for hit in hits]
    assert found == expected
    assert [hit.score for hit in hits] == pytest.approx([value_of[name] for name in expected], abs=1e-6)
    assert [hit.key for hit in hits] == [groups[name][0][1] for name in expected]


def test_reranking_is_k_reciprocal_over_the_best_and_their_neighbours(gallery: Gallery) -> None:
    rows, vectors = draw(300)
    query = queries(vectors, 1)[0]
    plainly = gallery.search(features(query[None]), top=60)
    hits = gallery.search(features(query[None]), top=60, rerank=30)
    stored = {
        row.key: vector for row, vector in zip(rows, gallery.index.vectors([row.key for row in rows]), strict=True)
    }
    best = plainly.keys[:30]
    around = {key for name in best for key, _ in oracle(rows, vectors, stored[name], 20)}
    names = best + sorted(around - set(best))
    matrix = np.stack([stored[name] / np.linalg.norm(stored[name]) for name in names])

    def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.sqrt(np.clip(2 - 2 * left @ right.T, 0, None))

    expected = k_reciprocal(
        distances(query[None], matrix), distances(query[None], query[None]), distances(matrix, matrix)
    )[0, :30]
    order = sorted(range(30), key=lambda n: (round(float(expected[n]), 5), best[n]))
    found = {hit.key: hit.distance for hit in hits}
    np.testing.assert_allclose([found[key] for key in best], expected, atol=1e-4)
    assert set(hits.keys[:30]) == set(best)
    assert sum(a == best[n] for a, n in zip(hits.keys, order, strict=False)) >= 26  # near-ties may swap
    assert hits.keys[30:] == plainly.keys[30:]
    assert [hit.distance for hit in hits][30:] == [None] * 30


@pytest.mark.parametrize("group", ["tracklet", "person"])
def test_reranked_groups_come_in_the_order_of_their_first_rows(gallery: Gallery, group: str) -> None:
    rows, vectors = draw(300)
    named = {row.key: row for row in rows}
    query = features(queries(vectors, 1))
    expected: dict[str, list[str]] = {}
    for hit in gallery.search(query, top=300, rerank=40):
        name = getattr(named[hit.key], group)
        expected.setdefault(f"group {name}" if name else f"alone {hit.key}", []).append(hit.key)
    hits = gallery.search(query, top=25, rerank=40, group=group)  # type: ignore[arg-type]
    found = [f"group {hit.group}" if hit.group else f"alone {hit.key}" for hit in hits]
    assert found == list(expected)[:25]
    for name, hit in zip(found, hits, strict=True):
        assert hit.key == expected[name][0]
        assert hit.members == tuple(expected[name][: len(hit.members)])
    assert hits[0].distance is not None
    assert len(gallery.search(query, top=300, rerank=40, group=group)) == len(expected)  # type: ignore[arg-type]


def test_reranking_helps_on_drawn_people(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    people = generator.standard_normal((40, 16)).repeat(10, axis=0)
    vectors = people + 1.1 * generator.standard_normal(people.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pids = np.arange(40).repeat(10)
    gallery = Gallery.create(tmp_path / "g", space(dim=16), retention="keep")
    table = features(vectors.astype(np.float32), pid=pids, key=[f"k{n:03d}" for n in range(400)], path=["x"] * 400)
    gallery.add(table, progress=False)

    def precision(**options: int) -> float:
        found = [gallery.search(f"k{n:03d}", top=9, **options) for n in range(0, 400, 10)]  # type: ignore[arg-type]
        return float(np.mean([hit.row.person == str(n) for n, hits in enumerate(found) for hit in hits]))

    base = precision()
    assert precision(rerank=60) > base + 0.02
    assert precision(expand=5) > base + 0.02


def test_feedback_moves_the_search_and_hides_nothing(gallery: Gallery) -> None:
    rows, vectors = draw(300)
    query = queries(vectors, 1)[0]
    first = gallery.search(features(query[None]), top=20)
    liked, unliked = first.keys[4], first.keys[0]
    second = first.more_like(liked, unlike=[unliked])
    stored = gallery.index.vectors([liked, unliked])
    moved = query + stored[0] - 0.3 * stored[1]
    expected = oracle(rows, vectors, (moved / np.linalg.norm(moved)).astype(np.float32), 20)
    assert second.keys == [key for key, _ in expected]
    note = next(note for note in second.notes if "feedback" in note)
    assert f"{len({*second.keys} - {*first.keys})} of 20 rows are new" in note
    marks = {hit.key: hit.marked for hit in second}
    assert marks[liked] == "like"
    assert marks.get(unliked, "unlike") == "unlike"
    third = second.more_like(unlike=liked)  # a mark that was wrong is taken back
    assert {hit.key: hit.marked for hit in third}.get(liked, "unlike") == "unlike"
    everything = gallery.search(features(query[None]), top=300, like=liked, unlike=unliked)
    assert len(everything) == 300


def test_files_of_hits_are_harmless(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path / "g", space(), retention="keep", thumbnails=True)
    _, vectors = draw(5)
    keys = ["=HYPERLINK(1)", "<script>alert(1)</script>", "[red]markup[/red]", "\x1b[31mred\x07", "ordinary.jpg"]
    rows = [Row(key, person="@SUM(A1)", tracklet="+1") for key in keys]
    gallery.index.upsert(rows, vectors, [b"RIFF"] * 5)
    hits = gallery.search(features(vectors[:1]), top=5)
    table = pd.read_csv(hits.save(tmp_path / "hits.csv"))
    assert not any(
        str(cell).startswith(("=", "+", "-", "@")) for cell in table[["key", "person", "tracklet"]].to_numpy().ravel()
    )
    page = hits.save(tmp_path / "hits.html").read_text()
    assert "<script" not in page
    assert "\x1b" not in page
    assert "data:image/webp;base64," in page
    assert "http" not in page.replace("http-equiv", "")
    told = json.loads(hits.save(tmp_path / "hits.json").read_text())
    assert {hit["key"] for hit in told["hits"]} == set(keys)
    assert "\x1b" not in repr(hits)
    assert hits.to_frame()["rank"].tolist() == [1, 2, 3, 4, 5]
    with pytest.raises(GloamError, match="must end in"):
        hits.save(tmp_path / "hits.xlsx")
    assert plain("a\x1b[31m\u202eb") == "a\ufffd[31m\ufffdb"


def test_a_page_shows_the_query_and_files_where_nothing_is_stored(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path / "g", space(), retention="keep")
    _, vectors = draw(4)
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    for number, colour in enumerate(colours):
        Image.new("RGB", (100, 300), colour).save(tmp_path / f"{number}.png")
    rows = [Row(f"{number}.png", path=f"{number}.png", root=str(tmp_path)) for number in range(4)]  # the last is gone
    rows[1] = rows[1]._replace(box=(10.0, 20.0, 50.0, 60.0))
    gallery.index.upsert(rows, vectors)
    page = gallery.search("0.png", top=3).save(tmp_path / "hits.html").read_text()
    asked, found = page.split('class="hits"')
    shown = {name: re.findall(r'data:image/webp;base64,([^"]+)"', part) for name, part in (("a", asked), ("f", found))}
    assert [mean_colour(image) for image in shown["a"]] == [(250, 0, 0)]
    order = [hit.key for hit in gallery.search("0.png", top=3) if hit.key != "3.png"]
    assert [mean_colour(image) for image in shown["f"]] == [colours[int(key[0])] for key in order]
    assert found.count("no image") == 1
    sizes = {Image.open(io.BytesIO(base64.b64decode(image))).size for image in shown["f"]}
    assert sizes == {(43, 128), (50, 60)}  # whole images are made smaller, boxes are cut


def mean_colour(image: str) -> tuple[int, ...]:
    """To tens: WebP loses a little."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB"))
    return tuple(round(float(value) / 10) * 10 for value in pixels.reshape(-1, 3).mean(axis=0))


def test_a_closed_gallery_says_so(tmp_path: Path) -> None:
    with filled(tmp_path / "g", 20) as gallery:
        hits = gallery.search(draw(20)[0][0].key)
        gallery.close()
    gallery.close()
    for use in (lambda: hits.more_like(hits.keys[0]), lambda: hits.save(tmp_path / "hits.html"), gallery.count):
        with pytest.raises(GloamError, match="is closed"):
            use()


def test_adding_features_twice_is_an_update(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path / "g", space(), retention="keep")
    _, vectors = draw(12)
    given = features(
        vectors, pid=[*range(11), -1], cam=np.arange(12), modality="infrared", path=[f"{n}.jpg" for n in range(12)],
        time=["2026-03-01T08:00:00+01:00"] * 11 + [""],
    )  # fmt: skip
    assert str(gallery.add(given, progress=False)) == "12 new, 0 updated, 0 unchanged"
    assert gallery.add(given, progress=False).updated == 12
    rows = gallery.catalogue.rows(["3.jpg", "11.jpg"])
    assert rows["3.jpg"] == Row(
        "3.jpg", path="3.jpg", camera=3, modality=1, person="3", time=microseconds("2026-03-01T07:00:00")
    )
    assert rows["11.jpg"].person is None
    assert rows["11.jpg"].time is None
    prefixed = gallery.add(given, prefix="other/", camera=5, progress=False)
    assert prefixed.new == 12
    assert gallery.catalogue.rows(["other/3.jpg"])["other/3.jpg"].camera == 3
    with pytest.raises(GloamError, match="give the column key"):
        gallery.add(features(vectors), progress=False)
    with pytest.raises(GloamError, match="model a"):
        gallery.add(Features.of_arrays(vectors, model="b", path=["x"] * 12), progress=False)


def test_rows_of_the_seam_for_video() -> None:
    table = pd.DataFrame(
        {
            "path": ["a.mp4", "a.mp4"], "frame": [3, 4], "box": ["[1, 2, 3, 4]", (5, 6, 7, 8)], "camera": ["2", 2],
            "time": [pd.Timestamp("2026-03-01", tz="UTC"), np.nan], "modality": ["ir", ""], "tracklet": ["t1", None],
        }
    )  # fmt: skip
    assert rows_of_table(table, root="/v", person="P") == [
        Row("a.mp4#3", "a.mp4", "/v", 3, (1, 2, 3, 4), 1, 2, microseconds("2026-03-01"), 1, "t1", "P"),
        Row("a.mp4#4", "a.mp4", "/v", 4, (5, 6, 7, 8), 1, 2, None, 0, None, "P"),
    ]
    for column, value in (("box", "wide"), ("camera", "left"), ("time", "noon"), ("modality", "sonar"), ("frame", 1.5)):
        with pytest.raises(GloamError):
            rows_of_table(table.assign(**{column: [value, value]}))


def test_times_are_read_in_every_form() -> None:
    expected = 1_772_352_000_000_000
    texts = ("2026-03-01T08:00:00", "2026-03-01T09:00:00+01:00", "2026-03-01T08:00:00Z")
    others = (1_772_352_000, 1_772_352_000.0, pd.Timestamp("2026-03-01T08:00"), np.datetime64("2026-03-01T08:00"))
    for value in (*texts, *others):
        assert microseconds(value) == expected, value
    assert [microseconds(value) for value in (None, "", float("nan"), pd.NaT)] == [None] * 4


def test_export_import_merge_and_backup_keep_everything(tmp_path: Path) -> None:
    gallery = filled(tmp_path / "g", 120, thumbnails=True)
    rows, _ = draw(120)
    keys = [row.key for row in rows]
    assert gallery.export(tmp_path / "all.parquet") == 120
    assert gallery.export(tmp_path / "some.parquet", Where(cameras=3)) == sum(row.camera == 3 for row in rows)
    again = Gallery.create(tmp_path / "again", Features.load(tmp_path / "all.parquet"), retention="keep")
    assert again.add(tmp_path / "all.parquet", progress=False).new == 120
    for opened in (again, gallery):
        assert opened.catalogue.rows(keys) == {row.key: row for row in rows}
        assert opened.catalogue.thumbnails(keys) == gallery.catalogue.thumbnails(keys)
    np.testing.assert_allclose(again.index.vectors(keys), gallery.index.vectors(keys), atol=5e-4)

    assert gallery.export(tmp_path / "copy") == 120
    copy = open_gallery(tmp_path / "copy")
    assert copy.verify().ok
    assert copy.catalogue.rows(keys) == gallery.catalogue.rows(keys)
    with pytest.raises(GloamError, match="exists already"):
        gallery.export(tmp_path / "copy")

    third = Gallery.create(tmp_path / "third", space(), retention="keep")
    assert third.merge(copy).new == 120
    assert third.merge(copy).unchanged == 120
    np.testing.assert_array_equal(third.index.vectors(keys), gallery.index.vectors(keys))
    copy.index.upsert([rows[0]._replace(camera=77)], copy.index.vectors(keys[:1]))
    with pytest.raises(GloamError, match="1 keys are in both"):
        third.merge(copy)
    assert third.merge(copy, conflict="skip").unchanged == 120
    assert third.catalogue.rows(keys[:1])[keys[0]].camera == rows[0].camera
    assert third.merge(copy, conflict="replace").updated == 1
    assert third.catalogue.rows(keys[:1])[keys[0]].camera == 77
    assert third.merge(copy, prefix="night/").new == 120
    other = Gallery.create(tmp_path / "other", space("b"), retention="keep")
    with pytest.raises(GloamError, match=r"model b.*model a"):
        other.merge(copy)


def test_a_backup_made_while_another_process_writes_is_whole(tmp_path: Path) -> None:
    gallery = filled(tmp_path / "g", 100)
    reader = open_gallery(tmp_path / "g")
    rows, vectors = draw(100, seed=3)
    for step in range(5):
        gallery.index.upsert([row._replace(key=f"{step} {row.key}") for row in rows], vectors)
        assert reader.export(tmp_path / f"copy{step}") == 200 + 100 * step
        with open_gallery(tmp_path / f"copy{step}") as copy:
            assert copy.verify().ok
            assert len(copy) == 200 + 100 * step


def test_oversampling_is_measured_stored_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gloam.gallery.about import describe
    from gloam.gallery.engines.rabitq import RabitqIndex

    gallery = filled(tmp_path / "g", 3000)
    index = RabitqIndex(gallery.catalogue.store, smallest=500)  # type: ignore[attr-defined]
    gallery.index = index
    assert any("recall not measured" in note for note in gallery.search(draw(1)[0][0].key).notes)
    gallery.tune()
    tuning = gallery.space.tuning
    assert tuning is not None
    assert tuning["rows"] == 3000
    assert tuning["oversampling"] == index.oversampling
    # The stored recall is true: measure it again in the obvious way.
    ids = np.unique(np.linspace(0, 2999, 200).astype(int))
    stored = gallery.index.vectors([row.key for block in gallery.catalogue.scan() for row in block])[ids]
    exact = index.search(stored, 11, exact=True)
    found = index.search(stored, 11)
    recall = np.mean([len({*a[1:]} & {*b[1:]}) / 10 for a, b in zip(exact.keys, found.keys, strict=True)])
    assert recall >= tuning["recall"] - 1e-9
    assert tuning["recall"] >= 0.99
    hits = gallery.search(draw(1)[0][0].key)
    assert not hits.exact
    assert any(f"{tuning['recall']:.3f} measured on 200 stored rows" in note for note in hits.notes)
    assert gallery.search(draw(1)[0][0].key, exact=True).exact
    shown = dict(describe(gallery))
    assert f"{tuning['oversampling']} candidates a hit" in shown["search"]
    assert shown["calibration"].startswith("uncalibrated")
    monkeypatch.setattr("gloam.gallery.tuning.tune", lambda *_, **__: pytest.fail("measured again without need"))
    gallery.tune()


def test_public_names() -> None:
    assert gloam.open_gallery is open_gallery
    assert gloam.Gallery is Gallery
    assert gloam.Where is Where
    assert str(Where(cameras=(1,), after=(START + HOUR) / 1e6)).startswith("cameras=(1,), after=2023-11-14T23:13:20")
    for wrong in ({"cameras": "left"}, {"modality": "sonar"}, {"after": "noon"}):
        with pytest.raises(GloamError):
            Where(**wrong)  # type: ignore[arg-type]
    assert DIM
