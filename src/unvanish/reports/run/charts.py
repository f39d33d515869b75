"""The charts of a run's page as Vega-Lite, written with Altair; the page fills in their data by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

WIDTH, LEGEND = 760, 50  # pixels of a chart, and of the legend at its side
ROW, SHORTEST, TALLEST = 14, 120, 900  # pixels of a site's row, and of a chart with sites
COLUMNS = 3  # of a site's history
BLUE, ORANGE, RED = "#3b7dd8", "#e0813a", "#d1495b"
SEVERITIES = {"error": RED, "warning": "#e09f3e", "note": "#7d8ca3"}


def specify_charts(rows: dict[str, Any]) -> dict[str, Any]:
    """Every chart by the name of its part; `rows` are those of `read_rows`."""
    sites, layers = _count_places(rows["flow"]), _count_places(rows["moves"])
    charts = {
        "curves": _chart_curves(),
        "flow": _chart_flow(sites),
        "ledger": _chart_ledger(sites),
        "history": _chart_history(),
        "moves": _chart_moves(layers),
        "horizon": _chart_horizon(),
    }
    return {key: chart.to_dict() for key, chart in charts.items()}


def specify_picture(rows: dict[str, Any]) -> dict[str, Any]:
    """One chart of the curves above the flow, with its data."""
    parts = specify_charts(rows)
    curves = keep_known(parts["curves"], rows)
    flow = {k: v for k, v in parts["flow"].items() if k not in ("params", "$schema")}
    return {
        "$schema": curves["$schema"],
        "title": rows["name"],
        "background": "white",
        "datasets": {k: rows[k] for k in ("steps", "looks", "flow", "findings")},
        "vconcat": [*curves["vconcat"], *([flow] if rows["flow"] else [])],
        "config": {"view": {"stroke": None}, "font": "sans-serif"},
        "resolve": {"scale": {"color": "independent"}},
    }


def _count_places(rows: Sequence[dict[str, Any]]) -> int:
    return max([row["place"] for row in rows], default=0) + 1


def _height(places: int, shortest: int = SHORTEST) -> int:
    return max(shortest, min(ROW * places, TALLEST))


def _step_axis(**options: Any) -> Any:
    import altair as alt

    return alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1), **options)


def _site_axis(sort: Any) -> Any:
    import altair as alt

    return alt.Y("site:N", sort=sort, title=None, axis=alt.Axis(labelLimit=190))


def _loss_first(order: Literal["ascending", "descending"] = "ascending") -> Any:
    import altair as alt

    return alt.EncodingSortField("place", op="max", order=order)


def _chart_curves() -> Any:
    """Loss, gradient, learning rate, clipping, update and log Z, one above the other over the same steps."""
    import altair as alt

    return alt.vconcat(
        _chart_curve("loss", "loss", height=150),
        _chart_curve("norm", "log10 gradient", height=150, marks=True),
        _chart_curve("lr", "learning rate", step=True),
        _chart_curve("clipped", "share clipped", step=True),
        _chart_curve("moved", "log10 update / weight", data="looks"),
        _chart_curve("log_z", "log Z", data="looks"),
    ).resolve_scale(x="shared")


def _chart_curve(
    field: str, title: str, *, data: str = "steps", height: int = 90, step: bool = False, marks: bool = False
) -> Any:
    """A line over the steps, under the name of its field; dashed lines are findings.

    `marks`: crosses where a step is not finite, triangles where a gradient is zero; steps not read: no gap.
    """
    import altair as alt

    base = alt.Chart(alt.Data(name=data)).encode(x=_step_axis())
    axis = alt.Axis(tickCount=height // 22)
    y = alt.Y(f"{field}:Q", title=title, scale=alt.Scale(zero=step), axis=axis)
    dots = alt.OverlayMarkDef(size=14) if data == "looks" else False
    line = base.mark_line(
        strokeWidth=1.6, color=BLUE, point=dots, interpolate="step-after" if step else "linear"
    ).encode(y=y, tooltip=["step:Q", f"{field}:Q"])
    if marks:
        line = line.transform_filter(f"isValid(datum.{field}) || datum.bad")
    chart = line + _chart_findings()
    if marks:
        crosses = base.mark_point(shape="cross", color=RED, size=60, filled=True).encode(y=alt.value(8))
        zeros = base.mark_point(shape="triangle-down", color=RED, size=30).encode(y=y)
        chart = chart + crosses.transform_filter("datum.bad") + zeros.transform_filter("datum.zero")
    return chart.properties(width=WIDTH, height=height, name=field)


def keep_known(curves: dict[str, Any], rows: dict[str, Any]) -> dict[str, Any]:
    """The curves without those of which nothing is known."""
    known = {
        key for name in ("steps", "looks") for row in rows[name] for key, v in row.items() if v is not None
    }
    return {**curves, "vconcat": [c for c in curves["vconcat"] if c["name"] in known]}


def _chart_findings() -> Any:
    import altair as alt

    scale = alt.Scale(domain=list(SEVERITIES), range=list(SEVERITIES.values()))
    rule = alt.Chart(alt.Data(name="findings")).mark_rule(strokeDash=[4, 3], strokeWidth=1.5)
    colour = alt.Color("severity:N", scale=scale, legend=None)
    return rule.encode(x="step:Q", color=colour, tooltip=["code:N", "name:N", "step:Q", "cause:N"])


def _chart_flow(sites: int) -> Any:
    """The gradient at every site and look; a click picks both."""
    import altair as alt

    picked_site = alt.selection_point(name="picked_site", fields=["site"], empty=False)
    picked_step = alt.selection_point(name="picked_step", fields=["step"], empty=False)
    chart = _chart_heat("flow", "decades", "decades", ["decades:Q", "change:Q"], _loss_first())
    return chart.add_params(picked_site, picked_step).properties(width=WIDTH - LEGEND, height=_height(sites))


def _chart_moves(layers: int) -> Any:
    """The update over the weights of every layer and look."""
    chart = _chart_heat("moves", "moved", "log10", ["moved:Q"], _loss_first("descending"))
    return chart.properties(width=WIDTH - LEGEND, height=_height(layers, 100))


def _chart_heat(data: str, field: str, title: str, tooltip: list[str], sort: Any) -> Any:
    import altair as alt

    return (
        alt.Chart(alt.Data(name=data)).mark_rect()
        .encode(
            x=_step_axis(scale=alt.Scale(nice=False)), x2="until:Q",
            y=_site_axis(sort),
            color=alt.Color(f"{field}:Q", title=title, scale=alt.Scale(scheme="cividis")),
            tooltip=["site:N", "step:Q", *tooltip],
        )
    )  # fmt: skip


def _chart_ledger(sites: int) -> Any:
    """What each piece changed at one step."""
    import altair as alt

    return (
        alt.Chart(alt.Data(name="ledger")).mark_bar()
        .encode(
            x=alt.X("change:Q", title="decades", stack=None),
            y=_site_axis(_loss_first()),
            color=alt.condition("datum.change < 0", alt.value(BLUE), alt.value(ORANGE)),
            tooltip=["site:N", "step:Q", "change:Q"],
        )
        .properties(width=WIDTH, height=_height(sites))
    )  # fmt: skip


def _chart_history() -> Any:
    """A small line for each statistic of one site."""
    import altair as alt

    return (
        alt.Chart(alt.Data(name="history")).mark_line(point=alt.OverlayMarkDef(size=14), strokeWidth=1.4)
        .encode(
            x=alt.X("step:Q", title=None), y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            facet=alt.Facet("statistic:N", columns=COLUMNS, title=None),
            tooltip=["statistic:N", "step:Q", "value:Q"],
        )
        .properties(width=WIDTH // COLUMNS - 45, height=95).resolve_scale(y="independent")
    )  # fmt: skip


def _chart_horizon() -> Any:
    """The gradient at each time step of the recurrent layers."""
    import altair as alt

    return (
        alt.Chart(alt.Data(name="profiles")).mark_line(strokeWidth=1.6)
        .encode(
            x=alt.X("time:Q", title="time step", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("decades:Q", title="decades"),
            color=alt.Color("site:N", title=None),
            tooltip=["site:N", "time:Q", "decades:Q"],
        )
        .properties(width=WIDTH, height=180)
    )  # fmt: skip
