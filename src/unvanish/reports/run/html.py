"""A run as one page that needs no network: loss and gradient, a heat map of the flow, sites, findings.

Notable:
- The charts are Vega-Lite, their library is in the page; a click on the heat map picks a site and a step.
- Colours are cividis, which colour-blind readers can distinguish; light and dark follow the reader's system.
- The same page, served on loopback, asks for fresh rows while the run grows.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.parts.page import render_page
from unvanish.reports.run.charts import specify_charts, specify_picture
from unvanish.reports.run.data import read_rows
from unvanish.reports.run.gaps import list_gaps
from unvanish.store import Run
from unvanish.store.files import write_bytes, write_text

SCRIPT = Path(__file__).with_name("run.js")
STYLE = Path(__file__).with_name("run.css")
MISSING = "the pages of a run need Altair and vl-convert-python: pip install 'unvanish[report]'"
PARTS = {
    "curves": (
        "Loss, gradient, rate",
        "The gradient is the norm over all parameters, as the optimizer sees it. Crosses are steps that are"
        " not finite, triangles on the floor are gradients of exactly zero, dashed lines are findings.",
    ),
    "flow": (
        "Where the gradient is",
        "Decades relative to the loss, along the depth axis. Click a cell to see its site and step below.",
    ),
    "ledger": (
        "What each piece changed",
        "The same, piece by piece, at the step that was clicked, or the last one with a gradient.",
    ),
    "history": ("One site", "Everything measured at the site that was clicked, or at the first one."),
    "moves": ("How far the weights move", "Update over weight of each layer; 1e-3 a step is usual."),
    "horizon": (
        "Through time",
        "The gradient at each time step of the recurrent layers, in decades, at the last look.",
    ),
}


class MissingLibrary(Exception):
    """The chart library is not installed; the text says how to get it."""


def render(run: Run, *, live: bool = False, nonce: str | None = None) -> str:
    """One self-contained HTML page; `live`: it asks its server for fresh rows; `nonce`: of its scripts."""
    converter = _load_converter()
    rows = read_rows(run)
    data = _escape_script(json.dumps(rows, allow_nan=False))
    charts = _escape_script(json.dumps(specify_charts(rows)))
    bundle = converter.javascript_bundle("window.draw = vegaEmbed;")
    scripts = [
        tag("script", Html(bundle.replace("</script", "<\\/script")), type="module", nonce=nonce),
        tag(
            "script", Html(f"const run = {data}, charts = {charts}, live = {json.dumps(live)};"), nonce=nonce
        ),
        tag("script", Html(SCRIPT.read_text(encoding="utf-8")), type="module", nonce=nonce),
    ]
    return render_page(f"{run.name} - unvanish", _main(run), scripts, style=STYLE.read_text(encoding="utf-8"))


def draw(run: Run) -> bytes:
    """The curves and the heat map as PNG; MissingLibrary without the chart library."""
    png: bytes = _load_converter().vegalite_to_png(specify_picture(read_rows(run)), scale=2)
    return png


def save(run: Run, path: Path) -> Path:
    """Write the page (.html), or the curves and the heat map as a picture (.png, .svg)."""
    if path.suffix == ".html":
        return write_text(path, render(run), "page")
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"a run is saved as .html, .png or .svg, not {path.suffix or path.name!r}")
    if path.suffix == ".svg":
        content = _load_converter().vegalite_to_svg(specify_picture(read_rows(run))).encode()
    else:
        content = draw(run)
    return write_bytes(path, content, "picture")


def _main(run: Run) -> Html:
    top = tag("p", tag("b", "unvanish"), " watched a training", class_="quiet")
    return tag(
        "main",
        tag(
            "header",
            top,
            tag("h1", run.name),
            tag("p", id="verdict"),
            tag("p", id="summary"),
            *_list_gaps(run),
        ),
        tag("section", tag("h2", "What was found"), tag("ul", id="findings")),
        tag("section", tag("h2", "What happened when"), tag("ol", id="timeline"), id="timeline-part"),
        *(_part(key, title, text) for key, (title, text) in PARTS.items()),
    )


def _list_gaps(run: Run) -> list[Html]:
    return [tag("p", line, class_="quiet") for line in list_gaps(run)]


def _part(key: str, title: str, text: str) -> Html:
    heading = [tag("h2", title), tag("p", text, class_="quiet")]
    return tag("section", *heading, tag("div", id=key, class_="chart"), id=f"{key}-part")


def _load_converter() -> ModuleType:
    try:
        import altair  # noqa: F401 (the charts are written with it)
        import vl_convert
    except ImportError as error:
        raise MissingLibrary(MISSING) from error
    return vl_convert


def _escape_script(text: str) -> str:
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
