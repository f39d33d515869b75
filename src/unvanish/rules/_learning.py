"""Whether the loss of a watched training falls.

Limits

Of a loss that falls:

    FEWEST = 20      steps with a known loss, below which nobody can say that it does not
    THIRD = 3        it falls if the median of the last third of the steps is below that of the
                     first
    MARGIN = 0.001   of the first third's: a smaller fall is none
    NOISE = 0.5      of the first third's scatter: nor is this
    LAST = 10        last steps whose median is the loss now
    HIGH = 1.1       times the lowest loss of any LAST steps: above it the loss has risen again
    OPENING = 7      first steps of a run that is longer than its window, to compare the last
                     twice as many with
"""

from __future__ import annotations

import numpy as np

from unvanish.core.trace import Trace
from unvanish.rules import _history
from unvanish.rules._history import Floats
from unvanish.rules._scatter import measure_scatter

FEWEST, THIRD, MARGIN, NOISE = 20, 3, 1e-3, 0.5
OPENING = 7
LAST, HIGH = 10, 1.1


def falls(loss: Floats) -> bool:
    """Whether the loss fell from the first third to the last; True if too few steps are known to deny it."""
    known = loss[np.isfinite(loss)]
    if len(known) < FEWEST:
        return len(known) > 0
    third = len(known) // THIRD
    first, last = known[:third], known[-third:]
    level = float(np.median(first))
    least = max(MARGIN * abs(level), NOISE * measure_scatter(first, level))
    return bool(np.median(last) < level - least)


def learns(trace: Trace) -> bool:
    """Whether the loss is below that of the run's first steps, even if those have left the window."""
    loss = _history.read_steps(trace, "loss")
    start = np.asarray(trace.facts.get("start", ()), np.float64)
    if falls(loss):
        return True
    return len(start) >= OPENING and falls(np.concatenate([start, loss[-2 * len(start) :]]))


def thrives(trace: Trace) -> bool:
    """Whether the loss has fallen since the run began, and is about as low as it ever was."""
    loss = _history.read_steps(trace, "loss")
    known = loss[np.isfinite(loss)]
    if len(known) < FEWEST or not learns(trace):
        return False
    windows = np.lib.stride_tricks.sliding_window_view(known, LAST)
    lowest = float(np.median(windows, axis=1).min())
    return bool(np.median(known[-LAST:]) <= lowest + (HIGH - 1) * abs(lowest))
