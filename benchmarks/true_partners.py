"""PF-MGCD and WSL-VIReID with the true partners in the place of those that they find: the upper bound of matching.

A plugin (``--plugins benchmarks.true_partners``). The partners are an option, so that the method itself still cannot
read the hidden truth; ``given_precision`` and ``given_recall`` in ``metrics.csv`` say that they were right, ``match_*``
what the method would have matched by itself.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from gloam.methods import register
from gloam.methods.contract import EpochContext
from gloam.methods.pf_mgcd import PFMGCD, PFMGCDOptions
from gloam.methods.wsl_vireid import WSLVIReID, WSLVIReIDOptions

_PARTNERS = Field((), description="infrared label of every visible label, -1 where there is none")


class KnownPartnersOptions(PFMGCDOptions):
    """Flags of PF-MGCD, and the partners."""

    partners: tuple[int, ...] = _PARTNERS


@register("pf_mgcd_true_partners")
class PFMGCDTruePartners(PFMGCD):
    """PF-MGCD whose infrared identities know their visible partners from the end of warm-up on."""

    Options = KnownPartnersOptions
    options: KnownPartnersOptions

    def _match_identities(self, context: EpochContext) -> None:
        super()._match_identities(context)
        visible, infrared = _pairs(self.options.partners)
        self.matches.fill_(-1)
        self.matches[infrared] = visible
        context.report_correspondence(visible, infrared, "given")


class KnownRelationsOptions(WSLVIReIDOptions):
    """Flags of WSL-VIReID, and the partners."""

    partners: tuple[int, ...] = _PARTNERS


@register("wsl_vireid_true_partners")
class WSLVIReIDTruePartners(WSLVIReID):
    """WSL-VIReID whose relations are the true ones, all of them consistent, from the start of collaboration on."""

    Options = KnownRelationsOptions
    options: KnownRelationsOptions

    def on_epoch_start(self, context: EpochContext) -> None:
        super().on_epoch_start(context)
        if self.phase == "experts":
            return
        visible, infrared = _pairs(self.options.partners)
        for relation in (self.consistent, self.trusted, self.contradictory):
            relation.zero_()
        self.consistent[visible, infrared] = True
        self.trusted[visible, infrared] = True
        context.report_correspondence(visible, infrared, "given")


def _pairs(partners: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Visible and infrared labels ``(M,)`` of the same people."""
    known = torch.tensor(partners, dtype=torch.int64)
    visible = (known >= 0).nonzero()[:, 0]
    return visible, known[visible]
