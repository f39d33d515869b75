"""PR_curve.png, F1_curve.png and confusion_matrix.png of a detector.

Notable: boxes, and next to them masks if there are any; classes in colour if they are few, else in grey.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unvanish.train.pictures.history import write
from unvanish.train.pictures.matrix import MOST, draw_confusion, label_classes

SIDE = 360  # pixels of a chart
CELL, SMALL = (56, 44), (13, 11)  # pixels of a cell of the matrix, with few and with many classes
STEP = 5  # a curve shows every fifth confidence of the tables
MEAN, GREY = "#14284b", "#ccd2d9"
COLOURS = (
    "#3b7dd8", "#e09f3e", "#4c9f70", "#9b6bb3", "#d1495b", "#17a2a2", "#8c6d46", "#e377a8", "#8f9e2b",
    "#77808c",
)  # fmt: skip


def draw(tables: Mapping[str, Any], names: Sequence[str], folder: Path) -> list[Path]:
    """Write the curves of a detector's tables; empty without such tables or without the chart library."""
    if "pr" not in tables:
        return []
    kinds = {"boxes": ""} | ({"masks": "mask "} if "mask pr" in tables else {})
    charts: dict[str, Callable[[], list[Any]]] = {
        "PR_curve.png": lambda: [draw_precision(tables, names, *kind) for kind in kinds.items()],
        "F1_curve.png": lambda: [draw_f1(tables, names, *kind) for kind in kinds.items()],
        "confusion_matrix.png": lambda: [draw_matrix(tables["confusion"], names)],
    }
    paths = [write(partial(_join, parts), folder / name) for name, parts in charts.items()]
    return [path for path in paths if path is not None]


def _join(charts: Callable[[], list[Any]]) -> dict[str, Any]:
    """Charts side by side, as Vega-Lite."""
    import altair as alt

    whole = alt.hconcat(*charts(), spacing=30).resolve_scale(color="independent")
    shown = whole.properties(background="white", padding=12).configure_view(stroke=None)
    styled = shown.configure(font="sans-serif").configure_title(fontSize=14, anchor="start", offset=10)
    found: dict[str, Any] = styled.configure_axis(titleFontWeight="normal", labelFlush=False).to_dict()
    return found


def draw_precision(tables: Mapping[str, Any], names: Sequence[str], kind: str, prefix: str = "") -> Any:
    """Precision over recall at an overlap of 0.5; the area below a class's curve is its AP50."""
    precision, ap = tables[f"{prefix}pr"], tables[f"{prefix}ap50"]
    recalls = [i / 100 for i in range(precision.shape[1])]
    there = (precision >= 0).all(1)
    mean = float(ap[there].mean()) if there.any() else 0.0
    text = f"mAP50 {mean:.3f}" if mean else "nothing is found"
    title = f"{kind}: precision over recall, {text}"
    named = _label(names, ap, there), f"all {mean:.3f}"
    return draw_curves(recalls, precision, there, named, ("recall", "precision"), title)


def draw_f1(tables: Mapping[str, Any], names: Sequence[str], kind: str, prefix: str = "") -> Any:
    """F1 over the least confidence of a detection that counts, and the best value of its mean."""
    import altair as alt

    whole, there = tables[f"{prefix}f1"], tables[f"{prefix}objects"] > 0
    f1 = whole[:, ::STEP]
    confidences = [i * STEP / 1000 for i in range(f1.shape[1])]
    confidence, _, _, best = tables[f"{prefix}balance"].tolist()
    found = confidence == confidence
    text = f"best {best:.3f} at {confidence:.3f}" if found else "nothing is found"
    named = _label(names, whole.amax(1), there), f"all {best:.3f}"
    title = f"{kind}: F1 over confidence, {text}"
    shown = draw_curves(confidences, f1, there, named, ("confidence", "F1"), title)
    if not found:
        return shown
    dot = alt.Chart(alt.Data(values=[{"x": confidence, "y": best}]))
    return shown + dot.mark_point(color=MEAN, filled=True, size=70, opacity=1).encode(x="x:Q", y="y:Q")


def _label(names: Sequence[str], values: Any, there: Any) -> list[str]:
    """Each class's name with its number; a class that does not occur is marked as absent."""
    given = label_classes(len(values), names)
    numbers = [
        "absent" if absent else f"{float(value):.3f}" for value, absent in zip(values, ~there, strict=True)
    ]
    return [f"{name} {number}" for name, number in zip(given, numbers, strict=True)]


def draw_curves(
    x: Sequence[float], y: Any, there: Any, labels: tuple[list[str], str], axes: tuple[str, str], title: str
) -> Any:
    """A line for each class that is `there`, y (classes, t) over x (t,), and their mean, with `labels`."""
    import altair as alt

    (named, mean), chosen = labels, there.nonzero().flatten().tolist()
    lines = {named[i]: y[i].tolist() for i in chosen}
    whole = {mean: y[there].mean(0).tolist()} if chosen else {}
    few = len(named) <= len(COLOURS)
    domain = [mean, *named] if few else [mean]
    colours = alt.Scale(domain=domain, range=[MEAN, *choose_colours(there)] if few else [MEAN])
    legend = alt.Legend(title=None, orient="right", symbolStrokeWidth=3, labelLimit=180)
    shade = alt.Color("of:N", scale=colours, legend=legend)
    thin = _lines(x, lines, 1.4, axes).encode(color=shade if few else alt.value(GREY))
    thick = _lines(x, whole, 3.2, axes).encode(color=shade)
    return alt.layer(thin, thick).properties(width=SIDE, height=SIDE, title=title)


def choose_colours(there: Any) -> list[str]:
    """A colour for each class, grey for those that do not occur."""
    return [COLOURS[i % len(COLOURS)] if found else GREY for i, found in enumerate(there.tolist())]


def _lines(
    x: Sequence[float], lines: Mapping[str, Sequence[float]], wide: float, axes: tuple[str, str]
) -> Any:
    """Lines by name, `wide` pixels wide."""
    import altair as alt

    values = [{"of": of, "x": a, "y": b} for of, y in lines.items() for a, b in zip(x, y, strict=True)]
    chart = alt.Chart(alt.Data(values=values)).mark_line(strokeWidth=wide)
    share = alt.Scale(domain=[0, 1], nice=False)
    across, up = alt.X("x:Q", title=axes[0], scale=share), alt.Y("y:Q", title=axes[1], scale=share)
    return chart.encode(x=across, y=up, detail="of:N")


def draw_matrix(table: Any, names: Sequence[str]) -> Any:
    """The confusion matrix, large enough to be legible."""
    count = len(table)
    wide, high = CELL if count <= MOST else SMALL
    return draw_confusion(table, names, max(SIDE, wide * count), max(SIDE * 0.7, high * count), letters=12)
