"""What keeps a gallery in order: choosing and erasing rows, retention, verifying, exporting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gloam.errors import GloamError
from gloam.gallery.contract import Catalogue
from gloam.gallery.engines.contract import VectorIndex
from gloam.gallery.erase import PATIENCE, Erasure, choose, erase, expired
from gloam.gallery.query import read_query
from gloam.gallery.verify import Verdict, verify
from gloam.gallery.where import EVERYTHING, Where

if TYPE_CHECKING:
    from gloam.evaluation.calibration import Calibration
    from gloam.inference.model import Model


class Upkeep:
    """The part of :class:`gloam.gallery.gallery.Gallery` that neither adds nor searches.

    Args:
        catalogue: what is known of the rows.
        index: their vectors.
    """

    def __init__(self, catalogue: Catalogue, index: VectorIndex) -> None:
        self.catalogue, self.index = catalogue, index

    @property
    def model(self) -> Model:
        """The model that embeds images for this gallery."""
        return self.catalogue.space.load_model()

    def select(
        self,
        *,
        keys: str | Sequence[str] = (),
        where: Where | None = None,
        near: Any = None,
        score: float | None = None,
        modality: str = "visible",
    ) -> list[str]:
        """Keys that :meth:`erase` would erase: look at them first.

        Args:
            keys: rows by name.
            where: filter.
            near: whatever :meth:`search` takes as a query; a stored row counts too.
            score: least score with ``near``.
            modality: of ``near``, if it is an image.
        """
        vector = None
        if near is not None:
            vector = read_query(near, self.catalogue, self.index, lambda: self.model, modality=modality).vector
        names = [keys] if isinstance(keys, str) else list(keys)
        return choose(self.catalogue, self.index, keys=names, where=where, near=vector, score=score)

    def erase(self, keys: str | Sequence[str], *, patience: float = PATIENCE, rewrite: bool = True) -> Erasure:
        """Erase rows for good; see :func:`gloam.gallery.erase.erase`. :meth:`select` finds their keys."""
        names = [keys] if isinstance(keys, str) else list(keys)
        names = choose(self.catalogue, self.index, keys=names)
        return erase(self.catalogue, self.index, names, patience=patience, rewrite=rewrite)

    def expire(self, *, now: float | None = None, patience: float = PATIENCE) -> Erasure:
        """Erase the rows whose time is over, by the retention that was given at ``create``."""
        return erase(self.catalogue, self.index, expired(self.catalogue, now), action="expired", patience=patience)

    def calibrate(self, calibration: Calibration) -> None:
        """Keep what was measured for this gallery's model: thresholds and probabilities of scores.

        Raises:
            GloamError: it is of another model.
        """
        space = self.catalogue.space
        calibration.require_model(space.digest, space.name)
        values = calibration.model_dump(mode="json")
        if values != space.calibration:
            self.catalogue.save_space(space.replace(calibration=values))
            self.catalogue.record("calibrated", {"calibration": values}, 0)

    def take_calibration(self, model: Model) -> bool:
        """Keep the calibration that lies in a model's run, if there is one for exactly this model.

        Returns:
            Whether there is.
        """
        found = model.calibration if model.fingerprint.digest == self.catalogue.space.digest else None
        if found is not None:
            self.calibrate(found)
        return found is not None

    def verify(self) -> Verdict:
        """Read everything and say what is wrong."""
        return verify(self.catalogue, self.index)

    def export(self, path: str | Path, where: Where = EVERYTHING) -> int:
        """Write rows to a ``.parquet`` file, or the whole gallery, as it is now, to a new folder. Returns the rows."""
        from gloam.gallery.transfer import backup, export_table

        if Path(path).suffix in (".parquet", ".csv", ".npz"):
            return export_table(self.catalogue, self.index, Path(path), where)
        if not where.empty:
            raise GloamError("A backup is of the whole gallery; filtered rows go to a .parquet file.")
        return backup(self.catalogue, Path(path))
