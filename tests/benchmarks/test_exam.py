"""Reports rebuilt small: the cause comes first, and the mended twin is left alone."""

from __future__ import annotations

import pytest
from benchmarks.exam import examine
from benchmarks.reported import CASES

from unvanish.rules import rules

MISSED: set[str] = set()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_a_report_is_named_and_its_twin_is_not(name: str) -> None:
    report = CASES[name]
    assert examine(report, sick=False, show=False) == ()
    if name not in MISSED:
        assert examine(report, sick=True, show=False)[0] in report.wanted


def test_what_is_missed_is_known() -> None:
    assert set(CASES) >= MISSED
    assert len(MISSED) <= 0.1 * len(CASES)


def test_a_wanted_code_is_one_that_exists_or_may_come() -> None:
    assert all(any(code in rules() for code in report.wanted) for report in CASES.values())
