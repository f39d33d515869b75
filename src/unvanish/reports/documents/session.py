"""What `unvanish run` saw: each model that the script trained, and how the script ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unvanish.core.sight import Sight
from unvanish.reports.documents._head import begin
from unvanish.reports.documents.run import SCHEMA as RUN
from unvanish.reports.documents.run import build as build_run
from unvanish.reports.parts.shape import COUNT, STRING, describe_document, list_of, refer
from unvanish.store import Run

NAME = "unvanish.session/1"
BODY = {key: value for key, value in RUN.items() if key not in ("$schema", "$defs")}
SCHEMA = describe_document(
    "A script watched by unvanish",
    NAME,
    {**RUN["$defs"], "run": BODY},
    script=STRING,
    exit_code=COUNT,
    failure=STRING,
    runs=list_of(refer("run")),
)


def build(script: str, exit_code: int, failure: str, runs: Sequence[Run | Sight]) -> dict[str, Any]:
    """The script, its exit code, why the search for models failed (or ""), and each model's training."""
    return {
        **begin(NAME),
        "script": script,
        "exit_code": exit_code,
        "failure": failure,
        "runs": [build_run(run) for run in runs],
    }
