"""Line charts as inline SVG: the gradient along the depth, and back through time.

Notable:
- Axes are in decades; a place without any gradient is a cross on the lower edge, one not measured is a gap.
- Series differ by dash and by a written name, never by colour alone; every point shows its name on hover.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unvanish.reports.parts.markup import Content, Html, join, tag
from unvanish.reports.parts.series import Curve, DepthSeries, TimeSeries, clip_curve
from unvanish.reports.parts.words import clean, decades

WIDTH, HEIGHT = 880, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 16, 44
POINTS, STRIP, CLEAR_GAIN = 400, 60, 1.0


@dataclass(frozen=True)
class Series:
    """A named curve in decades and its style class."""

    name: str
    values: Curve
    style: str


@dataclass(frozen=True)
class Frame:
    """The plot's coordinates: `count` places along x, decades from `low` to `high` along y."""

    count: int
    low: float
    high: float
    step: float

    def x(self, index: float) -> float:
        """Pixels of a place along the axis."""
        return LEFT + (WIDTH - LEFT - RIGHT) * index / max(self.count - 1, 1)

    def y(self, value: float) -> float:
        """Pixels of a number of decades."""
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low)

    @property
    def floor(self) -> float:
        """Pixels of the lower edge."""
        return float(HEIGHT - BOTTOM)


def draw_depth(curves: DepthSeries) -> Html:
    """log10 ||gradient|| and log10 RMS of the activations, from the loss to the input."""
    activation = Series("activations", curves.activation, "rms")
    gradient = Series("gradient", curves.gradient, "gradient")
    series = [activation, gradient]
    caption = (
        "Gradient and activations along the depth, in decades, from the loss (left) to the input (right)"
    )
    return draw_series(series, curves.names, caption, ("loss", "input"))


def draw_time(recurrence: TimeSeries) -> Html:
    """log10 of the gradient against the time step, first to last."""
    state = Series("reaches the state", recurrence.state, "rms")
    series = [state, Series("carried back", recurrence.carry, "gradient")]
    names = [f"step {step}" for step in recurrence.steps]
    caption = f"Gradient through time in {recurrence.path}, in decades, from the first step to the last"
    return draw_series(series, names, caption, (names[0], f"{names[-1]} (the gradient enters)"))


def draw_strip(curve: Curve, ends: tuple[str, str]) -> Html:
    """A band that fades or darkens as the gradient does, from the loss on."""
    cells = np.array_split(curve, min(len(curve), STRIP))
    shares = _opacities([float(part[-1]) for part in cells])
    stops = [f"color-mix(in srgb,var(--verdict) {100 * share:.0f}%,transparent)" for share in shares]
    label = f"How much of the gradient is left, from the {ends[0]} on the left to the {ends[1]} on the right"
    paint = f"background-image:linear-gradient(90deg,{','.join(stops if len(stops) > 1 else 2 * stops)})"
    band = tag("div", role="img", aria_label=label, class_="uv-strip", style=paint)
    return join([band, tag("p", tag("span", ends[0]), tag("span", ends[1]), class_="uv-ends")])


def _opacities(values: Sequence[float]) -> list[float]:
    """1 at the loss and less for less gradient; if it clearly grows, the loss starts pale instead."""
    finite = [v for v in values if math.isfinite(v)]
    reach = max([3.0, *map(abs, finite)])
    base = 0.3 if max(finite, default=0.0) > CLEAR_GAIN else 1.0
    shares, last = [], 0.0
    for value in values:
        last = last if math.isnan(value) else max(min(value / reach, 1.0), -1.0)
        shares.append(base * (1 + last) if last < 0 else base + (1 - base) * last)
    return shares


def widen(low: float, high: float) -> tuple[float, float]:
    """At least two decades, so that a healthy model looks as flat as it is."""
    return (low, high) if high - low >= 2 else (min(low, -1.0), max(high, 1.0))


