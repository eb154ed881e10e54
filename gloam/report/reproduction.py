"""``gloam reproduce``: everything that a published number consists of, and how near one comes to it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gloam.atomic import write_text
from gloam.datasets import get_dataset
from gloam.errors import GloamError
from gloam.recipes.recipe import Recipe, differing_keys, list_recipes, load_recipe, resolve
from gloam.recipes.sections import Expected
from gloam.report.finished_runs import System, read_run
from gloam.report.run_facts import read_facts
from gloam.report.score_tables import Format, score_table
from gloam.report.training_jobs import Job, run_jobs

_log = logging.getLogger(__name__)
SCORES = ("rank1", "mAP", "mINP")
PLAN, VERDICT = "reproduction.json", "verdict.json"
FOLDER = Path("reproductions")
# What a machine may decide: it is not part of what was published.
_FREE = ("data.root", "data.cache", "data.workers", "train.seed", "train.accelerator", "train.log_every")
_FREE_TOO = ("train.save_every", "train.devices", "data.options.trial")
_LEVEL = 0.95
_TABLES: dict[str, Format] = {"md": "markdown", "tex": "latex", "csv": "csv"}


@dataclass(frozen=True)
class Verdict:
    """One published number beside what was obtained; percent.

    Attributes:
        protocol: full name.
        score: rank1, mAP or mINP.
        published: the number.
        obtained: mean over seeds.
        spread: standard deviation between seeds; None for one.
        seeds: how many.
        distance: obtained - published.
        tolerance: half width of what counts as the same; None where that cannot be told.
        tolerance_source: how it was set.
        inside: whether the distance is within it; None where there is no tolerance.
        source: where the number was printed.
        conditions: how the published number was obtained, as far as the source says.
    """

    protocol: str
    score: str
    published: float
    obtained: float
    spread: float | None
    seeds: int
    distance: float
    tolerance: float | None
    tolerance_source: str
    inside: bool | None
    source: str
    conditions: str


@dataclass(frozen=True)
class Reproduction:
    """What a reproduction left behind.

    Attributes:
        folder: with runs, tables, report and verdict.
        verdicts: per published number.
        example: why the numbers cannot be compared with published ones, or None.
        table: of all scores, Markdown.
    """

    folder: Path
    verdicts: list[Verdict]
    example: str | None
    table: str


def plan_jobs(
    name: str, recipe: Recipe, words: Sequence[str], folder: Path, *, seeds: int = 3, trials: str | None = None
) -> list[Job]:
    """The trainings of a reproduction, one per seed and RegDB trial.

    Args:
        name: the recipe's name or file.
        recipe: with the words applied.
        words: flags of ``gloam train`` beside seed, trial and output.
        folder: of the reproduction.
        seeds: how many, from the recipe's seed on.
        trials: ``1-10`` or ``1,3,5``; all of the data set's if not given. Only for data that are split into trials.

    Raises:
        GloamError: bad seeds or trials.
    """
    if not 1 <= seeds <= 1000:
        raise GloamError("--seeds is a number of trainings from 1 to 1000.")
    every = _all_trials(recipe)
    numbers: list[int | None] = [*every] or [None]
    if trials is not None:
        if not every:
            raise GloamError(f"{recipe.data.name} is not split into trials: leave --trials out.")
        numbers = [*read_numbers(trials, "--trials")]
        for number in numbers:
            get_dataset(recipe.data.name).options["trial"].validate(recipe.data.name, "trial", number)
    jobs = []
    for seed in range(recipe.train.seed, recipe.train.seed + seeds):
        for number in numbers:
            label = f"seed-{seed}" if number is None else f"seed-{seed}_trial-{number:02d}"
            flags = [*words, "--train.seed", str(seed)]
            flags += [] if number is None else ["--data.options.trial", str(number)]
            jobs.append(Job(label, folder / "runs" / label, [name, *flags]))
    return jobs


def _all_trials(recipe: Recipe) -> range:
    """RegDB's splits into training and test people; none for other data."""
    option = get_dataset(recipe.data.name).options.get("trial")
    if option is None or option.least is None or option.most is None:
        return range(0)
    return range(int(option.least), int(option.most) + 1)


