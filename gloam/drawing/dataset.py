"""Drawn people: a benchmark's folder without anybody's images, for tests, documentation and the demo.

Scores on drawn data mean nothing beyond "the software works".
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gloam.console import console
from gloam.errors import GloamError, WriteError, describe, did_you_mean
from gloam.image_files import save_image

if TYPE_CHECKING:
    from gloam.drawing.layouts import Layout
    from gloam.drawing.render import Shot

MIN_IDS = 4
MIN_HEIGHT, MIN_WIDTH, MAX_SIDE = 16, 8, 2048
JPEG_QUALITY = 90
# Small enough to keep all workers busy, large enough to reuse a person's colours.
_CHUNK = 64


def draw_dataset(
    layout: str,
    out: Path,
    *,
    ids: int = 60,
    images: int | None = None,
    frames: int | None = None,
    height: int = 128,
    width: int = 64,
    seed: int = 0,
    workers: int = 1,
    progress: bool = True,
) -> dict[str, int]:
    """Draw synthetic people and write them in the layout of a benchmark, with all its annotation files.

    *Source*: docs/datasets.md (files); the drawing is gloam's own. A person has proportions, hair,
    garments with patterns, carried things and a gait; an image has view, pose, crop, occlusion, place, light and
    noise. Infrared tones are drawn independently of visible colours. Every image depends on (seed, person, camera,
    image number) only, so the same arguments write the same bytes, whatever ``workers`` is.

    Args:
        layout: one of the ten benchmark names, e.g. ``"sysu_mm01"``.
        out: folder to create; may exist if it is empty. It appears only when everything is drawn.
        ids: number of people, training and test together (BUPTCampus: auxiliary people, DukeMTMC and Market:
            distractors come on top); at least 4.
        images: images (video layouts: tracklets) per person, camera and modality; default: the layout's own. Visible
            benchmarks add one query image per test person and camera.
        frames: frames per tracklet, give or take an eighth; default: the layout's own. Layouts of single images
            ignore it.
        height: of the images, in pixels.
        width: of the images, in pixels.
        seed: of the world, 0 or larger.
        workers: drawing processes.
        progress: show a progress bar.

    Returns:
        what was drawn, by noun: ``images``, ``people``, and what the layout adds (``tracklets``, ...).

    Raises:
        GloamError: unknown layout, sizes that cannot be drawn, or ``out`` is not empty.
    """
    from gloam.drawing.layouts import LAYOUTS, Sizes

    if layout not in LAYOUTS:
        raise GloamError(f"There is no layout called {layout!r} to draw. {did_you_mean(layout, LAYOUTS)}")
    chosen = LAYOUTS[layout]
    _check(layout, chosen, ids, images, frames, height, width, seed, workers)
    out = Path(out).expanduser()
    _check_folder(out)
    sizes = Sizes(ids, images or chosen.images, frames or chosen.frames, seed)
    plan = chosen.plan(sizes)
    with _new_folder(out) as temporary:
        for folder in {*plan.folders, *(shot.path.rpartition("/")[0] for shot in plan.shots)}:
            (temporary / folder).mkdir(parents=True, exist_ok=True)
        for name, content in plan.texts.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8", newline="\n")
        _draw_all(temporary, plan.shots, seed, height, width, workers, progress)
    return {"images": len(plan.shots), **plan.counts}


def _check(
    layout: str,
    chosen: Layout,
    ids: int,
    images: int | None,
    frames: int | None,
    height: int,
    width: int,
    seed: int,
    workers: int,
) -> None:
    if ids < MIN_IDS:
        raise GloamError(
            f"{ids} people are too few: training and test need two each. Ask for ids of {MIN_IDS} or more."
        )
    if ids > 9999:
        raise GloamError(f"{ids:,} people do not fit the four digits of the layouts' names. Ask for 9,999 or fewer.")
    if images is not None and not 1 <= images <= 1000:
        raise GloamError(f"images is {images}; it must lie between 1 and 1,000 per person and camera.")
    if frames is not None and chosen.frames and not chosen.least_frames <= frames <= 1000:
        dropped = " (its loader drops shorter tracklets)" if chosen.least_frames > 1 else ""
        raise GloamError(f"frames is {frames}; {layout} needs {chosen.least_frames} to 1,000{dropped}.")
    if not (MIN_HEIGHT <= height <= MAX_SIDE and MIN_WIDTH <= width <= MAX_SIDE):
        raise GloamError(
            f"Images of {height} x {width} pixels cannot be drawn: the height must lie between {MIN_HEIGHT} and "
            f"{MAX_SIDE}, the width between {MIN_WIDTH} and {MAX_SIDE}."
        )
    if seed < 0:
        raise GloamError(f"The seed is {seed}; it must be 0 or larger.")
    if workers < 1:
        raise GloamError(f"workers is {workers}; at least one process must draw.")


def _check_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise GloamError(f"{out} exists and is not empty. Name a new folder, or delete it first.")


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its name on success and vanishes on any failure."""
    temporary = out.absolute().with_name(f".{out.absolute().name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise GloamError(f"Cannot create a folder beside {out}: {error.strerror}. Choose another place.") from error
        yield temporary
        # The name may have been filled in the meantime; renaming replaces an empty folder only.
        _check_folder(out)
        os.replace(temporary, out)
    except OSError as error:
        raise WriteError(f"{describe(error, out)} Nothing was written.", error.errno) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _draw_all(
    root: Path, shots: Sequence[Shot], seed: int, height: int, width: int, workers: int, progress: bool
) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    chunks = [shots[start : start + _CHUNK] for start in range(0, len(shots), _CHUNK)]
    columns = (TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), disable=not progress, transient=True) as bar:
        task = bar.add_task("drawing", total=len(shots))
        if workers == 1 or len(chunks) == 1:
            for chunk in chunks:
                bar.advance(task, _draw_chunk(root, chunk, seed, height, width))
            return
        from concurrent.futures import ProcessPoolExecutor, as_completed
        from multiprocessing import get_context

        # Spawned, not forked: the calling process may hold threads or an accelerator.
        with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(_draw_chunk, root, chunk, seed, height, width) for chunk in chunks]
            try:
                for job in as_completed(jobs):
                    bar.advance(task, job.result())
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _draw_chunk(root: Path, shots: Sequence[Shot], seed: int, height: int, width: int) -> int:
    """Draw and write some images; returns their number."""
    from PIL import Image

    from gloam.drawing.render import draw_image

    for shot in shots:
        image = Image.fromarray(draw_image(seed, shot, height, width))
        save_image(image, root / shot.path, **({} if shot.path.endswith(".bmp") else {"quality": JPEG_QUALITY}))
    return len(shots)
