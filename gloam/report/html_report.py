"""``gloam report``: one HTML file that opens from a disk, asks nothing of a network, and is the same every time."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gloam import __version__
from gloam.atomic import write_text
from gloam.errors import GloamError
from gloam.evaluation.protocols import find_protocols
from gloam.inference.features import Features
from gloam.report.charts import Chart, cmc_chart, histogram_chart, matches_chart, precision_chart, svg_text
from gloam.report.comparison import Comparisons, compare_systems, p_text
from gloam.report.finished_runs import FinishedRun, System, read_systems
from gloam.report.ranking_analysis import ListedQuery, RankingAnalysis, analyse_ranking
from gloam.report.run_facts import RunFacts, read_facts
from gloam.report.score_tables import score_text
from gloam.report.thumbnails import Faces, thumbnails

_PAGE = Path(__file__).parent / "page"
_RANKS = 50
_COLUMNS = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")


@dataclass(frozen=True)
class Published:
    """A published score beside what these runs obtained; percent."""

    protocol: str
    score: str
    published: float
    obtained: float
    distance: float
    source: str


@dataclass(frozen=True)
class Section:
    """One system's part of the page."""

    number: int
    system: System
    facts: RunFacts
    scores: list[tuple[str, list[str], int, int]]
    published: list[Published]
    charts: dict[str, Chart]
    training: str | None
    analysis: RankingAnalysis | None
    left_out: str | None
    listed: list[dict[str, Any]]
    operating: list[tuple[str, str, str]]
    images: int


