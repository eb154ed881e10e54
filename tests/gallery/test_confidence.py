"""Calibrated galleries: thresholds per pair of modalities, probabilities with priors, and where both mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import gloam
from benchmarks.calibration import draw_features
from gloam.cli import main
from gloam.errors import GloamError
from gloam.evaluation.calibrate import fit_calibration
from gloam.evaluation.calibration import Calibration, ModelStamp, one_in
from gloam.gallery.about import describe
from gloam.gallery.confidence import percent
from gloam.gallery.gallery import Gallery
from gloam.gallery.space import Space
from gloam.gallery.where import Where
from gloam.inference.calibrating import calibrate_run
from gloam.inference.features import Features, Fingerprint
from gloam.training.run import train
from tests.people_tree import write_sysu
from tests.training.tiny import tiny_recipe

MODEL = Fingerprint("c" * 64, "drawn")
PEOPLE = 40
WORDS = ("visible", "infrared")


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    stamp = ModelStamp(digest=MODEL.digest, name=MODEL.name)
    return fit_calibration(*draw_features(120, 5, visible_cams=2), model=stamp, resamples=20)


def people(seed: int = 77) -> Features:
    """Unseen people: every one in two visible and two infrared cameras, a tracklet per camera."""
    vectors, ids, cams, kinds = draw_features(PEOPLE, seed, visible_cams=2)
    return Features.of_arrays(
        vectors,
        model=MODEL,
        pid=ids,
        cam=cams,
        modality=[WORDS[kind] for kind in kinds],
        path=[f"{pid:03d}/{cam}.jpg" for pid, cam in zip(ids, cams, strict=True)],
        key=[f"{pid:03d}/{cam}" for pid, cam in zip(ids, cams, strict=True)],
        person=[f"P{pid}" for pid in ids],
        tracklet=[f"t{pid}-{cam}" for pid, cam in zip(ids, cams, strict=True)],
    )


def make(folder: Path, calibration: Calibration | None) -> Gallery:
    gallery = Gallery.create(folder, Space(MODEL.digest, MODEL.name, people().width), retention="keep")
    gallery.add(people(), progress=False)
    if calibration is not None:
        gallery.calibrate(calibration)
    return gallery


@pytest.fixture
def gallery(tmp_path: Path, calibration: Calibration) -> Gallery:
    return make(tmp_path / "g", calibration)


def expected_matches(query: int, fmr: float, calibration: Calibration) -> list[str]:
    """Every row, by the threshold of its modality and the query's, best first."""
    found = people()
    stored = found.numpy().astype(np.float16).astype(np.float64)
    scores = stored @ (stored[query] / np.linalg.norm(stored[query]))
    rows = [
        (-scores[row], key)
        for row, (key, kind) in enumerate(zip(found.columns["key"], found.columns["modality"], strict=True))
        if row != query and scores[row] >= calibration.threshold(fmr, (found.columns["modality"][query], kind))
    ]
    return [key for _, key in sorted(rows)]


@pytest.mark.parametrize("query", [0, 3 * PEOPLE + 2])
@pytest.mark.parametrize("fmr", [0.1, 0.02, 0.001])
def test_a_false_match_rate_has_a_threshold_per_pair(
    gallery: Gallery, calibration: Calibration, query: int, fmr: float
) -> None:
    key = people().columns["key"][query]
    hits = gallery.search(key, fmr=fmr, top=1000)
    assert hits.keys == expected_matches(query, fmr, calibration)
    assert {hit.row.modality for hit in gallery.search(key, fmr=0.1, top=1000)} == {0, 1}
    (note,) = [note for note in hits.notes if "false match rate" in note]
    for name in ("visible-infrared", f"{WORDS[query > 2 * PEOPLE]}-{WORDS[query > 2 * PEOPLE]}"):
        assert f"{calibration.threshold(fmr, name):.3f} ({name})" in note
    assert f"about {fmr * 160:,.{0 if fmr * 160 >= 10 else 1}f} reach that by chance" in note


def test_rows_below_their_threshold_take_nobodys_place(gallery: Gallery, calibration: Calibration) -> None:
    # Infrared rows are alike: nearer to an infrared query than visible rows that are above the threshold of their own.
    query = 3 * PEOPLE + 2
    key = people().columns["key"][query]
    rate = 0.05
    full = expected_matches(query, rate, calibration)
    nearest = gallery.search(key, top=len(full)).keys
    assert set(nearest) != set(full)
    assert gallery.search(key, fmr=rate, top=len(full)).keys == full
    assert gallery.search(key, fmr=rate, top=3).keys == full[:3]
    infrared = gallery.search(key, fmr=rate, top=100, where=Where(modality="infrared"))
    assert infrared.keys == [name for name in full if name[-1] in "36"]
    assert "visible-infrared" not in " ".join(infrared.notes)


