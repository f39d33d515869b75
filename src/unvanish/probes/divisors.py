"""How uneven the numbers are that a part of the graph divides by: rows of zeros under a norm by hand.

Notable: x / |x| sends a gradient of 1 / |x| to each row. A row of zeros, of padding or of units that are off,
gets a huge one, although it changes no weight: the size of the whole gradient is then that of such rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.probes.events import Operation
from unvanish.probes.saved import find_saved

LARGE = 1 << 18  # elements that are read, at most
DIVIDING = ("div", "true_divide", "rsqrt", "reciprocal")


def read_pole(operations: Iterable[Operation]) -> float:
    """Ln of the usual divisor over the least one, of the most uneven of some divisions; 0 without any."""
    poles = [_read(o.nodes[0], o.kind) for o in operations if o.kind in DIVIDING and o.nodes]
    return max((p for p in poles if math.isfinite(p)), default=0.0)


def _read(node: Any, kind: str) -> float:
    """Ln of the root mean square divisor over the least one; 0 if it is not kept, constant, or zero."""
    name = "_saved_other" if "div" in kind else "_saved_result"
    kept = find_saved(node, name)
    if kept is None or kept.is_meta or kept.is_complex() or not 1 < kept.numel() <= LARGE:
        return 0.0
    divisors = kept.detach().abs().double()
    if name == "_saved_result":  # 1 / x, or its root: both are the slope's size
        divisors = divisors.reciprocal()
    usual, least = float(divisors.square().mean().sqrt()), float(divisors.min())
    return math.log(usual / least) if 0 < least < usual < math.inf else 0.0
