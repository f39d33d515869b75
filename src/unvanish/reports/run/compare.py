"""Two runs side by side, as text: what they reached, how their gradients went, what was found in each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from unvanish.core.trace import Trace
from unvanish.reports.run.text import decades, duration, spark
from unvanish.store import Run

WIDTH = 30
DECADE = math.log(10)


def compared(first: Run, second: Run) -> str:
    """A table of both, and what one has found and the other has not."""
    runs = (first, second)
    steps, traces = [r.steps() for r in runs], [r.trace(most=256) for r in runs]
    names = [r.name for r in runs]
    if names[0] == names[1]:
        names = [str(r.folder) for r in runs]
    lines = ["".ljust(26) + names[0].ljust(WIDTH + 2) + names[1]]

    def row(title: str, tell: Callable[[Any, Trace], str]) -> None:
        told = [tell(s, t) if len(s["step"]) else "-" for s, t in zip(steps, traces, strict=True)]
        lines.append(f"{title.ljust(26)}{told[0].ljust(WIDTH + 2)}{told[1]}")

    row("steps", lambda s, _: f"{len(s['step']):,} in {duration(s['wall'][-1] - s['wall'][0])}")
    row("loss", lambda s, _: spark(s["loss"], WIDTH))
    row("  first, best, last", lambda s, _: _loss(s["loss"]))
    row("gradient norm", lambda s, _: spark(s["norm_log"], WIDTH))
    row("  median, decades", lambda s, _: _median(s["norm_log"] / DECADE))
    row("decades, loss to input", lambda _, t: spark(decades(t), WIDTH))
    row("  first, last", lambda _, t: _ends(decades(t)))
    row("update / weight, median", lambda _, t: _moved(t))
    row("steps not finite", lambda s, _: str(int((s["finite"] == 0).sum())))
    row("steps clipped", lambda s, _: _share(s["clipped"]))
    found = [{e.finding.code: e for e in r.findings()} for r in runs]
    for code in sorted({*found[0], *found[1]}):
        told = [f"step {f[code].first}, {f[code].finding.severity}" if code in f else "-" for f in found]
        lines.append(f"{code.ljust(26)}{told[0].ljust(WIDTH + 2)}{told[1]}")
    if not any(found):
        lines.append("nothing wrong was seen in either")
    return "\n".join(lines)


def _known(values: Any) -> Any:
    return values[np.isfinite(values)]


def _loss(values: Any) -> str:
    known = _known(values)
    return f"{known[0]:.4g}  {known.min():.4g}  {known[-1]:.4g}" if len(known) else "not told"


def _median(values: Any) -> str:
    known = _known(values)
    return f"{np.median(known):.2f}" if len(known) else "-"


def _ends(values: Any) -> str:
    known = _known(values)
    return f"{known[0]:+.2f}  {known[-1]:+.2f}" if len(known) else "-"


def _moved(trace: Trace) -> str:
    if "update_log" not in trace.statistics or not trace.values.size:
        return "-"
    known = _known(trace.values[:, :, trace.statistics.index("update_log")])
    return f"{math.exp(float(np.median(known))):.1e}" if len(known) else "-"


def _share(values: Any) -> str:
    known = _known(values)
    return f"{known.mean():.0%}" if len(known) else "unknown"
