"""Backbone, pooling and neck that give unit vectors while training and testing: the network of unsupervised methods."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import dropout

from gloam.models.backbone import create_backbone
from gloam.models.neck import BNNeck, unit
from gloam.models.pooling import create_pooling


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
