"""Everything a run knows about its data: splits, labels, hidden truth, stores."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gloam.datasets import DatasetSplits, Record
from gloam.datasets.fingerprint import data_fingerprint
from gloam.datasets.validation import hold_out
from gloam.datasets.weak import WeakLabels, shuffle_labels_per_modality
from gloam.devices import largest_memory
from gloam.errors import GloamError, did_you_mean
from gloam.evaluation.protocols import find_protocols
from gloam.inference.sources import load_splits, open_records
from gloam.methods.contract import Method
from gloam.models.backbone import check_size
from gloam.pixels.store import PixelStore
from gloam.recipes.recipe import DataConfig, Recipe, ResolvedRecipe, ResolvedStage
from gloam.sampling import IdentityBatches, PlainBatches

_log = logging.getLogger(__name__)


@dataclass
class TrainingData:
    """The data side of a run.

    Attributes:
        splits: what training uses (held-out identities removed, weak labels shuffled).
        test: the dataset's own splits, for protocols.
        validation: held-out training identities as a test, or None.
        records: training records in order; ``pid`` is the label that the method may see.
        store: pixels of the training records.
        truth: ``(N,)`` hidden true identity of every training record, for analysis only.
        weak: the hidden permutations of weak labels, or None.
    """

    splits: DatasetSplits
    test: DatasetSplits
    validation: DatasetSplits | None
    records: Sequence[Record]
    store: PixelStore
    truth: Tensor
    weak: WeakLabels | None = None

    def num_classes(self, method: type[Method[Any]]) -> int:
        """Identities that a method is told: none for an unsupervised one."""
        return 1 if method.is_unsupervised else self.splits.num_classes

    def labels(self, method: Method[Any]) -> Tensor:
        """``(N,)`` labels at the start: the records' own, or every record alone for an unsupervised method."""
        if method.is_unsupervised:
            return torch.arange(len(self.records))
        return torch.tensor([record.pid for record in self.records], dtype=torch.int64)

    def partners(self) -> Tensor | None:
        """``(V,)`` hidden infrared label of every weak visible label (-1: none).

        None without weak labels, and for data whose modalities share no identity: their correspondence is not recorded.
        """
        if self.weak is None or not set(self.weak.visible) & set(self.weak.infrared):
            return None
        infrared = {true: label for label, true in enumerate(self.weak.infrared)}
        return torch.tensor([infrared.get(true, -1) for true in self.weak.visible])

    def fingerprint(self) -> str:
        """Digest of file names and labels: tells whether two runs saw the same data."""
        return data_fingerprint(self.splits.train, self.test.query, self.test.gallery)


@dataclass
class DataLists:
    """The data side of a run before an image is opened.

    Attributes:
        config: the recipe's ``data`` section.
        splits: see :class:`TrainingData`, as all that follows.
        test: see there.
        validation: see there.
        weak: see there.
        truth: see there, for every record of the lists.
    """

    config: DataConfig
    splits: DatasetSplits
    test: DatasetSplits
    validation: DatasetSplits | None
    truth: Tensor
    weak: WeakLabels | None

    def num_classes(self, method: type[Method[Any]]) -> int:
        """Identities that a method is told: none for an unsupervised one."""
        return 1 if method.is_unsupervised else self.splits.num_classes

    def open(self, *, progress: bool = True) -> TrainingData:
        """Decode the training images, or find them decoded.

        Args:
            progress: show a bar.

        Raises:
            GloamError: unreadable images, or none.
        """
        splits, truth = self.splits, self.truth
        records, store = open_records(splits.train, splits.root, self.config, progress=progress)
        if len(records) != len(splits.train):
            kept = {record.paths[0] for record in records}
            # Any path: a tracklet may have lost its first frame.
            truth = truth[[not kept.isdisjoint(record.paths) for record in splits.train]]
        return TrainingData(
            splits=splits,
            test=self.test,
            validation=self.validation,
            records=records,
            store=store,
            truth=truth,
            weak=self.weak,
        )


def prepare_data(plan: ResolvedRecipe, *, weak: WeakLabels | None = None, progress: bool = True) -> TrainingData:
    """:func:`read_lists`, and the images opened."""
    return read_lists(plan, weak=weak).open(progress=progress)


def read_lists(plan: ResolvedRecipe, *, weak: WeakLabels | None = None) -> DataLists:
    """Load, hold out and shuffle what the recipe's stages train on; no image is opened.

    Args:
        plan: the whole run.
        weak: permutations of an earlier part of the run; drawn if not given.

    Raises:
        GloamError: data and a stage's method do not fit (no training records, one modality only, images for a video
            method), images that do not fit into memory, or saved permutations of other data.
    """
    recipe, stages = plan.recipe, plan.stages.values()
    test = load_splits(recipe.data)
    splits, validation = test, None
    if any(stage.recipe.evaluation.selection == "validation" for stage in stages):
        validation = hold_out(test, seed=recipe.train.seed)
        splits = replace(test, train=validation.train, label_map=validation.label_map)
    for stage in stages:
        _check_fit(splits, stage)
        # A misspelt protocol would be told only after training.
        find_protocols(test, stage.recipe.evaluation.protocols)
    _check_memory(test, stages)
    _warn_about_other_counts(recipe, test)
    truth = torch.tensor([record.pid for record in splits.train], dtype=torch.int64)
    if recipe.data.relabel == "none":
        weak = None
    elif weak is None:
        splits, weak = shuffle_labels_per_modality(splits, recipe.train.seed)
    else:
        splits = weak.apply(splits)
    return DataLists(recipe.data, splits, test, validation, truth, weak)


