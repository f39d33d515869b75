"""The order-chaos diagram for terminals: a picture, the critical line as a table, sentences about a net."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from unvanish.reports.phase.bands import BANDS, OwnNet, find_band
from unvanish.theory.initialisers import start
from unvanish.theory.phase import Phase, depth_of

ROWS = 8  # points of the critical line, about
CRITICAL, MOST = 1e4, 1e6  # layers: from here a net counts as critical; the largest number shown


def draw_picture(diagram: Phase, own: Sequence[OwnNet]) -> list[Text]:
    """Rows from large biases to none, a column for each weight; X marks the user's own net."""
    marks = {(_nearest(diagram.sb, net.sb), _nearest(diagram.sw, net.sw)) for net in own}
    lines = []
    for row in range(len(diagram.sb) - 1, -1, -1):
        line = Text(f" {diagram.sb[row]:5.2f} ")
        for column in range(len(diagram.sw)):
            band = find_band(float(diagram.depth[row, column]))
            own_net = (row, column) in marks
            style = f"{'bold red' if own_net else 'black'} on {band.colour}"
            line.append("X" if own_net else band.sign, style=style)
        lines.append(line)
    return [*lines, _axis(diagram), _legend()]


def list_critical(diagram: Phase) -> Table:
    """A few points of the critical line, with the length that they keep."""
    table = Table("  sw", "sb", "q*", "", box=None, pad_edge=False)
    line = diagram.critical[:: max(1, len(diagram.critical) // ROWS)]
    for point in line:
        comment = "" if point.stable else "unstable: the length drifts away"
        table.add_row(f"  {point.sw:.4f}", f"{point.sb:.4f}", f"{point.q:.3g}", comment)
    if not line:
        table.add_row("  none in range", "", "")
    return table


def describe_net(net: OwnNet, activation: str) -> str:
    """On which side of the critical line a net lies, and how deep it can be trained."""
    log, depth = depth_of(activation, net.sw, net.sb)
    side = "on the critical line" if depth > CRITICAL else "vanishing" if log < 0 else "exploding"
    reach = f"trainable to about {min(depth, MOST):,.0f} layers"
    return f"{net.name}: sw {net.sw:.3f}, sb {net.sb:.3f}, {activation}: {side}, {reach}"


def describe_start(activation: str, depth: int) -> str:
    """The weights and biases that a net of `depth` layers should start with."""
    point = start(activation, depth)
    kind = "critical" if point.critical else "of unit gradient gain"
    sizes = f"weights {point.sw:.4f}/sqrt(fan_in), biases {point.sb:.4f}"
    return f"for {depth} layers of {activation}: {sizes} ({kind})"


def _axis(diagram: Phase) -> Text:
    left, right = f"{diagram.sw[0]:.2f}", f"{diagram.sw[-1]:.2f}"
    return Text(f"  sb   {left}{'sw'.center(len(diagram.sw) - len(left) - len(right))}{right}")


def _legend() -> Text:
    bands = ", ".join(f"{band.sign} {band.label}" for band in BANDS)
    return Text(f"       layers that can be trained: {bands}")


def _nearest(axis: object, value: float) -> int:
    return int(np.abs(np.asarray(axis) - value).argmin())
