"""What scores of a gallery mean: thresholds for false match rates and probabilities, from ``gloam calibrate``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gloam.errors import GloamError
from gloam.gallery.rows import MODALITIES
from gloam.gallery.space import Space

if TYPE_CHECKING:
    from gloam.evaluation.calibration import Calibration


class Asked(Protocol):
    """The part of :class:`gloam.gallery.search.Ask` that decides whether scores are still those of two images."""

    @property
    def fmr(self) -> float | None: ...
    @property
    def prior(self) -> float | None: ...
    @property
    def expand(self) -> int: ...
    @property
    def like(self) -> tuple[str, ...]: ...
    @property
    def unlike(self) -> tuple[str, ...]: ...
    @property
    def group(self) -> str | None: ...
    @property
    def group_score(self) -> str: ...


@dataclass(frozen=True)
class Judge:
    """Says of one search what its scores mean.

    Attributes:
        calibration: of the gallery's space, or None.
        modality: of the query, where it is one image or tracklet.
        why_not: why scores mean nothing here; empty: they do.
        prior: probability before anything was compared, or None: no probabilities are shown.
    """

    calibration: Calibration | None
    modality: int | None
    why_not: str
    prior: float | None

    def thresholds(self, fmr: float, modalities: Iterable[int]) -> dict[int, float]:
        """Row modality -> the least score that keeps a false match rate.

        Raises:
            GloamError: scores mean nothing here, or a pair of modalities is uncalibrated or does not support the rate.
        """
        if self.calibration is None or self.modality is None or self.why_not:
            raise GloamError(f"No threshold is known for this search. {_sentence(self.why_not)} Search without --fmr.")
        return {kind: self.calibration.threshold(fmr, self.pair(kind)) for kind in modalities}

    def pair(self, modality: int) -> str:
        """Name of the pair of the query's modality and a row's."""
        first, second = sorted((self.modality or 0, modality))
        return f"{MODALITIES[first]}-{MODALITIES[second]}"

    def probability(self, score: float, modality: int) -> float | None:
        """That a row shows the one who is asked for; None: no prior was given, or nothing was measured."""
        if self.calibration is None or self.prior is None or self.modality is None or self.why_not:
            return None
        try:
            return float(self.calibration.probability(score, self.pair(modality), prior=self.prior))
        except GloamError:  # this pair of modalities; notes() says so
            return None

    def notes(self, modalities: Iterable[int]) -> list[str]:
        """What the user should know of the scores of rows of these modalities."""
        if self.calibration is None:
            return [self.why_not]
        if self.prior is None:
            return [self.why_not or "calibrated: with a prior (--prior N: one in N is meant) probabilities are shown"]
        if self.why_not:
            return [self.why_not]
        told = [f"probabilities: of one comparison each, if one in {1 / self.prior:,.0f} is the one who is asked for"]
        for kind in modalities:
            try:
                self.calibration.log_likelihood_ratio(0.0, self.pair(kind))
            except GloamError as error:
                told.append(f"no probability for {MODALITIES[kind]} rows: {error}")
        return told


def judge(space: Space, ask: Asked, *, modality: int | None, count: int) -> Judge:
    """Of one search.

    Args:
        space: of the gallery.
        ask: the search.
        modality: of the query's images; None: of both.
        count: images (or tracklets) that the query is made of.
    """
    calibration = read_calibration(space)
    why = ""
    if calibration is None:
        why = "uncalibrated: scores are cosines, no probabilities"
    elif count > 1:
        why = f"uncalibrated: scores are of the mean of {count} queries; thresholds and probabilities are of two images"
    elif ask.expand or ask.like or ask.unlike:
        why = "uncalibrated: expansion and feedback move the query; thresholds and probabilities are of two images"
    elif ask.group and ask.group_score == "mean":
        why = "uncalibrated: scores are means of groups; thresholds and probabilities are of two images"
    return Judge(calibration, modality, why, ask.prior)


def read_calibration(space: Space) -> Calibration | None:
    """What the gallery keeps for this space.

    Raises:
        GloamError: it is of another model, or damaged.
    """
    if space.calibration is None:
        return None
    from gloam.evaluation.calibration import Calibration

    found = Calibration.from_dict(space.calibration, "the gallery's calibration")
    found.require_model(space.digest, space.name)
    return found


def check_confidence(space: Space, fmr: float | None, prior: float | None) -> None:
    """Refuse what this gallery can never answer, before anything is embedded.

    Raises:
        GloamError: rates or priors that are none, or an uncalibrated gallery: a cosine alone says nothing about how
            often it is wrong.
    """
    if fmr is not None and not 0 < fmr < 1:
        raise GloamError(f"A false match rate lies between 0 and 1, not {fmr:g}.")
    if prior is not None:
        from gloam.evaluation.calibration import checked_prior

        checked_prior(prior)
    if (fmr is None and prior is None) or space.calibration is not None:
        return
    wanted = "how probable a score makes a match" if fmr is None else f"which score keeps a false match rate of {fmr:g}"
    flag = "--prior" if fmr is None else "--fmr"
    raise GloamError(
        f"The gallery is uncalibrated: nobody knows {wanted}. Run gloam calibrate on its run, then gloam gallery "
        f"calibrate, or search without {flag}."
    )


def describe_calibration(space: Space) -> str:
    """One line for ``gloam gallery info``."""
    found = read_calibration(space)
    if found is None:
        return "uncalibrated: scores are cosines"
    from gloam.evaluation.calibration import smallest_rate
    from gloam.evaluation.pairs import PAIRS

    parts = [f"{name} from {smallest_rate(found.pairs[name]):.0e}" for name in PAIRS if name in found.pairs]
    return f"{found.data.identities:,} identities of {found.data.name}; false match rates of " + ", ".join(parts)


def percent(probability: float) -> str:
    """A probability for people; the last digits of near certainty are not shown."""
    if probability < 0.001:
        return "<0.1%"
    return ">99.9%" if probability > 0.999 else f"{probability:.1%}"


def chance(probability: float | None, prior: float | None) -> str:
    """A probability, never without its prior; nothing where one of them is not known."""
    return "" if probability is None or prior is None else f"{percent(probability)} (one in {1 / prior:,.0f})"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else "The query is of both modalities."
