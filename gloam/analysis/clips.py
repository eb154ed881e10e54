"""Does a video model use its clips? Scores of a trained run when the clips are taken away in three ways."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from gloam.atomic import write_text
from gloam.datasets import Record
from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results, break_name, evaluate
from gloam.inference.loading import load_model
from gloam.inference.model import Model
from gloam.inference.sources import open_test_records

if TYPE_CHECKING:
    from rich.table import Table

Change = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def one_frame(clips: Tensor, modalities: Tensor, generator: torch.Generator) -> Tensor:
    """The first frame alone, ``(n, 1, 3, H, W)``.

    For M3-ReID this equals the first frame repeated T times: attention over copies averages copies.
    """
    return clips[:, :1]


def shuffled_frames(clips: Tensor, modalities: Tensor, generator: torch.Generator) -> Tensor:
    """Every clip's own frames in random order."""
    order = torch.rand(clips.shape[:2], generator=generator).argsort(dim=1).to(clips.device)
    return clips[torch.arange(len(clips), device=clips.device)[:, None], order]


def foreign_frames(clips: Tensor, modalities: Tensor, generator: torch.Generator) -> Tensor:
    """The first frame stays; every later one comes from another random clip of the same batch and modality.

    No clip keeps a later frame of its own. One that is alone in its modality takes frames of the other one.

    Raises:
        GloamError: a batch of one clip.
    """
    if len(clips) < 2:
        raise GloamError("Foreign frames come from other clips, but a batch holds only one. Raise the batch size.")
    rows = torch.arange(len(clips))[:, None].repeat(1, clips.shape[1])
    kinds = modalities.cpu()
    for modality in kinds.unique():
        same = torch.nonzero(kinds == modality).flatten()
        others = torch.nonzero(kinds != modality).flatten()
        for position in range(1, clips.shape[1]):
            if len(same) == 1:
                rows[same, position] = others[torch.randint(len(others), (1,), generator=generator)]
                continue
            # Each clip gives its frame to the one some places behind it in a random order: never to itself.
            order = same[torch.randperm(len(same), generator=generator)]
            shift = int(torch.randint(1, len(same), (1,), generator=generator))
            rows[order, position] = order.roll(shift)
    return clips[rows.to(clips.device), torch.arange(clips.shape[1], device=clips.device)]


# Name -> what happens to a batch of clips (n, T, 3, H, W), modalities (n,); None: nothing.
CONTROLS: dict[str, Change | None] = {
    "clips": None,
    "one frame": one_frame,
    "shuffled": shuffled_frames,
    "foreign frames": foreign_frames,
}


@dataclass(frozen=True)
class ClipControls:
    """Scores of a run under every control.

    Attributes:
        results: control -> scores.
        order_effect: largest difference of a feature's length-1 vector between ``clips`` and ``shuffled``, 0..2.
    """

    results: dict[str, Results]
    order_effect: float

    @property
    def order_matters(self) -> bool:
        """False for a network that gives a shuffled clip the same feature, up to rounding."""
        return self.order_effect > 1e-3

    def rows(self) -> list[dict[str, Any]]:
        """One row per protocol and control: means over the trials, as fractions."""
        return [
            {"protocol": protocol, "input": control, **result.mean(protocol)}
            for protocol in next(iter(self.results.values())).trials
            for control, result in self.results.items()
        ]

    def to_csv(self, path: str | Path) -> None:
        """:meth:`rows` as a table, written atomically."""
        text, rows = io.StringIO(), self.rows()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())

    def table(self) -> Table:
        """Rank-1, mAP and mINP in percent, and the loss of rank-1 and mAP against whole clips."""
        from rich import box
        from rich.table import Table

        verdict = "depends on" if self.order_matters else "ignores"
        table = Table(
            title="What the network makes of its clips",
            title_justify="left",
            caption=f"The feature {verdict} the order of frames (largest change {self.order_effect:.1e}).",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            padding=0,
        )
        for name in ("protocol", "input"):
            table.add_column(name, no_wrap=True)
        for name in ("R1", "mAP", "mINP", "R1 lost", "mAP lost"):
            table.add_column(name, justify="right", min_width=5)
        whole: dict[str, Any] = {}
        protocol = iter("")
        for row in self.rows():
            if row["input"] == "clips":
                whole, protocol = row, iter(break_name(row["protocol"].split("/")[-1]).splitlines())
            cells = [row["rank1"], row["mAP"], row["mINP"], whole["rank1"] - row["rank1"], whole["mAP"] - row["mAP"]]
            table.add_row(next(protocol, ""), row["input"], *(f"{100 * cell:.2f}" for cell in cells))
        return table


