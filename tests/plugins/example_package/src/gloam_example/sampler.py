"""A sampler: every image of P identities, whatever their number and modality."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gloam.sampling import SamplerOptions, Strategy, register


class WholeIdentitiesOptions(SamplerOptions):
    """Options; each is a key of the recipe's section and a flag of the command line."""

    name: Literal["whole_identities"] = "whole_identities"
    identities: int = Field(4, ge=1, description="P: identities per batch")


@register("whole_identities")
class WholeIdentities(Strategy[WholeIdentitiesOptions]):
    """All identities once per epoch, in random order; an incomplete last batch is dropped."""

    Options = WholeIdentitiesOptions

    def make(self, random: np.random.RandomState) -> list[NDArray[np.int64]]:
        labels = self.samples.labels
        order = random.permutation(np.unique(labels[labels >= 0]))
        size = self.options.identities
        chosen = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
        return [np.flatnonzero(np.isin(labels, identities)) for identities in chosen]
