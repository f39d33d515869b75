"""Training loops that are as they should be, of many kinds; each takes what opens a watch, and trains."""

from __future__ import annotations

from tests.clinic.watch import (
    healthy_ends,
    healthy_games,
    healthy_gradients,
    healthy_nets,
    healthy_recipes,
    healthy_states,
)
from tests.clinic.watch.loops import LOOPS

__all__ = [
    "LOOPS",
    "healthy_ends",
    "healthy_games",
    "healthy_gradients",
    "healthy_nets",
    "healthy_recipes",
    "healthy_states",
]
