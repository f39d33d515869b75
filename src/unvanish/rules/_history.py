"""What rules read off a watched training: its steps, and what moved at its looks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.facts import StepColumn
from unvanish.core.trace import Trace

Floats = NDArray[np.float64]


def steps(trace: Trace, name: StepColumn) -> Floats:
    """One column of the steps watched so far, of a long run the last; NotApplicable outside a training."""
    history = trace.facts.get("history")
    if not history:
        raise NotApplicable("needs a training under watch")
    found: Floats = np.asarray(history.get(name, ()), np.float64)
    return found


def weights(trace: Trace) -> list[int]:
    """The sites of weight matrices and kernels."""
    return [i for i in trace.where("parameter") if trace.sites[i].facts.get("dimensions", 0) >= 2]


def looks(trace: Trace, sites: list[int], statistic: str) -> Floats:
    """A statistic of these sites at all looks, shape (looks, sites)."""
    found: Floats = trace.values[:, sites, trace.statistics.index(statistic)]
    return found


def typical(values: Floats) -> Floats:
    """The median over the sites of each look, NaN where nothing was measured, shape (looks,)."""
    known = np.isfinite(values)
    kept = known.any(axis=1)
    found = np.full(len(values), math.nan)
    if kept.any():
        found[kept] = np.nanmedian(np.where(known, values, math.nan)[kept], axis=1)
    return found


def rise(loss: Floats, place: int) -> float:
    """By how much the loss after a place is above that before it, in units of its own scatter; NaN if
    unknown.
    """
    after = loss[place:]
    before = loss[max(0, place - max(10, len(after))) : place]
    after, before = after[np.isfinite(after)], before[np.isfinite(before)]
    if len(after) < 2 or len(before) < 5:
        return math.nan
    level = float(np.median(before))
    scatter = max(1.4826 * float(np.median(np.abs(before - level))), 0.02 * abs(level), 1e-12)
    return (float(np.median(after)) - level) / scatter


def falls(loss: Floats, least: int = 20) -> bool:
    """Whether the loss fell from the first third to the last; True where too few are known to deny it."""
    known = loss[np.isfinite(loss)]
    if len(known) < least:
        return len(known) > 0
    third = len(known) // 3
    first, last = known[:third], known[-third:]
    scatter = 1.4826 * float(np.median(np.abs(first - np.median(first))))
    return bool(np.median(last) < np.median(first) - max(1e-3 * abs(np.median(first)), 0.5 * scatter))


def learns(trace: Trace) -> bool:
    """Whether the loss is below that of the run's first steps, also where those have left the window."""
    loss = steps(trace, "loss")
    start = np.asarray(trace.facts.get("start", ()), np.float64)
    return falls(loss) or (len(start) >= 7 and falls(np.concatenate([start, loss[-2 * len(start) :]])))


def converged(trace: Trace) -> bool:
    """Whether the run has got where it goes: the loss fell tenfold, or the norm a hundredfold, and both stay.

    False outside a training, and where the loss has risen again: what is small then has been broken.
    """
    if not trace.facts.get("live"):
        return False
    loss, norms = steps(trace, "loss"), steps(trace, "norm_log")
    known = np.abs(loss[np.isfinite(loss)])
    start = np.abs(np.asarray(trace.facts.get("start", ()), np.float64))
    first = start[:10] if len(start) else known[:10]
    if len(known) < 30 or not len(first):
        return False
    level, usual = float(np.median(known[-10:])), float(np.median(first))
    lowest = min(float(np.median(known[k : k + 10])) for k in range(0, len(known) - 9, 5))
    if level > 1.5 * lowest + 1e-3 * usual:
        return False
    quiet = norms[np.isfinite(norms)]
    still = len(quiet) >= 30 and np.median(quiet[-10:]) < np.median(quiet[:10]) - math.log(100)
    return level < 0.1 * usual or bool(still and level < 0.9 * usual)


def training_case(**training: Any) -> dict[str, Any]:
    """The options of a case that is watched while it trains, for so many steps; see `watcher.rehearse`."""
    return {"training": training}
