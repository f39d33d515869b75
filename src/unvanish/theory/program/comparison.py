"""The gradient that theory predicts against the one measured, worked out when it is first looked at.

Notable: the measured forward left its program, plain data of a few numbers a layer, so the model need not be
kept, and can be trained in the meantime.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unvanish.core.facts import TheoryKey
from unvanish.core.ledger import difference, ledger
from unvanish.core.omissions import Omissions
from unvanish.core.trace import Trace
from unvanish.theory.program.follow import predict
from unvanish.theory.program.signal import Pull
from unvanish.theory.program.steps import Program

APART = 0.5  # decades in one row
DECADE = math.log(10.0)


@dataclass(frozen=True)
class Sketch:
    """The program of a measured forward, and the tensors of each site of the trace."""

    program: Program
    tensors: Mapping[int, tuple[int, ...]]


class Comparison(Mapping[TheoryKey, Any]):
    """Totals "predicted" and "measured" in decades, and "apart": up to three (row, predicted, measured) that
    differ by more than half a decade. Empty if the theory does not cover the network.
    """

    def __init__(self, measured: Trace, sketch: Sketch) -> None:
        self._measured = measured
        self._sketch: Sketch | None = sketch  # None once it has been used

    @cached_property
    def _totals(self) -> dict[TheoryKey, Any]:
        sketch, self._sketch = self._sketch, None
        assert sketch is not None
        try:
            return compare(self._measured, sketch)
        except (RuntimeError, ValueError, NotImplementedError):
            return {}
        except Exception:  # a program that theory does not know the like of
            if Omissions.strict:
                raise
            return {}

    def __getitem__(self, key: TheoryKey) -> Any:
        return self._totals[key]

    def __iter__(self) -> Iterator[TheoryKey]:
        return iter(self._totals)

    def __len__(self) -> int:
        return len(self._totals)

    def __repr__(self) -> str:
        return repr(self._totals)


def compare(measured: Trace, sketch: Sketch) -> dict[TheoryKey, Any]:
    """The content of a `Comparison`."""
    axis, ours = measured.depth(), ledger(measured)
    sizes = [s for i in measured.where("input", floating=True) if (s := _size(measured, i)) is not None]
    if axis is None or ours is None or not sizes or not math.isfinite(ours.total):
        return {}
    pulls = predict(sketch.program, *sizes[0]).pulls
    logs = [_log(pulls, sketch.tensors.get(site, ())) for site in axis.sites]
    rows = [
        (row.path, difference(above, below) / DECADE, row.decades)
        for row, above, below in zip(ours.leaves(), logs, logs[1:], strict=False)
    ]
    both = [row for row in rows if math.isfinite(row[1])]
    if len(both) < 2 or 2 * len(both) < len(axis.sites):
        return {}
    apart = sorted((r for r in both if abs(r[1] - r[2]) > APART), key=lambda r: -abs(r[1] - r[2]))
    return {
        "predicted": sum(p for _, p, _ in both),
        "measured": sum(m for _, _, m in both),
        "apart": tuple(apart[:3]),
    }


def _log(pulls: Mapping[int, Pull], tensors: tuple[int, ...]) -> float:
    """Ln of the predicted gradient norm at these tensors together, up to a constant."""
    known = [0.5 * pulls[i].log for i in tensors if i in pulls]
    top = max(known, default=math.nan)
    return top + 0.5 * math.log(sum(math.exp(2 * (v - top)) for v in known)) if math.isfinite(top) else top


def _size(trace: Trace, site: int) -> tuple[float, float] | None:
    """Mean square of an input and the cosine between its samples, None if it was not measured."""
    rms, cosine = trace.value(site, "forward_rms"), trace.value(site, "cosine")
    if not (math.isfinite(rms) and rms > 0):
        return None
    return rms**2, cosine if math.isfinite(cosine) else 0.0
