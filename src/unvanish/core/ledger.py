"""The gradient ledger: log10 of the backward gain, row by row from the loss to the input, adding up exactly.

Notable:
- A row lies between two neighbouring cuts of a depth axis; its decades are the difference of two measured
  logs, so the rows telescope: their sum is the total.
- A row is split into its weights, ln sqrt(||W||_F^2 / n_out), its activation's slope, ln sqrt(<phi'^2>), and
  alignment, the remainder.
- Rows of one block are gathered under its path and open like a tree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from unvanish.core.brief import Brief
from unvanish.core.shown import Shown
from unvanish.core.trace import Axis, Trace

DECADE = math.log(10.0)


@dataclass(frozen=True, repr=False)
class Row(Brief):
    """One line of a ledger.

    `decades`: log10 of the gradient norm's gain across the row, from its loss side to its input side;
    `parts`: decades of "weights", "slope" and "alignment", summing to `decades`, or empty; `children` sum to
    the row; `below`: decades from the loss down to the row's lower edge.
    """

    path: str
    kind: str
    decades: float
    parts: Mapping[str, float] = field(default_factory=dict)
    children: tuple[Row, ...] = ()
    below: float = math.nan


@dataclass(frozen=True, repr=False)
class Ledger(Shown):
    """The account of one depth axis; the first row is nearest the loss, `empty` if no gradient enters it."""

    name: str
    rows: tuple[Row, ...]
    empty: bool = False

    @property
    def total(self) -> float:
        """Decades from the loss to the input: the sum of the rows; -inf if no gradient enters."""
        return -math.inf if self.empty else _add([row.decades for row in self.rows])

    def leaves(self) -> Iterator[Row]:
        """The rows that have no children, from the loss to the input."""

        def down(rows: Sequence[Row]) -> Iterator[Row]:
            for row in rows:
                if row.children:
                    yield from down(row.children)
                else:
                    yield row

        return down(self.rows)


def ledger(trace: Trace, axis: Axis | None = None) -> Ledger | None:
    """The ledger of an axis, of the main depth axis by default; None if the model has none."""
    chosen = axis or trace.depth()
    if chosen is None or len(chosen.sites) < 2 or not trace.values.size:
        return None
    empty = trace.value(chosen.sites[0], "backward_log") == -math.inf
    leaves, total = [], -math.inf if empty else 0.0
    for above, below in zip(chosen.sites, chosen.sites[1:], strict=False):
        row = _leaf(trace, above, below)
        total += row.decades
        leaves.append(replace(row, below=total))
    return Ledger(chosen.name, _gather(leaves, 0), empty)


def _leaf(trace: Trace, above: int, below: int) -> Row:
    site = trace.sites[above]
    arrives = trace.value(above, "backward_log")
    gain = difference(arrives, trace.value(below, "backward_log"))
    simple = bool(site.facts.get("simple", True))
    path = site.label if simple else str(site.facts.get("row") or site.label)
    kind = site.kind if simple else "block"
    parts = _parts(trace, above, gain) if simple and arrives > -math.inf else {}
    return Row(path, kind, gain / DECADE, parts)


def difference(above: float, below: float) -> float:
    """The gain between two logs; 0 if nothing arrives, -inf if nothing leaves."""
    if math.isinf(above) and above < 0:
        return 0.0
    return below - above


def _parts(trace: Trace, site: int, gain: float) -> dict[str, float]:
    """What one operation's gain is made of, in decades; empty without theory or a finite gain."""
    own = {"weights": trace.value(site, "weight_log")}
    slope = trace.value(site, "slope_sq")
    own["slope"] = 0.5 * math.log(slope) if slope > 0 else math.nan
    known = {name: value / DECADE for name, value in own.items() if math.isfinite(value)}
    if not known or not math.isfinite(gain):
        return {}
    return {**known, "alignment": gain / DECADE - sum(known.values())}


def _gather(rows: Sequence[Row], depth: int) -> tuple[Row, ...]:
    """Neighbouring rows with a common name at this depth of their paths become one row with children."""
    found: list[Row] = []
    for key, group in groupby(rows, key=lambda row: tuple(row.path.split(".")[: depth + 1])):
        members = list(group)
        deeper = [m for m in members if len(m.path.split(".")) > depth + 1]
        if len(members) == 1 or not deeper:
            found += members
            continue
        children = _gather(members, depth + 1)
        if len(children) == 1:
            found += children
            continue
        decades = _add([m.decades for m in members])
        found.append(Row(".".join(key), "block", decades, _add_parts(members), children, members[-1].below))
    return tuple(found)


def _add(decades: Sequence[float]) -> float:
    """The sum, without rounding if all are finite; an infinity if it is beyond the largest float."""
    if not all(map(math.isfinite, decades)):
        return sum(decades)
    try:
        return math.fsum(decades)
    except OverflowError:  # on the way, or at the end
        small = 2.0 ** -len(decades).bit_length()
        return math.fsum(d * small for d in decades) / small


def _add_parts(rows: Sequence[Row]) -> dict[str, float]:
    """The parts of several rows together, if each has them."""
    if not all(row.parts for row in rows):
        return {}
    names = [name for name in ("weights", "slope") if any(name in row.parts for row in rows)]
    found = {name: _add([row.parts.get(name, 0.0) for row in rows]) for name in names}
    return {**found, "alignment": _add([row.decades for row in rows]) - sum(found.values())}
