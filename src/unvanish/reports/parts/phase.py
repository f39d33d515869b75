"""The order-chaos diagram: a table and a picture for terminals, and one self-contained page."""

from __future__ import annotations

import math

import numpy as np
from rich.table import Table
from rich.text import Text

from unvanish.reports.parts.markup import Html, tag
from unvanish.theory.meanfield import Critical
from unvanish.theory.phase import Phase

BANDS = (
    (10, "#1d4e89", "."),
    (30, "#2f7fb8", ":"),
    (100, "#5bb5c9", "+"),
    (300, "#a8dcc0", "*"),
    (math.inf, "#f7f3b0", "#"),
)
Own = tuple[str, float, float]  # a name, sw and sb


def band(depth: float) -> int:
    """Which of the BANDS a depth lies in."""
    return next(k for k, (top, _, _) in enumerate(BANDS) if depth <= top)


def picture(found: Phase, own: list[Own]) -> list[Text]:
    """Rows from large biases to none, a column for each weight; X marks the user's own net."""
    depth, lines = found.depth, []
    marked = {(_near(found.sb, sb), _near(found.sw, sw)) for _, sw, sb in own}
    for row in range(len(found.sb) - 1, -1, -1):
        line = Text(f" {found.sb[row]:5.2f} ")
        for column in range(len(found.sw)):
            _, colour, sign = BANDS[band(float(depth[row, column]))]
            here = (row, column) in marked
            line.append("X" if here else sign, style=f"{'bold red' if here else 'black'} on {colour}")
        lines.append(line)
    left, right = f"{found.sw[0]:.2f}", f"{found.sw[-1]:.2f}"
    lines.append(Text(f"  sb   {left}{'sw'.center(len(found.sw) - len(left) - len(right))}{right}"))
    told = [f"{sign} up to {int(top)}" if math.isfinite(top) else f"{sign} deeper" for top, _, sign in BANDS]
    lines.append(Text("       layers that can be trained: " + ", ".join(told)))
    return lines


def _near(axis: object, value: float) -> int:
    return int(np.abs(np.asarray(axis) - value).argmin())


def critical_table(found: Phase) -> Table:
    """A few points of the critical line, with the length they hold."""
    table = Table("  sw", "sb", "q*", "", box=None, pad_edge=False)
    line = found.critical[:: max(1, len(found.critical) // 8)]
    for p in line:
        held = "" if p.stable else "unstable: the length drifts away"
        table.add_row(f"  {p.sw:.4f}", f"{p.sb:.4f}", f"{p.q:.3g}", held)
    if not line:
        table.add_row("  none in range", "", "")
    return table


def page(found: Phase, own: list[Own]) -> str:
    """One page without network: the map, the critical line, and the user's own net."""
    wide, high, left, foot = 760.0, 420.0, 60.0, 50.0
    sx = (wide - left) / (float(found.sw[-1]))
    sy = (high - foot) / max(1e-9, float(found.sb[-1]))
    cell = (wide - left) / len(found.sw), (high - foot) / max(1, len(found.sb) - 1)
    cells = [
        tag(
            "rect",
            x=f"{left + float(found.sw[c]) * sx - cell[0] / 2:.1f}",
            y=f"{high - foot - float(found.sb[r]) * sy - cell[1] / 2:.1f}",
            width=f"{cell[0] + 0.4:.1f}",
            height=f"{cell[1] + 0.4:.1f}",
            fill=BANDS[band(float(found.depth[r, c]))][1],
        )
        for r in range(len(found.sb))
        for c in range(len(found.sw))
    ]
    lines = [
        tag(
            "polyline",
            points=" ".join(f"{left + p.sw * sx:.1f},{high - foot - p.sb * sy:.1f}" for p in run),
            class_="line" if run[0].stable else "line loose",
        )
        for run in _runs(found)
    ]
    marks = [
        tag(
            "g",
            tag("circle", cx="0", cy="0", r="7", class_="own"),
            tag("text", name, x="11", y="-9", class_="name"),
            transform=f"translate({left + sw * sx:.1f} {high - foot - sb * sy:.1f})",
        )
        for name, sw, sb in own
    ]
    ticks = [
        tag("text", f"{v:.1f}", x=f"{left + v * sx:.1f}", y=f"{high - foot + 18:.0f}", text_anchor="middle")
        for v in np.arange(0.5, float(found.sw[-1]) + 0.01, 0.5)
    ] + [
        tag("text", f"{v:.2f}", x=f"{left - 8:.0f}", y=f"{high - foot - v * sy + 4:.1f}", text_anchor="end")
        for v in np.linspace(0, float(found.sb[-1]), 5)
    ]
    names = [
        tag(
            "text",
            "weights: sw = deviation x sqrt(fan-in)",
            x=f"{(wide + left) / 2:.0f}",
            y=f"{high - 10:.0f}",
            text_anchor="middle",
        ),
        tag(
            "text",
            "biases: sb",
            x="0",
            y="0",
            transform=f"translate(14 {(high - foot) / 2:.0f}) rotate(-90)",
            text_anchor="middle",
        ),
    ]
    drawing = tag("svg", *cells, *lines, *marks, *ticks, *names,
                  viewBox=f"0 -16 {wide + 24:.0f} {high + 16:.0f}", role="img")  # fmt: skip
    legend = tag("p", *[
        tag("span", tag("i", "", style=f"background:{colour}"), _upto(top))
        for top, colour, _ in BANDS
    ], class_="legend")  # fmt: skip
    title = f"{found.activation}: order and chaos"
    text = (
        "How many layers can be trained, by the size of weights and biases. Left of the black line gradients "
        "vanish, right of it they explode; on it they keep their size, where it is dashed only until the "
        "length has drifted away."
    )
    body = tag("body", tag("main", tag("h1", title), tag("p", text), drawing, legend))
    head = tag("head", tag("meta", charset="utf-8"), tag("title", title), tag("style", Html(STYLE)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _runs(found: Phase) -> list[list[Critical]]:
    """The critical line in pieces that are stable, or not, as a whole; neighbours share their end."""
    runs: list[list[Critical]] = []
    for point in found.critical:
        if runs and runs[-1][0].stable == point.stable:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def _upto(top: float) -> str:
    return f" up to {int(top)} " if math.isfinite(top) else " deeper "


STYLE = (
    "html{color-scheme:light dark;background:light-dark(#f3f4f6,#0c1015);color:light-dark(#1b2430,#e3e8ee);"
    "font:16px/1.5 system-ui,sans-serif}main{max-width:52rem;margin:2rem auto;padding:0 1rem}"
    "svg{width:100%;height:auto}text{font-size:12px;fill:currentColor}"
    ".line{fill:none;stroke:#111;stroke-width:2.5}.loose{stroke-dasharray:5 5}"
    ".own{fill:#d1242f;stroke:#fff;stroke-width:2}.name{font-weight:600;fill:#111;paint-order:stroke;stroke:#fff;"
    "stroke-width:3px}.legend span{margin-right:1rem}.legend i{display:inline-block;width:1em;height:1em;"
    "border-radius:3px;vertical-align:-.1em}"
)