def _check_fit(splits: DatasetSplits, stage: ResolvedStage) -> None:
    recipe, method, name = stage.recipe, stage.method, stage.recipe.method_name
    if not splits.train:
        raise GloamError(f"{splits.name} at {splits.root} has no training records.")
    if not splits.labelled and not method.is_unsupervised:
        raise GloamError(
            f"Method {name!r} learns from identities, but {splits.name} does not say who is in its training images. "
            "Use cluster_contrast, spcl or metaprd, or give identities."
        )
    if recipe.evaluation.selection == "test" and not splits.protocols:
        raise GloamError(
            f"{splits.name} at {splits.root} has no test set, so evaluation.selection test has nothing to choose on. "
            "Use last or validation."
        )
    if method.needs_both_modalities(stage.options) and len(splits.modalities) < 2:
        modality = next(iter(splits.modalities)).name.lower()
        raise GloamError(
            f"Method {name!r} as configured learns across visible and infrared images, but {splits.name} has only "
            f"{modality} training images. For images of one modality use the recipes bot and agw of a visible dataset "
            "(own data: table/bot, table/agw_one_modality), or cluster_contrast, spcl or metaprd without labels."
        )
    if method.is_video and not recipe.data.frames:
        raise GloamError(f"Method {name!r} works on clips. Set data.frames (published: 6).")
    if recipe.data.frames and not method.is_video:
        raise GloamError(f"Method {name!r} works on single images. Remove data.frames.")
    feature = recipe.evaluation.feature
    if feature is not None and feature not in method.features:
        raise GloamError(f"Method {name!r} has no feature {feature!r}. {did_you_mean(feature, method.features)}")
    if (arch := getattr(stage.options, "arch", None)) is not None:
        # Before any image is decoded.
        check_size(arch, (recipe.data.height, recipe.data.width))
    _check_labels(stage)


def _check_memory(splits: DatasetSplits, stages: Iterable[ResolvedStage]) -> None:
    """A batch's images alone must fit: 8 bits as read, then float32 before and after augmentation."""
    memory = largest_memory()
    longest = max(len(splits.train), len(splits.query), len(splits.gallery))
    for stage in stages:
        data, sampler = stage.recipe.data, stage.recipe.sampler
        drawn = sampler.identities * sampler.instances if isinstance(sampler, IdentityBatches) else 1
        rows = max(drawn, sampler.batch_size if isinstance(sampler, PlainBatches) else 1)
        rows = max(rows, min(stage.recipe.evaluation.batch_size, longest))
        needed = rows * (data.frames or 1) * 3 * data.height * data.width * 9
        if memory is not None and needed > memory:
            raise GloamError(
                f"A batch of {rows:,} images of {data.height} x {data.width} needs {needed / 2**30:,.0f} GiB before "
                f"any network, this machine has {memory / 2**30:,.0f} GiB. Lower data.height and data.width, the sizes "
                "of the sampler section, or evaluation.batch_size."
            )


def _warn_about_other_counts(recipe: Recipe, splits: DatasetSplits) -> None:
    """Scores are comparable on the published training set only."""
    stated = recipe.trains_on
    if stated is not None and len(splits.train) != stated.records:
        kind = "images" if stated.images else "tracklets"
        _log.warning(
            "This recipe's published run trained on %s %s of %s people (%s); these data have %s. "
            "Its scores cannot be compared with the published ones.",
            f"{stated.records:,}", kind, f"{stated.identities:,}", stated.source, f"{len(splits.train):,}",
        )  # fmt: skip


def _check_labels(stage: ResolvedStage) -> None:
    """Shuffled labels must not be merged into one label space, and a weak method must not get labels that agree."""
    spaces = stage.options.label_spaces
    shuffled = stage.recipe.data.relabel == "per_modality"
    if stage.method.is_unsupervised or spaces == "either" or shuffled == (spaces == "two"):
        return
    name = stage.recipe.method_name
    if shuffled:
        raise GloamError(
            f"data.relabel per_modality numbers the identities of each modality independently, but method {name!r} as "
            "configured takes equal labels for the same person: most of its labels would be wrong. Set data.relabel "
            "none, or use pf_mgcd or wsl_vireid with weak supervision."
        )
    raise GloamError(
        f"Method {name!r} as configured learns without knowing who is who across the modalities, but data.relabel none "
        "leaves the answer in the labels. Set data.relabel per_modality; for the upper bound with one label space set "
        "method.supervision supervised (wsl_vireid) or method.relabel false (pf_mgcd)."
    )