@pytest.mark.parametrize("group", ["person", "tracklet"])
def test_groups_pass_by_their_best_row_and_appear_once(gallery: Gallery, calibration: Calibration, group: str) -> None:
    query, rate = 4, 0.02
    key = people().columns["key"][query]
    rows = expected_matches(query, rate, calibration)
    name_of = dict(zip(people().columns["key"], people().columns[group], strict=True))
    hits = gallery.search(key, fmr=rate, group=group, top=500)  # type: ignore[arg-type]
    assert [hit.group for hit in hits] == list(dict.fromkeys(name_of[row] for row in rows))
    assert len({hit.group for hit in hits}) == len(hits)


def test_probabilities_come_with_their_prior_everywhere(
    gallery: Gallery, calibration: Calibration, tmp_path: Path
) -> None:
    key = people().columns["key"][0]
    plain = gallery.search(key, top=30)
    assert all(hit.probability is None for hit in plain)
    assert any("with a prior" in note for note in plain.notes)
    hits = gallery.search(key, top=30, prior=one_in(1000))
    for hit in hits:
        pair = ("visible", WORDS[hit.row.modality])
        assert hit.probability == pytest.approx(float(calibration.probability(hit.score, pair, prior=0.001)))
        assert f"{percent(hit.probability)} (one in 1,000)" in repr(hits)
    assert any("one in 1,000 is the one" in note for note in hits.notes)
    told = json.loads(hits.save(tmp_path / "hits.json").read_text())["hits"]
    assert {entry["prior"] for entry in told} == {0.001}
    assert told[0]["probability"] == pytest.approx(hits[0].probability, abs=1e-6)
    table = pd.read_csv(hits.save(tmp_path / "hits.csv"))
    assert table["probability"].notna().all()
    assert set(table["prior"]) == {0.001}
    page = hits.save(tmp_path / "hits.html").read_text()
    assert page.count("(one in 1,000)") == 30
    likelier = gallery.search(key, top=30, prior=0.5)
    assert all(b.probability > a.probability for a, b in zip(hits, likelier, strict=True) if 0 < a.probability < 1)  # type: ignore[operator]
    # Re-ranking changes the order, and not what two images' score means.
    again = {hit.key: hit.probability for hit in gallery.search(key, top=30, prior=0.5, rerank=40)}
    assert again.items() >= {(hit.key, hit.probability) for hit in likelier if hit.key in again}


def test_where_scores_are_not_of_two_images_nothing_is_claimed(gallery: Gallery) -> None:
    found = people()
    keys = found.columns["key"].tolist()
    for asked, options in (
        (keys[:2], {}),
        (keys[0], {"expand": 3}),
        (keys[0], {"like": keys[5]}),
        (keys[0], {"group": "person", "group_score": "mean"}),
    ):
        hits = gallery.search(asked, prior=0.01, **options)  # type: ignore[arg-type]
        assert all(hit.probability is None and hit.to_dict()["prior"] is None for hit in hits)
        assert any(note.startswith("uncalibrated: ") for note in hits.notes)
        with pytest.raises(GloamError, match="No threshold is known for this search"):
            gallery.search(asked, fmr=0.01, **options)  # type: ignore[arg-type]
    with pytest.raises(GloamError, match="one of --fmr and --rerank"):
        gallery.search(keys[0], fmr=0.01, rerank=10)
    moved = gallery.search(keys[0], prior=0.01).more_like(keys[40])
    assert all(hit.probability is None for hit in moved)
    with pytest.raises(GloamError, match="No threshold"):
        gallery.search(keys[0], fmr=0.01).more_like(keys[40])


def test_unsupported_rates_and_uncalibrated_pairs_are_refused(tmp_path: Path, gallery: Gallery) -> None:
    key = people().columns["key"][0]
    with pytest.raises(GloamError, match="100,000 impostor pairs of about 246 identities"):
        gallery.search(key, fmr=1e-4)
    for wrong in (0, 1, 5):
        with pytest.raises(GloamError, match="prior"):
            gallery.search(key, prior=wrong)
    vectors, ids, cams, kinds = draw_features(120, 5, visible_cams=2)
    stamp = ModelStamp(digest=MODEL.digest)
    part = fit_calibration(*(c[kinds == 0] for c in (vectors, ids, cams, kinds)), model=stamp, resamples=20)
    half = make(tmp_path / "half", part)
    hits = half.search(key, prior=0.01, top=200)
    assert all((hit.probability is None) == (hit.row.modality == 1) for hit in hits)
    assert any("no probability for infrared rows" in note for note in hits.notes)
    with pytest.raises(GloamError, match="visible-infrared pairs are uncalibrated"):
        half.search(key, fmr=0.01)
    assert half.search(key, fmr=0.01, where=Where(modality="visible")) is not None


