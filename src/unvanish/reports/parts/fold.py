"""Long ledgers folded: runs of similar rows become one line with their count and their sum.

Notable:
- A row is typical if at least two others look like it (same kind, same path except its numbers) and have
  about the same decades. Runs of typical rows are folded; the worst and the odd rows always show.
- A fold keeps its rows, so a page can open it, and the sums still add up to the total.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from unvanish.core.ledger import Row
from unvanish.reports.parts.words import clean

PARTS = ("weights", "slope", "alignment")
DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Fold:
    """Consecutive rows shown as one."""

    rows: tuple[Row, ...]

    @property
    def decades(self) -> float:
        """Their sum, decades."""
        return float(sum(row.decades for row in self.rows))

    @property
    def parts(self) -> dict[str, float]:
        """The sums of the parts that any row has, decades."""
        sums = {p: [row.parts[p] for row in self.rows if p in row.parts] for p in PARTS}
        return {part: float(sum(values)) for part, values in sums.items() if values}

    @property
    def below(self) -> float:
        """Cumulative decades from the loss down to the last row's lower edge."""
        return self.rows[-1].below

    @property
    def by_kind(self) -> dict[str, Fold]:
        """The rows of each kind; more than three kinds stay together under an empty name."""
        kinds = dict.fromkeys(clean(row.kind) for row in self.rows)
        if len(kinds) > 3:
            return {"": self}
        return {kind: Fold(tuple(row for row in self.rows if clean(row.kind) == kind)) for kind in kinds}


def fold(rows: Sequence[Row], budget: int = 16, ends: int = 2, worst: int = 6) -> list[Row | Fold]:
    """All rows if they fit the budget, else the ends, the worst and odd rows, and folds between them."""
    if len(rows) <= budget:
        return list(rows)
    kept = {*range(ends), *range(len(rows) - ends, len(rows)), *_notable(rows, worst)}
    out: list[Row | Fold] = []
    run: list[Row] = []
    for index, row in enumerate(rows):
        if index in kept:
            out += [*_close(run), row]
            run = []
        else:
            run.append(row)
    return out + _close(run)


def size(value: float) -> float:
    """How much attention a number of decades deserves: its absolute value, everything non-finite first."""
    return abs(value) if math.isfinite(value) else math.inf


def _close(run: list[Row]) -> list[Row | Fold]:
    return list(run) if len(run) < 3 else [Fold(tuple(run))]


def _notable(rows: Sequence[Row], worst: int) -> list[int]:
    """Indices of the worst row and of the worst among those that are not typical."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        groups.setdefault(_shape(row), []).append(row.decades)
    order = sorted(range(len(rows)), key=lambda i: -size(rows[i].decades))
    usual = {shape: _find_usual(values) for shape, values in groups.items()}
    odd = [i for i in order if not _is_typical(rows[i].decades, usual[_shape(rows[i])])]
    return [*order[:1], *odd[:worst]]


def _shape(row: Row) -> tuple[str, str]:
    return row.kind, DIGITS.sub("#", row.path)


def _find_usual(group: Sequence[float]) -> tuple[float, bool]:
    """The median of a group, NaN if it has fewer than three finite values; whether three are not finite."""
    finite = [v for v in group if math.isfinite(v)]
    middle = statistics.median(finite) if len(finite) >= 3 else math.nan
    return middle, len(group) - len(finite) >= 3


def _is_typical(value: float, usual: tuple[float, bool]) -> bool:
    middle, broken = usual
    if not math.isfinite(value):
        return broken
    return abs(value - middle) <= max(0.25, 0.5 * abs(middle))  # not near NaN
