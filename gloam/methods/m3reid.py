"""M3-ReID: video visible-infrared ReID with multi-view, multi-granularity, multi-modality learning.

*Source*: Liang et al., "M^3-ReID: Unifying Multi-View, Granularity, and Modality for Video-Based Visible-Infrared
Person Re-Identification", IEEE TIFS 2025, and its release.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from gloam.batches.batch import Batch
from gloam.errors import GloamError
from gloam.losses.multi_modality import multi_modality_alignment, separation_loss
from gloam.methods import register
from gloam.methods.contract import LAST_STAGE, BackboneOptions, Blocks, LastStride, Method, OnlyWith
from gloam.models.backbone import create_backbone
from gloam.models.multi_view_attention import MultiViewAttention
from gloam.models.released_names import rename_prefixes, restore_prefixes
from gloam.models.two_stream import TwoStreamBackbone
from gloam.models.video_nonlocal import SpatioTemporalNonLocal, over_clips
from gloam.precision import at_least_float32

# Prefix in the release's checkpoints -> prefix here; the attention, the neck and both classifiers keep their names.
_PUBLISHED = {
    "backbone.conv1.": "backbone.stem_visible.conv1.",
    "backbone.bn1.": "backbone.stem_visible.bn1.",
    "backbone.layer": "backbone.trunk.layer",
    "NL_": "backbone.trunk.NL_",
}


class M3ReIDOptions(BackboneOptions):
    """Flags of M3-ReID; the release hard-codes most of them."""

    last_stride: LastStride = 2  # the release keeps that of ImageNet networks
    heads: int = Field(2, ge=1, description="attention masks per view")
    pooling: Literal["gem", "avg"] = Field("gem", description="pooling of a frame under a mask")
    nonlocal_blocks: tuple[Blocks, Blocks, Blocks, Blocks] = Field(
        (0, 2, 3, 0), description="non-local blocks per ResNet stage"
    )
    nonlocal_reduction: int = Field(4, ge=1, description="channel reduction inside a non-local block")
    weight_alignment: float = Field(1.0, ge=0, description="weight of both MMA losses")
    weight_orthogonal: float = Field(1.0, ge=0, description="weight of the orthogonal frame regulariser (OFR)")
    weight_diversity: float = Field(1.0, ge=0, description="weight of the diverse attention constraint (DAC)")

    together = (
        LAST_STAGE,
        OnlyWith(("nonlocal_reduction",), "method.nonlocal_blocks above 0", lambda o: any(o.nonlocal_blocks)),
        OnlyWith(
            ("weight_diversity",),
            "method.heads above 1: one mask differs from no other",
            lambda o: o.heads > 1,
            off=0.0,
        ),
    )


@register("m3reid")
class M3ReID(Method[M3ReIDOptions]):
    """One network for both modalities: space-time non-local blocks, multi-view attention, frame and clip heads.

    Args:
        num_classes: training identities K.
        options: flags.
    """

    Options = M3ReIDOptions
    features = ("video",)
    is_video = True

    def __init__(self, num_classes: int, options: M3ReIDOptions) -> None:
        super().__init__(num_classes, options)
        self.backbone = create_backbone(
            options.arch,
            streams=1,
            last_stride=options.last_stride,
            insert=lambda channels: SpatioTemporalNonLocal(channels, options.nonlocal_reduction),
            insert_counts=options.nonlocal_blocks,
        )
        self.mvl_attention = MultiViewAttention(self.backbone.out_channels, options.heads, options.pooling)
        self.bn_neck = nn.BatchNorm1d(self.feature_dim)
        self.bn_neck.bias.requires_grad_(False)
        self.classifier_frame = nn.Linear(self.feature_dim, num_classes, bias=False)
        self.classifier = nn.Linear(self.feature_dim, num_classes, bias=False)

    @property
    def feature_dim(self) -> int:
        return 3 * self.options.heads * int(self.backbone.out_channels)

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Six losses, and the clip classifier's top-1 ``accuracy`` on the batch.

        Raises:
            GloamError: one frame in all.
        """
        if batch.images.shape[:2].numel() == 1:
            raise GloamError(
                "A batch of one frame has no statistics for batch norm. Raise sampler.identities, sampler.instances or "
                "data.frames."
            )
        frames, clip_length, masks = self._frames(batch.images)
        clips = self._average(frames, clip_length)
        frame_pids, frame_modalities = (x.repeat_interleave(clip_length) for x in (batch.pids, batch.modalities))
        logits = at_least_float32(self.classifier(clips))
        parts = {
            "identity_video": cross_entropy(logits, batch.pids),
            "identity_frame": cross_entropy(at_least_float32(self.classifier_frame(frames)), frame_pids),
            "alignment_video": multi_modality_alignment(clips, batch.pids, batch.modalities),
            "alignment_frame": multi_modality_alignment(frames, frame_pids, frame_modalities),
            "orthogonal": separation_loss(frames.unflatten(0, (-1, clip_length))),
            "diversity": torch.stack([separation_loss(mask) for mask in masks]).sum(),
        }
        options = self.options
        loss = parts["identity_video"] + parts["identity_frame"]
        loss = loss + options.weight_alignment * (parts["alignment_video"] + parts["alignment_frame"])
        loss = loss + options.weight_orthogonal * parts["orthogonal"] + options.weight_diversity * parts["diversity"]
        return {"loss": loss, **parts, "accuracy": (logits.detach().argmax(dim=1) == batch.pids).float().mean()}

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Unit clip embeddings ``(N, 3 heads C)`` of clips ``(N, T, 3, H, W)``; any T."""
        frames, clip_length, _ = self._frames(images)
        return normalize(self._average(frames, clip_length), dim=1, eps=1e-12)

    def rename_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The release keeps a torchvision network and, beside it, the non-local blocks (``models/model_m3reid.py``)."""
        if not any(name.startswith("backbone.layer1.") for name in state):
            return state
        return rename_prefixes(state, _PUBLISHED)

    def to_published(self) -> dict[str, Any] | None:
        """See :meth:`rename_published`: the state alone."""
        if not isinstance(self.backbone, TwoStreamBackbone):
            return None
        state = {name: value.detach().cpu() for name, value in self.state_dict().items()}
        heads = {name: value for name, value in state.items() if not name.startswith("backbone.")}
        return {**restore_prefixes(state, _PUBLISHED), **heads}

    def _frames(self, clips: Tensor) -> tuple[Tensor, int, list[Tensor]]:
        """BN-neck embeddings of all frames ``(B T, D)`` in float32, T, and the grouped masks."""
        clip_length = clips.shape[1]  # not int(): exported clips have any length
        frames = clips.flatten(0, 1)
        one_stream = torch.zeros(frames.shape[0], dtype=torch.int64, device=frames.device)
        maps = self.backbone(frames, one_stream, lambda block, x: over_clips(block, x, clip_length))
        pooled, masks = self.mvl_attention(maps, clip_length)
        return at_least_float32(self.bn_neck(pooled)), clip_length, masks

    def _average(self, frames: Tensor, clip_length: int) -> Tensor:
        """Mean over time, after the neck (its statistics are over frames, not over clips)."""
        average: Tensor = frames.unflatten(0, (-1, clip_length)).mean(dim=1)
        return average
