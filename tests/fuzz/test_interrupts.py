"""A few interrupts in the suite; by hand as many as one likes: `python -m tests.fuzz.interrupts`."""

from __future__ import annotations

import pytest
from tests.fuzz.interrupts import run


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "count"), [("check", 40), ("forecast", 20), ("cure", 8)])
def test_interrupts_leave_all_as_it_was(verb: str, count: int) -> None:
    tally, said = run(count, 20_000, (verb,))
    assert said == []  # each line holds the seed that repeats it
    assert tally["as it was"] == count
