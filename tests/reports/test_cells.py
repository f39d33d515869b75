"""What a notebook shows of every noun: one element with its own style, escaped, without a script."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.reports.test_report_cure import STEPS, cured
from tests.reports.test_report_html import Page
from tests.reports.test_report_svg import HOSTILE, record

from unvanish.clinic.prescription import Prescription
from unvanish.core.diagnosis import Diagnosis, Finding, Remedy
from unvanish.core.ledger import Ledger, Row
from unvanish.core.sight import Sight
from unvanish.core.trace import Trace
from unvanish.reports import REPORTS

SETTINGS = Remedy("zero-bias", ("a.bias",), HOSTILE)


@pytest.fixture
def nouns(example: Callable[[str], Diagnosis], tmp_path: Path) -> dict[str, Any]:
    """One of each kind that a notebook shows."""
    sick = example("sick")
    run = record(tmp_path)
    return {
        "Diagnosis": sick,
        "Finding": sick.findings[0],
        "Ledger": Ledger("depth", (Row(HOSTILE, "linear", -2.0, {"weights": -2.0}, (), -2.0),)),
        "Trace": sick.trace,
        "Cured": cured(),
        "Prescription": Prescription((SETTINGS,)),
        "Sight": Sight(example("weird"), 5, 2, 0.01, {"ACT002": (3, 4)}, (HOSTILE,)),
        "Run": run,
        "RunPair": run.compare(run),
    }


def test_every_kind_is_shown(nouns: dict[str, Any]) -> None:
    assert set(nouns) == set(REPORTS)


@pytest.mark.parametrize("kind", sorted(REPORTS))
def test_a_cell_is_one_element(nouns: dict[str, Any], kind: str) -> None:
    shown = nouns[kind]._repr_html_()
    page = Page(shown)
    assert not page.open and shown.startswith('<div class="uv uv-cell') and shown.endswith("</div>")
    assert not {"script", "link", "img", "html", "body", "iframe", "button"} & {name for name, _ in page.tags}
    assert not [
        a
        for _, attributes in page.tags
        for a in attributes
        if a.startswith("on") or a in {"src", "href", "id"}
    ]
    assert "@page" not in shown and "<script" not in shown
    assert "\x1b" not in shown and "\u202e" not in shown


@pytest.mark.parametrize("kind", sorted(set(REPORTS) - {"Prescription"}))
def test_its_text_fits_a_screen(nouns: dict[str, Any], kind: str) -> None:
    lines = str(nouns[kind]).splitlines()
    assert 0 < len(lines) <= (24 if kind != "Finding" else 30)
    assert all(line.isprintable() for line in lines)


def test_a_prescription_prints_its_yaml_and_shows_its_code() -> None:
    prescription = Prescription(STEPS[:2])
    assert str(prescription) == prescription.yaml()
    assert "set_submodule" in prescription._repr_html_()
    assert "Nothing is prescribed" in Prescription()._repr_html_()


def test_nouns_without_much_to_show(example: Callable[[str], Diagnosis]) -> None:
    empty = example("empty").trace
    assert "no depth axis" in empty._repr_html_() and str(empty).startswith("trace: no places")
    assert (
        "empty ledger" in Ledger("depth", ())._repr_html_()
        and str(Ledger("depth", ())) == "an empty ledger\n"
    )
    bare = Finding("X", "x", "note", "cause")
    assert "cause" in bare._repr_html_() and str(bare) == "note[X] x: cause\n"


def test_a_long_trace_is_thinned_to_a_screen(example: Callable[[str], Diagnosis]) -> None:
    trace: Trace = example("thousands").trace
    lines = str(trace).splitlines()
    assert len(lines) <= 24 and re.search(r"each \d+th of 3002 places", lines[-1])
    assert "the first 400 of 3002" in trace._repr_html_()


def test_a_comparison_names_both_runs_and_their_findings(tmp_path: Path) -> None:
    run = record(tmp_path)
    shown = run.compare(run)
    assert "NUM001" in str(shown) and "NUM001" in shown._repr_html_()
