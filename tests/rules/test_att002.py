"""ATT002 on traces written by hand: queries that get a small part of their values' gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import rule
from unvanish.rules._tiers import MEASURED

Row = tuple[str, float, float]  # name, the queries' share, cosine between the tokens


def _build_trace(*rows: Row, **facts: Any) -> Trace:
    values = np.full((1, len(rows), len(STATISTICS)), np.nan)
    made: Any = {"family": "attention", "tokens": 2, **facts}
    for i, (_, share, cosine) in enumerate(rows):
        log = math.log(share) if share > 0 else share if math.isnan(share) else -math.inf
        values[0, i, list(STATISTICS).index("query_value_log")] = log
        values[0, i, list(STATISTICS).index("token_cosine")] = cosine
    return Trace(tuple(Site.node(row[0], "attention", 0, made) for row in rows), values)


def _judge(*rows: Row, **settings: float) -> list[Finding]:
    return rule("ATT002").check(_build_trace(*rows), **settings)


@pytest.mark.parametrize(
    ("share", "cosine", "severity"),
    [
        (0.0101, 0.999, None),
        (0.0099, 0.999, "warning"),
        (0.0099, 0.990, None),
        (0.0099, 0.991, "warning"),
        (0.0011, 0.999, "warning"),
        (0.0009, 0.999, "error"),
        (0.0009, math.nan, None),
        (1e30, 0.999, None),
    ],
)
def test_queries_starve_if_their_tokens_are_alike(share: float, cosine: float, severity: str | None) -> None:
    assert [f.severity for f in _judge(("a", share, cosine))] == ([severity] if severity else [])


def test_the_limits_are_settings() -> None:
    assert _judge(("a", 0.05, 0.999), limit=0.1)[0].evidence[0].limit == "> 0.1"
    assert _judge(("a", 0.001, 0.9), alike=0.8)[0].evidence[1].limit == "< 0.8"
    assert _judge(("a", 0.001, 0.999), alike=0.999) == []


def test_the_most_starved_comes_first_and_the_rest_is_counted() -> None:
    (found,) = _judge(("a", 0.005, 0.995), ("b", 0.0002, 0.9999), ("c", 0.5, 0.3))
    assert found.sites == ("b", "a") and found.severity == "error"
    assert "the queries of b get 2.0e-04 of their values' gradient" in found.cause
    assert "(cosine 0.99990)" in found.cause
    assert [(e.value, e.unit, e.site) for e in found.evidence] == [
        (pytest.approx(0.0002), "", "b"),
        (0.9999, "", "b"),
        (2, "of 3", ""),
    ]
    assert found.direction == "vanishing"
    assert found.weight == pytest.approx(MEASURED.weigh(math.log(5000)))
    assert all(remedy.targets == ("b", "a") for remedy in found.remedies)


def test_queries_that_get_exactly_nothing_weigh_fifty_nats() -> None:
    (found,) = _judge(("a", 0.0, 0.999))
    assert found.evidence[0].value == 0.0
    assert found.weight == MEASURED.weigh(50.0)


def test_values_without_a_gradient_starve_no_queries() -> None:
    """The ratio of logs is then +inf, and the share is finite all the same."""
    trace = _build_trace(("a", 1.0, 0.999))
    trace.values[0, 0, list(STATISTICS).index("query_value_log")] = math.inf
    assert rule("ATT002").check(trace) == []


@pytest.mark.parametrize(
    "trace",
    [
        _build_trace(("a", 0.0, 1.0), tokens=1),
        _build_trace(("a", math.nan, 1.0)),
        _build_trace(("a", 0.0, 1.0), family="layer"),
    ],
)
def test_without_queries_to_compare_nothing_is_judged(trace: Trace) -> None:
    with pytest.raises(NotApplicable, match="no attention"):
        rule("ATT002").check(trace)
