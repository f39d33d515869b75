"""Bars and curves made of characters: two-sided bars around a zero axis, and sparklines.

Notable:
- Half-block characters give two steps a cell in both directions, so left and right bars compare fairly.
- `ASCII` maps each of these characters to an ASCII one, for terminals that cannot show them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unvanish.reports.parts.series import Curve, thin

LEFT, RIGHT, FULL, AXIS = "▐", "▌", "█", "│"
SPARKS = "▁▂▃▄▅▆▇█"
ASCII = {ord(c): a for c, a in zip("▐▌█│·…▁▂▃▄▅▆▇", "###|..__,,--=", strict=True)}


@dataclass(frozen=True)
class BarScale:
    """Cells on either side of zero, and cells per decade, the same on both sides."""

    left: int
    right: int
    unit: float

    @classmethod
    def over(cls, values: Sequence[float], cells: int) -> BarScale:
        """A scale for these values in `cells` cells; the axis takes one, either side at least two."""
        finite = [v for v in values if math.isfinite(v)]
        low = max([-v for v in finite if v < 0], default=0.0)
        high = max([v for v in finite if v > 0], default=0.0)
        low = max(low, high, 1.0) if -math.inf in values else low
        high = max(low, high, 1.0) if math.inf in values else high
        room = max(cells - 1, 4)
        share = low / (low + high) if low + high > 0 else 0.5
        left = min(max(round(room * share), 2), room - 2)
        units = [side / reach for side, reach in ((left, low), (room - left, high)) if reach > 0]
        return cls(left, room - left, min(units, default=0.0))

    def bar(self, value: float) -> tuple[str, str]:
        """The cells on the left and on the right of the axis, padded; an infinite value fills its side."""
        if math.isnan(value):
            return " " * self.left, " ?".ljust(self.right)
        side = self.left if value < 0 else self.right
        halves = 2 * side if math.isinf(value) else min(round(abs(value) * self.unit * 2), 2 * side)
        whole, half = divmod(halves, 2)
        if value < 0:
            return (LEFT * half + FULL * whole).rjust(self.left), " " * self.right
        return " " * self.left, (FULL * whole + RIGHT * half).ljust(self.right)


def draw_sparkline(curve: Sequence[float] | Curve, cells: int) -> str:
    """A curve in one line; no gradient is `.`, not measured is a blank."""
    values = thin(curve, cells)
    finite = [float(v) for v in values if math.isfinite(v)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join(_spark(float(v), low, high) for v in values)


def _spark(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return " "
    if math.isinf(value):
        return "." if value < 0 else SPARKS[-1]
    share = (value - low) / (high - low) if high - low > 1e-9 else 1.0
    return SPARKS[round(share * (len(SPARKS) - 1))]
