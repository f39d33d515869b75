"""The order-chaos diagram as one self-contained page: the map, the critical line, and the user's own net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.parts.page import render_page
from unvanish.reports.phase.bands import BANDS, OwnNet, find_band
from unvanish.theory.meanfield import Critical
from unvanish.theory.phase import Phase

WIDTH, HEIGHT, LEFT, FOOT = 760.0, 420.0, 60.0, 50.0
LEAD = (
    "How many layers can be trained, by the size of weights and biases. Left of the black line gradients "
    "vanish, right of it they explode; on it they keep their size. Where the line is dashed, they keep it "
    "only until the length of the activations has drifted away."
)
STYLE = (
    "html{color-scheme:light dark;background:light-dark(#f3f4f6,#0c1015);color:light-dark(#1b2430,#e3e8ee);"
    "font:16px/1.5 system-ui,sans-serif}main{max-width:52rem;margin:2rem auto;padding:0 1rem}"
    "svg{width:100%;height:auto}text{font-size:12px;fill:currentColor}rect{shape-rendering:crispEdges}"
    ".line{fill:none;stroke:#111;stroke-width:2.5}.loose{stroke-dasharray:5 5}"
    ".own{fill:#d1242f;stroke:#fff;stroke-width:2}.name{font-weight:600;fill:#111;paint-order:stroke;stroke:#fff;"
    "stroke-width:3px}.legend span{margin-right:1rem}.legend i{display:inline-block;width:1em;height:1em;"
    "border-radius:3px;vertical-align:-.1em}"
)


@dataclass(frozen=True)
class PhaseAxes:
    """The map's coordinates: pixels per unit of `sw` along x and of `sb` along y."""

    sw: float
    sb: float

    @classmethod
    def of(cls, diagram: Phase) -> PhaseAxes:
        """Axes from 0 to the diagram's largest weights and biases."""
        return cls((WIDTH - LEFT) / float(diagram.sw[-1]), (HEIGHT - FOOT) / max(1e-9, float(diagram.sb[-1])))

    def x(self, sw: float) -> float:
        """Pixels of weights."""
        return LEFT + sw * self.sw

    def y(self, sb: float) -> float:
        """Pixels of biases."""
        return HEIGHT - FOOT - sb * self.sb


def render(diagram: Phase, own: Sequence[OwnNet]) -> str:
    """One page that needs no network."""
    axes, title = PhaseAxes.of(diagram), f"{diagram.activation}: order and chaos"
    parts = [
        *_draw_map(diagram, axes),
        *_draw_critical(diagram, axes),
        *(_draw_net(net, axes) for net in own),
        *_draw_ticks(diagram, axes),
        *_name_axes(),
    ]
    picture = tag(
        "svg", parts, viewBox=f"0 -16 {WIDTH + 24:.0f} {HEIGHT + 16:.0f}", role="img", aria_label=title
    )
    return render_page(title, tag("main", tag("h1", title), tag("p", LEAD), picture, _legend()), style=STYLE)


def _draw_map(diagram: Phase, axes: PhaseAxes) -> list[Html]:
    """A rectangle for each pair of weights and biases, in the colour of its depth."""
    wide = (WIDTH - LEFT) / len(diagram.sw)
    high = (HEIGHT - FOOT) / max(1, len(diagram.sb) - 1)
    return [
        tag(
            "rect",
            x=f"{axes.x(float(sw)) - wide / 2:.1f}",
            y=f"{axes.y(float(sb)) - high / 2:.1f}",
            width=f"{wide + 0.4:.1f}",
            height=f"{high + 0.4:.1f}",
            fill=find_band(float(diagram.depth[row, column])).colour,
        )
        for row, sb in enumerate(diagram.sb)
        for column, sw in enumerate(diagram.sw)
    ]


def _draw_critical(diagram: Phase, axes: PhaseAxes) -> list[Html]:
    return [
        tag(
            "polyline",
            points=" ".join(f"{axes.x(p.sw):.1f},{axes.y(p.sb):.1f}" for p in run),
            class_="line" if run[0].stable else "line loose",
        )
        for run in _split_line(diagram)
    ]


def _split_line(diagram: Phase) -> list[list[Critical]]:
    """The critical line in pieces, each stable or unstable as a whole."""
    runs: list[list[Critical]] = []
    for point in diagram.critical:
        if runs and runs[-1][0].stable == point.stable:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def _draw_net(net: OwnNet, axes: PhaseAxes) -> Html:
    return tag(
        "g",
        tag("circle", cx="0", cy="0", r="7", class_="own"),
        tag("text", net.name, x="11", y="-9", class_="name"),
        transform=f"translate({axes.x(net.sw):.1f} {axes.y(net.sb):.1f})",
    )


def _draw_ticks(diagram: Phase, axes: PhaseAxes) -> list[Html]:
    below, left = f"{HEIGHT - FOOT + 18:.0f}", f"{LEFT - 8:.0f}"
    weights = [
        tag("text", f"{v:.1f}", x=f"{axes.x(v):.1f}", y=below, text_anchor="middle")
        for v in np.arange(0.5, float(diagram.sw[-1]) + 0.01, 0.5)
    ]
    biases = [
        tag("text", f"{v:.2f}", x=left, y=f"{axes.y(v) + 4:.1f}", text_anchor="end")
        for v in np.linspace(0, float(diagram.sb[-1]), 5)
    ]
    return weights + biases


def _name_axes() -> list[Html]:
    middle, bottom = f"{(WIDTH + LEFT) / 2:.0f}", f"{HEIGHT - 10:.0f}"
    spin = f"translate(14 {(HEIGHT - FOOT) / 2:.0f}) rotate(-90)"
    return [
        tag("text", "weights: sw = deviation x sqrt(fan-in)", x=middle, y=bottom, text_anchor="middle"),
        tag("text", "biases: sb", x="0", y="0", transform=spin, text_anchor="middle"),
    ]


def _legend() -> Html:
    entries = [tag("span", tag("i", "", style=f"background:{b.colour}"), f" {b.label} ") for b in BANDS]
    return tag("p", tag("span", "Trainable layers: "), entries, class_="legend")
