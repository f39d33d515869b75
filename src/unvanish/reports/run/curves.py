"""The curves of a watched training as sparklines, all over the same steps.

Notable:
- What only looks tell is held from one look to the next, so every line has the time axis of the loss.
- Most steps of a fast loop read no norm: between two that do, the curve goes straight.
- A value of zero, whose logarithm is none, is drawn on the floor as `_` and written as 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.core.run_facts import HistoryFacts
from unvanish.core.trace import Trace

BLOCKS = " ▁▂▃▄▅▆▇█"
ZERO = "_"
WIDTH, TITLE, NARROWEST = 44, 10, 8  # cells of a sparkline, of its name; of one in a narrow terminal
DECADE = math.log(10)
Floats = NDArray[np.float64]


def draw_curves(history: HistoryFacts, trace: Trace, width: int | None = None) -> list[str]:
    """A line for each of loss, gradient, learning rate, clipping, update, log Z and depth that is known.

    `width`: cells of a line; the curves are narrower then.
    """
    lines = _draw_lines(history, trace, WIDTH)
    if width is None or max(map(len, lines), default=0) <= width:
        return lines
    lines = _draw_lines(history, trace, WIDTH, brief=True)
    excess = max(map(len, lines), default=0) - width
    return lines if excess <= 0 else _draw_lines(history, trace, max(WIDTH - excess, NARROWEST), brief=True)


def _draw_lines(history: HistoryFacts, trace: Trace, cells: int, *, brief: bool = False) -> list[str]:
    """The lines, with curves of so many cells; `brief`: without words behind their numbers."""
    loss, norms = read_column(history, "loss"), read_norms(history)
    moved, log_z, gains = (
        spread_looks(values, trace, history)
        for values in (measure_moves(trace), measure_log_z(trace), measure_flow(trace))
    )
    lines = [
        *_draw("loss", loss, _number, cells),
        *_draw("gradient", norms, write_power, cells, "" if brief else ", norm of all parameters"),
        *_draw_rate(read_column(history, "lr"), cells),
        *_draw_clipped(read_column(history, "clipped"), cells),
        *_draw("update", moved, write_power, cells, "" if brief else " of the weights"),
        *_draw("log Z", log_z, _number, cells, "" if brief else " of the logits"),
    ]
    known = gains[~np.isnan(gains)]
    if len(known):
        ends = f"{known[0] + 0.0:+.1f} to {known[-1] + 0.0:+.1f} decades"
        ends += "" if brief else " from the loss to the input"
        lines.append(f"  {'depth':{TITLE}}{draw_spark(gains, cells)}  {ends}")
    return lines


def draw_spark(values: Floats, width: int = WIDTH) -> str:
    """A sparkline; a zero's log is `_`, an infinite value is an x, one that is not a number is a blank."""
    if len(values) > width:
        values = np.array([_summarize(piece) for piece in np.array_split(values, width)])
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    return "".join(_draw_cell(v, low, high - low or 1.0) for v in values)


def measure_flow(trace: Trace) -> Floats:
    """log10 of the gradient's gain from the first to the last site of the depth axis, shape (looks,)."""
    axis = trace.depth()
    if axis is None or not trace.values.size:
        return np.full(trace.values.shape[0], math.nan)
    logs = trace.values[:, list(axis.sites), trace.statistics.index("backward_log")]
    with np.errstate(invalid="ignore"):
        gains: Floats = (logs[:, -1] - logs[:, 0]) / DECADE
    return gains


def measure_moves(trace: Trace) -> Floats:
    """log10 of update over weight, the median of all layers, shape (looks,); -inf if nothing moved."""
    places = [i for i in trace.where("parameter") if trace.sites[i].facts.get("dimensions", 0) >= 2]
    return _summarize_looks(trace, "update_log", places) / DECADE


def measure_log_z(trace: Trace) -> Floats:
    """Ln Z of the logits, the largest of all sites that have some, shape (looks,)."""
    return _summarize_looks(trace, "log_z", range(len(trace.sites)), largest=True)


