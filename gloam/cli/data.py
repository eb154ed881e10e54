"""Commands about datasets: ``gloam data list``, ``check`` and ``draw``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gloam.cli.listing import Entry, show_entries
from gloam.console import console
from gloam.errors import GloamError, did_you_mean

if TYPE_CHECKING:
    from gloam.datasets.base import Dataset


def data_list(pattern: str = "*", /, json: bool = False) -> None:
    """List of the datasets gloam reads: published counts, how to obtain each and its page.

    Example:
        gloam data list "*1*"

    Args:
        pattern: shell wildcard over the names.
        json: print everything known about each as JSON.
    """
    from gloam.datasets import get_dataset, list_datasets

    names = list_datasets(pattern)
    if not names:
        raise GloamError(f"No dataset matches {pattern!r}. {did_you_mean(pattern, list_datasets())}")
    show_entries([_entry(get_dataset(name)) for name in names], as_json=json)


def data_check(name: str, root: Path, /, strict: bool = False, option: tuple[str, ...] = ()) -> int:
    """Compare a folder with what the dataset should look like: tree, counts, unreadable files, and recipes that fit.

    Example:
        gloam data check regdb /data/RegDB --option trial=3

    Args:
        name: dataset name (see "gloam data list").
        root: the dataset's folder; for own data a CSV or Parquet table, or a folder.
        strict: treat counts that differ from the published ones as errors.
        option: the dataset's own options, each as KEY=VALUE (RegDB: trial=3).
    """
    from gloam.datasets.check import check
    from gloam.recipes.fitting import find_fitting

    report = check(name, root, strict=strict, **dataset_options(name, option))
    console().print(report)
    for line in find_fitting(report.splits).lines():
        console().print(line, highlight=False)
    return 0 if report.ok else 2


def data_draw(
    layout: str,
    out: Path,
    /,
    ids: int = 60,
    images: int | None = None,
    frames: int | None = None,
    height: int = 128,
    width: int = 64,
    seed: int = 0,
    workers: int = 1,
) -> None:
    """Draw small synthetic people in both modalities and write them in a benchmark's layout.

    Scores on drawn data mean nothing beyond "the software works".

    Example:
        gloam data draw sysu_mm01 drawn --ids 60

    Args:
        layout: dataset name whose folder layout to write.
        out: folder to create; must not exist or be empty.
        ids: number of people, training and test together.
        images: images (or tracklets) per person and camera; the layout's own default if not given.
        frames: frames per tracklet in video layouts; the layout's own default if not given.
        height: image height in pixels.
        width: image width in pixels.
        seed: the same seed draws the same bytes.
        workers: drawing processes.
    """
    from gloam.drawing.dataset import draw_dataset

    counts = draw_dataset(
        layout,
        out,
        ids=ids,
        images=images,
        frames=frames,
        height=height,
        width=width,
        seed=seed,
        workers=workers,
    )
    console().print(f"{out}: " + ", ".join(f"{value:,} {key}" for key, value in counts.items()))


def _entry(cls: type[Dataset]) -> Entry:
    lines = [f"{cls.title}: {cls.setting()}", *cls.published(), cls.obtain, *filter(None, [cls.page]), cls.licence]
    return Entry(cls.name, lines, cls.describe())


def dataset_options(name: str | None, words: Sequence[str]) -> dict[str, Any]:
    """``trial=3`` and the like to keyword arguments; options that are texts are taken as they stand."""
    from gloam.datasets import get_dataset
    from gloam.recipes.reading import parse_yaml

    known = {} if name is None else get_dataset(name).options

    def is_text(key: str) -> bool:
        return key in known and (known[key].default is None or isinstance(known[key].default, str))

    if wrong := [word for word in words if not word.partition("=")[0].isidentifier() or "=" not in word]:
        raise GloamError(f"{wrong[0]!r} is not of the form KEY=VALUE, for example --option trial=3.")
    pairs = [(key, value) for key, _, value in (word.partition("=") for word in words)]
    return {key: value if is_text(key) else parse_yaml(value, f"--option {key}") for key, value in pairs}
