"""SimSiam and NT-Xent: no label is read, losses are the known ones, fine-tuning starts from their backbone."""

from __future__ import annotations

import sys

import pytest
import torch

from gloam.augmentation.augmenter import Augmenter
from gloam.errors import GloamError
from gloam.methods import create_method
from gloam.models.two_stream import TwoStreamBackbone
from gloam.models.weights import load_weights
from gloam.recipes.recipe import load_recipe
from tests.methods.contract import MemoryContext, people, small_method, with_views

NAMES = ["simsiam", "ntxent"]
pytest.importorskip("lightly")


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_cameras_change_nothing(name: str) -> None:
    losses = []
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    for rows in (torch.arange(32), order):
        method, data = small_method(name).train(), people(video=False)
        data.pids, data.cams = data.pids[rows], data.cams[rows]
        method.on_epoch_start(MemoryContext(method, data))
        losses.append(method.training_step(with_views(method, data))["loss"])
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_rows_changes_nothing_but_the_pairing_of_views_does(name: str) -> None:
    method, order = small_method(name).train(), torch.randperm(64, generator=torch.Generator().manual_seed(2))
    batch = with_views(method, people(video=False))
    loss = method.training_step(batch)["loss"]
    visible_last = torch.cat([torch.arange(16, 32), torch.arange(16), torch.arange(48, 64), torch.arange(32, 48)])
    torch.testing.assert_close(method.training_step(batch.select(visible_last))["loss"], loss, atol=1e-4, rtol=1e-4)
    with pytest.raises(GloamError, match=r"augment\.visible_views"):
        method.training_step(batch.select(order))  # views of different images beside each other
    with pytest.raises(GloamError, match="32 first and 0 second"):
        method.training_step(people(video=False))


def test_simsiam_is_the_mean_of_both_negative_cosines_and_stops_gradients() -> None:
    method = small_method("simsiam").train()
    pooled = torch.randn((16, method.feature_dim), generator=torch.Generator().manual_seed(0), requires_grad=True)
    outputs = method.compare(pooled)
    z = method.projector(pooled)
    p = method.predictor(z)
    cosine = torch.nn.functional.cosine_similarity
    expected = -(cosine(p[:8], z[8:].detach()) + cosine(p[8:], z[:8].detach())).mean() / 2
    torch.testing.assert_close(outputs["loss"], expected)
    (given,) = torch.autograd.grad(outputs["loss"], pooled, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected, pooled)
    torch.testing.assert_close(given, wanted)
    assert outputs["spread"].item() == pytest.approx(1.0, abs=0.1)
    assert not outputs["spread"].requires_grad


def test_ntxent_is_the_cross_entropy_over_all_other_views() -> None:
    method = small_method("ntxent").train()
    pooled = torch.randn((16, method.feature_dim), generator=torch.Generator().manual_seed(0))
    outputs = method.compare(pooled)
    unit = torch.nn.functional.normalize(method.projector(pooled), dim=1)
    scores = (unit @ unit.T / 0.1).masked_fill(torch.eye(16, dtype=torch.bool), -torch.inf)
    partner = (torch.arange(16) + 8) % 16
    torch.testing.assert_close(outputs["loss"], torch.nn.functional.cross_entropy(scores, partner))
    assert outputs["recognised"].item() == pytest.approx((scores.argmax(1) == partner).float().mean().item())


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_keeps_nothing_in_the_state(name: str) -> None:
    assert {key.split(".")[0] for key in small_method(name).state_dict()} <= {"backbone", "projector", "predictor"}


@pytest.mark.parametrize("name", NAMES)
def test_fine_tuning_takes_the_whole_backbone(name: str, tmp_path) -> None:
    method = small_method(name)
    torch.save(method.state_dict(), tmp_path / "weights.pth")
    base = create_method("base", 4, arch="tiny")
    report = load_weights(base, tmp_path / "weights.pth")
    (own,) = (module for module in base.modules() if isinstance(module, TwoStreamBackbone))
    for key, value in method.backbone.state_dict().items():
        assert torch.equal(value, own.state_dict()[key])
    assert any(key.startswith("projector.") for key in report.unexpected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dataset", ["sysu_mm01", "regdb", "llcm"])
def test_recipes_give_two_like_views_to_the_pretraining_only(name: str, dataset: str) -> None:
    stages = load_recipe(f"{dataset}/{name}_base").resolved_stages()
    assert [stage.method_name for stage in stages.values()] == [name, "base"]
    config = stages["pretrain"].augment
    assert config.view("visible", second=True) == config.view("visible")
    assert config.view("infrared", second=True) == config.view("infrared")
    data = people(video=False)
    data.images = torch.randint(0, 256, data.images.shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    both = Augmenter(config)(data, torch.Generator().manual_seed(0))
    assert torch.equal(both.indices[both.views == 0], both.indices[both.views == 1])
    assert not torch.equal(both.images[both.views == 0], both.images[both.views == 1])
    assert torch.isfinite(small_method(name).train().training_step(both)["loss"])
    mmgl = load_recipe(f"{dataset}/mmgl_base").resolved_stages()
    assert stages["finetune"].model_dump(exclude={"description"}) == mmgl["finetune"].model_dump(
        exclude={"description"}
    )
    for section in ("data", "weights", "sampler", "schedule", "train"):
        assert getattr(stages["pretrain"], section) == getattr(mmgl["pretrain"], section)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightly.loss", None)
    with pytest.raises(GloamError, match=r"gloam\[ssl\]"):
        create_method(name, 1, arch="tiny")