def read_numbers(text: str, flag: str) -> list[int]:
    """``1-3,7`` as [1, 2, 3, 7].

    Raises:
        GloamError: anything else.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(first + last) > 8:
            raise GloamError(f"{flag} takes numbers such as 1-10 or 1,3,5, not {text!r}.")
        found += range(int(first), int(last or first) + 1)
    if not found:
        raise GloamError(f"{flag} {text} names no number.")
    return list(dict.fromkeys(found))


def reproduce(
    name: str,
    recipe: Recipe,
    words: Sequence[str] = (),
    *,
    output: Path | None = None,
    seeds: int = 3,
    trials: str | None = None,
    jobs: int = 1,
    report: bool = True,
) -> Reproduction:
    """Train what a published number consists of, and judge. The same call goes on after any interruption.

    Args:
        name: the recipe's name or file.
        recipe: with the words applied; ``data.root`` is given.
        words: flags of ``gloam train`` that give it.
        output: folder; ``reproductions/<dataset>/<recipe>`` if not given.
        seeds: trainings with different seeds.
        trials: RegDB's trials.
        jobs: trainings at a time, on different devices where there are several.
        report: write ``report.html`` too.

    Raises:
        GloamError: a bad plan, a folder of another reproduction, or trainings that failed (the others are kept).
        Interrupted: Ctrl-C or SIGTERM, after the running trainings have saved.
    """
    if recipe.data.root is None:
        raise GloamError("Where are the data? Give --data.root DIR.")
    folder = output or FOLDER / (f"{recipe.data.name}/{Path(name).stem}")
    planned = plan_jobs(name, recipe, words, folder, seeds=seeds, trials=trials)
    changed = changed_flags(name, recipe)
    _claim(folder, name, recipe, changed)
    run_jobs(planned, at_once=jobs)
    system = System(recipe.method_name, tuple(read_run(job.folder, queries=True) for job in planned))
    verdicts = judge(recipe.expected, system)
    example = read_facts(system.runs[0]).example
    if changed:
        example = f"{', '.join(changed)} differ from the recipe, so this is no reproduction. {example or ''}".strip()
    if len({run.split for run in system.runs}) < (every := len(_all_trials(recipe))):
        example = f"Only some of the {every} trials were run. {example or ''}".strip()
    table = score_table([system])
    for suffix, kind in _TABLES.items():
        write_text(folder / f"table.{suffix}", score_table([system], format=kind))
    content = {"recipe": name, "example": example, "verdicts": [asdict(verdict) for verdict in verdicts]}
    write_text(folder / VERDICT, json.dumps(content, indent=2))
    if report:
        from gloam.report.html_report import write_report

        write_report([job.folder for job in planned], folder / "report.html")
    return Reproduction(folder, verdicts, example, table)


def changed_flags(name: str, recipe: Recipe) -> list[str]:
    """Flags, other than the machine's, that differ from the recipe as shipped."""
    mine, theirs = resolve(recipe).recipe, resolve(load_recipe(name)).recipe
    return [key for key in differing_keys(mine, theirs) if key not in (*_FREE, *_FREE_TOO, "plugins")]


def judge(expected: Sequence[Expected], system: System) -> list[Verdict]:
    """Published numbers beside obtained ones.

    The tolerance is the recipe's where its source states one. Otherwise it is half the 95 % interval in which one more
    training of the same kind would fall, ``t(n - 1) s sqrt(1 + 1 / n)`` for n seeds with standard deviation s: the
    published number is taken for such a training. With one seed there is none.
    """
    verdicts = []
    for one in expected:
        if one.protocol not in system.protocols:
            continue
        for name in SCORES:
            published = getattr(one, name)
            values = [100 * repeat.mean(one.protocol)[name] for repeat in system.repeats]
            if published is None:
                continue
            tolerance, how = _tolerance(one, values)
            distance = float(np.mean(values)) - published
            verdicts.append(
                Verdict(
                    protocol=one.protocol,
                    score=name,
                    published=published,
                    obtained=float(np.mean(values)),
                    spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
                    seeds=len(values),
                    distance=distance,
                    tolerance=tolerance,
                    tolerance_source=how,
                    inside=None if tolerance is None else abs(distance) <= tolerance,
                    source=one.source,
                    conditions=conditions(one),
                )
            )
    return verdicts


