"""Reports: text for terminals, JSON for programs, HTML for people and notebooks; one folder for each noun.

Notable:
- `REPORTS` is the table: the class of a noun and a file ending name the module that writes it, and `CELL` the
  one that shows it in a notebook; `FORMATS` names those of a diagnosis.
- Every module has `render(noun) -> str`; a text of a screen takes `verbose`, and adds `print_report`.
- They read the nouns of `core` and the run folder, and nothing else; no report needs torch.
- The order is the same everywhere: from the loss (first, top, left) to the input (last, bottom, right).
"""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from unvanish.core.diagnosis import Diagnosis
from unvanish.core.registry import suggest
from unvanish.core.shown import Shown
from unvanish.store.files import write_text

if TYPE_CHECKING:
    from rich.console import Console

CELL = "a notebook"  # in place of a file's ending

REPORTS = {
    "Diagnosis": {
        ".txt": "diagnosis.text",
        ".json": "diagnosis.json",
        ".html": "diagnosis.html",
        ".svg": "diagnosis.svg",
        ".sarif": "diagnosis.sarif",
        ".xml": "diagnosis.junit",
        ".md": "diagnosis.markdown",
        ".github": "diagnosis.github",
    },
    "Finding": {".txt": "diagnosis.finding", CELL: "diagnosis.finding"},
    "Ledger": {".txt": "diagnosis.ledger", CELL: "diagnosis.ledger"},
    "Trace": {".txt": "diagnosis.trace", CELL: "diagnosis.trace"},
    "Cured": {".txt": "cure.text", ".html": "cure.html", ".svg": "cure.svg"},
    "Prescription": {CELL: "cure.prescription"},
    "Sight": {".txt": "sight.text", ".html": "sight.html"},
    "Run": {".txt": "run.text", ".html": "run.html", ".svg": "run.svg", CELL: "run.cell"},
    "RunPair": {".txt": "run.compare", CELL: "run.compare"},
}  # by the class of the noun, or the nearest class that it inherits from

FORMATS = {
    "text": ".txt",
    "json": ".json",
    "html": ".html",
    "svg": ".svg",
    "sarif": ".sarif",
    "github": ".github",
    "junit": ".xml",
    "markdown": ".md",
}  # of a diagnosis, by name
GRADED = (".xml", ".md")  # say which findings fail, so they take `fail_on`
SCREENS = ("Diagnosis", "Cured", "Sight", "Run")  # whose text is cut to a screen, unless it is a file's


def print_report(noun: Shown, console: Console | None = None, *, verbose: bool = False) -> None:
    """Print the noun to a console, stdout by default: at most a screen, or all of it."""
    _find(noun, ".txt").print_report(noun, console, verbose=verbose)


def render(noun: Shown, suffix: str) -> str:
    """The noun as text with this ending, at most a screen of it; ValueError if there is no such report."""
    return str(_find(noun, suffix).render(noun))


def write(diagnosis: Diagnosis, form: str, fail_on: str = "warning") -> str:
    """The diagnosis in a format of FORMATS; `fail_on`: the level from which a finding fails a check."""
    if form not in FORMATS:
        raise ValueError(f"no format {form!r}{suggest(form, FORMATS)}; the formats are {', '.join(FORMATS)}")
    module, graded = _find(diagnosis, FORMATS[form]), FORMATS[form] in GRADED
    return str(module.render(diagnosis, fail_on) if graded else _render_whole(diagnosis, FORMATS[form]))


def fragment(noun: Shown) -> str:
    """The noun as HTML for a notebook."""
    return str(_find(noun, CELL if CELL in REPORTS[_name(noun)] else ".html").fragment(noun))


def save(noun: Shown, path: Path) -> Path:
    """Write the report, all of it, in the format of the file's ending; returns the path."""
    return write_text(path, _render_whole(noun, path.suffix))


def _render_whole(noun: Shown, suffix: str) -> str:
    module = _find(noun, suffix)
    whole = suffix == ".txt" and _name(noun) in SCREENS
    return str(module.render(noun, verbose=True) if whole else module.render(noun))


def _name(noun: Shown) -> str:
    """The name of its class in the table."""
    return next((c.__name__ for c in type(noun).__mro__ if c.__name__ in REPORTS), "Diagnosis")


def _find(noun: Shown, suffix: str) -> ModuleType:
    table = REPORTS[_name(noun)]
    if suffix not in table:
        known = ", ".join(key for key in table if key != CELL)
        kind = _name(noun).lower()
        raise ValueError(f"no {kind} report for files ending in {suffix!r}; use one of {known}")
    before = random.getstate()  # rich draws a number when it is imported
    try:
        return importlib.import_module(f"{__name__}.{table[suffix]}")
    finally:
        random.setstate(before)
