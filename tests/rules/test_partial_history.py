"""Rules of watched trainings where little of the history is known: they judge or say why not, never fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unvanish.clinic.watch import rehearse
from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import Trace
from unvanish.rules import Rule, rules

WATCHED = [rule for rule in rules().values() if "history" in rule.needs]
KNOWN = {"none": slice(0), "first": slice(3), "last": slice(-3, None), "some": slice(None, None, 50)}
LENGTHS = (0, 1, 2, 10, 60)


def _degrade(history: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The history with one column, or all but one, known at a few steps only; and its last steps alone."""
    for name in history:
        for how, kept in KNOWN.items():
            for others in (False, True):
                lost = [n for n in history if n != "step" and (n == name) != others]
                found = dict(history)
                for column in lost:
                    values = np.full(len(history[column]), np.nan)
                    values[kept] = history[column][kept]
                    found[column] = values
                yield f"{'all but ' if others else ''}{name} known at {how}", found
    for length in LENGTHS:
        yield f"{length} steps", {n: v[max(0, len(v) - length) :] for n, v in history.items()}


@pytest.mark.parametrize("source", WATCHED, ids=lambda rule: rule.code)
def test_a_history_of_which_little_is_known_fails_no_rule(source: Rule) -> None:
    trace: Trace = rehearse(source.case("sick")).trace
    history: Any = trace.facts["history"]
    for how, found in _degrade(history):
        facts: Any = {**trace.facts, "history": found}
        for rule in WATCHED:
            try:
                list(rule.check(replace(trace, facts=facts)))
            except NotApplicable:
                continue
            except Exception as error:
                raise AssertionError(f"{rule.code}, {how}: {type(error).__name__}: {error}") from error
