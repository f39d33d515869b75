"""Two runs side by side: what each says, and for each code the step at which each first had it."""

from __future__ import annotations

from typing import Any

from unvanish.reports.documents._head import begin
from unvanish.reports.documents.run import build as build_run
from unvanish.reports.documents.session import BODY
from unvanish.reports.documents.session import SCHEMA as SESSION
from unvanish.reports.parts.shape import COUNT, describe_document, list_of, map_of, or_null, refer
from unvanish.store import Run

NAME = "unvanish.comparison/1"
SCHEMA = describe_document(
    "Two watched trainings compared by unvanish",
    NAME,
    {**SESSION["$defs"], "run": BODY},
    runs={**list_of(refer("run")), "minItems": 2, "maxItems": 2},
    codes=map_of({**list_of(or_null(COUNT)), "minItems": 2, "maxItems": 2}),
)


def build(first: Run, second: Run) -> dict[str, Any]:
    """Both runs; `codes`: the first step of each finding in either, null without it."""
    runs = [build_run(run) for run in (first, second)]
    seen = [{f["finding"]["code"]: f["first"] for f in run["findings"]} for run in runs]
    codes = {code: [steps.get(code) for steps in seen] for code in sorted({*seen[0], *seen[1]})}
    return {**begin(NAME), "runs": runs, "codes": codes}
