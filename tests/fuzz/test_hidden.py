"""Some hidden state in the suite; by hand as much as one likes: `python -m tests.fuzz.hidden`."""

from __future__ import annotations

import pytest
from tests.fuzz.hidden import run

from unvanish.core.omissions import be_strict


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "count"), [("check", 150), ("forecast", 60), ("cure", 10)])
def test_hidden_state_is_put_back(verb: str, count: int) -> None:
    with be_strict(False):
        assert run(count, 30_000, verb) == []  # each line holds the seed that repeats it
