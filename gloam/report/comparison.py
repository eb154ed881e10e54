"""Runs against a baseline: differences on the same queries, with intervals over people and a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gloam.errors import GloamError, did_you_mean
from gloam.evaluation.query_scores import QueryScores
from gloam.evaluation.significance import DRAWS, holm, paired_difference
from gloam.report.finished_runs import System, chosen_protocols, read_systems

if TYPE_CHECKING:
    from rich.console import Group

SCORES = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
_SIGNIFICANT = 0.05
Key = tuple[int, int, str]  # split, trial, image


@dataclass(frozen=True)
class Comparison:
    """One system against the baseline, one protocol, one score; shares are fractions.

    Attributes:
        system: label.
        protocol: full name.
        score: rank1, mAP, ...
        value: the system's score, mean over its seeds.
        baseline_value: the baseline's.
        difference: value - baseline_value.
        low: lower end of the 95 % interval of the difference, over the people searched for.
        high: upper end.
        p_value: of the sign-flip test.
        p_holm: corrected for all comparisons made together.
        people: identities among the queries.
        queries: queries that count, over all trials.
        seeds: trainings of the system.
        seed_spread: standard deviation between them; None for one.
        baseline_seeds: trainings of the baseline.
        baseline_seed_spread: standard deviation between them; None for one.
    """

    system: str
    protocol: str
    score: str
    value: float
    baseline_value: float
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    people: int
    queries: int
    seeds: int
    seed_spread: float | None
    baseline_seeds: int
    baseline_seed_spread: float | None

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.p_holm >= _SIGNIFICANT:
            return "not told apart"
        return "better" if self.difference > 0 else "worse"


@dataclass(frozen=True)
class Comparisons:
    """Everything compared in one go.

    Attributes:
        baseline: its label.
        systems: label -> folders of its runs.
        rows: protocol by protocol, system by system.
        seed: of the draws.
        draws: number of them.
    """

    baseline: str
    systems: dict[str, list[str]]
    rows: tuple[Comparison, ...]
    seed: int
    draws: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as fractions."""
        return {
            "baseline": self.baseline,
            "systems": self.systems,
            "interval": "95 %, paired bootstrap over identities",
            "test": "sign flips of identities, two-sided; p_holm is corrected for all rows",
            "draws": self.draws,
            "seed": self.seed,
            "comparisons": [{**asdict(row), "verdict": row.verdict} for row in self.rows],
            "remark": remark(self.rows),
        }

    def table(self) -> Group:
        """One table per protocol, percent, for terminals of 80 columns."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        parts: list[Any] = []
        for protocol in dict.fromkeys(row.protocol for row in self.rows):
            title = f"{protocol}: difference to {self.baseline}, percentage points"
            table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
            table.add_column("run", overflow="fold")
            for name in ("score", "value", "diff.", "95 % interval", "p", "p Holm"):
                table.add_column(name, justify="left" if name == "score" else "right", no_wrap=True)
            table.add_column("seeds")
            for row in self.rows:
                if row.protocol == protocol:
                    interval = f"{100 * row.low:+.2f} to {100 * row.high:+.2f}"
                    table.add_row(
                        f"{row.system}: {row.verdict}",
                        row.score,
                        f"{100 * row.value:.2f}",
                        f"{100 * row.difference:+.2f}",
                        interval,
                        p_text(row.p_value),
                        p_text(row.p_holm),
                        seeds_text(row.seeds, row.seed_spread),
                    )
            parts.append(table)
        parts.append(Text(remark(self.rows)))
        return Group(*parts)


def compare_runs(
    runs: Sequence[Path],
    *,
    baseline: Path | None = None,
    protocols: Sequence[str] = (),
    scores: Sequence[str] = ("rank1", "mAP"),
    seed: int = 0,
    draws: int = DRAWS,
) -> Comparisons:
    """Compare runs with a baseline on the queries that both ranked. Runs that differ in seed only are one system.

    Args:
        runs: run folders or results files.
        baseline: one of them, or a further one; the first if not given.
        protocols: names or wildcards; all that the systems share if not given.
        scores: rank1, rank5, rank10, rank20, mAP, mINP.
        seed: of bootstrap and test.
        draws: of each.

    Raises:
        GloamError: fewer than two systems, an unknown score, runs without scores of single queries, or runs that
            ranked different queries.
    """
    places = list(runs)
    if baseline is not None and baseline.resolve() not in [path.resolve() for path in places]:
        places.insert(0, baseline)
    systems = read_systems(places, queries=True)
    wanted = (baseline or places[0]).resolve()
    base = next(system for system in systems if any(run.path.resolve() == wanted for run in system.runs))
    return compare_systems(systems, base, protocols=protocols, scores=scores, seed=seed, draws=draws)


def compare_systems(
    systems: Sequence[System],
    base: System,
    *,
    protocols: Sequence[str] = (),
    scores: Sequence[str] = ("rank1", "mAP"),
    seed: int = 0,
    draws: int = DRAWS,
) -> Comparisons:
    """:func:`compare_runs` for systems that are read already, with the scores of their queries."""
    for score in scores:
        if score not in SCORES:
            raise GloamError(f"There is no score {score!r}. {did_you_mean(score, SCORES)}")
    others = [system for system in systems if system is not base]
    if not others:
        raise GloamError(
            "A comparison needs two different systems. These runs differ in their seed only, or there is one: "
            "gloam results shows their spread."
        )
    found: list[dict[str, Any]] = []
    for protocol in chosen_protocols(systems, protocols):
        if protocol not in base.protocols:
            continue
        for system in others:
            if protocol in system.protocols:
                found += _compare(system, base, protocol, scores, seed, draws)
    if not found:
        raise GloamError(
            f"{base.label} shares no protocol with the other runs; it has {', '.join(base.protocols)}. Compare runs on "
            "one dataset."
        )
    corrected = holm([row["p_value"] for row in found])
    rows = tuple(Comparison(**row, p_holm=value) for row, value in zip(found, corrected, strict=True))
    places = {system.label: [str(run.path) for run in system.runs] for system in systems}
    return Comparisons(base.label, places, rows, seed, draws)


def remark(rows: Sequence[Comparison]) -> str:
    """What the numbers do not say."""
    text = (
        f"Interval and test: {rows[0].people if len({r.people for r in rows}) == 1 else 'the'} people searched for, "
        f"drawn and exchanged as a whole; p Holm: corrected for all {len(rows)} comparisons."
    )
    if any(row.seeds == 1 or row.baseline_seeds == 1 for row in rows):
        text += (
            " Where a system was trained with one seed, this tells two trained models apart, not two methods: another "
            "seed may differ by as much."
        )
    return text


def p_text(value: float) -> str:
    """A p-value for tables."""
    return "<.001" if value < 0.001 else f"{value:.3f}"[1:] if value < 1 else "1"


def seeds_text(count: int, spread: float | None) -> str:
    """Number of trainings and the spread between them."""
    return "1" if spread is None else f"{count}, ±{100 * spread:.2f}"


def _compare(
    system: System, base: System, protocol: str, scores: Sequence[str], seed: int, draws: int
) -> list[dict[str, Any]]:
    left, right = _queries(system, protocol), _queries(base, protocol)
    if left.keys() != right.keys():
        shared = len(left.keys() & right.keys())
        raise GloamError(
            f"{system.label} and {base.label} ranked different queries of {protocol} ({shared} in common of "
            f"{len(left)} and {len(right)}). Only runs on the same copy of a dataset, with the same trials, compare: "
            "gloam evaluate RUN --data.root DIR."
        )
    keys = sorted(left)
    identities = np.array([left[key].identity for key in keys])
    per_trial: dict[tuple[int, int], int] = {}
    for key in keys:
        per_trial[key[:2]] = per_trial.get(key[:2], 0) + 1
    weights = np.array([1 / (len(per_trial) * per_trial[key[:2]]) for key in keys])
    rows = []
    for score in scores:
        mine = np.array([left[key].mean(score) for key in keys])
        theirs = np.array([right[key].mean(score) for key in keys])
        told = paired_difference(mine - theirs, identities, weights, seed=seed, draws=draws)
        spreads = [
            None if (found := one.score(protocol, score)) is None or found.over != "seeds" else found.spread
            for one in (system, base)
        ]
        rows.append(
            {
                "system": system.label,
                "protocol": protocol,
                "score": score,
                "value": float(weights @ mine),
                "baseline_value": float(weights @ theirs),
                "difference": told.value,
                "low": told.low,
                "high": told.high,
                "p_value": told.p_value,
                "people": told.people,
                "queries": len(keys),
                "seeds": len(system.repeats),
                "seed_spread": spreads[0],
                "baseline_seeds": len(base.repeats),
                "baseline_seed_spread": spreads[1],
            }
        )
    return rows


class _Query:
    """One query's numbers in every training of a system."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.first_match: list[int] = []
        self.ap: list[float] = []
        self.inp: list[float] = []

    def mean(self, score: str) -> float:
        if score.startswith("rank"):
            return float(np.mean(np.array(self.first_match) <= int(score.removeprefix("rank"))))
        return float(np.mean(self.ap if score == "mAP" else self.inp))


def _queries(system: System, protocol: str) -> dict[Key, _Query]:
    found: dict[Key, _Query] = {}
    for run in system.runs:
        table = run.results.queries
        if table is None:
            raise GloamError(f"{run.path} has no scores of single queries. gloam evaluate {run.path} writes them.")
        table = table.rows(_counting(table, protocol))
        for row in range(len(table)):
            key = (run.split, int(table.trial[row]), str(table.path[row]))
            query = found.setdefault(key, _Query(str(table.pid[row])))
            query.first_match.append(int(table.first_match[row]))
            query.ap.append(float(table.ap[row]))
            query.inp.append(float(table.inp[row]))
    return found


def _counting(table: QueryScores, protocol: str) -> NDArray[np.bool_]:
    return np.asarray((table.protocol == protocol) & table.valid)