def spread_looks(values: Floats, trace: Trace, history: HistoryFacts) -> Floats:
    """What looks told, held until the next one, for each of the steps."""
    looks, steps = np.asarray(trace.facts.get("steps", ()), np.float64), read_column(history, "step")
    if not len(looks) or len(looks) != len(values):
        return np.full(len(steps), math.nan)
    begins = np.searchsorted(steps, looks)
    return np.repeat([math.nan, *values], np.diff([0, *begins, len(steps)]))


def read_norms(history: HistoryFacts) -> Floats:
    """log10 of the gradient's norm at each step: +inf where it is not finite, -inf where it is zero."""
    norms, finite = read_column(history, "norm_log") / DECADE, read_column(history, "finite")
    if len(finite) == len(norms):
        norms = np.where((finite == 0) & (norms != -math.inf), math.inf, norms)
    return bridge_gaps(norms)


def bridge_gaps(values: Floats) -> Floats:
    """The values; those not read are on the straight line between their neighbours, if these are finite."""
    known, gaps = np.flatnonzero(~np.isnan(values)), np.flatnonzero(np.isnan(values))
    if not len(known):
        return values
    inside = gaps[(gaps > known[0]) & (gaps < known[-1])]
    right = np.searchsorted(known, inside)
    a, b = known[right - 1], known[right]
    share = (inside - a) / (b - a)
    filled = values.copy()
    with np.errstate(invalid="ignore"):
        line = values[a] + share * (values[b] - values[a])
    filled[inside] = np.where(np.isfinite(values[a]) & np.isfinite(values[b]), line, math.nan)
    return filled


def read_column(history: HistoryFacts, name: str) -> Floats:
    """A column of the steps; empty if there is none."""
    return np.asarray(history.get(name, ()), np.float64)


def write_power(decades: float) -> str:
    """A number by its logarithm: 1e-2.5, or 0."""
    if math.isinf(decades):
        return "0" if decades < 0 else "not finite"
    return f"1e{round(decades, 1) + 0.0:.1f}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _summarize_looks(trace: Trace, statistic: str, places: Any, *, largest: bool = False) -> Floats:
    found = np.full(trace.values.shape[0], math.nan)
    if statistic not in trace.statistics or not trace.values.size:
        return found
    block = trace.values[:, list(places), trace.statistics.index(statistic)]
    for look, row in enumerate(block):
        known = row[~np.isnan(row)]
        if len(known):
            found[look] = known.max() if largest else np.sort(known)[len(known) // 2]
    return found


def _draw(name: str, values: Floats, write: Any, cells: int, after: str = "") -> list[str]:
    """A sparkline with its first and last value; nothing if none is known."""
    known = values[~np.isnan(values)]
    if not len(known):
        return []
    return [f"  {name:{TITLE}}{draw_spark(values, cells)}  {write(known[0])} to {write(known[-1])}{after}"]


def _draw_rate(rates: Floats, cells: int) -> list[str]:
    """The learning rate: one number if it never changed."""
    known = rates[~np.isnan(rates)]
    if not len(known):
        return []
    if known.min() == known.max():
        return [f"  {'lr':{TITLE}}{known[0]:.4g} at every step"]
    return _draw("lr", rates, _number, cells)


def _draw_clipped(clipped: Floats, cells: int) -> list[str]:
    """Which steps were clipped, if any was."""
    known = clipped[~np.isnan(clipped)]
    if not known.any():
        return []
    share = f"{known.mean():.0%} of {len(known):,} steps known"
    return [f"  {'clipped':{TITLE}}{draw_spark(clipped, cells)}  {share}"]


def _draw_cell(value: float, low: float, span: float) -> str:
    if math.isfinite(value):
        return BLOCKS[1 + round((value - low) / span * 7)]
    return " " if math.isnan(value) else ZERO if value < 0 else "x"


def _summarize(piece: Floats) -> float:
    """The median of a cell, unless something in it is infinite or zero, which a median would hide."""
    for extreme in (math.inf, -math.inf):
        if (piece == extreme).any():
            return extreme
    known = piece[np.isfinite(piece)]
    return float(np.median(known)) if len(known) else math.nan
