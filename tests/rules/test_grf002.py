"""GRF002 on traces written by hand: parameters that no operation reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import rule
from unvanish.rules._tiers import PART


def _build_trace(*sites: Site) -> Trace:
    return Trace(sites, np.full((1, len(sites), len(STATISTICS)), np.nan))


def _parameter(name: str, **facts: Any) -> Site:
    made: Any = {"trainable": True, "numel": 10, "module": name, **facts}
    return Site.parameter(f"{name}.weight", "Linear", made)


@pytest.mark.parametrize(
    "facts", [{"used": True}, {}, {"used": False, "reachable": True}, {"used": False, "trainable": False}]
)
def test_what_is_used_or_reached_or_frozen_is_no_fault(facts: dict[str, Any]) -> None:
    assert rule("GRF002").check(_build_trace(_parameter("b", used=True), _parameter("a", **facts))) == []


def test_idle_parameters_are_counted_and_their_owners_named() -> None:
    idle = [_parameter(name, used=False, reachable=False) for name in "abcde"]
    again = _parameter("a", used=False, numel=7)
    (found,) = rule("GRF002").check(_build_trace(*idle, again, _parameter("x", used=True)))
    assert found.severity == "warning" and found.direction == "blocked"
    assert found.cause == (
        "6 trainable parameters (57 numbers) are never used by this forward pass: a, b, c and 2 more"
    )
    assert [(e.value, e.unit, e.limit) for e in found.evidence] == [(6, "of 7", "0"), (57, "", "")]
    assert found.remedies[0].targets == tuple("abcde")
    assert found.sites == tuple(f"{name}.weight" for name in "abcdea") == found.remedies[1].targets
    assert found.weight == PART.weigh(0.0)


def test_a_parameter_without_a_module_owns_itself() -> None:
    (found,) = rule("GRF002").check(_build_trace(_parameter("token", used=False, module="")))
    assert found.remedies[0].targets == ("token.weight",)


def test_at_most_twelve_places_are_listed() -> None:
    trace = _build_trace(*[_parameter(f"p{k}", used=False) for k in range(20)])
    (found,) = rule("GRF002").check(trace)
    assert len(found.sites) == len(found.remedies[0].targets) == 12 and found.evidence[0].value == 20


def test_without_a_trainable_parameter_nothing_is_judged() -> None:
    with pytest.raises(NotApplicable, match="no parameter is trainable"):
        rule("GRF002").check(_build_trace(_parameter("a", trainable=False, used=False)))
