"""A copy of a model under treatment, and how far its gradient is from healthy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from unvanish.core import depth
from unvanish.core.diagnosis import Diagnosis, Remedy
from unvanish.core.ledger import DECADE
from unvanish.surgery.surgery import Receipt


@dataclass(frozen=True)
class Patient:
    """A copy under treatment: the model, its optimizer and loss, what was done, and how it is."""

    model: nn.Module
    optimizer: Any
    loss: Any
    done: tuple[Remedy, ...]
    receipt: Receipt
    diagnosis: Diagnosis

    @property
    def burden(self) -> tuple[int, float]:
        """What is wrong: errors count ten times a warning; then how far the total is from 0 decades."""
        found = [f for f in self.diagnosis.walk() if f.severity != "note"]
        weight = sum(10 if f.severity == "error" else 1 for f in found)
        total = total_of(self.diagnosis)
        return weight, abs(total) if not math.isnan(total) else 0.0


def total_of(diagnosis: Diagnosis) -> float:
    """Decades from the last hidden layer to the first, NaN where there is no depth axis."""
    reading = depth.read(diagnosis.trace) if diagnosis.trace.values.size else None
    return reading.ratio / DECADE if reading is not None else math.nan
