"""The curves of a watched training as inline SVG, without a chart library: loss, gradient, rate, flow.

Notable:
- All panels have the same time axis. Findings are dashed lines at the step where they were first seen.
- What is not finite is a cross on the upper edge, a gradient of exactly zero one on the lower.
- The flow is a grid of looks and places: loses and gains are two colours, the more of it the stronger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unvanish.core.run_facts import HistoryFacts
from unvanish.core.trace import Trace
from unvanish.reports.parts.figures import choose_ticks, pick_places
from unvanish.reports.parts.markup import Content, Html, tag
from unvanish.reports.parts.words import decades, write_mark
from unvanish.reports.run.curves import DECADE, read_column, read_norms
from unvanish.reports.run.verdict import Spotted

WIDTH, HEIGHT = 880, 156
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 32, 12
LOOKS, PLACES = 80, 28  # columns and rows of the flow, at most
LOW = 60.0  # pixels of the flow, at least
EXTREME = 300.0  # decades beyond which a float may not hold the number
REACH = 3.0  # decades at which a colour is full, at least
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One curve over the steps; `log`: its values are log10 of what is written at the axis."""

    title: str
    steps: Floats
    values: Floats
    log: bool = False

    @property
    def known(self) -> Floats:
        """The finite values."""
        return self.values[np.isfinite(self.values)]

    @property
    def limits(self) -> tuple[float, float]:
        """The ends of the vertical axis, a little apart in any case."""
        low, high = float(self.known.min()), float(self.known.max())
        pad = max((high - low) * 0.08, 0.05 * max(abs(high), abs(low)), 1e-9)
        return low - pad, high + pad


def draw_panels(history: HistoryFacts, trace: Trace, spotted: Sequence[Spotted]) -> list[Html]:
    """A drawing for each of loss, gradient and learning rate that is known, and for the flow."""
    steps = read_column(history, "step")
    if not len(steps):
        return []
    loss = read_column(history, "loss")
    with np.errstate(all="ignore"):
        positive = bool(np.all(loss[np.isfinite(loss)] > 0))
        panels = [
            _scale("loss", steps, np.log10(loss)) if positive else Panel("loss", steps, loss),
            _scale("gradient, norm of all parameters", steps, read_norms(history)),
            _scale("learning rate", steps, np.log10(read_column(history, "lr"))),
        ]
    shown = [p for p in panels if len(p.values) == len(steps) and len(p.known)]
    moved = [p for p in shown if p.title != "learning rate" or len(set(p.known)) > 1]
    drawn = [_draw(panel, spotted) for panel in moved]
    flow = _draw_flow(trace, steps)
    return [*drawn, *([flow] if flow is not None else [])]


def _scale(title: str, steps: Floats, logs: Floats) -> Panel:
    """A panel of values given by their log10; within a decade its axis is linear, so its marks are round."""
    known = logs[np.isfinite(logs)]
    wide = len(known) and (np.ptp(known) >= 1 or np.abs(known).max() >= EXTREME)
    log = bool(wide or np.isinf(logs).any())
    return Panel(title, steps, logs if log else 10.0**logs, log)


def _draw(panel: Panel, spotted: Sequence[Spotted]) -> Html:
    low, high = panel.limits
    ends = float(panel.steps[0]), float(panel.steps[-1])

    def at(step: float, value: float) -> tuple[float, float]:
        return _x(step, ends), TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    pen, strokes = "M", []
    for i in pick_places(panel.values):
        if not math.isfinite(panel.values[i]):
            pen = "M"
            continue
        x, y = at(panel.steps[i], float(panel.values[i]))
        strokes.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    inside: list[Content] = [
        _draw_axis(panel, low, high),
        tag("path", d=" ".join(strokes), class_="uv-line uv-gradient"),
    ]
    inside += [_draw_mark(s, ends) for s in spotted if ends[0] <= s.first <= ends[1]]
    inside += _draw_broken(panel, ends)
    last = panel.known[-1]
    title = f"{panel.title}: {_label(panel, float(panel.known[0]))} to {_label(panel, float(last))}"
    inside.append(tag("text", title, x=LEFT, y=18, class_="uv-end"))
    inside.append(
        tag("text", f"step {ends[1]:.0f}", x=WIDTH - RIGHT, y=18, text_anchor="end", class_="uv-far")
    )
    return _frame(title, inside, HEIGHT)


