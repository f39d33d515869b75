"""How deep a net can be trained, in bands, each with a colour and a character; and the user's own net."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """Depths up to `top` layers."""

    top: float
    colour: str
    sign: str

    @property
    def label(self) -> str:
        """`up to 30`, `deeper`."""
        return f"up to {int(self.top)}" if math.isfinite(self.top) else "deeper"


BANDS = (
    Band(10, "#1d4e89", "."),
    Band(30, "#2f7fb8", ":"),
    Band(100, "#5bb5c9", "+"),
    Band(300, "#a8dcc0", "*"),
    Band(math.inf, "#f7f3b0", "#"),
)


@dataclass(frozen=True)
class OwnNet:
    """A net as a point of the diagram: its weights `sw` (deviation x sqrt(fan-in)) and biases `sb`."""

    name: str
    sw: float
    sb: float


def find_band(depth: float) -> Band:
    """The band of a depth, layers."""
    return next(band for band in BANDS if depth <= band.top)
