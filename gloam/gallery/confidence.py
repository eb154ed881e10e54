"""The door to calibrated scores: thresholds for a false match rate need what ``gloam calibrate`` measured."""

from __future__ import annotations

from typing import Any

from gloam.errors import GloamError
from gloam.gallery.space import Space


def require_calibration(space: Space, fmr: float) -> dict[str, Any]:
    """What was measured for this space.

    Args:
        space: of the gallery.
        fmr: the false match rate that was asked for.

    Raises:
        GloamError: nothing was measured: a cosine alone says nothing about how often it is wrong.
    """
    if not 0 < fmr < 1:
        raise GloamError(f"A false match rate lies between 0 and 1, not {fmr:g}.")
    if space.calibration is None:
        raise GloamError(
            f"The gallery is uncalibrated: nobody knows which score keeps a false match rate of {fmr:g}. Calibrate the "
            "run first, or search without --fmr."
        )
    return space.calibration
