"""Backbone, pooling and neck that give unit vectors while training and testing: the network of unsupervised methods."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.functional import dropout

from gloam.models.backbone import create_backbone
from gloam.models.neck import BNNeck, unit
from gloam.models.pooling import create_pooling
from gloam.models.released_names import rename_prefixes, restore_prefixes
from gloam.models.two_stream import TwoStreamBackbone

# Names in the released checkpoints -> names here, with torchvision's names for the backbone.
_RELEASED = {
    "base.0.": "backbone.conv1.",
    "base.1.": "backbone.bn1.",
    **{f"base.{3 + stage}.": f"backbone.layer{stage}." for stage in (1, 2, 3, 4)},
    "gap.p": "pooling.p",
    "feat.": "linear.",
    "feat_bn.": "bottleneck.",
}


class UnitEmbedding(nn.Module):
    """``unit(neck(pool(backbone(images))))``, one stem.

    *Source*: ``models/resnet.py`` of SpCL, Cluster Contrast and MetaPRD: last stride 1, batch norm with weight 1 and
    frozen shift.

    Args:
        arch: see :func:`gloam.models.backbone.create_backbone`.
        pooling: see :func:`gloam.models.pooling.create_pooling`.
        width: 0, or the width of a linear layer before the neck.
        drop: dropout probability of the unit vector while training.
    """

    def __init__(self, arch: str, pooling: str, *, width: int = 0, drop: float = 0.0) -> None:
        super().__init__()
        self.backbone = create_backbone(arch, streams=1, last_stride=1)
        self.pooling = create_pooling(pooling)
        self.width = width or int(self.backbone.out_channels)
        self.linear: nn.Linear | None = None
        if width:
            self.linear = nn.Linear(int(self.backbone.out_channels), width)
            nn.init.kaiming_normal_(self.linear.weight, mode="fan_out")
            nn.init.zeros_(self.linear.bias)
        self.bottleneck = BNNeck(self.width, weight_std=0.0)
        self._drop = drop

    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        """``(B, 3, H, W)`` normalised images to ``(B, D)`` unit vectors."""
        pooled = self.pooling(self.backbone(images, modalities))
        if self.linear is not None:
            pooled = self.linear(pooled)
        units = unit(self.bottleneck(pooled))
        return dropout(units, self._drop, self.training) if self._drop else units


def rename_released(state: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Names of the checkpoints of SpCL, Cluster Contrast and MetaPRD to names of a :class:`UnitEmbedding`.

    *Source*: ``models/resnet.py`` of the releases: a sequence ``base`` of conv1, bn1, ReLU, max-pool and the four
    stages, then ``gap``, ``feat`` (if there is a linear layer) and ``feat_bn``.

    Args:
        state: flat state of any weight file; what is no such checkpoint is returned as it is.
        owner: name of the embedding in its method.
    """
    if not {"base.0.weight", "base.4.0.conv1.weight"} <= state.keys():
        return dict(state)
    return rename_prefixes(state, {theirs: f"{owner}.{own}" for theirs, own in _RELEASED.items()})


def to_released(embedding: UnitEmbedding) -> dict[str, Tensor] | None:
    """The reverse of :func:`rename_released`: the state as the releases save it, wrapped for several processors.

    Returns:
        None for networks that are not of their kind (timm).
    """
    if not isinstance(embedding.backbone, TwoStreamBackbone):
        return None
    places = {"conv1": "stem_visible.conv1", "bn1": "stem_visible.bn1", "layer": "trunk.layer"}
    own = dict(_RELEASED)
    for theirs in _RELEASED:
        for part, place in places.items():
            own[theirs] = own[theirs].replace(f"backbone.{part}", f"backbone.{place}")
    return {f"module.{name}": value for name, value in restore_prefixes(embedding.state_dict(), own).items()}
