"""REC002 on gradients over time written by hand: growth beyond a limit, and beyond that of a sum."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import rec002_exploding_through_time as rec002
from unvanish.rules import rule


def build_trace(recurrences: Mapping[str, float], steps: int = 11) -> Trace:
    """Recurrences whose gradient grows by so many nats from the last step to the first."""
    sites, states = [], []
    for name, ratio in recurrences.items():
        for t in range(steps):
            sites.append(Site.step(name, "rnn_relu", t, {"of": name, "step": t, "steps": steps}))
            states.append(ratio * (steps - 1 - t) / (steps - 1))
    values = np.full((1, len(sites), len(STATISTICS)), math.nan)
    values[0, :, list(STATISTICS).index("state_log")] = states
    return Trace(tuple(sites), values)


def test_a_growing_gradient_is_reported_with_its_numbers() -> None:
    (found,) = rule("REC002").check(build_trace({"a": 4.0, "b": 5.0, "c": 2.0}))
    assert (found.severity, found.direction, found.sites) == ("warning", "exploding", ("b", "a"))
    assert found.cause == "b multiplies the gradient by 1.65 a step back: 2.2 decades over 11 steps"
    ratio, factor = found.evidence
    assert ratio.value == pytest.approx(5.0) and (ratio.limit, ratio.unit) == ("< 3", "nats")
    assert factor.value == pytest.approx(math.exp(0.5)) and factor.limit == f"< {math.exp(3 / 11):.3f}"
    assert {e.site for e in found.evidence} == {"b"}
    assert found.weight == pytest.approx(5.0)
    assert [r.cure for r in found.remedies] == ["orthogonal-recurrence", "replace-cell", "clip-gradient"]
    assert [r.targets for r in found.remedies] == [("b", "a"), ("b", "a"), ()]
    assert found.remedies[1].parameters == {"to": "gru"} and found.remedies[2].safety == "advice"


@pytest.mark.parametrize(
    ("ratio", "severity"),
    [(2.99, None), (3.01, "warning"), (5.99, "warning"), (6.01, "error"), (-9.0, None)],
)
def test_it_fires_just_beyond_its_limits(ratio: float, severity: str | None) -> None:
    found = list(rec002.check(build_trace({"a": ratio})))
    assert [f.severity for f in found] == ([severity] if severity else [])


def test_growth_by_addition_is_forgiven() -> None:
    """Over 40 steps a sum grows by ln 40 = 3.69 nats at most."""
    assert not list(rec002.check(build_trace({"a": 3.68}, steps=40)))
    assert len(list(rec002.check(build_trace({"a": 3.70}, steps=40)))) == 1


def test_its_limit_can_be_set() -> None:
    assert not list(rec002.check(build_trace({"a": 5.0}), limit=5.1))
    (found,) = rec002.check(build_trace({"a": 5.0}), limit=2.45)
    assert found.severity == "error" and found.evidence[0].limit == "< 2.45"


def test_twelve_recurrences_are_named_at_most() -> None:
    (found,) = rec002.check(build_trace({f"r{k}": 4.0 + 0.1 * k for k in range(14)}))
    assert found.sites == tuple(f"r{k}" for k in range(13, 1, -1))


def test_it_needs_a_recurrence_and_can_judge_a_watched_run() -> None:
    with pytest.raises(NotApplicable):
        rec002.check(build_trace({}))
    assert rule("REC002").live
