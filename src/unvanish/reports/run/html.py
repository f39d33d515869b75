"""A run as one page without network: loss and gradient, the flow heat map, sites' histories, the findings.

Notable:
- The charts are Vega-Lite, written with Altair and bundled with their library; a click on the heat map picks
  a site and a step.
- Colours are cividis, which colour-blind eyes can tell apart; light and dark follow the reader's system.
- The same page, served on loopback, asks for fresh rows while the run grows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unvanish.core.version import __version__
from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.run.data import document
from unvanish.store import Run
from unvanish.store.files import write_text

SCRIPT = Path(__file__).with_name("run.js")
STYLE = Path(__file__).with_name("run.css")
WIDTH, LEGEND = 760, 50  # pixels of a chart, and of what stands beside one
MISSING = "the pages of a run need Altair and vl-convert-python: pip install 'unvanish[report]'"


class MissingLibrary(Exception):
    """The chart library is not installed; the text says how to get it."""


def render(run: Run, *, live: bool = False) -> str:
    """One self-contained HTML page; `live`: it asks its server for fresh rows."""
    try:
        import vl_convert
    except ImportError as error:
        raise MissingLibrary(MISSING) from error
    rows = document(run)
    data = _script_safe(json.dumps(rows, allow_nan=False))
    charts = _script_safe(json.dumps(specifications(rows)))
    bundle = vl_convert.javascript_bundle("window.draw = vegaEmbed;")
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"unvanish {__version__}"),
        tag("title", f"{run.name} - unvanish"),
        tag("style", Html(STYLE.read_text(encoding="utf-8"))),
    ]
    top = tag("p", tag("b", "unvanish"), " watched a training", class_="quiet")
    body = [
        tag("header", top, tag("h1", run.name), tag("p", id="summary")),
        tag("section", tag("h2", "What was found"), tag("ul", id="findings")),
        *(_part(key, title, text) for key, (title, text) in PARTS.items()),
    ]
    scripts = [
        tag("script", Html(bundle.replace("</script", "<\\/script")), type="module"),
        tag("script", Html(f"const run = {data}, charts = {charts}, live = {json.dumps(live)};")),
        tag("script", Html(SCRIPT.read_text(encoding="utf-8")), type="module"),
    ]
    whole = tag("html", tag("head", head), tag("body", tag("main", body), scripts), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _part(key: str, title: str, text: str) -> Html:
    heading = [tag("h2", title), tag("p", text, class_="quiet")]
    return tag("section", *heading, tag("div", id=key, class_="chart"), id=f"{key}-part")


PARTS = {
    "curves": (
        "Loss and gradient",
        "The gradient is the norm over all parameters, as the optimizer sees it.",
    ),
    "flow": (
        "Where the gradient is",
        "Decades against the loss's end, along the depth axis. Click a cell to see its site and step below.",
    ),
    "ledger": (
        "What each piece changed",
        "The same, piece by piece, at the step that was clicked, or the last one.",
    ),
    "history": ("One site", "Everything measured at the site that was clicked, or the first one."),
    "moves": ("How far the weights move", "Update over weight of each layer; a thousandth a step is usual."),
    "horizon": (
        "Through time",
        "The gradient at each time step of the recurrent layers, in decades, at the last look.",
    ),
}


def specifications(rows: dict[str, Any]) -> dict[str, Any]:
    """The charts as Vega-Lite, by the name of their part; their data are filled in by the page."""
    import altair as alt

    marks, wide = alt.Data(name="findings"), alt.Axis(labelLimit=190)
    colours = alt.Scale(domain=["error", "warning", "note"], range=["#d1495b", "#e09f3e", "#7d8ca3"])
    found = (
        alt.Chart(marks).mark_rule(strokeDash=[4, 3], strokeWidth=1.5)
        .encode(
            x="step:Q",
            color=alt.Color("severity:N", scale=colours, legend=None),
            tooltip=["code:N", "name:N", "step:Q", "cause:N"],
        )
    )  # fmt: skip

    steps = alt.Axis(tickMinStep=1)

    def line(field: str, title: str) -> Any:
        base = alt.Chart(alt.Data(name="steps")).encode(x=alt.X("step:Q", title="step", axis=steps))
        scale = alt.Scale(zero=False)
        drawn = base.mark_line(strokeWidth=1.6, color="#3b7dd8").encode(
            y=alt.Y(f"{field}:Q", title=title, scale=scale), tooltip=["step:Q", f"{field}:Q", "lr:Q"]
        )
        bad = base.mark_point(shape="cross", color="#d1495b", size=60, filled=True).encode(y=alt.value(8))
        return (drawn + bad.transform_filter("datum.bad") + found).properties(width=WIDTH, height=150)

    curves = line("loss", "loss") & line("norm", "log10 gradient norm")
    site = alt.selection_point(name="picked_site", fields=["site"], empty=False)
    step = alt.selection_point(name="picked_step", fields=["step"], empty=False)
    places = max([r["place"] for r in rows["flow"]], default=0) + 1
    order = alt.EncodingSortField("place", op="max", order="descending")
    heat = (
        alt.Chart(alt.Data(name="flow")).mark_rect()
        .encode(
            x=alt.X("step:Q", title="step", axis=steps, scale=alt.Scale(nice=False)), x2="until:Q",
            y=alt.Y("site:N", sort=order, title=None, axis=wide),
            color=alt.Color("decades:Q", title="decades", scale=alt.Scale(scheme="cividis")),
            tooltip=["site:N", "step:Q", "decades:Q", "change:Q"],
        )
        .add_params(site, step).properties(width=WIDTH - LEGEND, height=max(120, min(14 * places, 900)))
    )  # fmt: skip
    bars = (
        alt.Chart(alt.Data(name="ledger")).mark_bar()
        .encode(
            x=alt.X("change:Q", title="decades", stack=None),
            y=alt.Y("site:N", sort=order, title=None, axis=wide),
            color=alt.condition("datum.change < 0", alt.value("#3b7dd8"), alt.value("#e0813a")),
            tooltip=["site:N", "step:Q", "change:Q"],
        )
        .properties(width=WIDTH, height=max(120, min(14 * places, 900)))
    )  # fmt: skip
    lines = (
        alt.Chart(alt.Data(name="history")).mark_line(point=alt.OverlayMarkDef(size=14), strokeWidth=1.4)
        .encode(
            x=alt.X("step:Q", title=None), y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            facet=alt.Facet("statistic:N", columns=3, title=None),
            tooltip=["statistic:N", "step:Q", "value:Q"],
        )
        .properties(width=WIDTH // 3 - 45, height=95).resolve_scale(y="independent")
    )  # fmt: skip
    layers = max([r["place"] for r in rows["moves"]], default=0) + 1
    moves = (
        alt.Chart(alt.Data(name="moves")).mark_rect()
        .encode(
            x=alt.X("step:Q", title="step", axis=steps, scale=alt.Scale(nice=False)), x2="until:Q",
            y=alt.Y("site:N", sort=alt.EncodingSortField("place"), title=None, axis=wide),
            color=alt.Color("moved:Q", title="log10", scale=alt.Scale(scheme="cividis")),
            tooltip=["site:N", "step:Q", "moved:Q"],
        )
        .properties(width=WIDTH - LEGEND, height=max(100, min(14 * layers, 900)))
    )  # fmt: skip
    horizon = (
        alt.Chart(alt.Data(name="profiles")).mark_line(strokeWidth=1.6)
        .encode(
            x=alt.X("time:Q", title="time step", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("decades:Q", title="decades"),
            color=alt.Color("site:N", title=None),
            tooltip=["site:N", "time:Q", "decades:Q"],
        )
        .properties(width=WIDTH, height=180)
    )  # fmt: skip
    made = {
        "curves": curves,
        "flow": heat,
        "ledger": bars,
        "history": lines,
        "moves": moves,
        "horizon": horizon,
    }
    return {key: chart.to_dict() for key, chart in made.items()}


def save(run: Run, path: Path) -> Path:
    """Write the page (.html), or the curves and the heat map as a picture (.png, .svg)."""
    if path.suffix == ".html":
        return write_text(path, render(run), "page")
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"a run is saved as .html, .png or .svg, not {path.suffix or path.name!r}")
    try:
        import vl_convert
    except ImportError as error:
        raise MissingLibrary(MISSING) from error
    chart = picture(document(run))
    partial = path.with_name(path.name + ".partial")
    made = (
        vl_convert.vegalite_to_png(chart, scale=2)
        if path.suffix == ".png"
        else vl_convert.vegalite_to_svg(chart).encode()
    )
    partial.write_bytes(made)
    return partial.replace(path)


def picture(rows: dict[str, Any]) -> dict[str, Any]:
    """One Vega-Lite chart of the curves above the flow, its data inside."""
    parts = specifications(rows)
    curves, heat = parts["curves"], parts["flow"]
    heat = {k: v for k, v in heat.items() if k not in ("params", "$schema")}
    return {
        "$schema": curves["$schema"],
        "title": rows["name"],
        "background": "white",
        "datasets": {k: rows[k] for k in ("steps", "flow", "findings")},
        "vconcat": [*curves["vconcat"], *([heat] if rows["flow"] else [])],
        "config": {"view": {"stroke": None}, "font": "sans-serif"},
        "resolve": {"scale": {"color": "independent"}},
    }  # fmt: skip


def _script_safe(text: str) -> str:
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