def test_uncalibrated_galleries_say_so(tmp_path: Path, calibration: Calibration) -> None:
    gallery = make(tmp_path / "plain", None)
    key = people().columns["key"][0]
    assert any("uncalibrated" in note for note in gallery.search(key).notes)
    for options in ({"fmr": 0.01}, {"prior": 0.01}):
        with pytest.raises(GloamError, match=r"uncalibrated.*gloam calibrate"):
            gallery.search(key, **options)  # type: ignore[arg-type]
    foreign = calibration.model_copy(update={"model": ModelStamp(digest="d" * 64, name="another")})
    with pytest.raises(GloamError, match=r"another.*drawn"):
        gallery.calibrate(foreign)
    assert dict(describe(gallery))["calibration"].startswith("uncalibrated")


def test_a_calibration_is_kept_on_disk_with_its_checksum_and_shown(
    gallery: Gallery, calibration: Calibration, tmp_path: Path
) -> None:
    gallery.close()
    with gloam.open_gallery(tmp_path / "g") as again:
        assert Calibration.from_dict(again.space.calibration) == calibration
        assert again.verify().ok
        assert "120 identities of given" in dict(describe(again))["calibration"]
        assert "visible-infrared from" in dict(describe(again))["calibration"]
        lines = [line.action for line in again.catalogue.audit()]
        again.calibrate(calibration)  # nothing new: no line
        assert [line.action for line in again.catalogue.audit()] == lines
        assert lines.count("calibrated") == 1
        # A merge brings it to a gallery that lacks one.
        other = make(tmp_path / "other", None)
        other.merge(again, conflict="skip")
        assert other.space.calibration == again.space.calibration


def test_runs_bring_their_calibration_at_create_add_and_reembed(tmp_path: Path) -> None:
    root = write_sysu(tmp_path / "sysu", train=6, val=3, test=8)
    runs = []
    for seed in (0, 1):
        recipe = tiny_recipe(root, train={"epochs": 1, "iterations": 1, "seed": seed})
        runs.append(train(recipe, output=tmp_path / f"run{seed}", progress=False).path)
    first = calibrate_run(runs[0], device="cpu", resamples=20, targets=(0.3,))[0]
    # create
    gallery = Gallery.create(tmp_path / "a", gloam.load_model(runs[0]), retention="keep")
    assert Calibration.from_dict(gallery.space.calibration) == first
    gallery.add(root, split="query", progress=False)
    # add: calibrated after the gallery was made
    late = Gallery.create(tmp_path / "b", gloam.load_model(runs[1]), retention="keep")
    assert late.space.calibration is None
    second = calibrate_run(runs[1], device="cpu", resamples=20, targets=(0.3,))[0]
    late.add(root, split="query", progress=False)
    assert Calibration.from_dict(late.space.calibration) == second
    # reembed: each space has its own
    assert gallery.reembed(gloam.load_model(runs[1]), progress=False).switched
    assert Calibration.from_dict(gallery.space.calibration) == second
    (runs[0] / "calibration.json").unlink()
    assert gallery.reembed(gloam.load_model(runs[0]), progress=False).switched
    assert gallery.space.calibration is None
    gallery.close()
    late.close()


def test_commands(
    gallery: Gallery, calibration: Calibration, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery.close()
    key = people().columns["key"][0]
    words = ["gallery", "search", str(tmp_path / "g"), key]
    assert main([*words, "--fmr", "0.01", "--prior", "1000"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "if one in 1,000 is the one who is asked for" in shown
    assert "%" in shown
    assert "false match rate 0.01: scores from" in shown
    assert main([*words, "--prior", "0.5"]) == 2
    assert "one in so many" in capsys.readouterr().err
    make(tmp_path / "new", None).close()
    assert main(["gallery", "calibrate", str(tmp_path / "new")]) == 2
    assert "does not know where" in capsys.readouterr().err
    file = calibration.save(tmp_path / "calibration.json")
    assert main(["gallery", "calibrate", str(tmp_path / "new"), str(file)]) == 0
    assert "120 identities" in capsys.readouterr().out
    assert main(["gallery", "info", str(tmp_path / "new")]) == 0
    assert "120 identities" in capsys.readouterr().out


def test_near_certainty_is_not_spelled_out() -> None:
    assert [percent(p) for p in (0.0, 0.0004, 0.012, 0.5, 0.9996, 1.0)] == [
        "<0.1%", "<0.1%", "1.2%", "50.0%", ">99.9%", ">99.9%",
    ]  # fmt: skip
