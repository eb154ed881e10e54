"""A user's network as a backbone: what it must offer, its copies per modality, its weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gloam
from gloam.batches.batch import Batch
from gloam.errors import GloamError
from gloam.models.backbone import create_backbone, register, registry
from gloam.models.weights import load_weights


class Thin(nn.Module):
    first_layer = "stem"
    out_channels = 6

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=4)
        self.body = nn.Conv2d(4, 6, 3, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.stem(images).relu())


class TellsModalities(Thin):
    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        return super().forward(images) + modalities[:, None, None, None]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with registry.temporarily():
        register("thin")(Thin)
        yield


def _rows() -> tuple[Tensor, Tensor]:
    images = torch.randn(5, 3, 32, 16, generator=torch.Generator().manual_seed(1))
    return images, torch.tensor([0, 1, 1, 0, 1])


def test_two_streams_have_a_first_layer_each_and_the_rest_in_common() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("thin", streams=2)
    visible, infrared = Thin(), Thin()
    names = dict(backbone.network.named_parameters())
    for network, which in ((visible, "visible"), (infrared, "infrared")):
        network.body = backbone.network.body
        network.stem.load_state_dict({k: names[f"stem.{which}.{k}"] for k in ("weight", "bias")})
    with torch.no_grad():
        names["stem.infrared.weight"].add_(1)
        infrared.stem.weight.add_(1)
    images, modalities = _rows()
    maps = backbone(images, modalities)
    assert maps.shape == (5, backbone.out_channels, 3, 1)
    for row, modality in enumerate(modalities.tolist()):
        alone = (visible, infrared)[modality](images[row : row + 1])[0]
        torch.testing.assert_close(maps[row], alone)


def test_one_stream_is_the_network_itself() -> None:
    backbone = create_backbone("thin", streams=1)
    images, modalities = _rows()
    assert torch.equal(backbone(images, modalities), backbone.network(images))
    assert len(list(backbone.parameters())) == 4


def test_a_network_that_tells_the_modalities_apart_gets_them() -> None:
    register("tells")(TellsModalities)
    backbone = create_backbone("tells", streams=2)
    images, modalities = _rows()
    assert torch.equal(backbone(images, modalities), backbone.network(images, modalities))
    assert len(list(backbone.parameters())) == 4


def test_a_network_without_a_first_layer_warns_that_both_share_it(caplog: pytest.LogCaptureFixture) -> None:
    register("shared")(type("Shared", (Thin,), {"first_layer": None}))
    create_backbone("shared", streams=1)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        backbone = create_backbone("shared", streams=2)
    assert "shared has no separable first layer" in caplog.text
    images, modalities = _rows()
    assert torch.equal(backbone(images, modalities), backbone.network(images))


def test_a_factory_gets_the_options_that_it_accepts() -> None:
    seen: dict[str, object] = {}

    @register("some")
    def some(last_stride: int, image_size: object) -> Thin:
        seen.update(last_stride=last_stride, image_size=image_size)
        return Thin()

    @register("all")
    def all_of_them(**options: object) -> Thin:
        seen.update(options)
        return Thin()

    create_backbone("some", streams=1, last_stride=2, image_size=(64, 32))
    assert seen == {"last_stride": 2, "image_size": (64, 32)}
    create_backbone("all", streams=1)
    assert seen == {"last_stride": 1, "image_size": None, "streams": 1}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"out_channels": None}, "needs the attribute out_channels"),
        ({"out_channels": 0}, "needs the attribute out_channels"),
        ({"first_layer": "head"}, "names 'head' as its first layer"),
    ],
)
def test_what_a_network_must_offer(attributes: dict[str, object], message: str) -> None:
    register("odd")(type("Odd", (Thin,), attributes))
    with pytest.raises(GloamError, match=message):
        create_backbone("odd")


def test_a_factory_must_build_a_network() -> None:
    register("odd")(lambda: 3)
    with pytest.raises(GloamError, match=r"built int, which is no torch\.nn\.Module"):
        create_backbone("odd")


@pytest.mark.parametrize(
    "result", [lambda maps: maps.mean(dim=(2, 3)), lambda maps: maps[:2], lambda maps: maps[:, :3], lambda maps: [maps]]
)
def test_what_is_no_map_is_refused(result: object) -> None:
    class Odd(Thin):
        def forward(self, images: Tensor) -> Tensor:
            return result(super().forward(images))  # type: ignore[operator]

    register("odd")(Odd)
    with pytest.raises(GloamError, match=r"needs its last map, \(5, 6, h, w\)"):
        create_backbone("odd")(*_rows())


def test_blocks_cannot_be_inserted() -> None:
    with pytest.raises(GloamError, match="no residual stages"):
        create_backbone("thin", insert=lambda channels: nn.Identity(), insert_counts=(0, 1, 0, 0))
    with pytest.raises(GloamError, match="no residual stages"):
        create_backbone("thin", independent_stages=1)


def test_imagenet_weights_that_do_not_exist_are_an_error_that_says_what_to_give() -> None:
    with pytest.raises(GloamError, match=r"'thin' offers no ImageNet weights.*weights: none.*imagenet_weights"):
        load_weights(create_backbone("thin"), "imagenet")


def test_a_networks_own_imagenet_weights_reach_both_streams() -> None:
    published = {name: torch.full_like(value, 0.5) for name, value in Thin().state_dict().items()}
    register("trained")(type("Trained", (Thin,), {"imagenet_weights": lambda self: published}))
    backbone = create_backbone("trained", streams=2)
    report = load_weights(backbone, "imagenet")
    assert len(report.matched) == len(backbone.state_dict()) == 6
    assert all(bool((value == 0.5).all()) for value in backbone.state_dict().values())


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "net.backbone.network."])
@pytest.mark.parametrize("streams", [1, 2])
def test_a_weight_file_of_the_plain_network_fits(prefix: str, streams: int, tmp_path: Path) -> None:
    plain = Thin()
    torch.save({f"{prefix}{name}": value for name, value in plain.state_dict().items()}, tmp_path / "w.pth")
    backbone = create_backbone("thin", streams=streams)
    load_weights(backbone, tmp_path / "w.pth")
    images, modalities = _rows()
    torch.testing.assert_close(backbone(images, modalities), plain(images))


def test_weights_of_another_number_of_streams_fit(tmp_path: Path) -> None:
    two, one = (gloam.create_method("base", 3, arch="thin", streams=streams) for streams in (2, 1))
    torch.save(two.state_dict(), tmp_path / "two.pth")
    torch.save(one.state_dict(), tmp_path / "one.pth")
    again = gloam.create_method("base", 3, arch="thin", streams=2)
    load_weights(again, tmp_path / "two.pth")
    for name, value in two.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    load_weights(again, tmp_path / "one.pth")
    images, modalities = _rows()
    torch.testing.assert_close(again.net.backbone(images, modalities), one.net.backbone(images, modalities))
    load_weights(one, tmp_path / "two.pth")
    assert torch.equal(one.net.backbone.network.stem.weight, two.net.backbone.network.stem.visible.weight)


def test_a_network_may_have_a_part_called_network(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        out_channels = 6

        def __init__(self) -> None:
            super().__init__()
            self.network = Thin()

        def forward(self, images: Tensor) -> Tensor:
            return self.network(images)

    register("wrapped")(Wrapped)
    plain, backbone = Wrapped(), create_backbone("wrapped", streams=1)
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    load_weights(backbone, tmp_path / "w.pth")
    images, modalities = _rows()
    assert torch.equal(backbone(images, modalities), plain(images))


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(GloamError, match="nothing was loaded"):
        load_weights(create_backbone("thin"), tmp_path / "w.pth")


def test_a_published_method_learns_with_it() -> None:
    torch.manual_seed(0)
    method = gloam.create_method("base", 3, arch="thin")
    optimizer = torch.optim.SGD(method.parameter_groups(0.1))
    images, modalities = _rows()
    batch = Batch(
        images=images,
        pids=torch.tensor([0, 0, 1, 1, 2]),
        cams=torch.zeros(5, dtype=torch.int64),
        modalities=modalities,
        indices=torch.arange(5),
        views=torch.zeros(5, dtype=torch.int64),
    )
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = method.training_step(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    features = method.eval().extract(images, modalities)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(5))
