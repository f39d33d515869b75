"""A run as rows for charts: its steps, the flow along the depth at its looks, the statistics of each site."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unvanish.core.names import show
from unvanish.core.plain import plain
from unvanish.core.run_facts import HistoryFacts
from unvanish.core.trace import Site, Trace
from unvanish.reports.run.curves import measure_log_z, measure_moves
from unvanish.reports.run.text import describe_ranks, list_spotted
from unvanish.reports.run.timeline import list_moments
from unvanish.reports.run.verdict import write_verdict
from unvanish.store import Run
from unvanish.store.reader import Event

DECADE = math.log(10)
STEPS, LOOKS, SITES = 1500, 120, 4  # at most: rows of a page, looks, sites of a finding
FLOOR = -10.0  # decades where zeros stand if there is nothing else
STATISTICS = {  # (name on the page, factor to the unit of that name)
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
    "log_z": ("log Z of the logits", 1.0),
    "flushed": ("below float16's normal numbers", 1.0),
}


def read_rows(run: Run) -> dict[str, Any]:
    """Everything on a page, as lists of plain rows; numbers that are not finite are null."""
    trace, steps, facts = run.trace(most=LOOKS), run.steps(), run.facts()
    spotted = list_spotted(run)
    looks = len(run.sample_steps())
    verdict = write_verdict(spotted, len(steps["step"]), looks)
    return {
        "name": show(run.name),
        "facts": plain(facts),
        "verdict": {"word": verdict.word, "sentence": verdict.sentence},
        "timeline": [vars(m) for m in list_moments(steps, trace, spotted, facts.get("sessions", ()))],
        "ranks": describe_ranks(run),
        "steps": list_steps(steps),
        "looks": list_looks(trace),
        "seen": looks,
        "flow": list_flow(trace),
        "sites": list_sites(trace),
        "moves": list_moves(trace),
        "profiles": list_profiles(run),
        "findings": [describe_event(event) for event in run.findings()],
    }


def describe_event(event: Event) -> dict[str, Any]:
    """A finding with the steps at which it was first and last seen."""
    finding = event.finding
    return {
        "step": event.first,
        "last": event.last,
        "code": show(finding.code),
        "name": show(finding.name),
        "severity": finding.severity,
        "cause": show(finding.cause),
        "sites": [show(site) for site in finding.sites[:SITES]],
        "remedy": show("{0.cure}: {0.why}".format(finding.remedies[0])) if finding.remedies else "",
    }


def round_number(value: float, digits: int = 5) -> float | None:
    """A number of `digits` digits; None if it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def list_steps(steps: HistoryFacts) -> list[dict[str, Any]]:
    """One row for each step, or for a few: their median, and whether any step was not finite.

    A gradient of zero is marked, and stands on the floor.
    """
    count = len(steps["step"])
    rows = []
    ever_clipped = bool((steps["clipped"] > 0).any())
    norms, floor = put_zeros_on_floor(steps["norm_log"] / DECADE)
    for piece in np.array_split(np.arange(count), min(count, STEPS)) if count else []:
        zero = bool((steps["norm_log"][piece] == -math.inf).any())
        bad = bool(((steps["finite"][piece] == 0) & (steps["norm_log"][piece] != -math.inf)).any())
        rows.append(
            {
                "step": int(steps["step"][piece[-1]]),
                "loss": round_number(_median(steps["loss"][piece])),
                "norm": round_number(floor if zero else _median(norms[piece])),
                "before": round_number(_median(steps["before_log"][piece]) / DECADE),
                "clipped": round_number(_mean(steps["clipped"][piece]), 3) if ever_clipped else None,
                "lr": round_number(_median(steps["lr"][piece])),
                "bad": bad,
                "zero": zero,
            }
        )
    return rows


def list_looks(trace: Trace) -> list[dict[str, Any]]:
    """What looks tell of the whole net: log10 of update over weight, and ln Z of the logits."""
    moved, _ = put_zeros_on_floor(measure_moves(trace))
    return [
        {"step": step, "moved": round_number(a, 4), "log_z": round_number(b, 4)}
        for step, a, b in zip(trace.facts.get("steps", []), moved, measure_log_z(trace), strict=True)
    ]


def put_zeros_on_floor(logs: Any) -> tuple[Any, float]:
    """Logs, in decades, whose -inf are one decade below the lowest of the others; and that floor."""
    known = logs[np.isfinite(logs)]
    floor = math.floor(float(known.min())) - 1.0 if len(known) else FLOOR
    return np.where(logs == -math.inf, floor, logs), floor


