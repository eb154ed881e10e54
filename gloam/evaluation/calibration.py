"""What scores of one model mean: thresholds for false match rates and probabilities, per pair of modalities."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gloam.atomic import write_text
from gloam.datasets.records import CameraRule
from gloam.errors import GloamError
from gloam.evaluation.pairs import Pair, pair_name
from gloam.evaluation.probabilities import logit, sigmoid

FILE = "calibration.json"
FORMAT: Literal[1] = 1
FEW_IDENTITIES = 100
Interval = tuple[float, float]
ProbabilityKind = Literal["logistic", "isotonic"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelStamp(_Frozen):
    """The model whose scores these are: the two fields of its fingerprint."""

    digest: str
    name: str = ""


class DataStamp(_Frozen):
    """What it was measured on.

    Attributes:
        name: of the dataset.
        part: which of its people: ``test``, ``held-out`` or ``given``.
        fingerprint: of the records.
        identities: people.
        images: images or tracklets.
        images_used: of them; fewer where a bound was set.
        disjoint: why nobody of them was trained on: ``checked`` against the run's training identities, ``stated`` by
            the user, or ``unknown``.
    """

    name: str
    part: str = "given"
    fingerprint: str = ""
    identities: int
    images: int
    images_used: int
    disjoint: Literal["checked", "stated", "unknown"] = "unknown"


class Threshold(_Frozen):
    """A score from which on two images are called a match.

    Attributes:
        target: false match rate that was asked for.
        score: the threshold; a match has this score or more.
        score_interval: where the threshold of the whole population lies.
        fmr: false match rate on the calibration people, at most the target.
        fmr_interval: where the real false match rate of this threshold lies.
        fnmr: share of genuine pairs below the threshold.
        fnmr_interval: where the real one lies.
    """

    target: float
    score: float
    score_interval: Interval
    fmr: float
    fmr_interval: Interval
    fnmr: float
    fnmr_interval: Interval


class Refusal(_Frozen):
    """A false match rate that the data cannot support, and what it would take."""

    target: float
    impostor_pairs_needed: int
    identities_needed: int


class Curve(_Frozen):
    """FNMR over FMR at falling false match rates, with the interval of FNMR at each."""

    fmr: tuple[float, ...]
    score: tuple[float, ...]
    fnmr: tuple[float, ...]
    fnmr_low: tuple[float, ...]
    fnmr_high: tuple[float, ...]


class Probability(_Frozen):
    """Scores to the logarithm of the likelihood ratio (genuine against impostor).

    Attributes:
        kind: which of the two is used.
        slope: of the two-parameter logistic.
        intercept: of it.
        knot_scores: of the isotonic curve; empty: it was not fitted.
        knot_probabilities: at equal priors.
        lowest: smallest log likelihood ratio that the data can show: one pair among all genuine ones.
        highest: largest: one pair of identities among all impostor ones.
    """

    kind: ProbabilityKind
    slope: float
    intercept: float
    knot_scores: tuple[float, ...] = ()
    knot_probabilities: tuple[float, ...] = ()
    lowest: float
    highest: float

    def log_likelihood_ratio(self, scores: ArrayLike, kind: ProbabilityKind | None = None) -> NDArray[np.float64]:
        """Of any number of scores; beyond what the data can show it stays at their limits."""
        x = np.asarray(scores, dtype=np.float64)
        if (kind or self.kind) == "isotonic":
            found = logit(np.interp(x, self.knot_scores, self.knot_probabilities))
        else:
            found = self.slope * x + self.intercept
        return np.clip(found, self.lowest, self.highest)


class Quality(_Frozen):
    """How good probabilities are at equal priors, on identities that were left out of the fit."""

    brier: float
    ece: float


class PairCalibration(_Frozen):
    """One pair of modalities.

    Attributes:
        identities: people with images on a side.
        identity_pairs: pairs of different people that were compared.
        genuine_pairs: compared pairs of images of one person.
        impostor_pairs: compared pairs of images of two people.
        thresholds: for the false match rates that the data support.
        refused: the other ones.
        curve: detection error trade-off.
        eer: equal error rate.
        eer_interval: where the real one lies.
        probability: None where scores do not rise from impostors to genuine pairs.
        quality: by kind of probability.
    """

    identities: int
    identity_pairs: int
    genuine_pairs: int
    impostor_pairs: int
    thresholds: tuple[Threshold, ...]
    refused: tuple[Refusal, ...]
    curve: Curve
    eer: float
    eer_interval: Interval
    probability: Probability | None
    quality: dict[str, Quality]


class Calibration(_Frozen):
    """What the scores (cosines) of one model mean, per pair of modalities.

    A score does not depend on the order of the two images, so neither does a pair: ``visible-infrared`` serves both
    directions.

    Attributes:
        format: of the file.
        gloam: version that wrote it.
        model: whose scores these are.
        data: on whom it was measured.
        camera_rule: which pairs did not count. ``same_id_same_cam``: pairs of one person in one camera, as the
            evaluation protocols have it; impostors of one camera do count. ``sysu``: those, and pairs of the cameras 2
            and 3, which share a room.
        prior: share of genuine pairs that probabilities were fitted at; every use brings its own.
        confidence: of all intervals.
        resamples: draws of identities behind them.
        seed: of these draws.
        pairs: by name.
        missing: pair -> why it could not be calibrated.
        warnings: what a user must know.
    """

    format: Literal[1] = FORMAT
    gloam: str = ""
    model: ModelStamp
    data: DataStamp
    camera_rule: CameraRule
    prior: float = 0.5
    confidence: float
    resamples: int
    seed: int
    pairs: dict[str, PairCalibration]
    missing: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def of_pair(self, pair: Pair) -> PairCalibration:
        """What was measured for two modalities.

        Args:
            pair: ``visible-infrared``, or two modalities in any order.

        Raises:
            GloamError: no such pair, or one that was not calibrated, with the reason.
        """
        name = pair_name(pair)
        if name not in self.pairs:
            reason = self.missing.get(name, "no image of one of the modalities was there.")
            raise GloamError(f"Scores of {name} pairs are uncalibrated: {reason}")
        return self.pairs[name]

    def threshold(self, fmr: float, pair: Pair) -> float:
        """The score from which on two images are called a match, so that a share ``fmr`` of impostor pairs is.

        Args:
            fmr: false match rate; between the measured ones it is interpolated in their logarithm, to the safe side.
            pair: see :meth:`of_pair`.

        Raises:
            GloamError: no rate, or one that the data cannot support, with what it would take.
        """
        measured = self.of_pair(pair)
        if isinstance(fmr, bool) or not isinstance(fmr, int | float) or not 0 < fmr < 1:
            raise GloamError(f"A false match rate lies between 0 and 1, for example 1e-3, not {fmr!r}.")
        for known in measured.thresholds:
            if math.isclose(known.target, fmr, rel_tol=1e-9):
                return known.score
        if not supports(fmr, measured.impostor_pairs, measured.identity_pairs):
            raise GloamError(
                f"{pair_name(pair)}: {explain_refusal(fmr, measured)} The smallest rate that they support is "
                f"{smallest_rate(measured):.1e}."
            )
        rates, scores = np.array(measured.curve.fmr), np.array(measured.curve.score)
        if fmr > rates[0]:
            raise GloamError(f"A false match rate of {fmr:g} is above the largest that was measured, {rates[0]:.2g}.")
        return float(np.interp(-math.log(fmr), -np.log(rates), scores))

    def log_likelihood_ratio(self, scores: ArrayLike, pair: Pair) -> NDArray[np.float64]:
        """How many times as probable a score is for one identity as for two, as a natural logarithm.

        Args:
            scores: cosines, of any shape.
            pair: see :meth:`of_pair`.

        Raises:
            GloamError: an uncalibrated pair, one whose scores say nothing, or scores that are no cosines.
        """
        found = np.asarray(scores, dtype=np.float64)
        if not bool((np.abs(found) <= 1 + 1e-3).all()):  # NaN compares false
            raise GloamError("Scores must be cosines between -1 and 1: re-ranked distances have no probability.")
        probability = self.of_pair(pair).probability
        if probability is None:
            raise GloamError(
                f"{pair_name(pair)}: scores of one identity are no higher than those of two, so they say nothing about "
                "who is who. Train the model further, or calibrate it on data like those it was trained on."
            )
        return probability.log_likelihood_ratio(found)

    def probability(self, scores: ArrayLike, pair: Pair, *, prior: float) -> NDArray[np.float64]:
        """Probability that two images show one identity.

        Args:
            scores: cosines, of any shape.
            pair: see :meth:`of_pair`.
            prior: probability before the images were compared, for example 1 / 1000 where one of a thousand people is
                meant. There is no default: a probability without a prior means nothing.

        Returns:
            Of the shape of ``scores``: Bayes' rule with the likelihood ratio.

        Raises:
            GloamError: see :meth:`log_likelihood_ratio`; or a prior outside (0, 1).
        """
        return sigmoid(self.log_likelihood_ratio(scores, pair) + logit(checked_prior(prior)))

    def require_model(self, digest: str, name: str = "") -> None:
        """Raises GloamError, which names both models, unless it is the calibration of this model."""
        if digest != self.model.digest:
            raise GloamError(
                f"The calibration belongs to {self.model.name or 'a model'} [{self.model.digest[:12]}], not to "
                f"{name or 'this model'} [{digest[:12]}]: other weights, feature, size, mirroring or precision. Run "
                "gloam calibrate with the same choices."
            )

    def save(self, path: str | Path) -> Path:
        """Write JSON, atomically; the same calibration gives the same bytes.

        Returns:
            The path.
        """
        write_text(path, json.dumps(self.model_dump(mode="json"), indent=1) + "\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what :meth:`save` wrote.

        Raises:
            GloamError: no such file, another kind of file, or one of a newer gloam.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise GloamError(
                f"Cannot read the calibration {path}: {error.strerror}. gloam calibrate writes it."
            ) from error
        except ValueError as error:
            raise GloamError(f"{path} is damaged: it is no JSON. Run gloam calibrate again.") from error
        return cls.from_dict(content, str(path))

    @classmethod
    def from_dict(cls, content: Any, origin: str = "the calibration") -> Calibration:
        """Plain values, as ``model_dump`` gives them, checked.

        Raises:
            GloamError: they are no calibration, or of a newer gloam.
        """
        version = content.get("format") if isinstance(content, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise GloamError(f"{origin} has format {version}; this gloam reads {FORMAT}. Update gloam.")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise GloamError(
                f"{origin} is no calibration ({place}: {first['msg']}). Run gloam calibrate again."
            ) from error


def calibration_file(run: str | Path) -> Path:
    """Where the calibration of a run folder or of one of its checkpoints lies."""
    path = Path(run)
    if path.is_file():
        path = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return path / FILE


def checked_prior(prior: float) -> float:
    """A prior probability.

    Raises:
        GloamError: no number between 0 and 1.
    """
    if isinstance(prior, bool) or not isinstance(prior, int | float | np.number) or not 0 < prior < 1:
        raise GloamError(f"A prior is a probability between 0 and 1, such as 1 / 1000 for one in 1,000; not {prior!r}.")
    return float(prior)


def one_in(count: float) -> float:
    """The prior "one in ``count``" as a probability.

    Raises:
        GloamError: a number that is not above 1.
    """
    if isinstance(count, bool) or not isinstance(count, int | float) or not (1 < count < math.inf):
        raise GloamError(f"A prior is given as one in so many people: a number above 1, such as 1000, not {count!r}.")
    return 1 / count


# What a false match rate needs. Fewer than ten false matches make no rate; and as pairs of two identities' images are
# alike, pairs of identities count too: the "rule of 3" of ISO/IEC 19795-1 for independent comparisons.
LEAST_FALSE_MATCHES = 10
LEAST_IDENTITY_PAIRS = 3


def supports(fmr: float, impostor_pairs: int, identity_pairs: int) -> bool:
    """Whether the data can tell a threshold for a false match rate."""
    least = 1 - 1e-9
    return fmr * impostor_pairs >= LEAST_FALSE_MATCHES * least and fmr * identity_pairs >= LEAST_IDENTITY_PAIRS * least


def refuse(fmr: float) -> Refusal:
    """What a false match rate would take."""
    identities = math.ceil((1 + math.sqrt(1 + 8 * LEAST_IDENTITY_PAIRS / fmr)) / 2 - 1e-9)
    pairs = math.ceil(LEAST_FALSE_MATCHES / fmr - 1e-9)
    return Refusal(target=fmr, impostor_pairs_needed=pairs, identities_needed=identities)


def smallest_rate(measured: PairCalibration) -> float:
    """The smallest false match rate that a pair of modalities supports."""
    return max(LEAST_FALSE_MATCHES / measured.impostor_pairs, LEAST_IDENTITY_PAIRS / measured.identity_pairs)


def explain_refusal(fmr: float, measured: PairCalibration) -> str:
    """A sentence: what is there, and what would be needed."""
    needs = refuse(fmr)
    return (
        f"A false match rate of {fmr:g} needs {needs.impostor_pairs_needed:,} impostor pairs of about "
        f"{needs.identities_needed:,} identities; there are {measured.impostor_pairs:,} of {measured.identities:,}."
    )
