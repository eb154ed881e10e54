from __future__ import annotations

import pytest
import torch

from gloam.models.unit_embedding import UnitEmbedding


@pytest.mark.parametrize(
    ("arch", "pooling", "width", "parameters", "tensors"),
    [
        ("resnet50", "avg", 0, 23_512_128, 323),
        ("resnet50", "gem_learnable", 0, 23_512_129, 324),
        ("resnet50", "gem_learnable", 512, 24_558_145, 326),
        ("resnet50_ibn_a", "avg", 0, 23_512_128, 349),
        ("resnet101", "avg", 0, 42_504_256, 629),
    ],
)
def test_published_sizes(arch: str, pooling: str, width: int, parameters: int, tensors: int) -> None:
    with torch.device("meta"):
        network = UnitEmbedding(arch, pooling, width=width)
        maps = network.backbone(torch.zeros(1, 3, 256, 128), torch.zeros(1, dtype=torch.int64))
    assert sum(p.numel() for p in network.parameters()) == parameters
    # The shift of the neck is frozen.
    frozen = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert frozen == ["bottleneck.bias"]
    assert len(network.state_dict()) == tensors
    assert maps.shape == (1, 2048, 16, 8)


def test_unit_vectors_and_dropout_while_training_only() -> None:
    torch.manual_seed(0)
    network = UnitEmbedding("tiny", "avg", drop=0.5)
    images, modalities = torch.randn(4, 3, 64, 32), torch.zeros(4, dtype=torch.int64)
    assert (network(images, modalities) == 0).any()
    torch.testing.assert_close(network.eval()(images, modalities).norm(dim=1), torch.ones(4))