def _tolerance(expected: Expected, values: Sequence[float]) -> tuple[float | None, str]:
    if expected.tolerance is not None:
        return expected.tolerance, str(expected.tolerance_source)
    count = len(values)
    if count < 2:
        return None, "the source states none, and one seed shows no spread: give --seeds 3"
    from scipy import stats

    width = float(stats.t.ppf((1 + _LEVEL) / 2, count - 1)) * float(np.std(values, ddof=1)) * np.sqrt(1 + 1 / count)
    return float(width), f"95 % interval for one more training, from the spread of {count} seeds"


def conditions(expected: Expected) -> str:
    """How a published number was obtained, in words."""
    parts = [
        f"{expected.trials} trial{'s' * (expected.trials > 1)}" if expected.trials else "trials not stated",
        {True: "mirror images averaged", False: "no mirror images", None: "mirror images not stated"}[expected.mirror],
        f"epoch: {expected.epoch}" if expected.epoch else "epoch not stated",
    ]
    return ", ".join(parts)


def published_numbers(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Every published number of the library's recipes, with what was obtained in a folder of reproductions.

    Args:
        folder: where reproductions lie; verdicts below it are read.

    Returns:
        recipe, protocol, score, published, source, conditions, state ("never run here", or what was obtained), and
        distance in points or None. Reproductions with changed flags or other data do not count.
    """
    obtained: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob(f"**/{VERDICT}")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["example"] is None:
                for row in content["verdicts"]:
                    obtained[content["recipe"], row["protocol"], row["score"]] = row
        except (OSError, ValueError, KeyError, TypeError):
            _log.warning("%s is no verdict of gloam reproduce and is left out.", path)
    rows = []
    for name in list_recipes():
        for one in load_recipe(name).expected:
            for score in SCORES:
                if (published := getattr(one, score)) is None:
                    continue
                found = obtained.get((name, one.protocol, score))
                rows.append(
                    {
                        "recipe": name,
                        "protocol": one.protocol,
                        "score": score,
                        "published": published,
                        "source": one.source,
                        "conditions": conditions(one),
                        "state": "never run here" if found is None else _state(found),
                        "distance": None if found is None else found["distance"],
                    }
                )
    return rows


def _state(found: dict[str, Any]) -> str:
    words = {True: "inside the tolerance", False: "outside the tolerance", None: "no tolerance"}
    return f"{found['distance']:+.2f} over {found['seeds']} seed{'s' * (found['seeds'] > 1)}, {words[found['inside']]}"


def _claim(folder: Path, name: str, recipe: Recipe, changed: Sequence[str]) -> None:
    """The folder is this reproduction's, from now on or already."""
    content = resolve(recipe).recipe.model_dump(mode="json")
    # More seeds and trials may be added; data may move.
    kept = {"recipe": name, "changed": {key: _at(content, key) for key in changed}}
    place = folder / PLAN
    if place.is_file():
        try:
            known = json.loads(place.read_text(encoding="utf-8"))
        except ValueError as error:
            raise GloamError(f"{place} is damaged ({error}). Choose another --output.") from error
        if known != kept:
            raise GloamError(f"{folder} holds another reproduction: {known}. Choose another --output.")
    elif folder.is_dir() and any(folder.iterdir()):
        raise GloamError(f"{folder} is not empty and holds no reproduction. Choose another --output.")
    else:
        write_text(place, json.dumps(kept, indent=2))


def _at(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content
