"""The story of a watched training as text: how the loss and the gradient went, and what was found when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.core.trace import Trace
from unvanish.store import Run

BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 60
DECADE = math.log(10)


def told(diagnosis: Diagnosis) -> str:
    """The story of a watch that still is in memory."""
    facts = diagnosis.trace.facts
    history = facts.get("history", {})
    lines = [f"unvanish watch: {diagnosis.subject}"]
    lines += curves(history)
    lines += flow(diagnosis.trace)
    lines += [""]
    for finding in diagnosis.findings:
        lines += event(finding)
    return "\n".join([*lines, verdict(diagnosis.findings)])


def story(run: Run) -> str:
    """The story of a run folder, also of one that still grows."""
    facts, steps, trace = run.facts(), run.steps(), run.trace(most=256)
    taken = steps["step"]
    lines = [f"unvanish: run {run.name}, {facts.get('model', 'a model')}"]
    if not len(taken):
        return "\n".join([*lines, "no step has been written yet"])
    seconds = float(steps["wall"][-1] - steps["wall"][0])
    share = facts.get("overhead")
    cost = f", the watch took {float(share):.1%} of its time" if share not in (None, "nan") else ""
    lines.append(
        f"{len(taken):,} steps ({int(taken[0])} to {int(taken[-1])}) in {duration(seconds)}, "
        f"{trace.values.shape[0]} looks{cost}"
    )
    lines += curves(steps)
    lines += flow(trace)
    skipped, broken = int(np.nansum(steps["skipped"])), int((steps["finite"] == 0).sum())
    if skipped or broken:
        lines.append(
            f"{broken} steps with a gradient that is not finite, {skipped} skipped by the loss scaler"
        )
    events = run.findings()
    lines.append("")
    for e in events:
        lines += event(e.finding, f"step {e.first}" + (f" to {e.last}" if e.last != e.first else ""))
    if facts.get("dropped"):
        lines.append(f"note: {facts['dropped']} records could not be written")
    return "\n".join([*lines, verdict([e.finding for e in events])])


def curves(history: Mapping[str, object]) -> list[str]:
    """The loss and the gradient's norm as sparklines, with what they went from and to."""
    found = []
    loss = np.asarray(history.get("loss", ()), np.float64)
    known = loss[np.isfinite(loss)]
    if len(known):
        found.append(f"  loss      {spark(loss)}  {known[0]:.4g} to {known[-1]:.4g}")
    norms = np.asarray(history.get("norm_log", ()), np.float64) / DECADE
    known = norms[np.isfinite(norms)]
    if len(known):
        found.append(
            f"  gradient  {spark(norms)}  1e{known[0]:.1f} to 1e{known[-1]:.1f}, norm of all parameters"
        )
    return found


def flow(trace: Trace) -> list[str]:
    """What the gradient lost on its way down the depth axis, at each look, in decades."""
    lost = decades(trace)
    known = lost[np.isfinite(lost)]
    if not len(known):
        return []
    return [
        f"  depth     {spark(lost)}  {known[0]:+.1f} to {known[-1]:+.1f} decades from the loss to the input"
    ]


def decades(trace: Trace) -> NDArray[np.float64]:
    """log10 of the gradient's gain from the first to the last site of the depth axis, shape (looks,)."""
    axis = trace.depth()
    if axis is None or not trace.values.size:
        return np.full(trace.values.shape[0], math.nan)
    logs = trace.values[:, list(axis.sites), trace.statistics.index("backward_log")]
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (logs[:, -1] - logs[:, 0]) / DECADE
    return found


def spark(values: NDArray[np.float64], width: int = WIDTH) -> str:
    """A sparkline; a step that is not finite is an x."""
    if len(values) > width:
        pieces = np.array_split(values, width)
        values = np.array([_middle(p) for p in pieces])
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    span = high - low or 1.0
    return "".join(
        BLOCKS[1 + round((v - low) / span * 7)] if math.isfinite(v) else " " if math.isnan(v) else "x"
        for v in values
    )


def _middle(piece: NDArray[np.float64]) -> float:
    if np.isinf(piece).any():
        return math.inf
    known = piece[np.isfinite(piece)]
    return float(np.median(known)) if len(known) else math.nan


def event(finding: Finding, when: str = "") -> list[str]:
    """A finding in a few lines."""
    at = f" ({when})" if when else ""
    lines = [f"{finding.severity}[{finding.code}] {finding.name}{at}: {finding.cause}"]
    if finding.sites:
        lines.append(f"  --> {', '.join(finding.sites[:4])}" + (" ..." if len(finding.sites) > 4 else ""))
    lines += [f"  = remedy [{r.safety}] {r.cure}: {r.why}" for r in finding.remedies[:3]]
    return lines


def verdict(findings: Sequence[Finding]) -> str:
    """The last line."""
    bad = [f for f in findings if f.severity != "note"]
    return f"found {len(bad)}: {' '.join(f.code for f in bad)}" if bad else "nothing wrong was seen"


def duration(seconds: float) -> str:
    """Seconds for people: 42 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
