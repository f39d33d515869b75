"""One YAML, several sizes: `scales:` multiplies depth and width, or overrides keys.

Notable:
- `n: [0.5, 0.25, 1024]` is (depth, width, most channels), as YOLO users write it: channels become min(c,
  most) x width, rounded up to a multiple of 8; repeats n > 1 become max(round(n x depth), 1).
- `20: {depth: 3}` overrides top-level keys of the file.

References: Tan and Le 2019 (compound scaling).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DIVISOR = 8


@dataclass(frozen=True)
class ScaleFactors:
    """A size: its name, the factors of depth and width, and the limit of channels before the factor."""

    name: str = ""
    depth: float = 1.0
    width: float = 1.0
    most: float = math.inf

    def channels(self, c: int) -> int:
        """`c` channels at this scale; unchanged if the scale changes nothing."""
        if self.width == 1 and self.most == math.inf:
            return c
        return math.ceil(min(c, self.most) * self.width / DIVISOR) * DIVISOR

    def repeats(self, n: int) -> int:
        """`n` repeats at this scale, at least one."""
        return max(round(n * self.depth), 1) if n > 1 else n
