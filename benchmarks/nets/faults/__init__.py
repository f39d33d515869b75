"""One function a fault: it draws a healthy net and plants the fault of one code in a copy of it."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.nets.draw import Draw
from benchmarks.nets.faults import activation, depth, graph, memory, outputs, precision, weights
from benchmarks.nets.net import Plant

PLANTS: dict[str, Callable[[Draw], Plant]] = dict(
    sorted(
        {
            **activation.PLANTS,
            **weights.PLANTS,
            **depth.PLANTS,
            **memory.PLANTS,
            **outputs.PLANTS,
            **precision.PLANTS,
            **graph.PLANTS,
        }.items()
    )
)
