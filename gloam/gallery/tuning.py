"""How many candidates the codes must propose: chosen by recall on the gallery's own rows, not by a guess."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gloam.gallery.contract import Catalogue
from gloam.gallery.crops import vector_blocks
from gloam.gallery.engines.rabitq import OVERSAMPLING, RabitqIndex
from gloam.gallery.where import EVERYTHING, Where
from gloam.progress import progress_bar

QUERIES, TOP = 200, 10
TARGET = 0.998  # above the promise of .995: the estimate of 2,000 neighbours has a standard error of about .001
CHOICES = (10, 20, 30, 50, 80, 120, 200)
_GROWTH = 2  # times as many rows as then: measure again


def needs_tuning(catalogue: Catalogue, index: RabitqIndex) -> bool:
    """Whether codes are in use and were never measured, or for a much smaller gallery."""
    count = index.count()
    tuning = catalogue.space.tuning
    return count >= index.smallest and (tuning is None or count >= _GROWTH * int(tuning["rows"]))


def tune(catalogue: Catalogue, index: RabitqIndex, *, progress: bool = False) -> None:
    """Measure recall@10 on 200 stored rows, without filter and among rows of the other modality; keep the choice.

    The smallest oversampling that reaches the target in both is taken, or the largest there is.
    """
    with index.store.read() as connection:
        index.refresh(connection)
        ids = index.columns.ids
        places = np.unique(np.linspace(0, len(ids) - 1, QUERIES).astype(np.int64))
        blocks = vector_blocks(connection, index.space, index.dim, ids[places])
        queries = np.concatenate([halves for _, halves in blocks]).astype(np.float32)
        modalities = index.columns.modalities[places]
    plans: list[tuple[str, NDArray[np.bool_], Where]] = [("none", np.ones(len(queries), np.bool_), EVERYTHING)]
    for kind, other in ((0, "infrared"), (1, "visible")):
        plans.append((f"other: {other}", modalities == kind, Where(modality=other)))
    before, measured = index.oversampling, dict.fromkeys(CHOICES, 1.0)
    details: dict[str, dict[str, float]] = {}
    with progress_bar("searches", shown=progress) as bar:
        task = bar.add_task("measuring recall", total=len(plans), note="")
        for name, mask, where in plans:
            if mask.any() and index.count(where) > TOP:
                for choice, recall in _recalls(index, queries[mask], where).items():
                    measured[choice] = min(measured[choice], recall)
                    details.setdefault(str(choice), {})[name] = round(recall, 5)
            bar.advance(task)
    chosen = next((choice for choice in CHOICES if measured[choice] >= TARGET), CHOICES[-1])
    index.oversampling = chosen if details else before or OVERSAMPLING
    tuning = {
        "oversampling": index.oversampling,
        "recall": round(measured[index.oversampling], 5),
        "queries": len(queries),
        "rows": index.count(),
        "measured": details,
    }
    catalogue.save_space(catalogue.space.replace(tuning=tuning))


def _recalls(index: RabitqIndex, queries: NDArray[np.float32], where: Where) -> dict[int, float]:
    """Share of the exact ten nearest that every oversampling finds; the row itself does not count."""
    exact = index.search(queries, TOP + 1, where, exact=True)
    found = {}
    for choice in CHOICES:
        # A row's own copy is found always: it would flatter the recall.
        index.oversampling = choice
        codes = index.search(queries, TOP + 1, where)
        hits = sum(len(set(a[1:]) & set(b[1:])) for a, b in zip(exact.keys, codes.keys, strict=True))
        found[choice] = hits / (len(queries) * max(exact.keys.shape[1] - 1, 1))
        if found[choice] == 1.0:
            found.update(dict.fromkeys(CHOICES[CHOICES.index(choice) :], 1.0))
            break
    return found
