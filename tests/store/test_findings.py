"""Findings of a record come back as they were; one that would silence itself is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from unvanish.core.diagnosis import Evidence, Excuse, Finding, Remedy
from unvanish.core.plain import plain
from unvanish.store.parts import read_finding

INNER = Finding("DEP001", "information-collapse", "note", "follows", ("b",))
FINDING = Finding(
    "ACT002", "contracting-activation", "error", "cause", ("a", "b[2]"),
    (Evidence("slope", 0.2, "", "> 0.37"),),
    (Remedy("add-skips", ("a",), "why"),), "vanishing", 3.0, True, "tried", (INNER,), "net.py:12",
)  # fmt: skip


def test_a_finding_survives_its_record():
    assert read_finding(json.dumps(plain(FINDING))) == FINDING


def test_a_finding_of_a_record_has_no_excuse():
    silent = replace(FINDING, excuse=Excuse("ignored", "trust me"))
    for finding in (silent, replace(FINDING, consequences=(silent,))):
        with pytest.raises(ValueError, match="a finding of a run has an excuse"):
            read_finding(json.dumps(plain(finding)))
    with pytest.raises(TypeError, match="a line is no text"):
        read_finding(json.dumps({**plain(FINDING), "line": ["net.py:12"]}))
