"""Two ledgers, before and after a cure, matched row by row from the loss to the input.

Notable: rows are matched by their paths, in order; what a cure put in or took out stands alone, and the other
side keeps its running total there, since nothing happens to its gradient.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from unvanish.core.ledger import Ledger, Row
from unvanish.reports.parts.fold import size

ENDS, WORST = 2, 8  # rows at either end, and worst ones, that are never folded
LONG, STAIRS = 40, 12  # rows from which a ledger is folded; stretches that it is then shown in, about
ODD = 1.5  # times the size of three in four: a row that stands out


@dataclass(frozen=True)
class Pair:
    """A row before and after, either None if it is not there; `totals`: decades down to its lower edge."""

    before: Row | None
    after: Row | None
    totals: tuple[float, float]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Those that are there."""
        return tuple(row for row in (self.before, self.after) if row is not None)

    @property
    def weight(self) -> float:
        """How much attention it deserves: the larger of both sizes."""
        return max(size(row.decades) for row in self.rows)


@dataclass(frozen=True)
class Stretch:
    """Neighbouring pairs shown as one."""

    pairs: tuple[Pair, ...]

    @property
    def decades(self) -> tuple[float, float]:
        """Their sums, before and after."""
        before = sum(p.before.decades for p in self.pairs if p.before is not None)
        after = sum(p.after.decades for p in self.pairs if p.after is not None)
        return float(before), float(after)

    @property
    def totals(self) -> tuple[float, float]:
        """The running totals at its lower edge."""
        return self.pairs[-1].totals


def match_ledgers(before: Ledger, after: Ledger) -> list[Pair]:
    """The leaves of both, matched by path."""
    rows = list(before.leaves()), list(after.leaves())
    paths = [[row.path for row in side] for side in rows]
    matcher = SequenceMatcher(None, paths[0], paths[1], autojunk=False)
    matched: list[tuple[Row | None, Row | None]] = []
    for _, a, b, c, d in matcher.get_opcodes():
        olds, news = rows[0][a:b], rows[1][c:d]
        if len(olds) == len(news):  # the same places, perhaps under new names
            matched += zip(olds, news, strict=True)
        else:
            matched += [*((row, None) for row in olds), *((None, row) for row in news)]
    pairs, totals = [], (0.0, 0.0)
    for old, new in matched:
        totals = (totals[0] if old is None else old.below, totals[1] if new is None else new.below)
        pairs.append(Pair(old, new, totals))
    return pairs


def fold_pairs(pairs: Sequence[Pair]) -> list[Pair | Stretch]:
    """All of them if they are few; else the ends, those that stand out, and stretches of the others."""
    if len(pairs) <= LONG:
        return list(pairs)
    large = statistics.quantiles([min(pair.weight, 1e9) for pair in pairs], n=4)[2]
    odd = [i for i in range(len(pairs)) if pairs[i].weight > max(ODD * large, 0.5)]
    worst = sorted(odd, key=lambda i: -pairs[i].weight)[:WORST]
    kept = {*range(ENDS), *range(len(pairs) - ENDS, len(pairs)), *worst}
    out: list[Pair | Stretch] = []
    run: list[Pair] = []
    for index, pair in enumerate(pairs):
        if index in kept:
            out += [*_close(run), pair]
            run = []
        else:
            run.append(pair)
            if len(run) * STAIRS >= len(pairs):
                out += _close(run)
                run = []
    return [*out, *_close(run)]


def list_totals(pairs: Sequence[Pair], side: int) -> list[float]:
    """The running total of one side, from 0 at the loss down to the input; decades."""
    return [0.0, *(pair.totals[side] for pair in pairs)]


def is_known(totals: Sequence[float]) -> bool:
    """Whether any of these is a number."""
    return any(not math.isnan(total) for total in totals)


def _close(run: list[Pair]) -> list[Pair | Stretch]:
    return list(run) if len(run) < 3 else [Stretch(tuple(run))]