def write_report(
    runs: Sequence[Path],
    output: Path,
    *,
    data_root: Path | None = None,
    protocol: str | None = None,
    faces: Faces = "blur",
    queries: int = 24,
    scores_only: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
) -> Path:
    """Write the report of one run, or of several side by side.

    Args:
        runs: run folders; those that differ in seed or RegDB trial only are one system.
        output: the HTML file.
        data_root: the dataset's folder, where it is not the one of training.
        protocol: what is taken apart; the run's first if not given.
        faces: ``blur`` heads, leave ``none`` of the images in, or ``keep`` them.
        queries: worst, best and random queries each; a third of it where several systems share the page.
        scores_only: nothing that needs the model or the data.
        batch_size: images per forward pass.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Returns:
        The file.

    Raises:
        GloamError: no finished run, another suffix, or an unknown protocol.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise GloamError(f"{output} must end in .html.")
    if queries < 1:
        raise GloamError("A report shows at least one query: raise --queries.")
    systems = _with_queries(runs)
    count = queries if len(systems) == 1 else max(queries // 3, 1)
    sections = []
    for number, system in enumerate(systems):
        features: TestFeatures | None
        left_out: str | None
        if scores_only:
            features, left_out = None, "only the scores were asked for (--scores-only)"
        else:
            features, left_out = _embed(system.runs[0], data_root, batch_size, device)
        sections.append(section_of(number, system, features, left_out, protocol=protocol, faces=faces, queries=count))
    write_text(output, render(sections))
    return output


def _with_queries(runs: Sequence[Path]) -> list[System]:
    """Systems with the scores of their queries, without them where some run is of an earlier gloam."""
    try:
        return read_systems(runs, queries=True)
    except GloamError:
        return read_systems(runs)


@dataclass(frozen=True)
class TestFeatures:
    """What the deep part of a report is made from.

    Attributes:
        splits: the dataset.
        query: features of its query records.
        gallery: of its gallery records.
        metric: cosine or euclidean.
    """

    __test__ = False  # pytest takes the name for a test

    splits: Any
    query: Features
    gallery: Features
    metric: Any


def _embed(
    run: FinishedRun, data_root: Path | None, batch_size: int | None, device: str
) -> tuple[TestFeatures | None, str | None]:
    """Features of the test set, or why there are none."""
    from gloam.inference.loading import load_model
    from gloam.inference.scoring import dataset_features

    try:
        model = load_model(run.file.parent, device=device)
        splits = model.load_splits(data_root)
        query, gallery = dataset_features(model, splits, batch_size=batch_size)
    except GloamError as error:
        return None, str(error)
    return TestFeatures(splits, query, gallery, model.recipe.evaluation.metric), None


def section_of(
    number: int,
    system: System,
    features: TestFeatures | None,
    left_out: str | None,
    *,
    protocol: str | None = None,
    faces: Faces = "blur",
    queries: int = 24,
) -> Section:
    """Everything about one system. What is taken apart is its first run.

    Raises:
        GloamError: an unknown protocol.
    """
    run = system.runs[0]
    charts: dict[str, Chart] = {}
    curves = {name.split("/")[-1]: curve for name in system.protocols if (curve := cmc_of(system, name)) is not None}
    if curves:
        charts["cmc"] = cmc_chart(f"s{number}-cmc", curves)
    analysis = None
    listed: list[dict[str, Any]] = []
    operating: list[tuple[str, str, str]] = []
    if features is not None:
        chosen = find_protocols(features.splits, protocol or (system.protocols[:1] or None))[0]
        analysis = analyse_ranking(
            features.splits,
            chosen,
            features.query.vectors,
            features.gallery.vectors,
            metric=features.metric,
            listed=queries,
        )
        charts["precision"] = precision_chart(f"s{number}-precision", {chosen.name.split("/")[-1]: analysis.precision})
        charts["histogram"] = histogram_chart(f"s{number}-histogram", analysis.histograms)
        charts["matches"] = matches_chart(f"s{number}-matches", analysis.by_matches)
        operating = _operating_points(analysis)
        listed = _listed_queries(analysis.listed, features.splits.root, faces)
    return Section(
        number=number,
        system=system,
        facts=read_facts(run),
        scores=_scores(system),
        published=_published(system),
        charts=charts,
        training=_training_curves(run, number),
        analysis=analysis,
        left_out=left_out,
        listed=listed,
        operating=operating,
        images=sum(1 for query in listed for image in (query, *query["found"]) if image["image"]),
    )


def cmc_of(system: System, protocol: str) -> NDArray[np.float64] | None:
    """``(50,)`` cumulative matching characteristic over all trials and runs; None without the queries' scores."""
    hits = []
    for run in system.runs:
        table = run.results.queries
        if table is None:
            return None
        rows = table.rows((table.protocol == protocol) & table.valid)
        hits += [rows.first_match[rows.trial == trial] for trial in np.unique(rows.trial)]
    curves = [np.bincount(np.minimum(hit, _RANKS + 1), minlength=_RANKS + 2)[1:-1].cumsum() / len(hit) for hit in hits]
    return np.asarray(np.mean(curves, axis=0)) if curves else None


