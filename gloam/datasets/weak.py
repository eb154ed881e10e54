"""Weak supervision: identities are known inside each modality, the correspondence between the modalities is not.

*Source*: ``datasets/*.py`` of the WSL-VIReID release. Visible and infrared training labels are permuted independently;
the truth stays in the returned object and serves diagnostics only.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gloam.atomic import write_text
from gloam.datasets.records import DatasetSplits, Modality, Record
from gloam.errors import GloamError


@dataclass(frozen=True)
class WeakLabels:
    """The hidden truth of shuffled labels. Training may not read it.

    Attributes:
        seed: of the generator that shuffled.
        visible: true training label of every shuffled visible label: ``visible[shuffled] == true``.
        infrared: the same for infrared.
    """

    seed: int
    visible: tuple[int, ...]
    infrared: tuple[int, ...]

    def truth(self, modality: Modality) -> NDArray[np.int64]:
        """``(N_m,)``: shuffled label of one modality -> true training label."""
        return np.asarray(self.visible if modality is Modality.VISIBLE else self.infrared, dtype=np.int64)

    def true_labels(self, records: Iterable[Record]) -> NDArray[np.int64]:
        """``(N,)`` true training labels of shuffled training records, for diagnostics."""
        tables = {modality: self.truth(modality) for modality in Modality}
        return np.asarray([tables[record.modality][record.pid] for record in records], dtype=np.int64)

    def apply(self, splits: DatasetSplits) -> DatasetSplits:
        """Shuffle freshly loaded splits with these permutations (a resume must not draw new ones).

        Raises:
            GloamError: the training identities are not those of the saved permutations.
        """
        shuffled = {}
        for modality in Modality:
            table = self.truth(modality)
            found = sorted({record.pid for record in splits.train if record.modality is modality})
            if found != sorted(table.tolist()):
                raise GloamError(
                    f"The saved label permutation covers {len(table)} {modality.name.lower()} identities, "
                    f"{splits.name} has {len(found)} (or others). "
                    "Load the same dataset with the same options as in the saved run."
                )
            shuffled[modality] = {int(true): label for label, true in enumerate(table)}
        train = []
        for record in splits.train:
            label = shuffled[record.modality][record.pid]
            # The original id would give the correspondence away.
            train.append(dataclasses.replace(record, pid=label, pid_raw=label))
        classes = max(len(self.visible), len(self.infrared))
        return dataclasses.replace(
            splits, train=tuple(train), label_map={label: label for label in range(classes)}, validation_pids=()
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints."""
        return {"seed": self.seed, "visible": list(self.visible), "infrared": list(self.infrared)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WeakLabels:
        """The inverse of ``to_dict``.

        Raises:
            GloamError: values that no ``to_dict`` wrote.
        """
        try:
            tables = {word: tuple(int(label) for label in values[word]) for word in ("visible", "infrared")}
            seed = int(values["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise GloamError(f"The saved label permutation is damaged ({error!r}). Restore the run's files.") from error
        return cls(seed, tables["visible"], tables["infrared"])

    def save(self, path: str | Path) -> None:
        """Write the permutations as JSON."""
        write_text(path, json.dumps(self.to_dict()))

    @classmethod
    def load(cls, path: str | Path) -> WeakLabels:
        """Read permutations that ``save`` wrote.

        Raises:
            GloamError: no such file, or another kind of file.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise GloamError(f"Cannot read the label permutation {path}: {error}.") from error
        return cls.from_dict(values)


def shuffle_labels_per_modality(splits: DatasetSplits, seed: int) -> tuple[DatasetSplits, WeakLabels]:
    """Destroy the correspondence between visible and infrared training labels.

    *Source*: the release of WSL-VIReID, in its order of draws (visible first; a shuffled list L turns the contiguous
    label c into the position of c in L). Difference: a private generator. Where a modality lacks some identities, its
    labels are 0..N-1 over the N that it has.

    Args:
        splits: a loaded dataset, after any validation ids were held out.
        seed: of the private generator.

    Returns:
        splits whose training records carry shuffled labels in ``pid`` and ``pid_raw`` (the original ids are gone; file
        paths still name them), and the hidden truth.

    Raises:
        GloamError: training records of one modality only, or without labels.
    """
    if not splits.labelled:
        raise GloamError(f"{splits.name} does not say who is in its training images: there are no labels to make weak.")
    generator = random.Random(seed)
    tables = []
    for modality in (Modality.VISIBLE, Modality.INFRARED):
        true = sorted({record.pid for record in splits.train if record.modality is modality})
        if not true:
            raise GloamError(f"{splits.name} has no {modality.name.lower()} training images: nothing to make weak.")
        generator.shuffle(true)
        tables.append(tuple(true))
    weak = WeakLabels(seed, tables[0], tables[1])
    return weak.apply(splits), weak
