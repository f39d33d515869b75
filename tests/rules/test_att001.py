"""ATT001 on traces written by hand: saturated softmaxes, and logits that grow in a watched run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import rule
from unvanish.rules._tiers import BLIND, LOGITS

Row = tuple[str, int, float, Any]  # name, tokens, entropy, largest logit: a number or one for each look


def _build_trace(*rows: Row, live: bool = False) -> Trace:
    looks = max((len(np.atleast_1d(row[3])) for row in rows), default=1)
    values = np.full((looks, len(rows), len(STATISTICS)), np.nan)
    sites = []
    for i, (name, tokens, entropy, logits) in enumerate(rows):
        sites.append(Site.node(name, "attention", 0, {"family": "attention", "tokens": tokens}))
        values[:, i, list(STATISTICS).index("entropy")] = entropy
        values[:, i, list(STATISTICS).index("logit_max")] = logits
    return Trace(tuple(sites), values, (), {"live": True} if live else {})


def _judge(*rows: Row, live: bool = False, **settings: float) -> list[Finding]:
    return rule("ATT001").check(_build_trace(*rows, live=live), **settings)


@pytest.mark.parametrize(
    ("entropy", "logits", "severity"),
    [
        (0.31, 60.0, None),
        (0.30, 60.0, None),
        (0.29, 60.0, "warning"),
        (0.29, 50.0, None),
        (0.29, 50.1, "warning"),
        (0.15, 60.0, "warning"),
        (0.149, 60.0, "error"),
    ],
)
def test_a_low_entropy_counts_if_the_logits_are_large(
    entropy: float, logits: float, severity: str | None
) -> None:
    assert [f.severity for f in _judge(("a", 4, entropy, logits))] == ([severity] if severity else [])


def test_the_limits_are_settings() -> None:
    assert _judge(("a", 4, 0.5, 60.0), limit=0.6)[0].evidence[0].limit == "> 0.6"
    assert _judge(("a", 4, 0.1, 40.0), logits=30.0)[0].evidence[1].limit == "< 30"
    assert _judge(("a", 4, 0.1, 60.0), logits=60.0) == []


@pytest.mark.parametrize("row", [("a", 3, 0.01, 99.0), ("a", 4, math.nan, 99.0)])
def test_short_sequences_and_unknown_entropies_are_not_judged(row: Row) -> None:
    with pytest.raises(NotApplicable, match="four tokens or more"):
        _judge(row)
    assert _judge(row, ("b", 4, 0.2, 99.0))[0].sites == ("b",)


def test_an_attention_of_unknown_length_is_not_judged() -> None:
    values = np.zeros((1, 1, len(STATISTICS)))
    with pytest.raises(NotApplicable):
        rule("ATT001").check(Trace((Site.node("a", "attention", 0, {"family": "attention"}),), values))


def test_the_sharpest_comes_first_and_the_rest_is_counted() -> None:
    (found,) = _judge(("a", 8, 0.2, 70.0), ("b", 8, 0.05, 90.0), ("c", 8, 0.9, 5.0))
    assert found.sites == ("b", "a") and found.severity == "error"
    assert found.cause == "the softmax in b is saturated: logits up to 90 leave 5% of the entropy"
    assert [(e.value, e.unit, e.site) for e in found.evidence] == [
        (0.05, "", "b"),
        (90.0, "", "b"),
        (2, "of 3", ""),
    ]
    assert found.direction == "vanishing"
    assert found.weight == pytest.approx(BLIND.weigh(0.05))
    assert [r.targets for r in found.remedies] == [("b", "a"), ("b", "a"), ()]


def test_less_entropy_weighs_more() -> None:
    (blind,), (blurred,) = _judge(("a", 8, 0.01, 70.0)), _judge(("a", 8, 0.2, 70.0))
    assert blind.weight > blurred.weight


GROWING = (5.0, 6.0, 7.0, 20.0, 40.0, 70.0)  # the median of the first three looks is 6


def test_logits_that_grow_tenfold_are_a_warning_in_a_watched_run() -> None:
    assert rule("ATT001").live
    (found,) = _judge(("a", 8, 0.6, GROWING), live=True)
    assert found.severity == "warning" and found.direction == "vanishing"
    assert found.cause == "the attention logits of a have grown 12 times, to 70"
    assert [(e.value, e.limit) for e in found.evidence] == [
        (70.0, "< 50"),
        (pytest.approx(70 / 6), "< 10"),
        (0.6, ""),
    ]
    assert found.weight == LOGITS.weigh(0)
    assert _judge(("a", 8, 0.6, GROWING)) == []


@pytest.mark.parametrize(
    ("column", "grown"),
    [
        ((6.0, 6.0, 6.0, 6.0, 6.0, 60.1), True),
        ((6.0, 6.0, 6.0, 6.0, 6.0, 60.0), False),  # ten times is not above ten times
        ((4.0, 4.0, 4.0, 4.0, 4.0, 50.0), False),  # at the limit of the logits
        ((4.0, 4.0, 4.0, 4.0, 4.0, 50.1), True),
        ((4.0, 4.0, 4.0, 4.0, 60.0), False),  # five looks
        ((math.nan, 4.0, 4.0, 4.0, 4.0, 60.0), False),  # five known looks
        ((math.nan, 4.0, 4.0, 4.0, 4.0, 4.0, 60.0), True),
        ((4.0, 4.0, 4.0, 4.0, 99.0, 30.0), False),  # it came back
        ((1.0, 9.0, 9.0, 1.0, 1.0, 60.0), False),  # the start is the median of three looks: 9
    ],
)
def test_growth_needs_looks_a_factor_and_a_size(column: tuple[float, ...], grown: bool) -> None:
    assert bool(_judge(("a", 8, 0.6, column), live=True)) == grown


def test_of_those_that_grew_the_one_that_grew_most_is_named() -> None:
    quiet = (3.0,) * 6
    faster = (2.0, 2.0, 2.0, 2.0, 2.0, 60.0)
    (found,) = _judge(("a", 8, 0.6, GROWING), ("b", 8, 0.7, quiet), ("c", 8, 0.5, faster), live=True)
    assert found.sites == ("c", "a")
    assert found.evidence[1].value == pytest.approx(30.0)


def test_saturation_goes_before_growth() -> None:
    (found,) = _judge(("a", 8, 0.6, GROWING), ("b", 8, 0.1, (90.0,) * 6), live=True)
    assert found.sites == ("b",) and "saturated" in found.cause
