"""The benchmarks' figures over time, one small chart a figure, by Altair.

Run it with `python -m benchmarks.history`; `--only cost` takes the figures whose name, or whose benchmark's
name, holds the word; `--out history.svg` may also end in .html, .png or .json. It needs the extra `report`. A
line joins runs of equal options on one kind of processor.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import record

COLUMNS, WIDTH, HEIGHT = 3, 240, 110


def rows(lines: list[dict[str, Any]], word: str = "") -> list[dict[str, Any]]:
    """One row a run and figure that is a number, if its title holds the word."""
    found = []
    for line in lines:
        how = json.dumps([line["options"], line["machine"]["processor"], line["machine"]["cores"]])
        for name, value in line["figures"].items():
            title = f"{line['benchmark']}: {name}"
            if isinstance(value, int | float) and word.lower() in title.lower():
                about = {"date": line["date"], "commit": line["commit"], "torch": line["torch"], "how": how}
                found.append({"title": title, "value": float(value), **about})
    return found


def chart(points: list[dict[str, Any]]) -> Any:
    """The charts of the figures, three a row, each with a scale of its own."""
    import altair

    axis = altair.Axis(title=None, tickCount=4, format="%d %b %y")
    return (
        altair.Chart(altair.InlineData(points))
        .mark_line(point=True)
        .encode(
            x=altair.X("date:T", axis=axis),
            y=altair.Y("value:Q", title=None, scale=altair.Scale(zero=False), axis=altair.Axis(format="~g")),
            color=altair.Color("how:N", legend=None),
            tooltip=["title:N", "value:Q", "date:T", "commit:N", "torch:N", "how:N"],
        )
        .properties(width=WIDTH, height=HEIGHT)
        .facet(facet=altair.Facet("title:N", title=None), columns=COLUMNS)
        .resolve_scale(x="shared", y="independent")
    )


def main() -> int:
    """Draw; 1 if there is nothing to draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--out", type=Path, help="history.svg next to the figures by default")
    record.add_option(parser)
    options = parser.parse_args()
    points = rows(record.read(options.results), options.only)
    if not points:
        print(f"no figure with {options.only!r} in its name in {options.results}; run a benchmark first")
        return 1
    out = options.out or options.results / "history.svg"
    chart(points).save(str(out))
    figures, runs = {p["title"] for p in points}, {p["date"] for p in points}
    print(f"{len(figures)} figures of {len(runs)} runs: {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
