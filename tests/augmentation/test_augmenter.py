"""The batched augmentation against the per-image oracle, and the statistics of its draws."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchvision.transforms.v2 import functional as TF

from gloam.augmentation.augmenter import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    AugmentConfig,
    Augmenter,
    ViewConfig,
    ViewOverrides,
    normalize,
)
from gloam.augmentation.config import IMAGENET_FILL
from gloam.batches.batch import Batch
from tests.oracles.augmentation import augment_image

CAJ: dict[str, Any] = {
    "pad": 10,
    "flip": 0.5,
    "erase": 0.5,
    "infrared": {"channels": "adaptive_grey"},
    "visible_views": 2,
}
M3: dict[str, Any] = {
    "pad": 5,
    "flip": 0.5,
    "erase": 0.5,
    "erase_area": (0.02, 0.33),
    "erase_aspect": (0.3, 3.3),
    "erase_aspect_draw": "log_uniform",
    "erase_tries": 10,
    "erase_fill": (0, 0, 0),
    "visible": {"weighted_grey": 0.5, "style": "all"},
    "infrared": {"style": "one"},
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "test_transform": {},
    "agw": {"pad": 10, "flip": 0.5},
    "caj": CAJ,
    "caj_plus": {
        **CAJ, "visible": {"random_grey": 0.1, "erase": 0.6},
        "second_visible": {"channels": "exchange", "random_grey": 0},
    },
    "wsl_regdb": {**CAJ, "infrared_views": 2},
    "pf_mgcd": {**CAJ, "visible_views": 1},
    "cluster_contrast": {"pad": 10, "flip": 0.5, "erase": 0.5, "erase_fill": IMAGENET_FILL},
    "m3_reid": M3,
    "everything": {
        "pad": 3, "pad_mode": "replicate", "flip": 0.5, "erase": 0.8, "weighted_grey": 0.4, "random_grey": 0.3,
        "style": "all", "channels": "exchange_or_grey", "style_jitter": True, "visible_views": 2, "infrared_views": 2,
        "infrared": {"pad": 6, "erase_tries": 2, "channels": "adaptive_grey"}, "second_visible": {"pad": 0},
    },
}  # fmt: skip


def _batch(count: int = 12, frames: int | None = None, height: int = 28, width: int = 20, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, height, width) if frames is None else (count, frames, 3, height, width)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    numbers = torch.arange(count)
    modalities = torch.tensor([0, 1, 1, 0, 0, 1]).repeat(count)[:count]
    return Batch(images, numbers // 2, numbers % 3, modalities, numbers + 100, torch.zeros(count, dtype=torch.int64))


@pytest.mark.parametrize("frames", [None, 1, 3])
@pytest.mark.parametrize("name", PUBLISHED)
def test_equals_the_oracle(name: str, frames: int | None) -> None:
    config = AugmentConfig(**PUBLISHED[name])
    augmenter = Augmenter(config)
    for seed in range(4):
        batch = _batch(24, frames, seed=seed)
        kept = batch.images.clone()
        draws = augmenter.draw(batch, torch.Generator().manual_seed(seed))
        result = augmenter.apply(batch, draws)
        assert torch.equal(batch.images, kept)
        assert result.images.dtype == torch.float32
        assert result.images.shape == (len(draws.rows), *batch.images.shape[1:])
        for r, source in enumerate(draws.rows.tolist()):
            clip, expected = result.images[r], batch.images[source]
            for got, image in zip(
                clip[None] if frames is None else clip, expected[None] if frames is None else expected, strict=True
            ):
                oracle = augment_image(image.numpy(), draws, r, config.pad_mode)
                difference = np.abs(got.numpy() - oracle)
                if draws.weighted_grey[r].any():
                    # floor() of a float32 sum may fall one grey level beside that of float64: at most two pixels here.
                    assert (difference > 3e-6).any(0).sum() <= 2
                    assert difference.max() < 1.5 * 1.5 / (255 * 0.224)  # jitter and style enlarge it
                else:
                    assert difference.max() < 3e-6


def test_no_augmentation_is_the_test_transform() -> None:
    batch = _batch()
    augmented = Augmenter(AugmentConfig())(batch, torch.Generator())
    assert torch.equal(augmented.images, normalize(batch.images))
    reference = TF.normalize(
        TF.to_dtype(batch.images, torch.float32, scale=True), list(IMAGENET_MEAN), list(IMAGENET_STD)
    )
    torch.testing.assert_close(normalize(batch.images), reference, rtol=0, atol=2e-6)
    with pytest.raises(TypeError, match="uint8"):
        normalize(augmented.images)
    with pytest.raises(TypeError, match="uint8"):
        Augmenter(AugmentConfig())(augmented, torch.Generator())


def test_second_views_are_extra_rows_in_the_stated_order() -> None:
    batch = _batch(12)
    result = Augmenter(AugmentConfig(**CAJ))(batch, torch.Generator().manual_seed(1))
    visible = (batch.modalities == 0).nonzero()[:, 0]
    rows = torch.cat([torch.arange(12), visible])
    assert torch.equal(result.indices, batch.indices[rows])
    assert torch.equal(result.pids, batch.pids[rows])
    assert torch.equal(result.cams, batch.cams[rows])
    assert torch.equal(result.modalities, batch.modalities[rows])
    assert result.views.tolist() == [0] * 12 + [1] * len(visible)
    assert len(result.images) == 12 + len(visible)
    both = Augmenter(AugmentConfig(**{**CAJ, "infrared_views": 2}))(batch, torch.Generator())
    assert both.indices.tolist() == batch.indices.tolist() * 2


def test_exchanged_view_has_three_channels_of_one_source() -> None:
    config = AugmentConfig(visible_views=2)
    batch = _batch(60)
    augmenter = Augmenter(config)
    draws = augmenter.draw(batch, torch.Generator().manual_seed(3))
    images = augmenter.apply(batch, draws).images
    plain = normalize(batch.images)
    second = draws.views == 1
    assert set(draws.channel[second].tolist()) == {0, 1, 2}
    assert set(draws.channel[~second].tolist()) == {-1}
    for r in second.nonzero()[:, 0].tolist():
        for k in range(3):
            assert torch.equal(images[r, k], plain[draws.rows[r], draws.channel[r]])


def _draws(options: dict[str, Any], modality: int, count: int = 4000, height: int = 288, width: int = 144) -> Any:
    images = torch.zeros(1, 3, height, width, dtype=torch.uint8).expand(count, -1, -1, -1)
    numbers = torch.zeros(count, dtype=torch.int64)
    batch = Batch(images, numbers, numbers, torch.full((count,), modality), numbers, numbers)
    return Augmenter(AugmentConfig(**options)).draw(batch, torch.Generator().manual_seed(0))


def test_crop_and_flip_statistics() -> None:
    draws = _draws({"pad": 10, "flip": 0.5, "infrared": {"pad": 4}}, 0)
    for offsets in (draws.top, draws.left):
        assert torch.bincount(offsets).shape == (21,)
        assert (torch.bincount(offsets) > 120).all()  # 190 expected of each
    assert 0.47 < draws.flip.double().mean() < 0.53
    infrared = _draws({"pad": 10, "flip": 0.5, "infrared": {"pad": 4}}, 1)
    assert (int(infrared.top.min()), int(infrared.top.max())) == (6, 14)


@pytest.mark.parametrize(
    ("options", "area", "aspect"), [(CAJ, (0.02, 0.4), (0.3, 1 / 0.3)), (M3, (0.02, 0.33), (0.3, 3.3))]
)
def test_erasing_statistics(options: dict[str, Any], area: tuple[float, float], aspect: tuple[float, float]) -> None:
    draws = _draws(options, 1)
    top, left, height, width = draws.box.double().unbind(1)
    erased = height > 0
    assert 0.47 < erased.double().mean() < 0.53
    fraction = (height * width / (288 * 144))[erased]
    assert fraction.min() > area[0] * 0.97
    assert fraction.max() < area[1] * 1.03
    ratio = (height / width)[erased]
    assert ratio.min() > aspect[0] * 0.95
    assert ratio.max() < aspect[1] * 1.05
    assert ((height < 288) & (width < 144) & (top >= 0) & (left >= 0)).all()
    assert ((top + height <= 288) & (left + width <= 144)).all()
    assert (top + height == 288)[erased].any()  # the last position counts
    small = ratio[
        fraction < 0.08
    ]  # where every aspect fits, the draw's law shows: uniform has mean 1.82, log-uniform 1.25
    assert abs(float(small.mean()) - (1.25 if options is M3 else 1.82)) < 0.15


def test_erasing_gives_up_after_its_tries() -> None:
    impossible = {"erase": 1.0, "erase_area": (0.4, 0.4), "erase_aspect": (100.0, 100.0)}
    assert int(_draws(impossible, 0, count=10).box.sum()) == 0
    rare = {"erase": 1.0, "erase_area": (0.3, 0.3), "erase_aspect": (0.3, 60.0)}
    few = (_draws({**rare, "erase_tries": 1}, 0).box[:, 2] > 0).double().mean()
    many = (_draws({**rare, "erase_tries": 40}, 0).box[:, 2] > 0).double().mean()
    assert few < 0.5 < 0.9 < many


def test_channel_statistics() -> None:
    adaptive = _draws(CAJ, 1).channel
    shares = [float((adaptive == c).double().mean()) for c in (-1, 0, 1, 2, 3)]
    np.testing.assert_allclose(shares, [0.125, 0.25, 0.25, 0.25, 0.125], atol=0.03)
    exchange = _draws({"channels": "exchange"}, 0).channel
    np.testing.assert_allclose(torch.bincount(exchange) / 4000, [1 / 3] * 3, atol=0.03)
    with_grey = _draws({"channels": "exchange_or_grey"}, 0).channel
    np.testing.assert_allclose(torch.bincount(with_grey) / 4000, [1 / 4] * 4, atol=0.03)


def test_style_and_grey_statistics() -> None:
    visible, infrared = _draws(M3, 0), _draws(M3, 1)
    assert (infrared.style[:, 0] == infrared.style[:, 1]).all()
    assert not (visible.style[:, 0] == visible.style[:, 1]).any()
    for style in (visible.style, infrared.style):
        assert 0.5 <= style.min() < 0.51
        assert 1.49 < style.max() <= 1.5
    grey = visible.weighted_grey.sum(1)
    assert 0.47 < (grey > 0).double().mean() < 0.53
    torch.testing.assert_close(grey[grey > 0], torch.ones(int((grey > 0).sum())))
    assert not infrared.weighted_grey.any()
    jitter = _draws({"style_jitter": True}, 0)
    orders, counts = jitter.jitter_order.unique(dim=0, return_counts=True)
    assert len(orders) == 6
    assert (counts > 550).all()
    assert jitter.jitter_gain.min() < 0.51


def test_white_stays_white_in_weighted_grey() -> None:
    batch = _batch(40)
    batch.images.fill_(255)
    grey = Augmenter(AugmentConfig(weighted_grey=1.0))(batch, torch.Generator().manual_seed(0))
    assert torch.equal(grey.images, normalize(batch.images))


def test_clips_share_one_draw() -> None:
    batch = _batch(6, None)
    clips = _batch(6, None)
    clips.images = batch.images[:, None].expand(-1, 4, -1, -1, -1).contiguous()
    result = Augmenter(AugmentConfig(**M3))(clips, torch.Generator().manual_seed(2)).images
    single = Augmenter(AugmentConfig(**M3))(batch, torch.Generator().manual_seed(2)).images
    for t in range(4):
        assert torch.equal(result[:, t], single)


def test_draws_come_from_the_generator_alone() -> None:
    augmenter, batch = Augmenter(AugmentConfig(**PUBLISHED["everything"])), _batch()
    torch.manual_seed(5)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = augmenter(batch, torch.Generator().manual_seed(7))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # noqa: NPY002
    torch.manual_seed(6)
    assert torch.equal(first.images, augmenter(batch, torch.Generator().manual_seed(7)).images)
    assert not torch.equal(first.images, augmenter(batch, torch.Generator().manual_seed(8)).images)


def test_configuration() -> None:
    config = AugmentConfig(**CAJ, second_visible={"channels": "exchange_or_grey", "erase": 0.0})
    assert config.view("visible").channels == "none"
    assert config.view("infrared").channels == "adaptive_grey"
    assert config.view("visible", second=True).channels == "exchange_or_grey"
    assert config.view("visible", second=True).erase == 0
    assert config.view("visible", second=True).pad == 10
    # A recipe saved with all defaults means the same.
    assert AugmentConfig(**config.model_dump(mode="json")) == config
    assert AugmentConfig(**AugmentConfig(pad=10).model_dump()).view("infrared").pad == 10
    assert set(ViewOverrides.model_fields) == set(ViewConfig.model_fields)
    assert all(field.description for field in AugmentConfig.model_fields.values())
    for wrong in (
        {"padd": 3},
        {"flip": 1.5},
        {"visible": {"flip": 2.0}},
        {"infrared": {"chanels": "exchange"}},
        {"erase_area": (0.4, 0.1)},
    ):
        with pytest.raises(ValidationError):
            AugmentConfig(**wrong)
