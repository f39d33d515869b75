"""A confusion matrix as a chart: shares of each true class, by what it was taken for; rows are the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST = 12  # of the classes whose counts are legible
LEAST = 9  # pixels of a row whose name is
NOTHING = ("background", "nothing")  # what the background is called, the first that is no class


def confusion(table: Any, names: Sequence[str], width: float, height: float, letters: int = 9) -> Any:
    """The chart of counts (n, n); where there is a row more than names, it is the background's."""
    import altair as alt

    label = labels(len(table), names)
    row = height / len(label)
    axis = alt.Axis(
        labels=row >= LEAST, labelLimit=110, ticks=False, labelFontSize=min(10, row), labelPadding=3
    )
    data = alt.Data(values=cells(table, label, len(names)))
    heat = (
        alt.Chart(data, title="confusion: share of each true class")
        .mark_rect()
        .encode(
            x=alt.X("said:N", sort=label, title="said", axis=axis),
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


def cells(table: Any, label: Sequence[str], known: int) -> list[dict[str, Any]]:
    """The cells; but for the background that was found as such, which nobody counts."""
    counts = [[float(v) for v in row] for row in table]
    return [
        {"truth": label[i], "said": label[j], "share": count / max(1.0, sum(row)), "count": count}
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if not known or (i, j) != (known, known)
    ]


def labels(count: int, names: Sequence[str]) -> list[str]:
    """The names of so many classes, numbers where there is none; one more than names is the background."""
    made = [str(names[i]) if i < len(names) else str(i) for i in range(count)]
    if names and count == len(names) + 1:
        made[-1] = next(name for name in NOTHING if name not in names)
    return made
