"""Any texts and any floats: every report renders, and JSON stays strict."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from unvanish.core.diagnosis import Diagnosis, Evidence, Finding, Remedy, Verdict
from unvanish.core.ledger import Ledger, Row
from unvanish.core.trace import STATISTICS, Axis, Site, Trace
from unvanish.reports.diagnosis import headline, html, text
from unvanish.reports.diagnosis import json as report_json

words = st.text(max_size=40) | st.text(st.characters(), max_size=8)
names = st.lists(words, max_size=6).map(tuple)
floats = st.floats(width=64)
facts = st.dictionaries(
    words, words | floats | st.integers() | st.none() | st.lists(floats, max_size=2), max_size=3
)
evidence = st.builds(Evidence, words, floats | words, words, words, words)
remedies = st.builds(Remedy, words, names, words, st.sampled_from(["exact", "retrain", "advice"]), facts)
severities = st.sampled_from(["note", "warning", "error"])
directions = st.sampled_from(["vanishing", "exploding", "blocked", "none"])
verdicts = st.lists(st.builds(Verdict, words, words, words), max_size=3).map(tuple)
parts = st.dictionaries(st.sampled_from(["weights", "slope", "alignment"]), floats, max_size=3)


def findings(consequences: st.SearchStrategy[Any]) -> st.SearchStrategy[Finding]:
    return st.builds(
        Finding,
        code=words | st.just("REC001"),
        name=words,
        severity=severities,
        cause=words,
        sites=names,
        evidence=st.lists(evidence, max_size=3).map(tuple),
        remedies=st.lists(remedies, max_size=3).map(tuple),
        direction=directions,
        weight=floats,
        confirmed=st.none() | st.booleans(),
        experiment=words,
        consequences=consequences,
    )


def ledger_rows(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Row]:
    return st.builds(Row, words, words, floats, parts, children, floats)


none = st.just(())
trees = ledger_rows(st.lists(ledger_rows(none), max_size=3).map(tuple))
books = st.none() | st.builds(Ledger, words, st.lists(trees, max_size=25).map(tuple))


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    roles = st.sampled_from(["node", "parameter", "step", "input", "output"])
    where = st.fixed_dictionaries({}, optional={"step": st.integers(0, 9), "of": words})
    sites = draw(st.lists(st.builds(Site, words, words, st.integers(0, 3), roles, where), max_size=6))
    steps = draw(st.integers(0, 2))
    table = st.lists(floats, min_size=len(STATISTICS), max_size=len(STATISTICS))
    import numpy as np

    values = np.array([[draw(table) for _ in sites] for _ in range(steps)], dtype=float)
    axis = Axis("depth", "depth", tuple(range(len(sites))))
    values = values.reshape(steps, len(sites), len(STATISTICS))
    known = st.fixed_dictionaries(
        {},
        optional={
            "loss": floats,
            "loss_kind": words,
            "batch_size": st.integers(),
            "parameters": st.integers(),
            "dtype": words,
            "training": st.booleans(),
            "assumptions": st.lists(words, max_size=2),
            "crash": words,
            "torch": words,
        },
    )
    return Trace(tuple(sites), values, (axis,) if draw(st.booleans()) else (), draw(known))


diagnoses = st.builds(
    Diagnosis,
    st.lists(findings(st.lists(findings(none), max_size=2).map(tuple)), max_size=4).map(tuple),
    traces(),
    verdicts,
    verdicts,
    verdicts,
    words,
    floats,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(diagnosis=diagnoses, book=books, width=st.integers(1, 130))
def test_every_report_renders(diagnosis: Diagnosis, book: Ledger | None, width: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headline, "ledger", lambda trace: book)
        plain = text.render(diagnosis, width)
        assert all(cell_len(line) <= min(max(width, 60), 100) for line in plain.splitlines())
        assert all(c == "\n" or c.isprintable() for c in plain)
        page = html.render(diagnosis) + html.fragment(diagnosis)
        page.encode("utf-8")
        parsed = json.loads(report_json.render(diagnosis), parse_constant=refuse)
    assert len(parsed["findings"]) == len(diagnosis.findings)
    assert all(math.isfinite(v) for v in numbers(parsed))


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers(item)]
    return [value] if isinstance(value, int | float) else []
