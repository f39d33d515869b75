"""How often the cause of a report comes first, and whether its mended twin is left alone.

Run it with `python -m benchmarks.exam`, or with parts of names; `--show` prints the whole reports.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
from rich.console import Console

import unvanish
from benchmarks import record
from benchmarks.reported import CASES, Report


def examine(report: Report, sick: bool, show: bool) -> tuple[str, ...]:
    """The codes above a note, worst first; a crash is told by its class."""
    torch.manual_seed(0)
    model, batch, loss, *options = report.build(sick)
    named: dict[str, Any] = options[0] if options else {}
    try:
        found = unvanish.check(model, batch, loss, **named)
    except Exception as error:
        return (type(error).__name__,)
    if show:
        print(found)
    return tuple(f.code for f in found.at_least("warning"))


def main() -> int:
    """Print a row a report and the two figures; 1 if a twin has a warning."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names")
    parser.add_argument("--show", action="store_true")
    record.add_option(parser)
    options, console = parser.parse_args(), Console()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    chosen = [r for r in CASES.values() if not options.names or any(n in r.name for n in options.names)]
    right = quiet = 0
    for report in chosen:
        said, twin = (examine(report, sick, options.show) for sick in (True, False))
        good = said[:1] and said[0] in report.wanted
        right, quiet = right + bool(good), quiet + (not twin)
        row = f"{report.name:24} {','.join(said) or '-':24} twin {','.join(twin) or '-'}"
        console.print(f"{'ok  ' if good else 'MISS'} {row}", highlight=False)
    console.print(f"first {right} of {len(chosen)}, twins silent {quiet} of {len(chosen)}")
    record.append("exam", options, {"reports": len(chosen), "first": right, "silent": quiet})
    return int(quiet < len(chosen))


if __name__ == "__main__":
    raise SystemExit(main())
