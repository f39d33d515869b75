"""Training problems that people reported in public, each rebuilt small with a mended twin.

They stand for their kinds. `check` should name the cause of the one first, and say nothing of the other.
"""

from benchmarks.exam import graph, layers, losses, numbers
from benchmarks.exam.cases import CASES, Report

__all__ = ["CASES", "Report", "graph", "layers", "losses", "numbers"]
