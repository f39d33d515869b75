"""The gradient by the parts of a detector: backbone, neck, and the heads level by level.

Notable:
- A stage's number is the norm of its gradient over that of its weights, in decades, the median of the watch's
  looks: the relative change by one step of plain descent at rate 1.
- If no cell of a level is responsible for an object, its boxes have no gradient. That is a property of the
  batch, not a fault of the network, and reported as such.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unvanish.core.trace import Trace
from unvanish.lab.models.network import Network

BRANCHES = ("box", "score", "coefficients")  # of a head, each a list of levels


@dataclass(frozen=True)
class Stage:
    """A part: log10 of ||gradient|| / ||weights||, and the share of looks at which it had no gradient."""

    name: str
    decades: float
    silent: float

    def __str__(self) -> str:
        return f"{self.name} {'zero' if self.decades == -math.inf else f'{self.decades:+.1f}'}"


def measure_stages(network: Network, trace: Trace) -> tuple[Stage, ...]:
    """The stages of a detector, from the parameters' rows of a watch's trace; empty without a look."""
    groups: dict[str, list[int]] = {}
    for i in trace.where("parameter"):
        groups.setdefault(name_stage(network, trace.sites[i].path), []).append(i)
    if not len(trace.values):
        return ()
    return tuple(_stage(name, trace, sites) for name, sites in groups.items())


def name_stage(network: Network, path: str) -> str:
    """The stage of a module: backbone, neck, or a branch of the head at a level, as in "box P3"."""
    row, *inner = path.split(".")
    if row != network.plan[-1].name:
        index = next((step.index for step in network.plan if step.name == row), 0)
        first = _first_of_neck(network)
        return "backbone" if index < first else "neck"
    if len(inner) > 1 and inner[0] in BRANCHES:
        strides: Sequence[float] = getattr(network.final, "strides", ())
        return f"{inner[0]} P{round(math.log2(strides[int(inner[1])]))}"
    return inner[0] if inner else "head"


def _first_of_neck(network: Network) -> int:
    """The first row after the backbone: by the file, else the first row that reads several."""
    backbone = network.spec.document.get("backbone")
    if backbone:
        return len(backbone)
    return next((step.index for step in network.plan if len(step.sources) > 1), len(network.plan))


def _stage(name: str, trace: Trace, sites: list[int]) -> Stage:
    gradient, weight = (_total(_log(trace, key, sites)) for key in ("gradient_log", "norm_log"))
    silent = gradient == -math.inf
    ratios = (gradient - weight)[~silent]
    decades = float(np.median(ratios)) / math.log(10) if len(ratios) else -math.inf
    return Stage(name, decades, float(silent.mean()))


def _log(trace: Trace, statistic: str, sites: list[int]) -> NDArray[np.float64]:
    """A statistic of some sites, (looks, sites)."""
    return trace.values[:, sites, trace.statistics.index(statistic)]


def _total(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The log of the norm over all sites, (looks,), from their logs (looks, sites); NaN counts as norm 0."""
    known = np.where(np.isnan(logs), -np.inf, logs)
    total: NDArray[np.float64] = np.logaddexp.reduce(2 * known, axis=1) / 2
    return total


def describe_stages(found: Sequence[Stage]) -> list[str]:
    """In sentences: the stages, and the levels whose boxes had no gradient."""
    if not found:
        return []
    lines = ["gradient over weights in decades: " + ", ".join(map(str, found))]
    silent = [s for s in found if s.silent and s.name.startswith("box ")]
    if silent:
        levels = ", ".join(f"{s.name.removeprefix('box ')} at {s.silent:.0%} of the looks" for s in silent)
        lines.append(f"no object for the cells of {levels}, so no gradient for their boxes: not a fault")
    return lines
