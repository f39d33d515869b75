"""Whether a watched training gets anywhere: its loss falls, it has learned, it has converged.

Limits

Of a watched run's progress:

    FEWEST = 20      steps with a known loss, below which nobody can say that it does not fall
    THIRD = 3        the loss falls if the median of the last third of the steps is below that of
                     the first one
    MARGIN = 0.001   of the first loss: a smaller fall is no fall
    NOISE = 0.5      of the scatter of the first third: nor is this
    OPENING = 7      first steps of the run that are known, to compare the last twice as many with
                     in a run longer than its window
    LONG = 30        steps with a known loss, below which a run has not converged
    WINDOW = 10      steps whose median is the loss at a moment
    STRIDE = 5       steps between the moments at which the lowest loss is looked for
    RISEN = 1.5      times the lowest loss: above it the loss has risen, and what is small is
                     broken
    DONE = 0.1       of the first loss: a run below it has converged
    LOWER = 0.9      of the first loss: enough, if the gradient fell as well
    QUIET = 100      the gradient fell by this factor; the values separate runs that end from runs
                     in which a layer died or the loss rose again (both are tests)
"""

from __future__ import annotations

import math

import numpy as np

from unvanish.core.trace import Trace
from unvanish.rules import _history, _scatter
from unvanish.rules._history import Floats

FEWEST, THIRD, MARGIN, NOISE = 20, 3, 1e-3, 0.5
OPENING = 7
LONG, WINDOW, STRIDE, RISEN, DONE, LOWER, QUIET = 30, 10, 5, 1.5, 0.1, 0.9, 100


def falls(loss: Floats) -> bool:
    """Whether the loss fell from the first third to the last; True if too few steps are known to deny it."""
    known = loss[np.isfinite(loss)]
    if len(known) < FEWEST:
        return len(known) > 0
    third = len(known) // THIRD
    first, last = known[:third], known[-third:]
    level = float(np.median(first))
    least = max(MARGIN * abs(level), NOISE * _scatter.measure_scatter(first, level))
    return bool(np.median(last) < level - least)


def learns(trace: Trace) -> bool:
    """Whether the loss is below that of the run's first steps, even if those have left the window."""
    loss = _history.read_steps(trace, "loss")
    start = np.asarray(trace.facts.get("start", ()), np.float64)
    if falls(loss):
        return True
    return len(start) >= OPENING and falls(np.concatenate([start, loss[-2 * len(start) :]]))


def has_converged(trace: Trace) -> bool:
    """Whether the run has ended: the loss fell tenfold, or the gradient a hundredfold, and both stay.

    False outside a training, and if the loss has risen again: what is small then is broken.
    """
    if not trace.facts.get("live"):
        return False
    loss = _history.read_steps(trace, "loss")
    known = np.abs(loss[np.isfinite(loss)])
    start = np.abs(np.asarray(trace.facts.get("start", ()), np.float64))
    first = start[:WINDOW] if len(start) else known[:WINDOW]
    if len(known) < LONG or not len(first):
        return False
    level, usual = float(np.median(known[-WINDOW:])), float(np.median(first))
    if level > RISEN * _lowest(known) + MARGIN * usual:
        return False
    return level < DONE * usual or (level < LOWER * usual and _is_quiet(trace))


def _lowest(loss: Floats) -> float:
    """The lowest loss at any moment of the run."""
    starts = range(0, len(loss) - WINDOW + 1, STRIDE)
    return min(float(np.median(loss[k : k + WINDOW])) for k in starts)


def _is_quiet(trace: Trace) -> bool:
    """Whether the gradient is a hundredth of what it was."""
    norms = _history.read_steps(trace, "norm_log")
    known = norms[np.isfinite(norms)]
    return len(known) >= LONG and bool(
        np.median(known[-WINDOW:]) < np.median(known[:WINDOW]) - math.log(QUIET)
    )
