"""Whether a watched training has converged: what is small then may be small.

Limits

Of a run that has converged:

    LONG = 30       steps with a known loss, below which it has not
    WINDOW = 10     steps whose median is the loss at a moment
    STRIDE = 5      steps between the moments at which the lowest loss is looked for
    RISEN = 1.5     times the lowest loss, and SLACK: above it the loss has risen, and what is
                    small is broken
    SLACK = 0.001   of the first loss
    DONE = 0.1      of the first loss: below it the run has converged
    LOWER = 0.9     of the first loss: enough, if the gradient fell as well
    QUIET = 100     times smaller gradients than at first. These separate runs that end from runs
                    in which a layer died, or whose loss rose again (both are tests)
    FLAT = 0.001    of the loss: if the gradient promises less for moving all weights by their own
                    length, nothing is to be had there: the rest of the loss is in the data
"""

from __future__ import annotations

import math

import numpy as np

from unvanish.core.trace import Trace
from unvanish.rules import _history
from unvanish.rules._history import Floats

LONG, WINDOW, STRIDE = 30, 10, 5
RISEN, SLACK, DONE, LOWER, QUIET = 1.5, 1e-3, 0.1, 0.9, 100
FLAT = 1e-3


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
    if level > RISEN * _lowest(known) + SLACK * usual:
        return False
    return level < DONE * usual or (level < LOWER * usual and is_quiet(trace))


def _lowest(loss: Floats) -> float:
    """The lowest loss at any moment of the run."""
    windows = np.lib.stride_tricks.sliding_window_view(loss, WINDOW)[::STRIDE]
    return float(np.median(windows, axis=1).min())


def is_quiet(trace: Trace) -> bool:
    """Whether the gradient is a hundredth of what it was, wherever the loss has come to rest."""
    norms = _history.read_steps(trace, "norm_log")
    known = norms[np.isfinite(norms)]
    return len(known) >= LONG and bool(
        np.median(known[-WINDOW:]) < np.median(known[:WINDOW]) - math.log(QUIET)
    )


def is_flat(trace: Trace) -> bool:
    """Whether the gradient is so small beside the loss that no step along it is worth making."""
    loss, norms = _history.read_steps(trace, "loss"), _history.read_steps(trace, "norm_log")
    loss, norms = loss[np.isfinite(loss)], norms[np.isfinite(norms)]
    weights = [trace.value(i, "norm_log") for i in trace.where("parameter")]
    known = [w for w in weights if math.isfinite(w)]
    if not len(loss) or not len(norms) or not known:
        return False
    length = math.sqrt(sum(math.exp(2 * w) for w in known))
    return math.exp(float(norms[-1])) * length < FLAT * abs(float(loss[-1]))
