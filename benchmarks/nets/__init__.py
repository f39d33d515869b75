"""Random networks with a known fault, or with none: what a doctor of gradients is examined on.

Notable: nothing here imports unvanish. Every planted fault and every clean bill of health is confirmed by the
generator's own float64 measurement; `README.md` in this folder says what was left out and why.
"""

from __future__ import annotations

from benchmarks.nets.generate import CODES, SPLITS, fault_of, sample, samples, scaled, seeds
from benchmarks.nets.net import Sample

__all__ = ["CODES", "SPLITS", "Sample", "fault_of", "sample", "samples", "scaled", "seeds"]
