"""A watched training: verdict, findings with their steps, the losses and the gradient in short.

Notable: `history` holds at most `STEPS` steps, evenly spread, with the last one; all are in the run's folder,
and `unvanish show RUN --export` writes every look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unvanish.core.plain import plain
from unvanish.core.sight import Sight
from unvanish.reports.diagnosis.json import build_finding
from unvanish.reports.diagnosis.schema import FINDING
from unvanish.reports.documents._head import begin
from unvanish.reports.parts.shape import (
    ANYTHING,
    COUNT,
    NUMBER,
    STRING,
    describe_document,
    list_of,
    map_of,
    object_of,
    one_of,
    or_null,
    refer,
)  # fmt: skip
from unvanish.reports.run.curves import measure_flow
from unvanish.reports.run.gaps import list_gaps
from unvanish.reports.run.text import list_spotted
from unvanish.reports.run.verdict import RunVerdict, Spotted, write_verdict
from unvanish.reports.sight.text import judge, list_worst
from unvanish.store import Run

NAME = "unvanish.run/1"
STEPS, LOOKS = 512, 256  # that are told, and that are read, at most
COLUMNS = ("step", "wall", "loss", "norm_log", "lr", "finite", "clipped", "skipped")
SCHEMA = describe_document(
    "A watched training by unvanish",
    NAME,
    FINDING,
    name=STRING,
    folder=or_null(STRING),
    verdict=one_of(("error", "warning", "fine", "unseen")),
    summary=STRING,
    findings=list_of(object_of(first=COUNT, last=COUNT, finding=refer("finding"))),
    steps=object_of(count=COUNT, first=or_null(COUNT), last=or_null(COUNT), not_finite=COUNT, skipped=COUNT),
    looks=COUNT,
    overhead=or_null(NUMBER),
    loss=object_of(first=or_null(NUMBER), best=or_null(NUMBER), last=or_null(NUMBER)),
    decades=object_of(first=or_null(NUMBER), last=or_null(NUMBER)),
    history=map_of(list_of(or_null(NUMBER))),
    facts=ANYTHING,
    notes=list_of(STRING),
)


def build(run: Run | Sight) -> dict[str, Any]:
    """The run of a folder, or what a watch that writes none has seen. StoreError for a damaged folder.

    `decades`: log10 of the gradient at the input over that at the loss, at the first and the last look.
    """
    return _build_seen(run) if isinstance(run, Sight) else _build_kept(run)


def _build_kept(run: Run) -> dict[str, Any]:
    facts = run.facts()
    spotted = list_spotted(run)
    looks, flow = len(run.sample_steps()), measure_flow(run.trace(most=LOOKS))
    notes = [*facts.get("notes", ()), *list_gaps(run)]
    more = {k: v for k, v in facts.items() if k not in ("notes", "axes", "statistics")}
    steps = run.steps()
    return {
        **begin(NAME),
        "name": run.name,
        "folder": str(run.folder),
        **_describe(write_verdict(spotted, len(steps["step"]), looks), spotted),
        **_describe_steps(steps, len(steps["step"])),
        "looks": looks,
        "overhead": plain(facts.get("overhead")),
        "decades": _find_ends(flow),
        "facts": plain(more),
        "notes": notes,
    }


def _build_seen(sight: Sight) -> dict[str, Any]:
    diagnosis = sight.diagnosis
    failed = [f"the watch failed: {sight.failure}"] if sight.failure else []
    return {
        **begin(NAME),
        "name": diagnosis.subject,
        "folder": None,
        **_describe(judge(sight), list_worst(sight)),
        **_describe_steps(diagnosis.trace.facts.get("history", {}), sight.steps),
        "looks": sight.looks,
        "overhead": plain(sight.overhead),
        "decades": _find_ends(measure_flow(diagnosis.trace)),
        "facts": {},
        "notes": [*sight.notes, *failed],
    }


def _describe(verdict: RunVerdict, spotted: Sequence[Spotted]) -> dict[str, Any]:
    return {
        "verdict": verdict.word,
        "summary": verdict.sentence,
        "findings": [
            {"first": s.first, "last": s.last, "finding": build_finding(s.finding)} for s in spotted
        ],
    }


def _describe_steps(steps: Mapping[str, Any], seen: int) -> dict[str, Any]:
    """What the rows of the steps say; a watch without a folder has those of the last of the steps seen."""
    count = len(steps.get("step", ()))
    known = steps["loss"][np.isfinite(steps["loss"])] if count else np.empty(0)
    places = np.unique(np.linspace(0, max(0, count - 1), min(count, STEPS)).round().astype(int))
    return {
        "steps": {
            "count": seen,
            "first": int(steps["step"][0]) if count else None,
            "last": int(steps["step"][-1]) if count else None,
            "not_finite": int((steps["finite"] == 0).sum()) if count else 0,
            "skipped": int(np.nansum(steps["skipped"])) if count else 0,
        },
        "loss": {"first": None, "best": None, "last": None}
        if not len(known)
        else {"first": float(known[0]), "best": float(known.min()), "last": float(known[-1])},
        "history": {name: _list_known(steps[name], places) for name in COLUMNS if name in steps},
    }


def _list_known(column: Any, places: Any) -> list[float | str | None]:
    """Numbers of a column; null: not measured."""
    return [None if math.isnan(value) else plain(value) for value in column[places].tolist()]


def _find_ends(values: Any) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    ends = (float(known[0]), float(known[-1])) if len(known) else (None, None)
    return {"first": ends[0], "last": ends[1]}
