"""MMGL: self-supervised pre-training for visible-infrared ReID, without identity labels and without pairs.

*Source*: Wan et al., "Self-Supervised Modality-Aware Multiple Granularity Pre-Training for RGB-Infrared Person
Re-Identification", IEEE TIFS 2023. The authors released no pre-training code; ``docs/methods/mmgl.md`` says which
details are confirmed and which are this project's reading.
"""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, normalize

from gloam.batches.batch import Batch
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.losses.cycle_contrastive import Negatives, Scope, Target, cycle_contrastive_loss, neighbour_masses
from gloam.losses.permutation import (
    PermutationLoss,
    draw_orders,
    gumbel_noise,
    permutation_accuracy,
    permutation_loss,
    shuffle_stripes,
    sinkhorn,
    uniform_permutation_loss,
)
from gloam.methods import register
from gloam.methods.contract import EpochContext, Method, OnlyWith, Plateau, StemOptions
from gloam.models.backbone import create_backbone
from gloam.models.two_stream import TwoStreamBackbone
from gloam.models.weights import to_reference_names

_SCORED = 2000  # training images of each modality whose orders are scored

_log = logging.getLogger(__name__)


class MMGLOptions(StemOptions):
    """Flags of MMGL; published names in brackets."""

    num_stripes: int = Field(
        6, ge=2, description="horizontal stripes; the image height must be a multiple [--num_stripe]"
    )
    permutation: bool = Field(True, description="permutation recovery on")
    pcc: bool = Field(True, description="part-aware cycle-contrastive learning on [--pcc]")
    part: bool = Field(True, description="contrast stripes; off: whole images [--part]")
    cl_weight: float = Field(0.5, ge=0, description="weight of the cycle-contrastive loss [--cl_weight]")
    cl_temp: float = Field(0.07, gt=0, description="temperature of retrieval and contrast [--cl_temp]")
    cl_dim: int = Field(256, ge=1, description="width of the stripe vectors")
    share_order: bool = Field(True, description="one order for the i-th visible and the i-th infrared image")
    sinkhorn_iterations: int = Field(20, ge=1, description="Sinkhorn rounds")
    sinkhorn_temperature: float = Field(1.0, gt=0, description="temperature of the Sinkhorn operator")
    gumbel_noise: float = Field(0.0, ge=0, description="factor of the Gumbel noise added to the scores")
    gumbel_samples: int = Field(1, ge=1, description="noisy samples whose losses are averaged")
    permutation_loss: PermutationLoss = Field("mse_sum", description="mse_sum, mse_mean (does not train) or ce")
    pcc_scope: Scope = Field("pair", description="retrieve inside the couple, or in the whole batch")
    pcc_target: Target = Field("soft", description="own-modality soft neighbour, or the query itself")
    pcc_negatives: Negatives = Field("all", description="which stripes the positive competes with")
    pcc_center: bool = Field(False, description="subtract the batch mean of each position")
    shared_projection: bool = Field(True, description="one projection for all stripe positions")
    report_every: int = Field(
        5, ge=1, description="measure permutation accuracy after every so many epochs and after the last"
    )

    together = (
        OnlyWith(
            ("sinkhorn_iterations", "sinkhorn_temperature", "gumbel_noise", "permutation_loss", "report_every"),
            "method.permutation",
            lambda o: o.permutation,
        ),
        OnlyWith(
            ("gumbel_samples",),
            "method.permutation and method.gumbel_noise above 0",
            lambda o: o.permutation and o.gumbel_noise > 0,
        ),
        OnlyWith(("cl_weight",), "method.pcc", lambda o: o.pcc, off=0.0),
        OnlyWith(
            ("part", "cl_temp", "cl_dim", "pcc_scope", "pcc_negatives", "pcc_center"), "method.pcc", lambda o: o.pcc
        ),
        OnlyWith(("shared_projection",), "method.pcc and method.part", lambda o: o.pcc and o.part),
        OnlyWith(
            ("pcc_target",),
            "method.pcc and several vectors to choose from (method.part, or method.pcc_scope batch)",
            lambda o: o.pcc and (o.part or o.pcc_scope == "batch"),
        ),
    )

    @model_validator(mode="after")
    def _can_learn(self) -> MMGLOptions:
        if not (self.permutation or (self.pcc and self.cl_weight)):
            raise GloamError(
                "MMGL has nothing to learn without its two tasks. Turn on permutation, or pcc with a cl_weight above 0."
            )
        if self.pcc and not self.part and self.pcc_negatives != "all":
            raise GloamError(
                f"pcc_negatives {self.pcc_negatives!r} chooses among stripes, but without part each image is one "
                "vector. Use pcc_negatives all, or turn part on."
            )
        return self


