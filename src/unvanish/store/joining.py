"""What several ranks saw of a step or a look, joined into what one process would have seen.

Notable:
- Ranks of one layout hold the same parameters: as replicas, whose norms are averaged, or as shards, whose
  squares add up; ranks of other layouts hold other parameters, as the stages of a pipeline do.
- A shard's rank has weighted its squares by how many ranks of all hold them (`probes.live.shards`), so
  that a sum over all ranks counts each once, and one over a layout is scaled by its share of the ranks.
- A NaN of any rank stays a NaN; a number that is missing makes a sum of shards NaN, but not a mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unvanish.store.schema import PARTS

Floats = NDArray[np.float64]
MEANS = ("loss", "lr")


@dataclass(frozen=True)
class Holding:
    """What a rank holds of the model: the names and shapes, in a digest; shards of how many ranks, or all."""

    rank: int
    ranks: int = 1  # that train together
    layout: str = ""
    shards: int = 1  # ranks that hold the model together; 1: each holds all


def join_norms(logs: Floats, there: NDArray[np.bool_], holdings: Sequence[Holding]) -> Floats:
    """Ln of the joined norms, shape (steps,), from each rank's, (ranks, steps); `there`: it has the step.

    NaN if a rank's is, or if a part of the model is missing.
    """
    parts = []
    for members in group_by_layout(holdings):
        holding = holdings[members[0]]
        doubled, known = 2 * logs[members], there[members]
        if holding.shards > 1:
            whole = known.all(0) & (len(members) >= holding.shards)
            total = add_logs(doubled) + math.log(holding.ranks / len(members))
        else:
            whole = known.any(0)
            total = add_logs(np.where(known, doubled, -math.inf)) - np.log(np.maximum(known.sum(0), 1))
        parts.append(np.where(whole, total, math.nan))
    return add_logs(np.array(parts)) / 2


def join_cells(cells: Floats, statistics: Sequence[str], holding: Holding) -> Floats:
    """Parameters' statistics, joined over the shards of one layout: (ranks, sites, statistics) to one.

    Without its columns `PARTS`, which are the last ones.
    """
    joined: Floats = cells.mean(0)[:, : len(statistics) - len(PARTS)]
    at = {name: i for i, name in enumerate(statistics)}
    whole = len(cells) >= holding.shards
    share = math.log(holding.ranks / len(cells))
    elements = cells[..., at["elements"]]
    looked = elements > 0
    squares = np.where(looked, 2 * cells[..., at["gradient_log"]], -math.inf)
    zeros = np.where(looked, cells[..., at["gradient_zero"]] * elements, 0.0)
    total = elements.sum(0)
    none = (total == 0) | (not whole)
    with np.errstate(invalid="ignore", divide="ignore"):
        joined[:, at["gradient_log"]] = np.where(none, math.nan, (add_logs(squares) + share) / 2)
        joined[:, at["gradient_zero"]] = np.where(none, math.nan, zeros.sum(0) / total)
        norms = (add_logs(2 * cells[..., at["norm_log"]]) + share) / 2
        joined[:, at["norm_log"]] = norms if whole else math.nan
        moved, held = (add_logs(2 * cells[..., at[name]]) for name in ("moved_log", "held_log"))
        joined[:, at["update_log"]] = (moved - held) / 2 if whole else math.nan
    return joined


def add_logs(logs: Floats) -> Floats:
    """Ln of the sum of exponentials over the first axis; NaN if any is, -inf of nothing."""
    top = logs.max(0, initial=-math.inf)  # NaN if any is
    base = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found: Floats = np.log(np.exp(logs - base).sum(0)) + base
    return found


def group_by_layout(holdings: Sequence[Holding]) -> list[list[int]]:
    """Places of the ranks that hold the same parameters, in order of their first rank."""
    groups: dict[str, list[int]] = {}
    for place, holding in enumerate(holdings):
        groups.setdefault(holding.layout, []).append(place)
    return list(groups.values())


def join_columns(
    tables: Floats, there: NDArray[np.bool_], names: Sequence[str], holdings: Sequence[Holding]
) -> Floats:
    """Rows of steps, joined over the ranks: (ranks, steps, columns) to (steps, columns).

    The loss is the mean over the ranks that know one; the first rank that has a step gives its time.
    """
    known = [h for h in range(len(holdings)) if there[h].any()]
    joined = np.full(tables.shape[1:], math.nan)
    first = there.argmax(0)
    for column, name in enumerate(names):
        values = tables[..., column]
        if name == "norm_log":
            joined[:, column] = join_norms(values, there, holdings)
        elif name == "before_log":
            joined[:, column] = _join_before(values, there, holdings)
        elif name in MEANS:
            joined[:, column] = _average(
                [h for h in known if not np.isnan(values[h][there[h]]).all()], values, there
            )
        elif name in ("skipped", "clipped"):
            joined[:, column] = _extreme(np.where(there, values, math.nan), np.fmax)
        elif name in ("finite", "exact"):
            joined[:, column] = _extreme(np.where(there, values, math.nan), np.fmin)
        else:
            joined[:, column] = np.take_along_axis(values, first[None], 0)[0]
    return joined


def _join_before(values: Floats, there: NDArray[np.bool_], holdings: Sequence[Holding]) -> Floats:
    """Norms before clipping, which only looks know: of replicas, those that looked."""
    sharded = np.array([[h.shards > 1] for h in holdings])
    return join_norms(values, there & (sharded | ~np.isnan(values)), holdings)


def _average(members: Sequence[int], values: Floats, there: NDArray[np.bool_]) -> Floats:
    """The mean over the ranks that know something at all, of those that have the step; their NaN stays."""
    has = there[list(members)]
    count = has.sum(0)
    with np.errstate(invalid="ignore"):
        total: Floats = np.where(has, values[list(members)], 0.0).sum(0)
        return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def _extreme(values: Floats, choose: np.ufunc) -> Floats:
    """The largest or smallest known value over the ranks."""
    found: Floats = choose.reduce(values, axis=0)
    return found
