"""results.png: the losses, the metrics, the gradient and the rate by epoch, as one picture.

Notable: drawn by Altair and vl-convert; if they are not installed there is no picture, and the run says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unvanish.store.files import write_bytes
from unvanish.train.pictures.matrix import draw_confusion

WIDTH, HEIGHT, COLUMNS = 300, 180, 3
TICKS = 10
SPACE = {"row": 110, "column": 80}  # pixels between panels: for axes, legends and the names of classes
MISSING = "no pictures: they need Altair and vl-convert-python, pip install 'unvanish[report]'"
SHADES = ["#3b7dd8", "#e09f3e", "#4c9f70", "#9b6bb3", "#d1495b"]


def draw(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    path: Path,
    tables: Mapping[str, Any],
    names: Sequence[str],
) -> Path | None:
    """Write the picture of a run's rows; None if the chart library is missing or there is no row."""
    return write(lambda: specify(rows, title, tables, names), path) if rows else None


def write(specify: Callable[[], dict[str, Any]], path: Path) -> Path | None:
    """Write a Vega-Lite chart as a picture; None if the chart library is missing."""
    try:
        import vl_convert
    except ImportError:
        return None
    return write_bytes(path, vl_convert.vegalite_to_png(specify(), scale=2), "picture")


def specify(
    rows: Sequence[Mapping[str, Any]], title: str, tables: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """The picture as Vega-Lite, with its data."""
    import altair as alt

    panels = [_panel(rows, keys, head) for head, keys in group_columns(rows)]
    if "confusion" in tables:
        panels.append(draw_confusion(tables["confusion"], names, WIDTH, HEIGHT))
    chart = alt.concat(*panels, columns=COLUMNS, bounds="flush", spacing=SPACE).resolve_scale(
        color="independent"
    )
    shown = chart.properties(title=title, background="white", padding=12).configure_view(stroke=None)
    styled = shown.configure(font="sans-serif").configure_title(anchor="start", frame="group")
    found: dict[str, Any] = styled.configure_axis(labelFlush=False, titleFontWeight="normal").to_dict()
    return found


def group_columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The panels: a title and the columns of results.csv that share it."""
    columns = dict.fromkeys(key for row in rows for key in row)
    losses = [k for k in columns if k.endswith("/loss")]
    parts = dict.fromkeys(k.partition("/")[2] for k in columns if k.endswith("_loss"))
    metrics = [k for k in columns if k.startswith("metrics/")]
    shares = [k for k in metrics if all(0 <= row.get(k, 0) <= 1 for row in rows)]
    rest = [k for k in metrics if k not in shares]
    masks = [k for k in shares if k.startswith("metrics/mask ")]
    kinds = {"metrics": [k for k in shares if k not in masks], "metrics of masks": masks}
    panels = [("loss", losses), *((title, keys) for title, keys in kinds.items() if keys)]
    panels += [(part.replace("_", " "), [k for k in columns if k.endswith(f"/{part}")]) for part in parts]
    panels += [(k.removeprefix("metrics/"), [k]) for k in rest]
    return [*panels, ("gradient norm", ["gradient"]), ("learning rate", ["lr"])]


def _panel(rows: Sequence[Mapping[str, Any]], keys: list[str], title: str) -> Any:
    import altair as alt

    values = [
        {"epoch": row["epoch"], "of": key.removeprefix("metrics/"), "value": row[key]}
        for row in rows
        for key in keys
        if isinstance(row.get(key), (int, float)) and math.isfinite(row[key])
    ]
    positive = [v["value"] for v in values if v["value"] > 0]
    wide = title in ("gradient norm", "perplexity") and positive and max(positive) > 30 * min(positive)
    scale = (
        alt.Scale(type="log")
        if wide
        else alt.Scale(zero=False, **choose_domain([v["value"] for v in values]))
    )
    legend = None if len(keys) == 1 else alt.Legend(title=None, orient="bottom", columns=4, offset=4)
    names = [key.removeprefix("metrics/") for key in keys]
    colours = alt.Scale(domain=names, range=SHADES[: len(names)])
    return (
        alt.Chart(alt.Data(values=values), title=title)
        .mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=22, filled=True))
        .encode(
            x=alt.X("epoch:Q", axis=_epoch_axis(rows), scale=_epoch_scale(rows)),
            y=alt.Y("value:Q", title=None, scale=scale),
            color=alt.Color("of:N", legend=legend, scale=colours),
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def _epoch_axis(rows: Sequence[Mapping[str, Any]]) -> Any:
    """An axis whose ticks are at whole epochs."""
    import altair as alt

    return alt.Axis(values=choose_ticks([int(row["epoch"]) for row in rows]), format="d")


def choose_ticks(epochs: Sequence[int]) -> list[int]:
    """At most ten of the epochs, evenly apart, the first and the last among them."""
    step = -(-max(len(epochs) - 1, 1) // (TICKS - 1))
    found = list(epochs[::step])
    if len(epochs) > 1 and found[-1] != epochs[-1]:
        close = len(found) == TICKS or epochs[-1] - found[-1] < step / 2
        found = [*(found[:-1] if close and len(found) > 1 else found), epochs[-1]]
    return found


def _epoch_scale(rows: Sequence[Mapping[str, Any]]) -> Any:
    """From the first epoch to the last; around the only one."""
    import altair as alt

    epochs = [int(row["epoch"]) for row in rows]
    low, high = min(epochs), max(epochs)
    return alt.Scale(domain=[low, high] if high > low else [low - 0.5, low + 0.5], nice=False)


def choose_domain(values: Sequence[float]) -> dict[str, list[float]]:
    """The range of an axis for values that are all the same: a line in it; empty if they differ."""
    if not values or min(values) < max(values):
        return {}
    same = values[0]
    return {"domain": [0.0, 1.0] if same == 0 else sorted([0.9 * same, 1.1 * same])}