@register("mmgl")
class MMGL(Method[MMGLOptions]):
    """Permutation recovery on shuffled stripes and part-aware cycle contrast on one two-stream network.

    Args:
        num_classes: ignored; no identity is used.
        options: flags.
    """

    Options = MMGLOptions
    features = ("pool",)
    is_unsupervised = True

    def __init__(self, num_classes: int, options: MMGLOptions) -> None:
        super().__init__(num_classes, options)
        self.backbone = create_backbone(options.arch, streams=options.streams, last_stride=1)
        width, parts = self.backbone.out_channels, options.num_stripes
        self.fc1 = nn.Linear(width, parts * parts)
        nn.init.normal_(self.fc1.weight, std=0.01)
        nn.init.zeros_(self.fc1.bias)
        blocks = 1 if options.shared_projection or not options.part else parts
        self.local_conv_list = nn.ModuleList(_projection(width, options.cl_dim) for _ in range(blocks))
        self._generator = torch.Generator().manual_seed(0)
        self._warned_about_bins = False

    @property
    def feature_dim(self) -> int:
        return int(self.backbone.out_channels)

    def on_epoch_start(self, context: EpochContext) -> None:
        """Seed this epoch's orders."""
        self._generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=context.generator)))

    def on_epoch_end(self, context: EpochContext) -> None:
        """Every few epochs and after the last one, measure how well orders are recovered."""
        last = context.epoch == context.num_epochs - 1
        if self.options.permutation and (context.epoch % self.options.report_every == 0 or last):
            fixed = torch.Generator().manual_seed(0)
            chosen = torch.zeros(len(context.modalities), dtype=torch.bool)
            for modality in Modality:
                rows = (context.modalities == modality).nonzero()[:, 0]
                # Evenly spread, so that every identity and camera stays represented.
                chosen[rows[torch.linspace(0, max(len(rows) - 1, 0), min(len(rows), _SCORED)).long()]] = True
            scores = context.extract(lambda images, modalities: self.score_orders(images, modalities, fixed), chosen)
            for modality in Modality:
                own = scores[context.modalities[chosen] == modality]
                if len(own):
                    context.log(f"permutation_accuracy_{modality.name.lower()}", own[:, 0].mean().item())
                    context.log(f"permutation_exact_{modality.name.lower()}", own[:, 1].mean().item())

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of B visible and B infrared images; image i of each forms a random couple.

        ``part_mass`` and ``place_mass`` are logged only: see :func:`neighbour_masses`.

        Raises:
            GloamError: the batch does not hold equally many images of both modalities, or the height does not fit.
        """
        options = self.options
        visible = batch.images[batch.modalities == Modality.VISIBLE]
        infrared = batch.images[batch.modalities == Modality.INFRARED]
        if len(visible) != len(infrared) or len(visible) == 0:
            raise GloamError(
                f"MMGL needs as many visible as infrared images in a batch, got {len(visible)} and {len(infrared)}. "
                "Use the sampler 'modality_shuffle' (or another balanced one) on data with both modalities."
            )
        self._check_height(visible)
        orders = draw_orders(len(visible), options.num_stripes, self._generator)
        other = orders if options.share_order else draw_orders(len(visible), options.num_stripes, self._generator)
        orders, other = orders.to(visible.device), other.to(visible.device)
        both = torch.cat([orders, other])
        images = shuffle_stripes(torch.cat([visible, infrared]), both)
        modalities = torch.arange(2, device=images.device).repeat_interleave(len(visible))
        maps = self.backbone(images, modalities)

        outputs: dict[str, Tensor] = {}
        loss = maps.new_zeros((), dtype=torch.float32)
        if options.permutation:
            recovery, accuracy = self._recover(maps, both)
            outputs |= {"permutation": recovery, "permutation_accuracy": accuracy}
            loss = loss + recovery
        if options.pcc:
            first, second = self.stripe_vectors(maps).chunk(2)
            contrast = cycle_contrastive_loss(
                first,
                second,
                temperature=options.cl_temp,
                scope=options.pcc_scope,
                target=options.pcc_target,
                negatives=options.pcc_negatives,
                center=options.pcc_center,
                orders=orders,
                infrared_orders=other,
            )
            outputs["cycle_contrastive"] = contrast
            loss = loss + options.cl_weight * contrast
            if options.part and len(visible) > 1:
                masses = neighbour_masses(first, second, orders, other, temperature=options.cl_temp)
                outputs |= dict(zip(("part_mass", "place_mass"), masses, strict=True))
        return {"loss": loss, **outputs}

    def plateaus(self) -> dict[str, Plateau]:
        """The permutation loss of a uniform guess; published flags leave it well within the first fifth of training."""
        if not self.options.permutation:
            return {}
        value = uniform_permutation_loss(self.options.num_stripes, self.options.permutation_loss)
        cure = (
            "The images' orders are not recovered yet. Use method.permutation_loss mse_sum or ce (mse_mean does not "
            "train), a network whose receptive field covers the image's height, less method.gumbel_noise, or more "
            "epochs."
        )
        return {"permutation": Plateau(value, cure)}

    def extract(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Unit average-pooled features ``(N, D)`` of unshuffled images."""
        return normalize(self.backbone(images, modalities).float().mean(dim=(2, 3)), dim=1, eps=1e-12)

    def predict_orders(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Soft permutation matrices ``(N, P, P)`` of already shuffled images, without noise."""
        return self.permutation_matrices(self.backbone(images, modalities))

    def score_orders(self, images: Tensor, modalities: Tensor, generator: torch.Generator) -> Tensor:
        """``(N, 2)``: fraction of right positions and whether the whole order is right, for freshly drawn orders."""
        self._check_height(images)
        orders = draw_orders(len(images), self.options.num_stripes, generator)
        right, exact = permutation_accuracy(self.predict_orders(shuffle_stripes(images, orders), modalities), orders)
        return torch.stack([right, exact], dim=1).float()

    def stripe_vectors(self, maps: Tensor) -> Tensor:
        """Projected stripe vectors ``(N, P, cl_dim)`` of feature maps ``(N, C, h, w)``; P = 1 without ``part``."""
        parts = self.options.num_stripes if self.options.part else 1
        if maps.shape[2] % parts and not self._warned_about_bins:
            self._warned_about_bins = True
            _log.warning(
                "%d stripes do not divide a feature map of %d rows: their bins overlap, so neighbours share what "
                "they compare. Choose data.height so that its map has a multiple of %d rows.",
                parts,
                maps.shape[2],
                parts,
            )
        stripes = adaptive_avg_pool2d(maps, (parts, 1))
        if len(self.local_conv_list) == 1:
            projected = self.local_conv_list[0](stripes)
        else:
            columns = stripes.split(1, dim=2)
            projected = torch.cat([b(c) for b, c in zip(self.local_conv_list, columns, strict=True)], dim=2)
        vectors: Tensor = projected.squeeze(3).transpose(1, 2)
        return vectors

    def to_published(self) -> dict[str, Any] | None:
        """The backbone under the names of the fine-tuning code, and the heads of both tasks, flat."""
        if not isinstance(self.backbone, TwoStreamBackbone):
            return None
        heads = {name: value.detach().cpu() for name, value in self.state_dict().items()}
        return {**export_backbone(self), **{n: v for n, v in heads.items() if not n.startswith("backbone.")}}

    def _recover(self, maps: Tensor, orders: Tensor) -> tuple[Tensor, Tensor]:
        """Permutation loss and the cheap row-argmax accuracy."""
        options = self.options
        losses = []
        for _ in range(options.gumbel_samples):
            shape = (len(maps), options.num_stripes, options.num_stripes)
            noise = gumbel_noise(shape, self._generator).to(maps.device) if options.gumbel_noise else None
            matrices = self.permutation_matrices(maps, noise)
            losses.append(permutation_loss(matrices, orders, options.permutation_loss))
        accuracy = (matrices.detach().argmax(dim=2) == orders).float().mean()
        return torch.stack(losses).mean(), accuracy

    def permutation_matrices(self, maps: Tensor, noise: Tensor | None = None) -> Tensor:
        """Soft permutation matrices ``(N, P, P)`` of feature maps ``(N, C, h, w)``; noise of that shape is optional."""
        parts = self.options.num_stripes
        scores = self.fc1(maps.mean(dim=(2, 3))).float().view(-1, parts, parts)
        if noise is not None:
            scores = scores + self.options.gumbel_noise * noise
        return sinkhorn(
            scores, iterations=self.options.sinkhorn_iterations, temperature=self.options.sinkhorn_temperature
        )

    def _check_height(self, images: Tensor) -> None:
        if images.shape[-2] % self.options.num_stripes:
            raise GloamError(
                f"Images {images.shape[-2]} pixels high cannot be cut into {self.options.num_stripes} equal stripes. "
                "Choose data.height as a multiple of method.num_stripes."
            )


def _projection(in_channels: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, width, kernel_size=1)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_in")
    nn.init.zeros_(cast(Tensor, convolution.bias))
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def export_backbone(method: MMGL) -> dict[str, Any]:
    """Flat state dict of the trunk and both stems under the reference's names (324 tensors for ResNet-50).

    A one-stream network exports its stem under both names.
    """
    if not isinstance(method.backbone, TwoStreamBackbone):
        raise GloamError("Only residual networks have names in the reference release.")
    return to_reference_names(method.backbone)
