"""The numbers of the step just made, by the names under which they go into a library's log.

Notable: nothing waits for a device; a number that is still there is not known yet.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from unvanish.clinic.watch.chronicle import Chronicle
from unvanish.clinic.watch.history import LIVE, History

DECADE = math.log(10)


def read_numbers(chronicle: Chronicle) -> dict[str, float]:
    """The step just made: loss, gradient_norm (the norm the optimizer saw), learning_rate; NaN if unknown.

    Of the last look, if there was one, also flow_decades, log10 of the gradient's gain from the loss down to
    the input, and update_decades, log10 of update over weight, the median of all layers.
    """
    row = chronicle.row or chronicle.before
    if row is None:
        return {}
    found = {"loss": _here(row.loss), "gradient_norm": _here(row.norm), "learning_rate": _here(row.lr)}
    history = chronicle.history
    return found | _read_look(history) if history.looks else found


def _here(value: Any) -> float:
    """A number as a float; NaN while it is on a device."""
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return math.nan
    return float(value)


def _read_look(history: History) -> dict[str, float]:
    look = history.looks[-1]
    if len(look) != len(history.sites):
        return {}
    found = {}
    if history.axes:
        logs = look[list(history.axes[0].sites), LIVE.index("backward_log")]
        found["flow_decades"] = float(logs[-1] - logs[0]) / DECADE if math.isfinite(logs[0]) else math.nan
    moved = [
        float(look[i, LIVE.index("update_log")])
        for i, site in enumerate(history.sites)
        if site.role == "parameter" and site.facts.get("dimensions", 0) > 1
    ]
    known = [value for value in moved if math.isfinite(value)]
    if known:
        found["update_decades"] = float(np.median(known)) / DECADE
    return found
