"""A confusion matrix as a chart: the shares of each true class by predicted class; rows are the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST = 12  # classes up to which the counts are legible
LEAST = 9  # pixels of a row from which its name is legible
NOTHING = ("background", "nothing")  # names for the background; the first that is not a class is taken


def draw_confusion(table: Any, names: Sequence[str], width: float, height: float, letters: int = 9) -> Any:
    """The chart of counts (n, n); a row more than there are names is the background's."""
    import altair as alt

    label = mark_absent(table, label_classes(len(table), names), len(names))
    what = "counts" if len(label) <= MOST else "shares"
    row = height / len(label)
    axis = alt.Axis(
        labels=row >= LEAST, labelLimit=110, ticks=False, labelFontSize=min(10, row), labelPadding=3
    )
    data = alt.Data(values=list_cells(table, label, len(names)))
    heat = (
        alt.Chart(data, title=f"confusion: {what}, coloured by the share of each true class")
        .mark_rect()
        .encode(
            x=alt.X("predicted:N", sort=label, title="predicted", axis=axis),
            y=alt.Y("truth:N", sort=label, title="truth", axis=axis),
            color=alt.Color("share:Q", title=None, scale=alt.Scale(scheme="cividis", domain=[0, 1])),
        )
        .properties(width=width, height=height)
    )
    if len(label) > MOST:
        return heat
    text = heat.transform_filter("datum.count > 0").mark_text(fontSize=letters)
    shade = alt.condition("datum.share > .5", alt.value("black"), alt.value("white"))
    return heat + text.encode(text=alt.Text("count:Q", format="d"), color=shade)


def mark_absent(table: Any, label: Sequence[str], known: int) -> list[str]:
    """The names, with a note at classes that no sample is of; the background is none."""
    counts = [sum(float(v) for v in row) for row in table]
    return [
        name if counts[i] or (known and i == known) else f"{name} (absent)" for i, name in enumerate(label)
    ]


def list_cells(table: Any, label: Sequence[str], known: int) -> list[dict[str, Any]]:
    """The cells, without that of background predicted as background, which is not counted."""
    counts = [[float(v) for v in row] for row in table]
    return [
        {"truth": label[i], "predicted": label[j], "share": count / max(1.0, sum(row)), "count": count}
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if not known or (i, j) != (known, known)
    ]


def label_classes(count: int, names: Sequence[str]) -> list[str]:
    """The names of `count` classes, numbers for those without; one more than names is the background."""
    found = [str(names[i]) if i < len(names) else str(i) for i in range(count)]
    if names and count == len(names) + 1:
        found[-1] = next(name for name in NOTHING if name not in names)
    return found
