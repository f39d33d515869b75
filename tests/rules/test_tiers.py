"""The table of tiers says which fault goes first, and why; a finding is named by its rule's file."""

from __future__ import annotations

import inspect
from types import ModuleType

import numpy as np
import pytest

from unvanish.clinic.rounds import rank
from unvanish.core.trace import STATISTICS, Trace
from unvanish.rules import Rule, _fault, _tiers, rules
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import TIERS, Tier


def fault(tier: Tier, size: float = 0.0) -> Fault:
    return Fault(
        severity="error",
        cause="a cause",
        sites=(),
        evidence=(),
        remedies=(),
        direction="none",
        tier=tier,
        size=size,
    )


def rule(code: str, *faults: Fault) -> Rule:
    module = ModuleType(code)
    module.check = lambda trace: faults  # type: ignore[attr-defined]
    return Rule(code, "some-fault", module)


def test_the_table_is_complete_and_worst_first() -> None:
    named = {name: tier for name, tier in vars(_tiers).items() if isinstance(tier, Tier)}
    assert list(named.values()) == list(TIERS)
    bases = [tier.base for tier in TIERS]
    assert bases == sorted(bases, reverse=True) and len(set(bases)) == len(bases)
    assert all(len(tier.why.split()) >= 5 for tier in TIERS)


@pytest.mark.parametrize("higher", range(len(TIERS) - 1))
def test_a_fault_goes_before_those_of_the_next_tier(higher: int) -> None:
    trace = Trace((), np.empty((1, 0, len(STATISTICS))))
    first = rule("ZZZ001", fault(TIERS[higher])).check(trace)
    second = rule("AAA001", fault(TIERS[higher + 1])).check(trace)
    assert [f.code for f in rank([*second, *first])] == ["ZZZ001", "AAA001"]


def test_faults_of_one_tier_go_by_their_size() -> None:
    trace = Trace((), np.empty((1, 0, len(STATISTICS))))
    found = rule("AAA001", fault(_tiers.CUT, 0.2), fault(_tiers.CUT, 0.3)).check(trace)
    assert [f.weight for f in rank(found)] == [103.0, 102.0]
    less, more = _tiers.BLIND.weigh(0.3), _tiers.BLIND.weigh(0.1)
    assert more > less  # the less entropy is left, the worse


def test_a_measured_loss_goes_before_a_tier_that_it_exceeds() -> None:
    assert _tiers.MEASURED.weigh(12.1) > _tiers.LOGITS.weigh(0.0) > _tiers.MEASURED.weigh(11.9)


def test_a_finding_has_the_code_and_the_name_of_the_file() -> None:
    for code, entry in rules().items():
        file = entry.module.__name__.rpartition(".")[2]
        assert file == f"{code.lower()}_{entry.name.replace('-', '_')}"
        assert _fault.identify(entry.module.__name__) == (code, entry.name)
        source = inspect.getsource(entry.module).replace(entry.module.__doc__ or "", "")
        assert f'"{code}"' not in source and f'"{entry.name}"' not in source, "by hand"


@pytest.mark.parametrize("module", ["unvanish.rules._depth", "unvanish.rules", "act01_x", "act001"])
def test_other_files_are_no_rules(module: str) -> None:
    assert _fault.identify(module) is None
