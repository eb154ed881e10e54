"""What the interface answers, against the gallery asked directly."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from gloam.evaluation.calibration import Calibration
from gloam.gallery.contract import Retention
from gloam.gallery.gallery import Gallery, open_gallery
from gloam.gallery.where import Where
from gloam.image_files import load_image
from gloam.inference.model import Model
from gloam.serve.tokens import Tokens
from tests.gallery.test_confidence import calibration, make  # noqa: F401
from tests.serve.conftest import Serve, picture

READER, EDITOR = "r" * 24, "e" * 24


def ask(client: httpx.Client, request: dict[str, Any], *images: bytes, path: str = "/v1/search") -> httpx.Response:
    parts = [("request", (None, json.dumps(request), "application/json"))]
    return client.post(path, files=[*parts, *(("image", ("a", image, "image/png")) for image in images)])


def first_image(gallery: Gallery) -> tuple[str, Path]:
    row = next(row for block in gallery.catalogue.scan(Where()) for row in block)
    return row.key, Path(row.root) / str(row.path)


def test_an_uploaded_image_finds_what_the_gallery_finds(serve: Serve, folder: Path, model: Model) -> None:
    gallery = open_gallery(folder, model=model)
    _, path = first_image(gallery)
    expected = gallery.search(path, top=7)
    gallery.close()
    with serve().client() as client:
        answer = ask(client, {"top": 7}, path.read_bytes())
    assert answer.status_code == 200
    found = answer.json()
    assert [hit["key"] for hit in found["hits"]] == expected.keys
    np.testing.assert_allclose([hit["score"] for hit in found["hits"]], expected.scores, atol=1e-5)
    assert found["exact"] is True
    assert found["query"] == ["{} x {}".format(*load_image(path).size)]
    assert any("uncalibrated" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("request_", "options"),
    [
        ({"where": {"cameras": [3]}}, {"where": Where(cameras=(3,))}),
        (
            {"where": {"modality": "infrared", "not_cameras": [6]}},
            {"where": Where(not_cameras=(6,), modality="infrared")},
        ),
        ({"where": {"after": "2026-03-01T12:00:00Z"}}, {"where": Where(after="2026-03-01T12:00:00Z")}),
        ({"group": "tracklet"}, {"group": "tracklet"}),
        ({"rerank": 10}, {"rerank": 10}),
        ({"expand": 2, "exact": True}, {"expand": 2, "exact": True}),
    ],
)
def test_options_mean_the_same_as_in_python(serve: Serve, folder: Path, request_: dict[str, Any], options: Any) -> None:
    gallery = open_gallery(folder)
    key, _ = first_image(gallery)
    expected = gallery.search(key, top=5, **options)
    gallery.close()
    with serve(with_model=False).client() as client:
        answer = client.post("/v1/search", json={"keys": [key], "top": 5, **request_})
    assert answer.status_code == 200, answer.text
    assert [hit["key"] for hit in answer.json()["hits"]] == expected.keys
    assert len(expected.keys) > 0


def test_a_box_is_cut_out_before_the_model_sees_it(serve: Serve, folder: Path, model: Model) -> None:
    gallery = open_gallery(folder, model=model)
    _, path = first_image(gallery)
    crop = load_image(path).convert("RGB")
    expected = gallery.search(path, top=3)
    gallery.close()
    scene = Image.new("RGB", (crop.width + 60, crop.height + 40), (10, 200, 30))
    scene.paste(crop, (37, 11))
    buffer = io.BytesIO()
    scene.save(buffer, "PNG")
    box = [37, 11, crop.width, crop.height]
    with serve().client() as client:
        cut = ask(client, {"top": 3, "images": [{"box": box}]}, buffer.getvalue()).json()
        outside = ask(client, {"images": [{"box": [5000, 5, 10, 10]}]}, buffer.getvalue())
    assert [hit["key"] for hit in cut["hits"]] == expected.keys
    np.testing.assert_allclose(
        [hit["score"] for hit in cut["hits"]], expected.scores, atol=2e-2
    )  # JPEG was decoded once
    assert outside.status_code == 415
    assert "outside" in outside.json()["detail"]


def test_vectors_of_the_client_are_searched_and_those_of_another_model_refused(serve: Serve, folder: Path) -> None:
    gallery = open_gallery(folder)
    key, _ = first_image(gallery)
    vector, digest = gallery.index.vectors([key])[0], gallery.space.digest
    gallery.close()
    with serve(with_model=False).client() as client:
        found = client.post(
            "/v1/search", json={"vectors": {"fingerprint": digest, "rows": [vector.tolist()]}, "top": 1}
        )
        other = client.post("/v1/search", json={"vectors": {"fingerprint": "b" * 64, "rows": [vector.tolist()]}})
        short = client.post("/v1/search", json={"vectors": {"fingerprint": digest, "rows": [[1.0, 0.0]]}})
    assert found.json()["hits"][0]["key"] == key
    assert other.status_code == 400
    assert "different models" in other.json()["cure"] + other.json()["detail"]
    assert short.status_code == 400


def test_feedback_moves_the_search_and_hides_nothing(serve: Serve, folder: Path) -> None:
    with serve(with_model=False).client() as client:
        key = client.post("/v1/search", json={"keys": ["tracklet:walk 1"], "top": 3}).json()["hits"][2]["key"]
        answer = client.post("/v1/search", json={"keys": ["tracklet:walk 1"], "unlike": [key], "top": 500}).json()
    marked = [hit for hit in answer["hits"] if hit["key"] == key]
    assert [hit["marked"] for hit in marked] == ["unlike"]
    assert any("none is hidden" in note for note in answer["notes"])


def test_rows_are_added_searched_and_erased(serve: Serve, folder: Path) -> None:
    image = picture(seed=3)
    with serve(open_role="editor").client() as client:
        row = {
            "key": "door/new 1",
            "camera": 9,
            "time": "2026-04-01T10:00:00+02:00",
            "tracklet": "t 9",
            "modality": "infrared",
        }
        added = ask(client, {"rows": [row]}, image, path="/v1/rows")
        assert added.json() == {"added": 1, "updated": 0}
        again = ask(client, {"rows": [row]}, image, path="/v1/rows")
        assert again.json() == {"added": 0, "updated": 1}
        told = client.get("/v1/rows/door%2Fnew%201").json()
        assert (told["camera"], told["time"], told["tracklet"]) == (9, "2026-04-01T08:00:00Z", "t 9")
        hit = ask(client, {"top": 1, "images": [{"modality": "infrared"}]}, image).json()["hits"][0]
        assert hit["key"] == "door/new 1"
        assert hit["score"] > 0.999
        crop = client.get("/v1/crops/door%2Fnew%201")
        assert crop.headers["content-type"] == "image/webp"
        assert Image.open(io.BytesIO(crop.content)).size == (32, 64)
        preview = client.request("DELETE", "/v1/rows", json={"keys": ["door/new 1"]}).json()
        assert preview == {"keys": ["door/new 1"], "erased": False, "done": False, "reason": ""}
        assert client.get("/v1/rows/door%2Fnew%201").status_code == 200
        gone = client.request("DELETE", "/v1/rows", json={"keys": ["door/new 1"], "preview": False}).json()
        assert (gone["erased"], gone["done"]) == (True, True)
        assert client.get("/v1/rows/door%2Fnew%201").status_code == 404
        assert client.get("/v1/crops/door%2Fnew%201").status_code == 404
        assert client.request("DELETE", "/v1/rows", json={"where": {}, "preview": False}).status_code == 400


def test_tracklets_crops_and_facts(serve: Serve, folder: Path) -> None:
    gallery = open_gallery(folder)
    rows = [row for block in gallery.catalogue.scan(Where(tracklets=("walk 1",))) for row in block]
    stored = gallery.catalogue.thumbnails([rows[0].key])[rows[0].key]
    gallery.close()
    with serve(with_model=False).client() as client:
        told = client.get("/v1/tracklets/walk%201").json()
        assert {row["key"] for row in told} == {row.key for row in rows}
        assert client.get(f"/v1/crops/{rows[0].key}").content == stored
        info = client.get("/v1/info").json()
    assert info["rows"] == len(gallery_rows(folder))
    assert info["can_embed"] is False
    assert sum(camera["rows"] for camera in info["cameras"]) == info["rows"]
    assert (info["role"], info["can_edit"], info["calibrated"]) == ("reader", False, False)


def gallery_rows(folder: Path) -> list[str]:
    with open_gallery(folder) as gallery:
        return [row.key for block in gallery.catalogue.scan(Where()) for row in block]


def test_without_a_model_images_are_refused_with_the_cure(serve: Serve) -> None:
    with serve(with_model=False).client() as client:
        answer = ask(client, {}, picture())
    assert answer.status_code == 409
    assert "--model" in answer.json()["cure"]


def test_roles(serve: Serve) -> None:
    server = serve(tokens=Tokens({READER: "reader", EDITOR: "editor"}))
    row = {"rows": [{"key": "a"}]}
    with server.client() as client:
        for path in ("/v1/info", "/v1/rows/a", "/v1/crops/a", "/v1/tracklets/a", "/metrics"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="gloam"'), path
        assert client.get("/").status_code == 200  # the page itself holds nothing
        assert client.get("/healthz").text == "ok"
        assert client.get("/readyz").text == "ok"
    with server.client(headers={"Authorization": f"Bearer {READER}"}) as client:
        assert client.get("/v1/info").json()["role"] == "reader"
        assert ask(client, row, picture(), path="/v1/rows").status_code == 403
        assert client.request("DELETE", "/v1/rows", json={"keys": ["a"]}).status_code == 403
    with server.client(headers={"Authorization": f"Bearer {EDITOR}"}) as client:
        assert ask(client, row, picture(), path="/v1/rows").json() == {"added": 1, "updated": 0}


def test_every_search_is_in_the_audit_with_the_role_and_without_what_was_asked(serve: Serve, folder: Path) -> None:
    server = serve(tokens=Tokens({READER: "reader", EDITOR: "editor"}))
    for token in (READER, EDITOR):
        with server.client(headers={"Authorization": f"Bearer {token}"}) as client:
            assert client.post("/v1/search", json={"keys": ["tracklet:walk 1"]}).status_code == 200
    server.stop()
    with open_gallery(folder) as gallery:
        lines = [line for line in gallery.catalogue.audit() if line.action == "searched"]
    assert ["reader by server" in lines[-2].who, "editor by server" in lines[-1].who] == [True, True]
    assert not any("walk" in str(line) for line in lines)


def test_rows_whose_time_is_over_are_never_shown(folder: Path, serve: Serve) -> None:
    gallery = open_gallery(folder)
    keys = [row.key for block in gallery.catalogue.scan(Where(tracklets=("walk 1",))) for row in block]
    with serve(with_model=False, gallery=gallery, retention_seconds=0.0).client() as client:
        assert client.get(f"/v1/crops/{keys[0]}").status_code == 200
        other = open_gallery(folder)
        other.catalogue.set_retention(Retention(1.0, {}))
        other.close()
        assert client.get(f"/v1/crops/{keys[0]}").status_code == 404
        assert client.get(f"/v1/rows/{keys[0]}").status_code == 404
        assert client.get("/v1/info").json()["rows"] == 0
        assert client.post("/v1/search", json={"keys": keys[:1]}).status_code == 404


def test_a_crop_is_of_the_file_that_was_added_and_of_no_other(
    folder: Path, model: Model, tmp_path: Path, serve: Serve
) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    (source / "a.png").write_bytes(picture(seed=1))
    plain = tmp_path / "plain.gallery"
    gallery = Gallery.create(plain, model, retention="keep")  # keeps no thumbnails
    gallery.add(source, progress=False)
    with serve(gallery=gallery).client() as client:
        assert client.get("/v1/crops/a.png").status_code == 200
        (source / "a.png").write_bytes(picture(seed=2))  # somebody else by now
        assert client.get("/v1/crops/a.png").status_code == 404


def test_openapi_describes_every_route_and_no_page_is_loaded_from_elsewhere(serve: Serve) -> None:
    with serve(with_model=False).client() as client:
        told = client.get("/openapi.json").json()
        assert client.get("/docs").status_code == 404
        assert client.get("/redoc").status_code == 404
    assert {"/v1/search", "/v1/rows", "/v1/rows/{key}", "/v1/crops/{key}", "/v1/info", "/healthz"} <= set(told["paths"])
    body = told["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert "$ref" not in json.dumps(body)


def test_metrics_count_answers_and_name_nobody(serve: Serve) -> None:
    with serve().client() as client:
        client.post("/v1/search", json={"keys": ["tracklet:walk 1"]})
        client.get("/v1/rows/somebody")
        client.get("/nowhere/at/all")
        text = client.get("/metrics").text
    assert 'gloam_requests_total{method="POST",route="/v1/search",status="200"} 1.0' in text
    assert "gloam_searches_total 1.0" in text
    assert 'route="other"' in text
    assert "somebody" not in text
    assert "nowhere" not in text


def test_accepted_requests_are_finished_at_the_end(serve: Serve, folder: Path) -> None:
    server = serve(gather=0.5)
    answers: list[int] = []

    def search() -> None:
        with server.client() as client:
            answers.append(ask(client, {}, picture()).status_code)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    while server.app.state.service.embedder.waiting + server.app.state.service.waiting < 1 and len(answers) < 3:
        time.sleep(0.005)
    server.stop()
    for thread in threads:
        thread.join()
    assert answers == [200, 200, 200]


def test_images_of_many_requests_share_a_forward_pass(serve: Serve) -> None:
    server = serve(gather=0.2)

    def search(seed: int) -> int:
        with server.client() as client:
            return ask(client, {}, picture(seed=seed)).status_code

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(search, range(6))) == {200}
    assert server.app.state.service.embedder.images == 6
    assert server.app.state.service.embedder.batches < 6


def test_a_full_queue_is_told_with_a_time_to_come_back(serve: Serve) -> None:
    server = serve(queue=1)
    with server.client() as client:
        answer = ask(client, {}, picture(), picture(seed=1))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "images wait for the model" in answer.json()["detail"]
        holds = threading.Event()
        busy = threading.Thread(target=lambda: asyncio.run(server.app.state.service._ask(lambda: holds.wait(20))))
        busy.start()
        while not server.app.state.service.waiting:
            time.sleep(0.005)
        refused = client.get("/v1/info")
        holds.set()
        busy.join()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.get("/v1/info").status_code == 200


def test_a_client_that_asks_too_often_waits(serve: Serve) -> None:
    with serve(with_model=False, burst=3, rate=60).client() as client:
        codes = [client.get("/v1/info").status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        assert client.get("/healthz").status_code == 200


def test_a_damaged_gallery_is_a_problem_without_paths(serve: Serve, folder: Path) -> None:
    server = serve(with_model=False)
    connection = sqlite3.connect(folder / "gallery.db")
    connection.execute("UPDATE crop SET camera = camera + 1")
    connection.commit()
    connection.close()
    with server.client() as client:
        answer = client.post("/v1/search", json={"keys": ["tracklet:walk 1"]})
    assert answer.status_code == 400
    assert "damaged" in answer.json()["detail"]
    assert str(folder) not in answer.text
    shutil.rmtree(folder)


def test_a_calibrated_gallery_tells_probabilities_with_their_prior_and_keeps_rates(
    tmp_path: Path,
    serve: Serve,
    calibration: Calibration,  # noqa: F811
) -> None:
    calibrated = make(tmp_path / "calibrated.gallery", calibration)
    key = next(row.key for block in calibrated.catalogue.scan(Where(modality="visible")) for row in block)
    expected = calibrated.search(key, top=5, fmr=1e-2, prior=1e-3)
    everything = calibrated.search(key, top=200, fmr=1e-2)
    with serve(with_model=False, gallery=calibrated).client() as client:
        found = client.post("/v1/search", json={"keys": [key], "top": 5, "fmr": 1e-2, "prior": 1e-3}).json()
        rest = client.post("/v1/search", json={"keys": [key], "top": 200, "fmr": 1e-2}).json()
        info = client.get("/v1/info").json()
    assert [hit["probability"] for hit in found["hits"]] == [hit.probability for hit in expected]
    assert {hit["prior"] for hit in found["hits"]} == {1e-3}
    assert [hit["key"] for hit in rest["hits"]] == everything.keys
    assert len(rest["hits"]) < info["rows"] - 1
    assert all(hit["probability"] is None for hit in rest["hits"])  # no prior, no probability
    assert info["calibrated"] is True
    assert "identities" in info["calibration"]