def score_clip_controls(
    run: Path,
    *,
    data_root: Path | None = None,
    protocols: Sequence[str] | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> ClipControls:
    """Score a trained video run on whole clips, one frame, shuffled frames and foreign frames.

    Every clip is decoded once. Records are visited in random order, so that the clips of a batch show different people
    (``foreign frames`` draws from the batch).

    Args:
        run: run folder or checkpoint file.
        data_root: the dataset's folder, where it moved.
        protocols: names or wildcards; the recipe's if not given.
        batch_size: tracklets per forward pass.
        workers: loader processes; the recipe's if not given.
        seed: of the random order and of all shuffles.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Returns:
        Scores. Memory: four features per query and gallery record.

    Raises:
        GloamError: a method for single images, several clips per tracklet, or what :func:`load_model` raises.
    """
    model = load_model(run, device=device)
    recipe = model.recipe
    if not model.is_video or not recipe.data.frames:
        raise GloamError(f"{run} is a run of {recipe.method_name!r}, which has no clips. Give a run of a video method.")
    if recipe.data.test_clip == "all":
        raise GloamError(
            f"{run} is tested with all clips of a tracklet (data.test_clip all); gloam clips changes one clip of each. "
            "Give a run with another rule, for example evenly."
        )
    splits = model.load_splits(data_root)
    sides = []
    for number, part in enumerate((splits.query, splits.gallery)):
        records, store = open_test_records(part, splits.root, recipe.data)
        sides.append(_features(model, records, store, batch_size, workers, seed * 2 + number))
    whole, shuffled = (list(CONTROLS).index(name) for name in ("clips", "shuffled"))
    effect = max(float((side[:, whole] - side[:, shuffled]).norm(dim=1).max()) for side in sides)
    wanted = protocols or recipe.evaluation.protocols
    return ClipControls(
        {
            name: evaluate(splits, *(side[:, k] for side in sides), protocols=wanted, metric=recipe.evaluation.metric)
            for k, name in enumerate(CONTROLS)
        },
        effect,
    )


def _features(
    model: Model,
    records: Sequence[Record],
    store: Any,
    batch_size: int | None,
    workers: int | None,
    seed: int,
) -> Tensor:
    """``(N, controls, D)`` unit features in record order."""
    generator = torch.Generator().manual_seed(seed)
    batch_size = model.recipe.evaluation.batch_size if batch_size is None else batch_size
    while len(records) > 1 and len(records) % batch_size == 1:
        batch_size += 1  # no last batch of one clip, which has no other to take frames from

    def compute(clips: Tensor, modalities: Tensor) -> Tensor:
        outputs = []
        for change in CONTROLS.values():
            changed = clips if change is None else change(clips, modalities, generator)
            output = model.extract(changed, modalities)
            if model.mirror:
                output = unit_length(output + model.extract(changed.flip(-1), modalities), dim=1)
            outputs.append(output)
        return torch.stack(outputs, dim=1)

    order = torch.randperm(len(records), generator=generator)
    found = model.compute(
        records,
        store,
        function=compute,
        batch_size=batch_size,
        workers=workers,
        indices=order.numpy().astype(np.int64),
        progress="clip features",
    )
    return found[order.argsort()]