def choose_ticks(low: float, high: float, wanted: int = 6) -> tuple[float, list[float]]:
    """A round step (1, 2 or 5 times a power of ten) and its multiples between `low` and `high`."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= wanted)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return step, [step * i for i in range(first, last + 1)]


def draw_series(series: Sequence[Series], names: Sequence[str], caption: str, ends: tuple[str, str]) -> Html:
    """Curves over the same places, in decades, each with its name at its end."""
    shown = [Series(s.name, clip_curve(s.values), s.style) for s in series if np.any(~np.isnan(s.values))]
    finite = np.concatenate([[0.0], *(s.values[np.isfinite(s.values)] for s in shown)])
    low, high = widen(float(finite.min()), float(finite.max()))
    margin = 0.04 * (high - low)
    step, marks = choose_ticks(low - margin, high + margin)
    frame = Frame(len(names), low - margin, high + margin, step)
    lines = [_curve(s, frame, names) for s in shown]
    content: list[Content] = [_grid(frame, marks), _ends(frame, ends), lines, _labels(shown, frame)]
    return tag(
        "svg",
        tag("title", caption),
        content,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=caption,
        class_="uv-chart",
    )


def _grid(frame: Frame, marks: Sequence[float]) -> list[Html]:
    out = []
    for mark in marks:
        y, style = frame.y(mark), "uv-zero" if abs(mark) < 1e-9 else "uv-grid"
        text = f"{0.0 if abs(mark) < 1e-9 else mark:g}" if frame.step >= 1e-3 else f"{mark:.1e}"
        out += [
            tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_=style),
            tag("text", text, x=LEFT - 8, y=y + 4, text_anchor="end"),
        ]
    middle = (TOP + frame.floor) / 2
    spin = f"rotate(-90 14 {middle:.0f})"
    return [
        *out,
        tag("text", "decades (log10)", x=14, y=middle, text_anchor="middle", transform=spin, class_="uv-far"),
    ]


def _ends(frame: Frame, ends: tuple[str, str]) -> list[Html]:
    y = frame.floor + 26
    return [
        tag("text", ends[0], x=LEFT, y=y, class_="uv-end"),
        tag("text", ends[1], x=WIDTH - RIGHT, y=y, text_anchor="end", class_="uv-end"),
    ]


def _curve(series: Series, frame: Frame, names: Sequence[str]) -> list[Html | None]:
    points = [(i, float(series.values[i])) for i in pick_places(series.values)]
    out: list[Html | None] = [tag("path", d=_path(points, frame), class_=f"uv-line uv-{series.style}")]
    seen = "" if len(points) <= 64 and series.style not in ("before", "after") else " uv-unseen"
    style = f"uv-{series.style}{seen}"
    out += [_point(i, v, style, frame, f"{clean(names[i])}: {series.name}") for i, v in points]
    lost = [frame.x(i) for i, v in points if v == -math.inf]
    if lost:
        x, y = min(lost), frame.floor - 16
        out.append(tag("text", "no gradient", x=x, y=y, text_anchor="middle", class_="uv-lost"))
    return [*out, *(_cross(x, frame.floor) for x in lost)]


def pick_places(values: Curve) -> list[int]:
    """At most about 800 places: of each stretch the lowest and the highest, so no dip or peak is lost."""
    if len(values) <= POINTS:
        return list(range(len(values)))
    stretches = np.array_split(np.arange(len(values)), POINTS)
    filled = np.where(np.isnan(values), 0.0, values)
    ends = [int(part[pick(filled[part])]) for part in stretches for pick in (np.argmin, np.argmax)]
    return sorted({0, len(values) - 1, *ends})


def _path(points: Sequence[tuple[int, float]], frame: Frame) -> str:
    out, pen = [], "M"
    for i, value in points:
        if not math.isfinite(value):
            pen = "M"
            continue
        out.append(f"{pen}{frame.x(i):.1f} {frame.y(value):.1f}")
        pen = "L"
    return " ".join(out) or "M0 0"


def _point(index: int, value: float, style: str, frame: Frame, name: str) -> Html | None:
    """A dot that shows its name and value on hover; it is transparent in long curves."""
    if not math.isfinite(value):
        return None
    text = tag("title", f"{name} {decades(value)} decades")
    return tag("circle", text, cx=frame.x(index), cy=frame.y(value), r=3.0, class_=f"uv-point {style}")


def _cross(x: float, y: float) -> Html:
    strokes = f"M{x - 4:.1f} {y - 8:.1f}l8 8m0 -8l-8 8"
    return tag("path", tag("title", "no gradient"), d=strokes, class_="uv-cross")


def _labels(shown: Sequence[Series], frame: Frame) -> list[Html]:
    """The series' names at the right ends of their lines, moved apart if they would touch."""
    spots = sorted(((_last(s.values, frame), s) for s in shown), key=lambda spot: spot[0])
    out, free = [], 0.0
    for y, series in spots:
        place = max(y + 4, free)
        free = place + 18
        style = f"uv-name uv-{series.style}"
        out.append(tag("text", series.name, x=WIDTH - RIGHT + 12, y=place, class_=style))
    return out


def _last(values: Curve, frame: Frame) -> float:
    finite = np.flatnonzero(np.isfinite(values))
    return frame.y(float(values[finite[-1]])) if len(finite) else frame.floor
