"""Rows for a paper: scores of runs as Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Literal, get_args

from gloam.errors import GloamError, did_you_mean
from gloam.report.comparison import SCORES
from gloam.report.finished_runs import Score, System, chosen_protocols

Format = Literal["markdown", "latex", "csv"]
_HEADS = {"rank1": "R1", "rank5": "R5", "rank10": "R10", "rank20": "R20"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def score_table(
    systems: Sequence[System],
    *,
    format: Format = "markdown",
    protocols: Sequence[str] = (),
    scores: Sequence[str] = ("rank1", "mAP", "mINP"),
) -> str:
    """A row per system; percent with two decimals, ± the spread over its seeds, or over the trials of a single seed.

    CSV is long (a row per system and protocol, full precision as fractions) and says what the spread is over.

    Args:
        systems: of :func:`gloam.report.finished_runs.read_systems`.
        format: markdown, latex or csv.
        protocols: names or wildcards; all if not given.
        scores: rank1, rank5, rank10, rank20, mAP, mINP.

    Raises:
        GloamError: an unknown format, score or protocol.
    """
    if format not in get_args(Format):
        raise GloamError(f"There is no format {format!r}. {did_you_mean(format, get_args(Format))}")
    for score in scores:
        if score not in SCORES:
            raise GloamError(f"There is no score {score!r}. {did_you_mean(score, SCORES)}")
    names = chosen_protocols(systems, protocols)
    if format == "csv":
        return _csv(systems, names, scores)
    return _latex(systems, names, scores) if format == "latex" else _markdown(systems, names, scores)


def score_text(score: Score | None, sign: str = "±") -> str:
    """``47.50 ± 1.20``, without spread where there is one number only."""
    if score is None:
        return "-"
    return f"{100 * score.mean:.2f}" + (f" {sign} {100 * score.spread:.2f}" if score.count > 1 else "")


def _markdown(systems: Sequence[System], protocols: Sequence[str], scores: Sequence[str]) -> str:
    heads = [f"{name.split('/')[-1]} {_HEADS.get(s, s)}" for name in protocols for s in scores]
    lines = [f"| {' | '.join(['model', *heads])} |", f"|---|{'---:|' * len(heads)}"]
    for system in systems:
        cells = [score_text(_score(system, name, score)) for name in protocols for score in scores]
        label = system.label.replace("|", "\\|")
        lines.append(f"| {' | '.join([label, *cells])} |")
    return "\n".join([*lines, "", _about(systems)]) + "\n"


def _latex(systems: Sequence[System], protocols: Sequence[str], scores: Sequence[str]) -> str:
    width = len(scores)
    groups = [rf"\multicolumn{{{width}}}{{c}}{{{_escape(name.split('/')[-1])}}}" for name in protocols]
    rules = [rf"\cmidrule(lr){{{2 + i * width}-{1 + (i + 1) * width}}}" for i in range(len(protocols))]
    heads = [_HEADS.get(score, score) for _ in protocols for score in scores]
    lines = [
        f"% {_about(systems)}",
        rf"\begin{{tabular}}{{l{'r' * width * len(protocols)}}}",
        r"\toprule",
        f" & {' & '.join(groups)} \\\\",
        "".join(rules),
        f"model & {' & '.join(heads)} \\\\",
        r"\midrule",
    ]
    for system in systems:
        cells = [score_text(_score(system, name, score), r"$\pm$") for name in protocols for score in scores]
        lines.append(f"{_escape(system.label)} & {' & '.join(cells)} \\\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _csv(systems: Sequence[System], protocols: Sequence[str], scores: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "protocol", *(c for s in scores for c in (s, f"{s}_std")), "std_over", "count", "runs"])
    for system in systems:
        for name in protocols:
            found = [_score(system, name, score) for score in scores]
            known = next((score for score in found if score is not None), None)
            if known is None:
                continue
            cells = [c for s in found for c in (("", "") if s is None else (repr(s.mean), repr(s.spread)))]
            writer.writerow([system.label, name, *cells, known.over, known.count, len(system.runs)])
    return text.getvalue()


def _score(system: System, protocol: str, name: str) -> Score | None:
    return system.score(protocol, name) if protocol in system.protocols else None


def _about(systems: Sequence[System]) -> str:
    """What the spreads mean, in one line."""
    parts = []
    for system in systems:
        over = {s.over: s.count for p in system.protocols if (s := system.score(p, "mAP")) is not None and s.count > 1}
        told = " and ".join(f"± over {count} {what}" for what, count in over.items()) or "no spread"
        parts.append(f"{system.label}: {len(system.runs)} run{'s' * (len(system.runs) > 1)}, {told}")
    return "Percent. " + "; ".join(parts) + "."


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
