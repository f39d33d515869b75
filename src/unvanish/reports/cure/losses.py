"""Both trainings of a proof as one inline SVG: the loss before and after, over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unvanish.core.cured import Proof
from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.parts.words import write_mark

WIDTH, HEIGHT = 640.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 84.0, 10.0, 10.0, 28.0
LINES = 5  # horizontal ones, each with its number


@dataclass(frozen=True)
class LossAxes:
    """The plot's coordinates: `steps` along x, losses from `low` to `high` along y, as log10 if `log`."""

    steps: int
    low: float
    high: float
    log: bool

    @classmethod
    def around(cls, curves: Sequence[Sequence[float]]) -> LossAxes:
        """Axes that hold all curves; logarithmic if every finite loss is positive."""
        known = [loss for curve in curves for loss in curve if math.isfinite(loss)]
        log = bool(known) and min(known) > 0
        ends = (
            [math.log10(loss) if log else loss for loss in (min(known), max(known))] if known else [0.0, 1.0]
        )
        low, high = ends if ends[1] - ends[0] >= 1e-9 else (ends[0] - 0.5, ends[1] + 0.5)
        return cls(max(2, *map(len, curves)) - 1, low, high, log)

    def x(self, step: int) -> float:
        """Pixels of a step."""
        return LEFT + (WIDTH - LEFT - RIGHT) * step / self.steps

    def y(self, value: float) -> float:
        """Pixels of a value on the axis, between `low` and `high`."""
        return TOP + (HEIGHT - BOTTOM - TOP) * (self.high - value) / (self.high - self.low)


def draw_losses(proof: Proof) -> Html:
    """Both losses over the steps; a loss that is not finite is left out."""
    curves = {"uv-before": proof.losses_before, "uv-after": proof.losses_after}
    axes = LossAxes.around(list(curves.values()))
    parts = [
        *_draw_grid(axes),
        *(path for style, losses in curves.items() if (path := _draw_curve(losses, style, axes))),
        tag("text", f"{axes.steps} steps", x=LEFT, y=HEIGHT - 8),
    ]
    box = f"0 0 {WIDTH:.0f} {HEIGHT:.0f}"
    return tag(
        "svg", parts, viewBox=box, class_="uv-losses", role="img", aria_label="losses before and after"
    )


def _draw_grid(axes: LossAxes) -> list[Html]:
    parts: list[Html] = []
    for k in range(LINES):
        value = axes.low + (axes.high - axes.low) * k / (LINES - 1)
        label = write_mark(float(f"{10**value:.2g}") if axes.log else value)
        y = axes.y(value)
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        parts.append(tag("text", label, x=LEFT - 8, y=y + 4, text_anchor="end"))
    return parts


def _draw_curve(losses: Sequence[float], style: str, axes: LossAxes) -> Html | None:
    known = [(step, loss) for step, loss in enumerate(losses) if math.isfinite(loss)]
    points = [f"{axes.x(n):.1f} {axes.y(math.log10(loss) if axes.log else loss):.1f}" for n, loss in known]
    return tag("path", d="M" + " L".join(points), class_=style) if points else None
