"""Training problems that people reported in public, each rebuilt small with a mended twin.

They stand for their kinds. `check` should name the cause of the one first, and say nothing of the other.
"""

from benchmarks.reported import graph, layers, losses, mixed, numbers, objectives, weighings
from benchmarks.reported.cases import CASES, Report

__all__ = ["CASES", "Report", "graph", "layers", "losses", "mixed", "numbers", "objectives", "weighings"]
