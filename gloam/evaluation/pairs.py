"""Pairs of modalities. Cosines do not depend on the order of two images, so neither do these."""

from __future__ import annotations

from gloam.datasets.records import Modality
from gloam.errors import GloamError, did_you_mean

PAIRS: dict[str, tuple[Modality, Modality]] = {
    "visible-visible": (Modality.VISIBLE, Modality.VISIBLE),
    "visible-infrared": (Modality.VISIBLE, Modality.INFRARED),
    "infrared-infrared": (Modality.INFRARED, Modality.INFRARED),
}
Pair = str | tuple[str | Modality, str | Modality]


def pair_name(pair: Pair) -> str:
    """The name of a pair of modalities, whatever their order.

    Raises:
        GloamError: no such pair.
    """
    words = pair.split("-") if isinstance(pair, str) else list(pair)
    kinds = [str(word.name if isinstance(word, Modality) else word).upper() for word in words]
    if len(kinds) == 2 and all(kind in Modality.__members__ for kind in kinds):
        first, second = sorted(Modality[kind] for kind in kinds)
        return f"{first.name}-{second.name}".lower()
    raise GloamError(f"There is no pair of modalities {pair!r}. {did_you_mean(str(pair), PAIRS)}")