def render(sections: Sequence[Section]) -> str:
    """The page. Equal sections give equal bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_PAGE / "report.js").read_text(encoding="utf-8")
    together = _laid_over(sections)
    charts = [*together.values(), *(chart for section in sections for chart in section.charts.values())]
    comparisons, not_compared = _compared([section.system for section in sections])
    return environment.get_template("report.html.j2").render(
        sections=sections,
        together=together,
        columns=_COLUMNS,
        comparisons=comparisons,
        not_compared=not_compared,
        p_text=p_text,
        style=(_PAGE / "report.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode("ascii"),
        curves=_curve_data(charts),
        images=sum(section.images for section in sections),
        version=__version__,
        dataset=" and ".join(dict.fromkeys(name.split("/")[0] for s in sections for name in s.system.protocols)),
        title=", ".join(section.system.label for section in sections),
    )


def _scores(system: System) -> list[tuple[str, list[str], int, int]]:
    rows = []
    for name in system.protocols:
        cells = [score_text(system.score(name, column)) for column in _COLUMNS]
        trials = system.runs[0].results.trials[name]
        rows.append((name, cells, int(trials[0]["num_valid"]), len(trials)))
    return rows


def _published(system: System) -> list[Published]:
    recipe = system.runs[0].recipe
    rows = []
    for expected in recipe.expected if recipe else ():
        if expected.protocol not in system.protocols:
            continue
        for name in ("rank1", "mAP", "mINP"):
            told, score = getattr(expected, name), system.score(expected.protocol, name)
            if told is not None and score is not None:
                value = 100 * score.mean
                rows.append(Published(expected.protocol, name, told, value, value - told, expected.source))
    return rows


def _training_curves(run: FinishedRun, number: int) -> str | None:
    from gloam.visualize.curves import draw_curves

    try:
        figure = draw_curves(run.file.parent)
    except GloamError:
        return None
    return svg_text(figure, f"s{number}-training")


def _operating_points(analysis: RankingAnalysis) -> list[tuple[str, str, str]]:
    rate, threshold = analysis.histograms.equal_error()
    points = [("equal error", f"{100 * rate:.2f} % wrong either way", f"{threshold:.3f}")]
    for share in (1e-2, 1e-3):
        found, limit = analysis.histograms.found_at(share)
        text = f"{100 * found:.1f} % of right pairs found"
        points.append((f"at most {100 * share:g} % of wrong pairs accepted", text, f"{limit:.3f}"))
    return points


def _listed_queries(listed: Sequence[ListedQuery], root: Path, faces: Faces) -> list[dict[str, Any]]:
    shown = {}
    if faces != "none":
        shown = thumbnails(root, (record for entry in listed for record in (entry.query, *entry.found)), faces)
    rows = []
    for entry in listed:
        found = [
            {
                "image": shown.get(record),
                "cam": record.cam,
                "modality": record.modality.name.lower(),
                "pid": str(record.pid_raw),
                "right": right,
                "score": f"{score:.2f}",
            }
            for record, right, score in zip(entry.found, entry.right, entry.scores, strict=True)
        ]
        rows.append(
            {
                "image": shown.get(entry.query),
                "cam": entry.query.cam,
                "modality": entry.query.modality.name.lower(),
                "pid": str(entry.query.pid_raw),
                "path": entry.query.paths[0],
                "kinds": " ".join(entry.kinds),
                "ap": f"{entry.ap:.6f}",
                "percent": f"{100 * entry.ap:.1f}",
                "first": entry.first_match,
                "matches": entry.matches,
                "found": found,
            }
        )
    return rows


def _laid_over(sections: Sequence[Section]) -> dict[str, Chart]:
    """Curves of several systems in one chart, under the first protocol that all have."""
    charts: dict[str, Chart] = {}
    if len(sections) < 2:
        return charts
    shared = [p for p in sections[0].system.protocols if all(p in s.system.protocols for s in sections)]
    if not shared:
        return charts
    curves = {section.system.label: cmc_of(section.system, shared[0]) for section in sections}
    known = {label: curve for label, curve in curves.items() if curve is not None}
    if len(known) == len(curves):
        charts[shared[0]] = cmc_chart("all-cmc", known)
    analyses = [(section.system.label, section.analysis) for section in sections]
    if all(a is not None and a.protocol == shared[0] for _, a in analyses):
        charts["precision"] = precision_chart("all-precision", {n: a.precision for n, a in analyses if a is not None})
    return charts


def _compared(systems: Sequence[System]) -> tuple[Comparisons | None, str | None]:
    if len(systems) < 2:
        return None, None
    try:
        return compare_systems(systems, systems[0]), None
    except GloamError as error:
        return None, str(error)


def _curve_data(charts: Sequence[Chart]) -> str:
    """What the script reads values off; safe inside a script element."""
    content = {
        chart.name: {
            "x": chart.x,
            "box": chart.box,
            "lines": [[label, line.values] for label, line in chart.lines.items()],
        }
        for chart in charts
        if chart.lines
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace("&", "\\u0026")
