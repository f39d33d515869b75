"""Reports: text for terminals, JSON for programs, HTML for people and notebooks; one folder for each noun.

Notable:
- `REPORTS` is the table: the type of a noun and a file ending name the module that writes it; `FORMATS` names
  those of a diagnosis.
- Every module has `render(noun) -> str`; the text adds `print_report`, the HTML adds `fragment`.
- They read the nouns of `core` and the run folder, and nothing else; no report needs torch.
- The order is the same everywhere: from the loss (first, top, left) to the input (last, bottom, right).
"""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from unvanish.core.cured import Cured
from unvanish.core.diagnosis import Diagnosis
from unvanish.core.registry import suggest
from unvanish.core.sight import Sight
from unvanish.store.files import write_text

if TYPE_CHECKING:
    from rich.console import Console

Noun = Diagnosis | Cured | Sight

REPORTS = {
    "diagnosis": {
        ".txt": "text",
        ".json": "json",
        ".html": "html",
        ".sarif": "sarif",
        ".xml": "junit",
        ".md": "markdown",
        ".github": "github",
    },
    "cure": {".txt": "text", ".html": "html"},
    "sight": {".txt": "text", ".html": "html"},
}

FORMATS = {
    "text": ".txt",
    "json": ".json",
    "html": ".html",
    "sarif": ".sarif",
    "github": ".github",
    "junit": ".xml",
    "markdown": ".md",
}  # of a diagnosis, by name
GRADED = (".xml", ".md")  # say which findings fail, so they take `fail_on`

KINDS = {"cure": Cured, "sight": Sight}


def print_report(noun: Noun, console: Console | None = None) -> None:
    """Print the noun to a console, stdout by default."""
    _module(noun, ".txt").print_report(noun, console)


def render(noun: Noun, suffix: str) -> str:
    """The noun as the text of a file with this ending; ValueError if there is no such report."""
    return str(_module(noun, suffix).render(noun))


def write(diagnosis: Diagnosis, form: str, fail_on: str = "warning") -> str:
    """The diagnosis in a format of FORMATS; `fail_on`: the level from which a finding fails a check."""
    if form not in FORMATS:
        raise ValueError(f"no format {form!r}{suggest(form, FORMATS)}; the formats are {', '.join(FORMATS)}")
    module, graded = _module(diagnosis, FORMATS[form]), FORMATS[form] in GRADED
    return str(module.render(diagnosis, fail_on) if graded else module.render(diagnosis))


def fragment(noun: Noun) -> str:
    """The noun as HTML for a notebook."""
    return str(_module(noun, ".html").fragment(noun))


def save(noun: Noun, path: Path) -> Path:
    """Write the report in the format of the file's ending; returns the path."""
    return write_text(path, render(noun, path.suffix))


def _module(noun: Noun, suffix: str) -> ModuleType:
    kind = next((k for k, noun_type in KINDS.items() if isinstance(noun, noun_type)), "diagnosis")
    table = REPORTS[kind]
    if suffix not in table:
        raise ValueError(f"no {kind} report for files ending in {suffix!r}; use one of {', '.join(table)}")
    before = random.getstate()  # rich draws a number when it is imported
    try:
        return importlib.import_module(f"{__name__}.{kind}.{table[suffix]}")
    finally:
        random.setstate(before)
