"""Calibrations of runs and of features: who may take part, and where the result lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from gloam.datasets import DatasetSplits, Record, get_dataset, hold_out, load_dataset
from gloam.datasets.fingerprint import data_fingerprint
from gloam.datasets.records import CameraRule
from gloam.datasets.weak import WeakLabels
from gloam.errors import GloamError
from gloam.evaluation.calibrate import TARGETS, Fit, fit_calibration
from gloam.evaluation.calibration import Calibration, DataStamp, ModelStamp, calibration_file
from gloam.inference.checkpoint import Checkpoint, find_checkpoint
from gloam.inference.features import UNKNOWN, Features
from gloam.inference.loading import load_model
from gloam.inference.sources import load_splits, open_test_records

Part = Literal["test", "held-out"]


def calibrate(
    features: Features,
    *,
    camera_rule: CameraRule = "same_id_same_cam",
    targets: Sequence[float] = TARGETS,
    probability: Fit = "auto",
    resamples: int = 200,
    confidence: float = 0.95,
    max_images: int = 12_000,
    seed: int = 0,
    data: DataStamp | None = None,
) -> Calibration:
    """What the scores of a model mean, from features of people it was not trained on.

    Args:
        features: rows with ``pid`` and ``cam``; rows of unknown people (pid -1) are left out.
        camera_rule: which pairs do not count; see :func:`gloam.evaluation.calibrate.fit_calibration`, as for all below.
        targets: false match rates.
        probability: ``auto``, ``logistic`` or ``isotonic``.
        resamples: draws of identities behind the intervals.
        confidence: of the intervals.
        max_images: more images than this are thinned.
        seed: of all draws.
        data: what is known of the images.

    Raises:
        GloamError: too few people, or no pair of modalities with both kinds of pairs.
    """
    known = features.take((features.columns["pid"].astype(str) != str(UNKNOWN)).to_numpy())
    if not len(known):
        raise GloamError("Nobody knows who is in these images. A calibration needs identities (column pid).")
    records = known.records()
    stamp = data or DataStamp(
        name="features", fingerprint=data_fingerprint(records), identities=0, images=len(known), images_used=0
    )
    return fit_calibration(
        known.vectors,
        [record.pid for record in records],
        [record.cam for record in records],
        known.modalities,
        model=ModelStamp(digest=known.fingerprint.digest, name=known.fingerprint.name),
        data=stamp,
        camera_rule=camera_rule,
        targets=targets,
        probability=probability,
        resamples=resamples,
        confidence=confidence,
        max_images=max_images,
        seed=seed,
    )


def calibrate_run(
    run: str | Path,
    *,
    data_root: Path | None = None,
    data_name: str | None = None,
    data_options: Mapping[str, Any] | None = None,
    part: Part = "test",
    other_people: bool = False,
    feature: str | None = None,
    mirror: bool | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    output: Path | None = None,
    **options: Any,
) -> tuple[Calibration, Path]:
    """Calibrate a run on people it was not trained on, and keep the result in its folder.

    Args:
        run: run folder or checkpoint file.
        data_root: the dataset's folder, where it moved, or of another dataset.
        data_name: another dataset than the run's own, for example ``table`` for own data.
        data_options: options of that dataset.
        part: ``test``: people of query and gallery; ``held-out``: those that validation set aside from training.
        other_people: the user vouches that nobody of another dataset was trained on.
        feature: one of the method's features; the recipe's if not given.
        mirror: average with mirror images; the recipe's choice if not given.
        batch_size: images per forward pass.
        device: ``auto``, ``cpu``, ``cuda``, ...
        output: file to write; ``calibration.json`` in the run folder if not given.
        **options: ``targets, probability, resamples, confidence, max_images, seed`` of :func:`calibrate`.

    Returns:
        The calibration and its file.

    Raises:
        GloamError: people that were trained on or may have been, and what :func:`calibrate` raises.
    """
    place = find_checkpoint(run)
    checkpoint = Checkpoint.load(place)
    config = checkpoint.stage_recipe().data
    if data_name is None and not data_options:
        splits = load_splits(config, data_root)
    else:
        if data_root is None:
            raise GloamError(f"Where is {data_name or config.name}? Give its folder with --data.root.")
        base = config.options if data_name in (None, config.name) else {}
        splits = load_dataset(data_name or config.name, data_root, **{**base, **(data_options or {})})
    chosen = people_to_calibrate(splits, checkpoint, part)
    disjoint = require_other_people(splits, chosen, checkpoint, other_people)
    model = load_model(run, device=device, feature=feature, mirror=mirror)
    records, store = open_test_records(chosen, splits.root, model.recipe.data)
    features = model.embed_records(records, store, batch_size=batch_size, progress="embedding")
    stamp = DataStamp(
        name=splits.name,
        part=part,
        fingerprint=data_fingerprint(chosen),
        identities=len({record.pid_raw for record in chosen}),
        images=len(chosen),
        images_used=0,
        disjoint=disjoint,
    )
    rule = next((protocol.camera_rule for protocol in splits.protocols.values()), "same_id_same_cam")
    # Where a protocol hides nothing (RegDB), images of one camera still show one moment: no evidence of anything.
    calibration = calibrate(
        features, camera_rule="sysu" if rule == "sysu" else "same_id_same_cam", data=stamp, **options
    )
    target = output or calibration_file(run)
    return calibration, calibration.save(target)


def people_to_calibrate(splits: DatasetSplits, checkpoint: Checkpoint, part: Part) -> tuple[Record, ...]:
    """Every record of the part once; distractors, who are nobody's match, are left out.

    Raises:
        GloamError: the run held nobody out, or there is no such part.
    """
    if part == "held-out":
        if not _holds_out(checkpoint):
            raise GloamError(
                "The run trained on everybody (no stage has evaluation.selection validation), so nobody was held out. "
                "Calibrate on the test people: --part test."
            )
        splits = hold_out(splits, seed=checkpoint.recipe.train.seed)
    searched = {record.pid_raw for record in splits.query}
    chosen = tuple(dict.fromkeys(r for r in (*splits.query, *splits.gallery) if r.pid_raw in searched))
    if not chosen:
        raise GloamError(f"{splits.name} at {splits.root} has no test people to calibrate on.")
    return chosen


def require_other_people(
    splits: DatasetSplits, chosen: Sequence[Record], checkpoint: Checkpoint, other_people: bool
) -> Literal["checked", "stated"]:
    """How it is known that nobody of ``chosen`` was trained on.

    The data are the run's own if their fingerprint is; then the run's training identities decide.

    Raises:
        GloamError: somebody was, or nobody can tell.
    """
    own = splits.name == checkpoint.stage_recipe().data.name
    trained = _without_held_out(splits, checkpoint) if own else None
    same = trained is not None and _fingerprint(trained, splits, checkpoint) == checkpoint.fingerprint
    same = same and splits.labelled  # nobody knows who is in unlabelled training images
    known: set[str] = set()
    if own and not get_dataset(splits.name).numbers_test_ids_anew:
        if same and trained is not None:
            known = {str(record.pid_raw) for record in trained.train}
        elif checkpoint.weak is None and splits.name != "table":  # tables name their people as they please
            known = {str(key) for key in checkpoint.label_map}
    if common := known & {str(record.pid_raw) for record in chosen}:
        raise GloamError(
            f"{len(common)} of the people at {splits.root} were trained on (for example {min(common)!r}). Their "
            "scores are better than anybody else's will be: calibrate on people the model has not seen."
        )
    if same:
        return "checked"
    if not other_people:
        why = "are not the data of the training (their fingerprint differs)" if own else "are another dataset"
        raise GloamError(
            f"{splits.name} at {splits.root} {why}, so nobody can tell whether the model was trained on these people. "
            "If you know that it was not, say --other-people."
        )
    return "stated"


def _holds_out(checkpoint: Checkpoint) -> bool:
    return any(stage.evaluation.selection == "validation" for stage in checkpoint.recipe.resolved_stages().values())


def _without_held_out(splits: DatasetSplits, checkpoint: Checkpoint) -> DatasetSplits | None:
    """What a run like this one would train on; None where these data cannot be its own."""
    if not _holds_out(checkpoint):
        return splits
    try:
        held = hold_out(splits, seed=checkpoint.recipe.train.seed)
    except GloamError:
        return None
    return replace(splits, train=held.train, label_map=held.label_map)


def _fingerprint(trained: DatasetSplits, splits: DatasetSplits, checkpoint: Checkpoint) -> str:
    """The fingerprint that a run on these data would have."""
    if checkpoint.weak is not None:
        try:
            trained = WeakLabels.from_dict(checkpoint.weak).apply(trained)
        except GloamError:  # permutations of other people
            return ""
    return data_fingerprint(trained.train, splits.query, splits.gallery)
