"""The form of ``results.json``: versioned, so that other software can rely on it (``docs/results.schema.json``).

Version 1 is every file of gloam before versions were written: ``notes`` and ``protocols`` only. It stays readable.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gloam import __version__
from gloam.errors import GloamError

VERSION = 2


class Scores(BaseModel):
    """Numbers of one trial, or their mean or standard deviation. Shares are fractions from 0 to 1, not percent."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, float]

    rank1: float | None = Field(None, description="share of valid queries whose nearest gallery entry is a match")
    rank5: float | None = Field(None, description="share of valid queries with a match among the first 5")
    rank10: float | None = Field(None, description="share of valid queries with a match among the first 10")
    rank20: float | None = Field(None, description="share of valid queries with a match among the first 20")
    mAP: float = Field(description="mean average precision")
    mINP: float = Field(description="mean of matches / position of the last match")
    num_valid: int | float = Field(description="queries that have a match in their gallery")


class ProtocolScores(BaseModel):
    """Scores under one protocol."""

    model_config = ConfigDict(extra="forbid")

    mean: Scores = Field(description="arithmetic mean over the trials")
    std: Scores = Field(description="sample standard deviation (n - 1) over the trials; 0 for one trial")
    trials: list[Scores] = Field(min_length=1, description="one entry per gallery drawn, or per model averaged")


class QueryTable(BaseModel):
    """The Parquet file beside the results, with one row per protocol, trial and query.

    Its columns: protocol, trial, query (position in the dataset's list), path, pid (as on disk), cam, modality, matches
    (number of right gallery entries), first_match (position of the first one; 0: none), ap, inp (empty without a
    match).
    """

    model_config = ConfigDict(extra="forbid")

    file: str = Field(description="name of the file, in the folder of the results")
    rows: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the file's bytes")


class ResultsFile(BaseModel):
    """Scores of a model on a dataset, as gloam train and gloam evaluate write them."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["gloam results"] = "gloam results"
    version: Literal[2] = 2
    gloam: str = Field(__version__, description="version of gloam that wrote the file")
    notes: dict[str, str] = Field({}, description="how the scores came about: selection rule, re-ranking, models")
    protocols: dict[str, ProtocolScores] = Field(description="<dataset>/<protocol> -> its scores")
    queries: QueryTable | None = Field(None, description="numbers of every single query, where they are known")


def json_schema() -> dict[str, Any]:
    """JSON Schema of ``results.json``, as it stands in ``docs/results.schema.json``."""
    schema = ResultsFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "gloam results"}


def read_results_file(path: Path) -> ResultsFile:
    """Read a file of this version or an earlier one.

    Raises:
        GloamError: no such file, another kind of file, or one of a later gloam.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GloamError(f"Cannot read results from {path}: {error.strerror}.") from error
    except ValueError as error:
        raise GloamError(f"{path} holds no evaluation results. Give a results.json or evaluation.json.") from error
    if isinstance(content, dict):
        version = content.get("version", 1)
        if isinstance(version, int) and version > VERSION:
            raise GloamError(
                f"{path} has version {version} of the results format; this gloam reads up to {VERSION}. Update gloam."
            )
        if "version" not in content:
            content = {**content, "version": VERSION, "gloam": "before 0.1"}
    try:
        return ResultsFile.model_validate(content)
    except ValidationError as error:
        raise GloamError(f"{path} holds no evaluation results. Give a results.json or evaluation.json.") from error


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
