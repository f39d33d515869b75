"""DEP003 on chains written by hand: a gradient out of bounds that no account explains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Axis, Site, Trace
from unvanish.rules import rule
from unvanish.rules._tiers import MEASURED


def _build_rows(gains: list[float], **facts: Any) -> Trace:
    """Rows of layers from the loss to the input; each adds its gain in nats to the log of the gradient."""
    made: Any = {"cut": True, "row_layers": 1, **facts}
    sites = [Site.node(f"r{k}", "block", 0, {**made}) for k in range(len(gains))]
    sites.append(Site.node("x", "linear", 0, {"cut": True}))
    values = np.full((1, len(sites), len(STATISTICS)), np.nan)
    values[0, :, list(STATISTICS).index("backward_log")] = np.cumsum([0.0, *gains])
    return Trace(tuple(sites), values, (Axis("x", "depth", tuple(range(len(sites)))),))


@pytest.mark.parametrize(
    ("sign", "verb", "direction"), [(-1, "loses", "vanishing"), (1, "gains", "exploding")]
)
def test_the_row_that_bears_most_is_named(sign: int, verb: str, direction: str) -> None:
    """Nine layers, eight rows between them; those that pass it on or work the other way are not named."""
    gains = [sign * g for g in (1.1, 1.2, 2.0, 1.3, -0.5, 1.5, 0.4, 0.0, 9.0)]
    (found,) = rule("DEP003").check(_build_rows(gains))
    assert found.severity == "warning" and found.direction == direction
    assert f"the gradient {verb} " in found.cause and "no rule knows why; most at r2" in found.cause
    assert found.sites == ("r2", "r5", "r3", "r1", "r0", "r6")
    assert found.evidence[2].name == f"the row that {verb} most"
    assert found.evidence[2].value == pytest.approx(sign * 2.0 / math.log(10.0))
    assert found.evidence[2].site == "r2"
    assert all(remedy.targets == found.sites for remedy in found.remedies)


@pytest.mark.parametrize(("each", "fires"), [(-0.98, False), (-1.02, True), (0.98, False), (1.02, True)])
def test_only_what_is_twice_the_limit_is_reported(each: float, fires: bool) -> None:
    """Six rows: 5.9 nats are within twice the limit, 6.1 are not."""
    found = rule("DEP003").check(_build_rows([each] * 7))
    assert bool(found) == fires
    assert all(f.weight == pytest.approx(MEASURED.weigh(6 * abs(each))) for f in found)


def test_the_limit_is_a_setting() -> None:
    assert rule("DEP003").check(_build_rows([-1.02] * 7), limit=3.1) == []


def _build_sums(rows: list[tuple[float, bool]]) -> Trace:
    """Rows as (gain, whether it is a normalised residual sum)."""
    trace = _build_rows([gain for gain, _ in rows])
    for site, (_, residual) in zip(trace.sites, rows, strict=False):
        site.facts.update({"row_residual": residual, "row_norm": residual})
    return trace


@pytest.mark.parametrize(("residual", "reported"), [(3, True), (4, False)])
def test_growth_of_which_sums_bear_more_than_half_is_not_reported(residual: int, reported: bool) -> None:
    """Six rows of 1.5 nats count: half of them is not more than half."""
    trace = _build_sums([(1.5, k < residual) for k in range(7)])
    assert bool(rule("DEP003").check(trace)) == reported


def test_a_loss_that_sums_bear_is_reported() -> None:
    (found,) = rule("DEP003").check(_build_sums([(-1.5, True)] * 7))
    assert found.direction == "vanishing"


def test_a_known_cause_is_left_to_its_rule() -> None:
    assert rule("DEP003").check(_build_rows([1.5] * 7, row_residual=True)) == []
    assert len(rule("DEP003").check(_build_rows([1.5] * 7))) == 1


def test_one_layer_is_no_depth() -> None:
    with pytest.raises(NotApplicable, match="fewer than two hidden layers"):
        rule("DEP003").check(_build_rows([-9.0]))
