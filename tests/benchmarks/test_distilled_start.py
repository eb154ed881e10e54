"""The weights that the measurements start from: targets on the student's grid, and files that every method reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from benchmarks.distilled_start import distil, load_teacher, main, one_channel, teach
from gloam.drawing.dataset import draw_dataset
from gloam.models.backbone import create_backbone
from gloam.models.resnet import ResNet
from gloam.models.weights import load_weights

TEACHER = "test_efficientnet"


def test_targets_lie_on_the_students_grid_and_fold_the_finer_stage() -> None:
    teacher = load_teacher(TEACHER, None)
    images = torch.randint(0, 256, (3, 3, 128, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    fine, coarse = teacher((images.float().mean(1, keepdim=True).expand(-1, 3, -1, -1) - 127) / 128)
    targets = teach(teacher, images)
    assert targets.shape == (3, 4 * fine.shape[1] + coarse.shape[1], 4, 2)
    torch.testing.assert_close(targets[:, 0].float(), fine[:, 0, ::2, ::2], rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(targets[:, 3].float(), fine[:, 0, 1::2, 1::2], rtol=1e-2, atol=1e-3)


def test_a_file_of_the_teacher_may_use_other_names(tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = timm.create_model(TEACHER)
    torch.save({f"_{i}": value for i, value in enumerate(whole.state_dict().values())}, tmp_path / "teacher.pth")
    images = torch.randn(1, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    fine, coarse = load_teacher(TEACHER, str(tmp_path / "teacher.pth"))(images)
    expected = whole.eval().forward_intermediates(images, intermediates_only=True)
    torch.testing.assert_close(fine, expected[-2])
    torch.testing.assert_close(coarse, expected[-1])


def test_every_image_keeps_one_of_five_looks() -> None:
    images = torch.randint(0, 256, (200, 3, 4, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shown = one_channel(images, torch.Generator().manual_seed(1))
    grey = images.float().mean(1).byte()
    looks = [images, *(images[:, c : c + 1].expand_as(images) for c in range(3)), grey[:, None].expand_as(images)]
    same = torch.stack([(shown == look).flatten(1).all(1) for look in looks])
    assert (same.sum(0) == 1).all()
    assert (same.sum(1) > 20).all()


def test_a_student_comes_to_explain_what_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8, generator=generator).expand(-1, 3, -1, -1)
    targets = torch.randn(8, 6, 2, 2, generator=generator).half()
    distil(images, targets, arch="tiny", fine=4, steps=100)
    unexplained = float(capsys.readouterr().out.split("variance")[1].split()[0])
    assert 0 < unexplained < 0.5


def test_the_file_starts_a_method(tmp_path: Path) -> None:
    draw_dataset("sysu_mm01", tmp_path / "people", ids=6, images=1, height=64, width=32, progress=False)
    out = tmp_path / "start.pth"
    main([str(out), str(tmp_path / "people"), "--teacher", TEACHER, "--arch", "tiny", "--steps", "2"])
    student = ResNet("tiny", last_stride=1)
    student.load_state_dict(torch.load(out, weights_only=True))
    backbone = create_backbone("tiny", streams=1, last_stride=1)
    load_weights(backbone, out)
    images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(backbone.eval()(images, torch.zeros(2, dtype=torch.int64)), student.eval()(images))