def _draw_axis(panel: Panel, low: float, high: float) -> list[Html]:
    out = []
    for mark in choose_ticks(low, high, wanted=3)[1]:
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - mark) / (high - low)
        out.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="uv-grid"))
        out.append(tag("text", _label(panel, mark), x=LEFT - 8, y=y + 4, text_anchor="end"))
    return out


def _label(panel: Panel, value: float) -> str:
    if panel.log and abs(value) >= EXTREME:
        return f"1e{value:.0f}"
    return write_mark(10**value if panel.log else value)


def _draw_mark(spotted: Spotted, ends: tuple[float, float]) -> Html:
    x = _x(spotted.first, ends)
    name = tag("title", f"{spotted.finding.code} {spotted.finding.name}, {spotted.when}")
    style = f"uv-mark uv-{spotted.finding.severity}"
    return tag("path", name, d=f"M{x:.1f} {TOP}V{HEIGHT - BOTTOM}", class_=style)


def _draw_broken(panel: Panel, ends: tuple[float, float]) -> list[Html]:
    """Crosses where a value is not finite or not there, at most as many as fit."""
    found = []
    for wrong, y in ((panel.values == math.inf, TOP), (panel.values == -math.inf, HEIGHT - BOTTOM - 8)):
        places = np.flatnonzero(wrong)
        for i in places[:: max(len(places) // 60, 1)]:
            x = _x(float(panel.steps[i]), ends)
            found.append(tag("path", d=f"M{x - 4:.1f} {y}l8 8m0 -8l-8 8", class_="uv-cross"))
    return found


def _draw_flow(trace: Trace, steps: Floats) -> Html | None:
    """Decades relative to the loss: a column for each look, a row for each place from the loss down."""
    axis, looks = trace.depth(), np.asarray(trace.facts.get("steps", ()), np.float64)
    if axis is None or len(looks) < 2 or trace.values.shape[0] != len(looks) or len(axis.sites) < 2:
        return None
    logs = trace.values[:, list(axis.sites), trace.statistics.index("backward_log")] / DECADE
    with np.errstate(invalid="ignore"):
        gains = logs - logs[:, :1]
    if not np.isfinite(gains).any():
        return None
    columns = np.unique(np.linspace(0, len(looks) - 1, LOOKS).round().astype(int))
    rows = np.unique(np.linspace(0, gains.shape[1] - 1, PLACES).round().astype(int))
    reach = max(REACH, float(np.nanmax(np.abs(gains[np.isfinite(gains)]))))
    ends, tall = (float(steps[0]), float(steps[-1])), max(LOW / len(rows), 9.0)
    height = TOP + len(rows) * tall
    edges = [*(_x(float(looks[c]), ends) for c in columns), float(WIDTH - RIGHT)]
    cells = [
        _draw_cell(float(gains[c, r]) / reach, (edges[i], edges[i + 1]), TOP + k * tall, tall)
        for i, c in enumerate(columns)
        for k, r in enumerate(rows)
    ]
    known = gains[:, -1][~np.isnan(gains[:, -1])]
    change = (
        f": {decades(float(known[0]))} to {decades(float(known[-1]))} decades at the input"
        if len(known)
        else ""
    )
    title = f"gradient along the depth{change}"
    names = [
        tag("text", title, x=LEFT, y=18, class_="uv-end"),
        tag("text", "loss", x=LEFT - 8, y=TOP + 10, text_anchor="end"),
        tag("text", "input", x=LEFT - 8, y=height - 1, text_anchor="end"),
    ]
    return _frame(title, [names, cells], round(height + 8))


def _draw_cell(share: float, edges: tuple[float, float], y: float, height: float) -> Html | None:
    """A place at a look; `share`: of the full colour, negative if gradient was lost."""
    if math.isnan(share):
        return None
    style = f"uv-heat-{'loss' if share < 0 else 'gain'}"
    width, strength = max(edges[1] - edges[0], 1.0), max(min(abs(share), 1.0), 0.03)
    return tag("rect", x=edges[0], y=y, width=width, height=height, fill_opacity=strength, class_=style)


def _x(step: float, ends: tuple[float, float]) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (step - ends[0]) / max(ends[1] - ends[0], 1e-9)


def _frame(title: str, content: Content, height: int) -> Html:
    box = f"0 0 {WIDTH} {height}"
    return tag(
        "svg", tag("title", title), content, viewBox=box, role="img", aria_label=title, class_="uv-chart"
    )
