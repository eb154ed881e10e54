"""Whole clips against one, shuffled and foreign frames."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize as unit_length

from gloam import cli
from gloam.analysis.clips import (
    CONTROLS,
    ClipControls,
    foreign_frames,
    one_frame,
    score_clip_controls,
    shuffled_frames,
)
from gloam.augmentation.augmenter import normalize
from gloam.batches.clips import all_clips
from gloam.cli.recipe_flags import parse_overrides
from gloam.errors import GloamError
from gloam.inference.extraction import extract_features
from gloam.inference.loading import load_model
from gloam.inference.scoring import evaluate_runs
from gloam.inference.sources import open_test_records
from gloam.methods import create_method
from tests.analysis.clip_run import FRAMES, draw_clips, write_clip_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = draw_clips(tmp_path_factory.mktemp("clips") / "data", ids=8)
    return write_clip_run(tmp_path_factory.mktemp("runs") / "m3", root)


@pytest.fixture(scope="module")
def found(run: Path) -> ClipControls:
    return score_clip_controls(run, device="cpu")


def _numbered(clips: int, frames: int) -> torch.Tensor:
    """Every frame holds its own number: 10 clip + position."""
    numbers = 10 * torch.arange(clips)[:, None] + torch.arange(frames)
    return numbers[:, :, None, None, None].expand(-1, -1, 3, 4, 2).float()


def test_changes_move_the_frames_they_should() -> None:
    clips, modalities = _numbered(40, 5), torch.arange(40) % 2
    generator = torch.Generator().manual_seed(0)
    assert one_frame(clips, modalities, generator)[:, 0, 0, 0, 0].tolist() == list(range(0, 400, 10))

    shuffled = shuffled_frames(clips, modalities, generator)[:, :, 0, 0, 0]
    assert torch.equal(shuffled.sort(dim=1).values, clips[:, :, 0, 0, 0])
    assert (shuffled != clips[:, :, 0, 0, 0]).any(dim=1).float().mean() > 0.8

    foreign = foreign_frames(clips, modalities, generator)[:, :, 0, 0, 0]
    owners, positions = foreign.long() // 10, foreign.long() % 10
    assert torch.equal(positions, torch.arange(5).expand(40, -1))
    assert torch.equal(owners[:, 0], torch.arange(40))
    assert torch.equal(owners % 2, modalities[:, None].expand(-1, 5))
    assert (owners[:, 1:] != torch.arange(40)[:, None]).all()
    assert torch.equal(owners.sort(dim=0).values, torch.arange(40)[:, None].expand(-1, 5))


@pytest.mark.parametrize("modalities", [[0, 0], [0, 0, 0], [0, 1], [1, 0, 0, 0], [0, 1, 1, 0, 1]])
def test_foreign_frames_are_never_the_clips_own(modalities: list[int]) -> None:
    kinds, clips = torch.tensor(modalities), _numbered(len(modalities), 6)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        owners = foreign_frames(clips, kinds, generator)[:, :, 0, 0, 0].long() // 10
        assert torch.equal(owners[:, 0], torch.arange(len(kinds)))
        assert (owners[:, 1:] != torch.arange(len(kinds))[:, None]).all()
        for modality in (0, 1):
            rows = kinds == modality
            if rows.sum() > 1:
                assert (kinds[owners[rows]] == modality).all()


def test_a_batch_of_one_clip_has_no_foreign_frames() -> None:
    with pytest.raises(GloamError, match="batch size"):
        foreign_frames(_numbered(1, 4), torch.zeros(1, dtype=torch.int64), torch.Generator())


def test_no_batch_of_one_clip_is_left_over(run: Path, found: ClipControls) -> None:
    """The sizes of both sides leave a remainder of one for some batch size; the scores of whole clips stay."""
    for size in (2, 3, 4, 5):
        again = score_clip_controls(run, device="cpu", batch_size=size)
        for protocol in found.results["clips"].trials:
            assert again.results["clips"].mean(protocol) == pytest.approx(found.results["clips"].mean(protocol))


def test_the_network_ignores_order_and_copies_of_frames() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = create_method("m3reid", 3, arch="tiny", nonlocal_blocks=(0, 1, 1, 0)).double().eval()
        clips = torch.randn(3, 4, 3, 64, 32, dtype=torch.float64)
    for name, tensor in method.named_parameters():
        if ".W.1.weight" in name:
            tensor.data.fill_(1)
    modalities, generator = torch.zeros(3, dtype=torch.int64), torch.Generator().manual_seed(0)
    with torch.no_grad():
        whole = method.extract(clips, modalities)
        torch.testing.assert_close(method.extract(shuffled_frames(clips, modalities, generator), modalities), whole)
        single = method.extract(clips[:, :1], modalities)
        torch.testing.assert_close(method.extract(clips[:, :1].expand(-1, 4, -1, -1, -1), modalities), single)
        for other in (single, method.extract(foreign_frames(clips, modalities, generator), modalities)):
            assert (other - whole).norm(dim=1).max() > 1e-3


def test_whole_clips_score_as_gloam_evaluate(run: Path, found: ClipControls, tmp_path: Path) -> None:
    assert list(found.results) == list(CONTROLS)
    expected = evaluate_runs([run], device="cpu", output=tmp_path)
    assert found.results["clips"].trials.keys() == expected.trials.keys()
    for protocol in expected.trials:
        assert found.results["clips"].mean(protocol) == pytest.approx(expected.mean(protocol))
        assert found.results["shuffled"].mean(protocol) == pytest.approx(expected.mean(protocol))
    assert not found.order_matters
    means = {tuple(result.mean("hitsz_vcm/infrared_to_visible").values()) for result in found.results.values()}
    assert len(means) == 3


def test_the_command_prints_a_table_and_writes_every_number(
    run: Path, found: ClipControls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scores.csv"
    assert cli.main(["clips", str(run), "--device", "cpu", "--output", str(output)]) == 0
    text = capsys.readouterr().out
    for word in ("infrared_to_visible", "visible_to_infrared", "foreign frames", "ignores"):
        assert word in text
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(CONTROLS)
    assert [float(row["mAP"]) for row in rows] == pytest.approx([row["mAP"] for row in found.rows()])


def test_a_run_without_clips_is_refused(sysu_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gloam.training.run import train
    from tests.training.tiny import tiny_recipe

    images = train(tiny_recipe(sysu_root, train={"epochs": 1}), output=tmp_path / "run", progress=False).path
    with pytest.raises(GloamError, match="has no clips"):
        score_clip_controls(images)
    assert cli.main(["clips", str(tmp_path / "nowhere")]) == 2
    assert "no run or checkpoint" in capsys.readouterr().err


def test_a_run_that_tests_with_all_clips_averages_them(run: Path, tmp_path: Path) -> None:
    root = load_model(run).recipe.data.root
    assert root is not None
    both = write_clip_run(tmp_path / "m3", root, test_clip="all")
    model = load_model(both)
    method, recipe, splits = model.method, model.recipe, model.load_splits()
    records, store = open_test_records(splits.gallery, splits.root, recipe.data)
    found = extract_features(method, records, store, frames=FRAMES, frame_choice="all", batch_size=7)
    expected, start = [], 0
    with torch.no_grad():
        for record in records:
            clips = all_clips(len(record.paths), FRAMES)
            assert len(clips) > 1
            images = torch.from_numpy(store.read((start + clips).flatten()))
            features = method.extract(normalize(images).unflatten(0, clips.shape), torch.full((len(clips),), 1))
            expected.append(unit_length(features.mean(dim=0), dim=0))
            start += len(record.paths)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, extract_features(method, records, store, frames=FRAMES), atol=1e-3)
    counts = extract_features(
        method, records, store, frames=FRAMES, frame_choice="all", function=lambda x, _: torch.ones(len(x))
    )
    assert counts.tolist() == [1.0] * len(records)
    # The whole way: a flag of the recipe, the scores, and what needs one clip per tracklet says so.
    assert parse_overrides(recipe, ["--data.test-clip", "all"])[0].data.test_clip == "all"
    name = "hitsz_vcm/infrared_to_visible"
    scores = [evaluate_runs([r], device="cpu", output=tmp_path).mean(name) for r in (run, both)]
    assert scores[0] != scores[1]
    with pytest.raises(GloamError, match="tested with all clips"):
        score_clip_controls(both)
