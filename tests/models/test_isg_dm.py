"""Disentanglement of PF-MGCD against its formulas, image by image and channel by channel (float64)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gloam.models.isg_dm import ISGDM, MultiPartISGDM, split_stripes

CHANNELS, WIDTH = 6, 4


def _maps() -> Tensor:
    """Random maps, with a channel that is zero, one that is constant, and one that hardly varies."""
    maps = torch.rand(3, CHANNELS, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    maps[:, 0] = 0
    maps[:, 1] = 2.5
    maps[:, 2] = 1 + 2e-3 * maps[:, 2]
    return maps


def _module(variant: str, **options: object) -> ISGDM:
    """Random weights and biases, and heads that hand through what they are given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = ISGDM(CHANNELS, WIDTH, variant=variant, reduction=2, **options).double().eval()  # type: ignore[arg-type]
        for layer in module.gate:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
    module.project = module.style = nn.Identity()  # type: ignore[assignment]
    return module


def _gate(module: ISGDM, pooled: list[float]) -> list[float]:
    first, _, second, _ = module.gate
    hidden = [
        max(sum(w * x for w, x in zip(row, pooled, strict=True)) + b, 0.0)
        for row, b in zip(first.weight.tolist(), first.bias.tolist(), strict=True)
    ]
    return [
        1 / (1 + math.exp(-(sum(w * h for w, h in zip(row, hidden, strict=True)) + b)))
        for row, b in zip(second.weight.tolist(), second.bias.tolist(), strict=True)
    ]


def _statistics(values: list[float], unbiased: bool) -> tuple[float, float]:
    mean = sum(values) / len(values)
    variance = sum((x - mean) ** 2 for x in values) / (len(values) - unbiased)
    return mean, math.sqrt(variance + 1e-5)


def _expected(module: ISGDM, image: list[list[float]]) -> tuple[list[float], list[float]]:
    """Pooled content and style of one image: a list of channels, each a list of positions."""
    statistics = [_statistics(values, module.variant == "readme-v0") for values in image]
    means = [mean for mean, _ in statistics]
    if module.variant == "attention-v2":
        return [u * g for u, g in zip(means, _gate(module, means), strict=True)], means
    style = means + [deviation for _, deviation in statistics]
    normalised = [
        [(x - mean) / deviation for x in values] for values, (mean, deviation) in zip(image, statistics, strict=True)
    ]
    if module.variant == "restitution":
        content = []
        p = 3.0 if module.exponent is None else module.exponent.item()
        for values, z, g in zip(image, normalised, _gate(module, means), strict=True):
            restituted = [z_i + g * (x - z_i) for x, z_i in zip(values, z, strict=True)]
            if module.exponent is None:
                content.append(sum(restituted) / len(restituted))
            else:
                powers = [max(y, 1e-6) ** p for y in restituted]
                content.append((sum(powers) / len(powers)) ** (1 / p))
        return content, style
    pooled = [sum(z) / len(z) for z in normalised]
    gates = _gate(module, pooled)
    if module.variant == "readme-v0":
        return [u * g for u, g in zip(pooled, gates, strict=True)], style
    mixed = [
        [x + z_i * g for x, z_i in zip(values, z, strict=True)]
        for values, z, g in zip(image, normalised, gates, strict=True)
    ]
    return [sum(values) / len(values) for values in mixed], style


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("restitution", {}),
        ("restitution", {"id_pool": "avg"}),
        ("readme-v0", {}),
        ("attention-v2", {}),
        ("residual-v3", {}),
    ],
)
def test_content_and_style_are_the_formulas(variant: str, options: dict[str, object]) -> None:
    module, maps = _module(variant, **options), _maps()
    if module.exponent is not None:
        nn.init.constant_(module.exponent, 2.5)
    content, style = module(maps)
    for image, own_content, own_style in zip(maps.flatten(2).tolist(), content, style, strict=True):
        expected = _expected(module, image)
        assert own_content.tolist() == pytest.approx(expected[0], rel=1e-9, abs=1e-13)
        assert own_style.tolist() == pytest.approx(expected[1], rel=1e-9, abs=1e-13)


def test_a_dark_channel_is_a_millionth_and_a_flat_one_its_gated_value() -> None:
    module, maps = _module("restitution"), _maps()
    content, style = module(maps)
    assert content[:, 0].tolist() == pytest.approx([1e-6] * 3, rel=1e-9)
    gates = [_gate(module, image) for image in maps.mean((2, 3)).tolist()]
    assert content[:, 1].tolist() == pytest.approx([2.5 * gate[1] for gate in gates], rel=1e-9)
    # Mean and deviation of the flat channels: only the epsilon inside the root is left of the variance.
    assert style[:, 1].tolist() == pytest.approx([2.5] * 3, rel=1e-12)
    assert style[:, CHANNELS : CHANNELS + 2].flatten().tolist() == pytest.approx([math.sqrt(1e-5)] * 6, rel=1e-9)


def test_an_open_gate_returns_the_map_and_a_shut_one_the_normalised_map() -> None:
    module, maps = _module("restitution"), _maps()
    last = module.gate[2]
    nn.init.zeros_(last.weight)
    for bias, expected in ((40.0, maps), (-40.0, None)):
        nn.init.constant_(last.bias, bias)
        if expected is None:
            mean, variance = maps.mean((2, 3), keepdim=True), maps.var((2, 3), unbiased=False, keepdim=True)
            expected = (maps - mean) / (variance + 1e-5).sqrt()
        pooled = expected.clamp_min(1e-6).pow(3).mean((2, 3)).pow(1 / 3)
        torch.testing.assert_close(module(maps)[0], pooled, rtol=1e-6, atol=1e-9)


def test_every_stripe_has_a_module_of_its_own_and_the_features_keep_their_order() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        module = MultiPartISGDM(3, CHANNELS, WIDTH).double().eval()
    stripes = split_stripes(torch.cat([_maps(), _maps().flip(1), _maps() + 1], dim=2), 3)
    identity, modality = module(stripes)
    for k in range(3):
        own = module.parts[k](stripes[k])
        torch.testing.assert_close((identity[:, k], modality[:, k]), own)


def test_heads_of_the_released_forms() -> None:
    """The first release rectifies the identity and has no norm inside the style head; later ones are signed."""
    maps = torch.rand(16, CHANNELS, 2, 3, generator=torch.Generator().manual_seed(3)) * 3
    for variant, signed, norms in (("readme-v0", False, 1), ("residual-v3", True, 2), ("restitution", True, 2)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            module = ISGDM(CHANNELS, WIDTH, variant=variant)  # type: ignore[arg-type]
        identity, _ = module(maps)
        assert bool((identity < 0).any()) == signed
        assert sum(isinstance(layer, nn.BatchNorm1d) for layer in module.style) == norms


def test_stripes_of_a_height_that_does_not_fit_are_resized_with_aligned_corners() -> None:
    rows = torch.arange(5.0)[None, None, :, None]
    stripes = split_stripes(rows.expand(1, 2, 5, 3), 2)
    # Five rows become four: 0, 4/3, 8/3, 4.
    assert torch.cat(stripes, dim=2)[0, 0, :, 0].tolist() == pytest.approx([0, 4 / 3, 8 / 3, 4], rel=1e-6)
