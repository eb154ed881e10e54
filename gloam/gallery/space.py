"""The space of a gallery's vectors: which model made them. Vectors of two models never meet."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gloam.errors import GloamError

if TYPE_CHECKING:
    from gloam.inference.features import Fingerprint
    from gloam.inference.model import Model


@dataclass(frozen=True)
class Space:
    """Where vectors live.

    Attributes:
        digest: of the model's fingerprint: weights, flags, feature, size, mirroring, precision.
        name: what a person calls the model.
        dim: D.
        run: absolute path of the run, to load the model again; empty: unknown (features of other software).
        feature: which of the method's features.
        height: of the images, in pixels; 0: unknown.
        width: of the images, in pixels; 0: unknown.
        mirror: whether images are averaged with their mirror images.
        precision: arithmetic of the forward pass.
        calibration: what ``gloam calibrate`` measured; None: scores are cosines without a probability.
        tuning: oversampling of the codes and the recall it was chosen by; None: not measured yet.
    """

    digest: str
    name: str
    dim: int
    run: str = ""
    feature: str = ""
    height: int = 0
    width: int = 0
    mirror: bool = False
    precision: str = "32"
    calibration: dict[str, Any] | None = None
    tuning: dict[str, Any] | None = None

    @classmethod
    def of_model(cls, model: Model) -> Space:
        """The space of what a model embeds."""
        run, calibration = Path(model.name), model.calibration
        return cls(
            digest=model.fingerprint.digest,
            name=model.name,
            dim=model.feature_dim,
            run=str(run.resolve()) if run.exists() else "",
            feature=model.feature,
            height=model.size[0],
            width=model.size[1],
            mirror=model.mirror,
            precision=model.precision,
            calibration=None if calibration is None else calibration.model_dump(mode="json"),
        )

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the model."""
        # Here, not above: who searches by keys needs no torch.
        from gloam.inference.features import Fingerprint

        return Fingerprint(self.digest, self.name)

    def require(self, other: Fingerprint, what: str) -> None:
        """Raises GloamError, which names both models, unless ``other`` is the one of this space."""
        if other != self.fingerprint:
            raise GloamError(
                f"The gallery holds features of {self.fingerprint}, but {what} come from {other}. Features of "
                "different models cannot be compared: use the gallery's model, or move the gallery with gloam gallery "
                "reembed."
            )

    def load_model(self, run: Path | None = None, *, device: str = "cpu") -> Model:
        """The model of the run that the space remembers, or of ``run``.

        Raises:
            GloamError: no run is remembered, it is gone, or it holds other weights by now.
        """
        from gloam.inference.exported import EXPORTED_SUFFIXES
        from gloam.inference.loading import load_model

        place = self.run if run is None else str(run)
        if not place:
            raise GloamError(
                f"The gallery's features were made by {self.fingerprint}, and the gallery does not know where that "
                "model is. Search with Features, or say where it is (--model RUN)."
            )
        options: dict[str, Any] = {}
        if Path(place).suffix not in EXPORTED_SUFFIXES:  # all of this is fixed in an exported file
            options = {"feature": self.feature or None, "mirror": self.mirror, "precision": self.precision}
        model = load_model(place, device=device, **options)
        self.require(model.fingerprint, f"the weights that lie in {place}")
        return model

    def replace(self, **changes: Any) -> Space:
        """A copy with changes."""
        return dataclasses.replace(self, **changes)
