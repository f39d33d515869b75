"""The text of a watched training: its last line, its sparklines, its findings, its times."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unvanish.core.diagnosis import Diagnosis, Finding, Remedy
from unvanish.core.trace import STATISTICS, Trace
from unvanish.reports.run import text

NOTE = Finding("GRF003", "frozen", "note", "frozen on purpose")
FAULT = Finding(
    "NUM001", "non-finite", "error", "NaN in fc", tuple("abcdef"), remedies=(Remedy("x", (), "y"),)
)


def test_the_last_line_counts_warnings_and_errors_alone() -> None:
    assert text.conclude([]) == text.conclude([NOTE]) == "nothing wrong was seen"
    assert text.conclude([NOTE, FAULT]) == "found 1: NUM001"


def test_a_sparkline_shows_infinities_and_gaps() -> None:
    assert text.draw_spark(np.array([0.0, math.nan, math.inf, 7.0])) == "▁ x█"
    assert text.draw_spark(np.zeros(0)) == ""
    long = np.zeros(600)
    long[305] = math.inf
    assert text.draw_spark(long, 60).index("x") == 30


def test_a_finding_names_four_sites_and_its_remedy() -> None:
    lines = text.describe_finding(FAULT, "step 3 to 5")
    assert lines == [
        "error[NUM001] non-finite (step 3 to 5): NaN in fc",
        "  --> a, b, c, d ...",
        "  = remedy [retrain] x: y",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99.4, "99 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert text.format_duration(seconds) == words


def test_a_watch_in_memory_is_reported_from_its_history() -> None:
    history = {"loss": [2.0, 1.0], "norm_log": [0.0, math.log(10)]}
    trace = Trace((), np.zeros((0, 0, len(STATISTICS))), facts={"history": history})
    lines = text.render_watch(Diagnosis((FAULT,), trace, subject="mlp")).splitlines()
    assert lines[0] == "unvanish watch: mlp"
    assert lines[1].startswith("  loss") and lines[1].endswith("2 to 1")
    assert lines[2].endswith("1e0.0 to 1e1.0, norm of all parameters")
    assert lines[-1] == "found 1: NUM001"
