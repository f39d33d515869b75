"""What rules read off a watched training: its steps, and what moved at its looks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.run_facts import StepColumn
from unvanish.core.trace import Trace

Floats = NDArray[np.float64]


def read_steps(trace: Trace, name: StepColumn) -> Floats:
    """One column of the steps watched so far, in a long run of the last; NotApplicable outside a training."""
    history = trace.facts.get("history")
    if not history:
        raise NotApplicable("needs a training under watch")
    found: Floats = np.asarray(history.get(name, ()), np.float64)
    return found if len(found) else np.full(len(history.get("step", ())), math.nan)  # not measured


def find_weights(trace: Trace) -> list[int]:
    """The sites of weight matrices and kernels."""
    return [i for i in trace.where("parameter") if trace.sites[i].facts.get("dimensions", 0) >= 2]


def read_looks(trace: Trace, sites: list[int], statistic: str) -> Floats:
    """A statistic of these sites at all looks, shape (looks, sites)."""
    found: Floats = trace.values[:, sites, trace.statistics.index(statistic)]
    return found


def take_medians(values: Floats) -> Floats:
    """The median over the sites of each look, NaN if nothing was measured, shape (looks,)."""
    known = np.isfinite(values)
    whole = known.all(axis=1) & (values.shape[1] > 0)
    rows = known.any(axis=1) & ~whole  # `nanmedian` takes many times as long
    found = np.full(len(values), math.nan)
    if whole.any():
        found[whole] = np.median(values[whole], axis=1)
    if rows.any():
        found[rows] = np.nanmedian(np.where(known, values, math.nan)[rows], axis=1)
    return found


def rehearse_with(**training: Any) -> dict[str, Any]:
    """The options of a case that is watched while it trains; they are those of `clinic.watch.rehearse`."""
    return {"training": training}
