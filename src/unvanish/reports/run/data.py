"""A run as rows for charts: its steps, the flow along the depth at its looks, what each site showed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from unvanish.core.plain import plain
from unvanish.core.trace import Site, Trace
from unvanish.store import Run

DECADE = math.log(10)
STEPS, LOOKS = 1500, 120  # rows of a page, at most
SHOWN = {  # statistic: (its name on the page, the factor that makes it what the name says)
    "backward_log": ("gradient, decades", 1 / DECADE),
    "gradient_log": ("parameter gradient, decades", 1 / DECADE),
    "update_log": ("update / weight, decades", 1 / DECADE),
    "norm_log": ("weights, decades", 1 / DECADE),
    "forward_rms": ("activation, rms", 1.0),
    "cosine": ("cosine between samples", 1.0),
    "dead": ("dead units", 1.0),
    "saturated": ("saturated units", 1.0),
    "entropy": ("attention entropy / ln T", 1.0),
    "logit_max": ("largest attention logit", 1.0),
    "flushed": ("below float16's normal numbers", 1.0),
}


def document(run: Run) -> dict[str, Any]:
    """Everything a page shows, as lists of plain rows; numbers that are not finite are null."""
    trace = run.trace(most=LOOKS)
    return {
        "name": run.name,
        "facts": plain(run.facts()),
        "steps": step_rows(run.steps()),
        "flow": flow_rows(trace),
        "sites": site_rows(trace),
        "moves": move_rows(trace),
        "profiles": profile_rows(run),
        "findings": [
            {
                "step": e.first,
                "last": e.last,
                "code": e.finding.code,
                "name": e.finding.name,
                "severity": e.finding.severity,
                "cause": e.finding.cause,
                "sites": list(e.finding.sites[:4]),
                "remedy": "{0.cure}: {0.why}".format(e.finding.remedies[0]) if e.finding.remedies else "",
            }
            for e in run.findings()
        ],
    }


def number(value: float, digits: int = 5) -> float | None:
    """A number of so many digits, None where it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def step_rows(steps: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a step, or a median over so many; a step that is not finite is kept as such."""
    count = len(steps["step"])
    rows = []
    for piece in np.array_split(np.arange(count), min(count, STEPS)) if count else []:
        bad = bool((steps["finite"][piece] == 0).any())
        rows.append(
            {
                "step": int(steps["step"][piece[-1]]),
                "loss": number(_middle(steps["loss"][piece])),
                "norm": number(_middle(steps["norm_log"][piece]) / DECADE),
                "before": number(_middle(steps["before_log"][piece]) / DECADE),
                "lr": number(_middle(steps["lr"][piece])),
                "bad": bad,
            }
        )
    return rows


def _middle(values: Any) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def title_of(site: Site) -> str:
    """The site as an axis shows it."""
    own = site.path.rpartition(".")[2]
    kind = "" if own == site.kind else f" {site.kind}"
    call = f" [{site.call}]" if site.call else ""
    return f"{site.path or '(model)'}{kind}{call}"


def flow_rows(trace: Trace) -> list[dict[str, Any]]:
    """The gradient at every site of the depth axis against the loss's end, and what each piece changed."""
    axis = trace.depth()
    if axis is None or not trace.values.size:
        return []
    logs = trace.values[:, list(axis.sites), trace.statistics.index("backward_log")] / DECADE
    steps = _edges(trace)
    found = []
    for look in range(len(logs)):
        start = next((v for v in logs[look] if math.isfinite(v)), math.nan)
        for place, index in enumerate(axis.sites):
            here = logs[look, place]
            found.append(
                {
                    "step": steps[look][0],
                    "until": steps[look][1],
                    "place": place,
                    "site": title_of(trace.sites[index]),
                    "decades": number(here - start, 4),
                    "change": number(here - logs[look, place - 1], 4) if place else 0.0,
                }
            )
    return found


def move_rows(trace: Trace) -> list[dict[str, Any]]:
    """How far each layer's weights moved at each look, log10 of update over weight."""
    column = trace.statistics.index("update_log") if "update_log" in trace.statistics else -1
    places = [i for i in trace.where("parameter") if trace.sites[i].facts.get("dimensions", 0) >= 2]
    if column < 0 or not trace.values.size:
        return []
    steps = _edges(trace)
    return [
        {
            "step": steps[look][0],
            "until": steps[look][1],
            "place": k,
            "site": trace.sites[i].label,
            "moved": number(trace.values[look, i, column] / DECADE, 4),
        }
        for look in range(trace.values.shape[0])
        for k, i in enumerate(places)
    ]


def site_rows(trace: Trace) -> list[dict[str, Any]]:
    """What every site showed at every look, by the page's names; only what was measured."""
    steps = trace.facts.get("steps", [])
    columns = [(i, *SHOWN[s]) for i, s in enumerate(trace.statistics) if s in SHOWN]
    found = []
    for look in range(trace.values.shape[0]):
        for i, site in enumerate(trace.sites):
            row: dict[str, Any] = {
                "step": steps[look],
                "site": title_of(site) if site.role == "node" else site.label,
            }
            for column, title, factor in columns:
                value = number(trace.values[look, i, column] * factor, 4)
                if value is not None:
                    row[title] = value
            if len(row) > 2:
                found.append(row)
    return found


def profile_rows(run: Run) -> list[dict[str, Any]]:
    """The gradient at every time step of the recurrent sites, against the last step, at the last look."""
    found = []
    for name, (steps, states) in run.profiles().items():
        for step, state in list(zip(steps, states, strict=True))[-1:]:
            top = max((v for v in state if math.isfinite(v)), default=math.nan)
            found += [
                {
                    "site": name,
                    "step": int(step),
                    "time": t,
                    "decades": number((v - top) / DECADE, 4),
                }
                for t, v in enumerate(state)
            ]
    return found


def _edges(trace: Trace) -> list[tuple[int, int]]:
    """Each look's step, and the next one's."""
    steps = list(trace.facts.get("steps", []))
    last = steps[-1] + max(1, (steps[-1] - steps[0]) // max(1, len(steps))) if steps else 0
    return list(zip(steps, [*steps[1:], last], strict=True))
