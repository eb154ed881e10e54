"""Video files: exact frames from every container, whatever order is asked for, and clear words for broken files."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from gloam.errors import GloamError
from gloam.pixels import video as video_module
from gloam.pixels.video import VideoStore, read_frames, scan_video
from tests.pixels.videos import av, write_video

KINDS = [
    ("a.mp4", "libx264"),
    ("a.mov", "mpeg4"),
    ("a.avi", "mjpeg"),
    ("a.avi", "mpeg4"),
    ("a.avi", "libx264"),
    ("a.mkv", "libx264"),
    ("a.webm", "libvpx"),
    ("a.webm", "libvpx-vp9"),
]


def _all_images(path: Path) -> np.ndarray:
    """Oracle: decode everything in order."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24").transpose(2, 0, 1) for f in container.decode(video=0)])


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_chosen_images_equal_a_full_decoding(name: str, codec: str, tmp_path: Path) -> None:
    levels = write_video(tmp_path / name, 23, codec=codec)
    video = scan_video(tmp_path / name)
    assert video.length == 23
    images = _all_images(tmp_path / name)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), levels, atol=12)
    for numbers in ([0, 4, 8, 12, 16, 20], [22, 3, 3, 0], [7], list(range(23))):
        found = read_frames(video, np.array(numbers), 48, 16)
        np.testing.assert_array_equal(found, images[numbers])


def test_only_wanted_images_are_converted_and_late_ones_are_reached_by_a_jump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "long.mp4", 120, gop=10)
    video = scan_video(tmp_path / "long.mp4")
    assert len(video.keys) >= 12
    converted = []
    original = video_module.resize_rgb
    monkeypatch.setattr(video_module, "resize_rgb", lambda *a: converted.append(1) or original(*a))
    monkeypatch.setattr(video_module, "_read_in_order", lambda *_: pytest.fail("decoded from the start"))
    read_frames(video, np.arange(0, 120, 20), 24, 8)
    assert len(converted) == 6


def test_a_file_whose_jumps_miss_is_decoded_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", 9)
    video = scan_video(tmp_path / "a.mp4")
    expected = read_frames(video, np.array([2, 8]), 48, 16)
    monkeypatch.setattr(video_module, "_read_by_time", lambda *_: False)
    np.testing.assert_array_equal(read_frames(video, np.array([2, 8]), 48, 16), expected)


def test_rows_of_a_store_belong_to_their_videos(tmp_path: Path) -> None:
    for name, length in (("a.mp4", 3), ("b.mkv", 5)):
        write_video(tmp_path / name, length, seed=length)
    videos = [scan_video(tmp_path / name) for name in ("a.mp4", "b.mkv")]
    store = pickle.loads(pickle.dumps(VideoStore(videos, 48, 16)))
    assert len(store) == 8
    images = np.concatenate([_all_images(v.path) for v in videos])
    rows = [7, 0, 3, 2, 7]
    np.testing.assert_array_equal(store.read(rows), images[rows])
    assert VideoStore(videos, 20, 10, "bilinear").read([1]).shape == (1, 3, 20, 10)


def test_broken_files_are_named_with_a_cure(tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4", 30)
    whole = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.avi").write_bytes(b"hello, this is no video")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    for name, reason in (("empty.mp4", "is empty"), ("text.avi", ""), ("cut.mp4", ""), ("sound.mkv", "no images")):
        with pytest.raises(GloamError, match=f"{name}.*{reason}.*Copy it again"):
            scan_video(tmp_path / name)


def test_a_file_cut_behind_its_index_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
        for pixels in noise:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())
    assert scan_video(tmp_path / "front.mp4").length == 30
    whole = (tmp_path / "front.mp4").read_bytes()
    (tmp_path / "front.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(GloamError, match="cut off"):
        scan_video(tmp_path / "front.mp4")


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.mkv", "libx264"), ("a.mp4", "libx264")])
@pytest.mark.parametrize("encoding", ["gbk", "latin-1"])
def test_titles_in_another_encoding_do_no_harm(name: str, codec: str, encoding: str, tmp_path: Path) -> None:
    title = {"gbk": "监控录像", "latin-1": "Türkamer"}[encoding].encode(encoding)
    levels = write_video(tmp_path / name, 5, codec=codec, titles=("AAAABBBB", "CCCCDDDD"))
    content = (tmp_path / name).read_bytes()
    assert content.count(b"AAAABBBB") == content.count(b"CCCCDDDD") == 1
    with pytest.raises(UnicodeDecodeError):
        title.decode()
    (tmp_path / name).write_bytes(content.replace(b"AAAABBBB", title).replace(b"CCCCDDDD", title))
    video = scan_video(tmp_path / name)
    assert video.length == 5
    images = read_frames(video, np.array([4, 0]), 48, 16)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), levels[[4, 0]], atol=12)


def test_videos_of_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", 3)
    monkeypatch.setattr(video_module, "MAX_PIXELS", 48 * 16 - 1)
    with pytest.raises(GloamError, match="16 x 48 pixels; at most 767"):
        scan_video(tmp_path / "a.mp4")


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(GloamError, match=r"gloam\[video\]"):
        scan_video(tmp_path / "a.mp4")