def _median(values: Any) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def _mean(values: Any) -> float:
    known = values[np.isfinite(values)]
    return float(np.mean(known)) if len(known) else math.nan


def name_site(site: Site) -> str:
    """The site's name on an axis."""
    own = site.path.rpartition(".")[2]
    kind = "" if own == site.kind else f" {site.kind}"
    call = f" [{site.call}]" if site.call else ""
    return show(f"{site.path or '(model)'}{kind}{call}")


def list_flow(trace: Trace) -> list[dict[str, Any]]:
    """The gradient at every site of the depth axis, relative to the loss, and what each piece changed.

    As in a ledger, a piece lies between its site and the next one towards the input; the last has none.
    """
    axis = trace.depth()
    if axis is None or not trace.values.size:
        return []
    logs = trace.values[:, list(axis.sites), trace.statistics.index("backward_log")] / DECADE
    steps = _edges(trace)
    starts = [next((v for v in row if math.isfinite(v)), 0.0) for row in logs]
    relative, _ = put_zeros_on_floor(logs - np.array(starts)[:, None])
    rows = []
    for look in range(len(logs)):
        for place, index in enumerate(axis.sites):
            here = logs[look, place]
            below = logs[look, place + 1] if place + 1 < len(axis.sites) else math.nan
            rows.append(
                {
                    "step": steps[look][0],
                    "until": steps[look][1],
                    "place": place,
                    "site": name_site(trace.sites[index]),
                    "decades": round_number(relative[look, place], 4),
                    "zero": bool(here == -math.inf),
                    "change": round_number(below - here, 4) if math.isfinite(here) else None,
                }
            )
    return rows


def list_moves(trace: Trace) -> list[dict[str, Any]]:
    """How far each layer's weights moved at each look, log10 of update over weight."""
    column = trace.statistics.index("update_log") if "update_log" in trace.statistics else -1
    places = [i for i in trace.where("parameter") if trace.sites[i].facts.get("dimensions", 0) >= 2]
    if column < 0 or not trace.values.size:
        return []
    steps = _edges(trace)
    moved, _ = put_zeros_on_floor(trace.values[:, places, column] / DECADE)
    return [
        {
            "step": steps[look][0],
            "until": steps[look][1],
            "place": k,
            "site": show(trace.sites[i].label),
            "moved": round_number(moved[look, k], 4),
        }
        for look in range(trace.values.shape[0])
        for k, i in enumerate(places)
    ]


def list_sites(trace: Trace) -> list[dict[str, Any]]:
    """The statistics of every site at every look, under the page's names; only those that were measured."""
    steps = trace.facts.get("steps", [])
    columns = [
        (put_zeros_on_floor(trace.values[:, :, i] * STATISTICS[s][1])[0], STATISTICS[s][0])
        for i, s in enumerate(trace.statistics)
        if s in STATISTICS and trace.values.size
    ]
    rows = []
    for look in range(trace.values.shape[0]):
        for i, site in enumerate(trace.sites):
            row: dict[str, Any] = {
                "step": steps[look],
                "site": name_site(site) if site.role == "node" else show(site.label),
            }
            for values, title in columns:
                value = round_number(values[look, i], 4)
                if value is not None:
                    row[title] = value
            if len(row) > 2:
                rows.append(row)
    return rows


def list_profiles(run: Run) -> list[dict[str, Any]]:
    """The gradient at every time step of the recurrent sites, relative to the largest, at the last look."""
    rows = []
    for name, (steps, states) in run.profiles().items():
        for step, state in list(zip(steps, states, strict=True))[-1:]:
            top = max((v for v in state if math.isfinite(v)), default=math.nan)
            rows += [
                {
                    "site": show(name),
                    "step": int(step),
                    "time": t,
                    "decades": round_number((v - top) / DECADE, 4),
                }
                for t, v in enumerate(state)
            ]
    return rows


def _edges(trace: Trace) -> list[tuple[int, int]]:
    """The step of each look, and that of the next one."""
    steps = list(trace.facts.get("steps", []))
    last = steps[-1] + max(1, (steps[-1] - steps[0]) // max(1, len(steps))) if steps else 0
    return list(zip(steps, [*steps[1:], last], strict=True))
