"""Holding out training identities, so that a model is chosen without looking at the test set."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable

from gloam.datasets.base import id_key, relabel, with_labels
from gloam.datasets.files import some
from gloam.datasets.query_gallery import NO_MATCH, divide
from gloam.datasets.records import DatasetSplits, RawId
from gloam.errors import GloamError, did_you_mean


def hold_out(
    splits: DatasetSplits, *, pids: Iterable[RawId] | None = None, fraction: float = 0.1, seed: int = 0
) -> DatasetSplits:
    """Move some training identities into a validation query and gallery.

    *Source*: this project; the releases choose their epoch on the test set. Across modalities: infrared queries,
    visible gallery, no camera rule; within one modality: one query per (id, camera), same-id-same-camera entries do not
    count. Call it before labels are shuffled for weak supervision.

    Args:
        splits: a loaded dataset.
        pids: original training ids to hold out; default: the dataset's own ``validation_pids`` (SYSU-MM01), else a
            random ``fraction`` of the training ids (at least two).
        fraction: share of ids to draw, between 0 and 1.
        seed: of the private generator that draws them.

    Returns:
        splits with the remaining people for training (labels renumbered), the held-out ones as query and gallery, and
        one protocol ``<name>/validation``.

    Raises:
        GloamError: ids that are no training ids, nobody left to train on, or held-out people without any match.
    """
    if not splits.labelled:
        raise GloamError(
            f"{splits.name} does not say who is in its training images: nobody can be held out for validation. Choose "
            "the last epoch (evaluation.selection last)."
        )
    known = sorted(splits.label_map, key=id_key)
    if pids is None and splits.validation_pids:
        pids = splits.validation_pids
    if pids is None:
        if not 0 < fraction < 1:
            raise GloamError(f"The validation fraction is {fraction}; it must lie between 0 and 1.")
        count = max(2, round(len(known) * fraction))
        if count >= len(known):
            raise GloamError(f"{splits.name} has {len(known)} training ids: too few to hold some out.")
        pids = random.Random(seed).sample(known, count)
    held = set(pids)
    unknown = held - set(known)
    if unknown:
        absent = sorted(unknown, key=id_key)
        word = str(absent[0])
        raise GloamError(
            f"Ids {some(map(str, absent))} are not among the training ids of {splits.name}. "
            f"{did_you_mean(word, map(str, known)) if len(known) < 20 else f'They lie in {known[0]}..{known[-1]}.'}"
        )
    remaining = relabel(pid for pid in known if pid not in held)
    if not remaining or not held:
        raise GloamError(f"Holding out {len(held)} of {len(known)} ids of {splits.name} leaves one side empty.")

    test = divide(
        # An id that is a text is stood for by its label.
        [
            dataclasses.replace(r, pid=r.pid_raw if isinstance(r.pid_raw, int) else r.pid)
            for r in splits.train
            if r.pid_raw in held
        ],
        splits.name,
        "validation",
    )
    if not test.protocols or test.notice == NO_MATCH:
        raise GloamError(
            f"The {len(held)} held-out ids of {splits.name} give {len(test.query)} queries and {len(test.gallery)} "
            "gallery entries without a match. Hold out more ids, or choose the last epoch instead of validating."
        )
    headline = f"{splits.name}/validation"
    return dataclasses.replace(
        splits,
        train=with_labels((r for r in splits.train if r.pid_raw not in held), remaining),
        query=test.query,
        gallery=test.gallery,
        protocols={headline: test.protocols[headline]},
        label_map=remaining,
        expected_counts={},
        validation_pids=(),
        notice=" ".join(filter(None, (splits.notice, test.notice))) or None,
    )
