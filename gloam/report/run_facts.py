"""What a run folder says of its training: flags that differ, counts, surroundings, speed, warnings."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gloam.errors import GloamError
from gloam.recipes.recipe import Recipe, differing_keys, list_recipes, load_recipe, resolve
from gloam.report.finished_runs import FinishedRun

_FREE = ("data.root", "data.cache", "data.workers", "train.accelerator", "train.log_every", "train.save_every")
_WORDS = ("description", "expected", "trains_on", "plugins", "loggers", "logger_options")
_WARNING = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?:WARNING|ERROR): (.*)$")


@dataclass(frozen=True)
class RunFacts:
    """Facts of one run, in words.

    Attributes:
        recipe_name: the published recipe that it comes nearest to, or None.
        changed: (flag, in the recipe, in the run).
        facts: (what, value) in order.
        counts: (what, found, published or None).
        example: why its scores cannot be compared with published ones, or None.
        warnings: what was logged.
    """

    recipe_name: str | None
    changed: list[tuple[str, str, str]]
    facts: list[tuple[str, str]]
    counts: list[tuple[str, int, int | None]]
    example: str | None
    warnings: list[str]


def read_facts(run: FinishedRun) -> RunFacts:
    """Read what the run folder holds; what an old run lacks is left out."""
    folder = run.file.parent
    name, changed = (None, []) if run.recipe is None else _nearest_recipe(run.recipe)
    counts = {str(key): int(value) for key, value in run.environment.get("data_counts", {}).items()}
    return RunFacts(
        recipe_name=name,
        changed=changed,
        facts=_facts(run, folder),
        counts=_counts(run.recipe, counts),
        example=_example(run.recipe, counts),
        warnings=_warnings(folder / "log.txt"),
    )


def _nearest_recipe(recipe: Recipe) -> tuple[str | None, list[tuple[str, str, str]]]:
    """The shipped recipe of the same data and method with the fewest other flags, and these."""
    best: tuple[int, str, Recipe, list[str]] | None = None
    mine = resolve(recipe).recipe
    for name in (*list_recipes(f"{recipe.data.name}/*"), *list_recipes("demo/*")):
        try:
            other = resolve(load_recipe(name)).recipe
        except GloamError:
            continue  # needs a package that is not here
        if other.method_name != recipe.method_name or other.data.name != recipe.data.name:
            continue
        keys = [k for k in differing_keys(mine, other) if k not in _FREE and k.split(".")[0] not in _WORDS]
        if best is None or len(keys) < best[0]:
            best = (len(keys), name, other, keys)
    if best is None:
        return None, []
    there, here = best[2].model_dump(mode="json"), mine.model_dump(mode="json")
    return best[1], [(key, _value(there, key), _value(here, key)) for key in best[3]]


def _value(content: Mapping[str, Any], key: str) -> str:
    place: Any = content
    for part in key.split("."):
        if not isinstance(place, Mapping) or part not in place:
            return "-"
        place = place[part]
    return "none" if place is None else str(place)


def _facts(run: FinishedRun, folder: Path) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if run.recipe is not None:
        facts += [("method", run.recipe.method_name), ("dataset", run.recipe.data.name)]
        facts += [("stages", ", ".join(run.recipe.stages))] if run.recipe.stages else []
        facts.append(("seed", str(run.recipe.train.seed)))
    facts += [(key, value) for key, value in run.results.notes.items() if key != "best"]
    around = run.environment
    facts += [
        (key, str(around[key])) for key in ("gloam", "python", "platform", "device", "processes") if key in around
    ]
    facts += [(key, str(value)) for key, value in around.get("packages", {}).items() if key in ("torch", "timm")]
    if "data_fingerprint" in around:
        facts.append(("data fingerprint", str(around["data_fingerprint"])))
    rows = _rows(folder / "metrics.csv")
    seconds = [number for row in rows if (number := _number(row.get("seconds"))) is not None]
    speed = [number for row in rows if (number := _number(row.get("images_per_second"))) is not None]
    if rows:
        facts.append(("epochs", str(len(rows))))
    if seconds:
        facts.append(("training time", _duration(sum(seconds))))
    if speed:
        facts.append(("images per second", f"{sorted(speed)[len(speed) // 2]:,.0f} (median of the epochs)"))
    return facts


def _counts(recipe: Recipe | None, counts: Mapping[str, int]) -> list[tuple[str, int, int | None]]:
    told = recipe.trains_on if recipe else None
    published = {}
    if told is not None:
        published = {"train_records": told.records, "train_ids": told.identities}
    shown = [key for key in counts if key.endswith(("_ids", "_records")) and counts[key]]
    return [(key.replace("_", " "), counts[key], published.get(key)) for key in shown]


def _example(recipe: Recipe | None, counts: Mapping[str, int]) -> str | None:
    told = recipe.trains_on if recipe else None
    if told is None or not counts:
        return None
    found = counts.get("train_records", 0), counts.get("train_ids", 0)
    if found == (told.records, told.identities):
        return None
    return (
        f"This run trained on {found[0]:,} records of {found[1]:,} people; the published data have {told.records:,} of "
        f"{told.identities:,} ({told.source}). Its scores are an example and cannot be compared with published ones."
    )


def _warnings(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return list(dict.fromkeys(found[1] for line in lines if (found := _WARNING.match(line))))


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
