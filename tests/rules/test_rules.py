"""A rule is read off its module, and found by its code or its name; a tier weighs in nats."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Case, Evidence
from unvanish.core.trace import STATISTICS, Trace
from unvanish.rules import Rule, _tiers, rule, rules
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import Tier

TRACE = Trace((), np.zeros((1, 0, len(STATISTICS))))


def build_rule(**names: Any) -> Rule:
    module = ModuleType("unvanish.rules.abc001_some_fault", "A page.")
    vars(module).update({"NEEDS": ("step",), **names})
    return Rule("ABC001", "some-fault", module)


def test_what_a_module_does_not_say_is_false_or_empty() -> None:
    plain = build_rule()
    assert (plain.explains, plain.yields, plain.live, plain.at_once) == (frozenset(), False, False, False)
    full = build_rule(EXPLAINS=("A",), YIELDS=True, LIVE=True, AT_ONCE=True)
    assert (full.explains, full.yields, full.live, full.at_once) == (frozenset({"A"}), True, True, True)
    assert plain.needs == {"step"} and plain.page == "A page."


def test_a_rule_that_needs_a_history_is_live() -> None:
    assert build_rule(NEEDS=("step", "history")).live
    assert build_rule(NEEDS=("history",), LIVE=False).live


def test_its_findings_bear_its_code_and_its_weight() -> None:
    def check(trace: Trace, *, limit: float = 3.0) -> list[Fault]:
        return [
            Fault(
                severity="note",
                cause=f"{limit:g}",
                sites=("a",),
                evidence=(),
                remedies=(),
                direction="blocked",
                tier=Tier(7.0, 2.0, "a reason"),
                size=size,
            )
            for size in (0.0, 1.5)
        ]

    made = build_rule(check=check)
    assert made.settings == {"limit": 3.0}
    first, second = made.check(TRACE, limit=4.0)
    assert (first.code, first.name, first.severity, first.cause) == ("ABC001", "some-fault", "note", "4")
    assert (first.sites, first.direction, first.weight, second.weight) == (("a",), "blocked", 7.0, 10.0)
    unsized = Fault(
        severity="note",
        cause="",
        sites=(),
        evidence=(),
        remedies=(),
        direction="none",
        tier=Tier(7.0, 2.0, ""),
    )
    assert unsized.as_finding("A", "b").weight == 7.0


@pytest.mark.parametrize(
    ("value", "limit", "said"),
    [
        (2.0, "< 1", [2.0]),
        ("high", "< 1", ["high"]),
        (math.nan, "< 1", []),
        (math.inf, "< 1", ["not finite"]),
        (-math.inf, "> 1", ["not finite"]),
        (math.inf, "", [math.inf]),
    ],
)
def test_beside_a_limit_stands_what_was_measured(value: Any, limit: str, said: list[Any]) -> None:
    fault = Fault(
        severity="note",
        cause="",
        sites=(),
        evidence=(Evidence("a number", value, limit=limit),),
        remedies=(),
        direction="none",
        tier=_tiers.REMARK,
    )
    assert [e.value for e in fault.as_finding("A", "b").evidence] == said


def test_its_cases_are_built_by_name() -> None:
    made = build_rule(sick=lambda: Case("sick", None), healthy=lambda: Case("healthy", None))
    assert made.case("sick").model == "sick" and made.case("healthy").model == "healthy"


@pytest.mark.parametrize("key", ["REC001", "rec001", "vanishing-through-time", "Vanishing-Through-Time"])
def test_a_rule_is_found_by_its_code_or_its_name(key: str) -> None:
    assert rule(key).code == "REC001"


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'double-softmax'"):
        rule("double-softmx")
    assert list(rules()) == sorted(rules()) and all(len(code) == 6 for code in rules())


@pytest.mark.parametrize(
    ("tier", "size", "nats"),
    [
        (_tiers.CUT, 1.0, 110),
        (_tiers.FLAT, 1.0, 81),
        (_tiers.NO_STEP, 1.0, 61),
        (_tiers.DEAD_LAYER, 1.0, 26),
        (_tiers.BLIND, 1.0, 10),
        (_tiers.LOGITS, 1.0, 13),
        (_tiers.OUTPUT, 2.0, 11),
        (_tiers.DATA, 2.0, 10),
        (_tiers.PRECISION, 1.0, 16),
        (_tiers.STEPS, 2.0, 7),
        (_tiers.START, 1.0, 5),
        (_tiers.SLOW, 1.0, 4),
        (_tiers.PART, 1.0, 6),
        (_tiers.REMARK, 1.0, 2),
    ],
)
def test_a_measured_loss_goes_before_a_fault_that_is_held_equal_to_less(
    tier: Tier, size: float, nats: float
) -> None:
    less, more = _tiers.MEASURED.weigh(nats - 0.4), _tiers.MEASURED.weigh(nats + 0.4)
    assert less < tier.weigh(size) < more


def test_nothing_goes_before_numbers_that_are_not_finite() -> None:
    assert _tiers.NOT_FINITE.weigh(0.0) >= _tiers.MEASURED.weigh(999.0)
    others = [t.weigh(1.0) for t in _tiers.TIERS if t is not _tiers.NOT_FINITE]
    assert _tiers.NOT_FINITE.weigh(0.0) > max(others)
