"""``gloam extract`` on clips: tracklet folders, video files, and inputs that must be refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gloam
from gloam import cli
from gloam.augmentation.augmenter import normalize
from gloam.batches.clips import choose_frames
from gloam.datasets import Modality
from gloam.errors import GloamError
from gloam.inference import sources
from tests.analysis.clip_run import FRAMES, draw_clips, write_clip_run
from tests.pixels.videos import write_video

HEIGHT, WIDTH = 48, 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = draw_clips(tmp_path_factory.mktemp("clips") / "data")
    return write_clip_run(tmp_path_factory.mktemp("runs") / "m3", root)


def extract_to_file(run: Path, source: Path, output: Path) -> int:
    """What ``gloam extract`` does."""
    features = gloam.load_model(run).embed(source)
    features.save(output)
    return len(features)


def _expected(run: Path, frames: np.ndarray) -> np.ndarray:
    """Feature of a tracklet, its test frames chosen here."""
    chosen = frames[choose_frames(len(frames), FRAMES)]
    images = normalize(torch.from_numpy(chosen)[None])
    with torch.no_grad():
        return gloam.load_model(run).extract(images, torch.zeros(1, dtype=torch.int64)).numpy()[0]


def _write_tracklet(folder: Path, length: int, seed: int, *, padded: bool) -> np.ndarray:
    """PNG frames, numbered from 1; without padding their names sort as 1, 10, 11, 2."""
    folder.mkdir(parents=True)
    frames = np.random.default_rng(seed).integers(0, 256, (length, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(folder / (f"{number:04d}.png" if padded else f"f{number}.png"))
    return frames.transpose(0, 3, 1, 2).copy()


def test_every_folder_with_frames_is_one_tracklet(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "people"
    lengths = {"anna/walk": 7, "anna/wait": 1, "bert": 11}
    frames = {
        name: _write_tracklet(source / name, length, length, padded=name != "bert") for name, length in lengths.items()
    }
    (source / "nobody").mkdir()
    (source / "bert" / "._f1.png").write_bytes(b"resource fork")
    (source / "bert" / "notes.txt").write_text("not a frame")
    with caplog.at_level("WARNING"):
        assert extract_to_file(run, source, tmp_path / "out.npz") == 3
    assert "nobody" in caplog.text
    stored = np.load(tmp_path / "out.npz")
    names = [str(Path(path).parent) for path in stored["path"]]
    assert sorted(names) == sorted(lengths)
    for name, count, feature in zip(names, stored["frames"], stored["features"], strict=True):
        assert count == lengths[name]
        np.testing.assert_allclose(feature, _expected(run, frames[name]), atol=1e-5)


def test_a_folder_of_frames_is_one_tracklet(run: Path, tmp_path: Path) -> None:
    frames = _write_tracklet(tmp_path / "one", 5, 0, padded=True)
    assert extract_to_file(run, tmp_path / "one", tmp_path / "one.npz") == 1
    np.testing.assert_allclose(np.load(tmp_path / "one.npz")["features"][0], _expected(run, frames), atol=1e-5)


def test_videos_give_the_features_of_their_frames(run: Path, tmp_path: Path) -> None:
    import av

    source = tmp_path / "videos"
    source.mkdir()
    for name, length in (("v2.mp4", 13), ("v10.MKV", 2), ("v1.avi", 6)):
        write_video(source / name, length, codec="mpeg4" if name.endswith("avi") else "libx264", seed=length)
    assert cli.main(["extract", str(run), str(source), str(tmp_path / "all.npz"), "--modality", "infrared"]) == 0
    stored = np.load(tmp_path / "all.npz")
    assert list(stored["path"]) == ["v1.avi", "v2.mp4", "v10.MKV"]
    assert list(stored["frames"]) == [6, 13, 2]
    assert set(stored["modality"]) == {"infrared"}
    for name, feature in zip(stored["path"], stored["features"], strict=True):
        with av.open(str(source / name)) as container:
            frames = np.stack([f.to_ndarray(format="rgb24").transpose(2, 0, 1) for f in container.decode(video=0)])
        np.testing.assert_allclose(feature, _expected(run, frames), atol=1e-5)
    assert extract_to_file(run, source / "v2.mp4", tmp_path / "one.npz") == 1
    np.testing.assert_allclose(np.load(tmp_path / "one.npz")["features"][0], stored["features"][1], atol=1e-5)


def test_a_broken_video_leaves_no_output(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "videos"
    source.mkdir()
    write_video(source / "good.mp4", 5)
    (source / "zero.mp4").write_bytes(b"")
    output = tmp_path / "out" / "features.npz"
    assert cli.main(["extract", str(run), str(source), str(output)]) == 2
    message = capsys.readouterr().err
    assert "zero.mp4" in message
    assert "leave it out" in message
    assert not output.exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_damage_that_only_decoding_finds_is_one_sentence_from_a_worker_too(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gloam.pixels import video

    write_video(tmp_path / "tail.mp4", 9)
    monkeypatch.setattr(video, "_read_by_time", lambda *_: False)
    original = sources.scan_video

    def too_long(path: Path) -> video.VideoIndex:
        index = original(path)
        return video.VideoIndex(index.path, 30, None, index.keys)

    monkeypatch.setattr(sources, "scan_video", too_long)
    with pytest.raises(GloamError, match=r"^The video .*tail\.mp4 cannot be read: it ends before image 10 of 30"):
        gloam.load_model(run).embed(tmp_path / "tail.mp4", workers=1).save(tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_mixed_and_empty_folders_are_refused(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "mixed"
    _write_tracklet(source / "anna", 2, 0, padded=True)
    write_video(source / "bert.mp4", 3)
    with pytest.raises(GloamError, match="one kind at a time"):
        extract_to_file(run, source, tmp_path / "out.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GloamError, match=r"none of the files.*\.mp4"):
        extract_to_file(run, tmp_path / "empty", tmp_path / "out.csv")


def test_a_method_for_images_refuses_a_video(tmp_path: Path) -> None:
    from tests.training.tiny import tiny_recipe

    with pytest.raises(GloamError, match=r"a\.mp4 is a video, but .* works on single images"):
        sources.open_videos([tmp_path / "a.mp4"], tmp_path, tiny_recipe(tmp_path).data, [Modality.VISIBLE])
