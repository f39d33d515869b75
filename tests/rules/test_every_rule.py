"""The contract of every rule: it names its fault first, is silent on its look-alike, explains itself."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch

import unvanish
from unvanish.clinic.watch import rehearse
from unvanish.core.diagnosis import SEVERITIES, Case, Diagnosis, Finding
from unvanish.rules import Rule, rules

RULES = list(rules().values())
PARTS = (
    "Why it harms", "An example", "How it is measured", "Limits", "Remedies", "When it is wrong",
    "References:",
)  # fmt: skip
NEEDS = {"static", "step", "history", "time", "attention", "precision"}


@pytest.fixture(params=RULES, ids=lambda rule: rule.code)
def rule(request: pytest.FixtureRequest) -> Rule:
    """Each rule in turn."""
    found: Rule = request.param
    return found


def examined(case: Case, **options: Any) -> Diagnosis:
    if "training" in case.options:
        return rehearse(case, **options)
    return unvanish.check(case.model, case.batch, case.loss, **{"confirm": False, **case.options, **options})


def at_scale(case: Case, factor: float) -> Case:
    """The case with its loss multiplied, where it has one."""
    loss = case.loss
    return Case(case.model, case.batch, loss and (lambda *a: loss(*a) * factor), case.options)


def test_no_rule_is_lost() -> None:
    expected = (
        "ACT001 ACT002 ACT003 ATT001 ATT002 DEP001 DEP002 DEP003 GRF001 GRF002 GRF003 GRF004 INI001 INI002"
    )
    expected += " INI003 INP001 NRM001 NRM002 NUM001 OPT001 OPT002 OPT003 OPT004 OPT005 OUT001 OUT002"
    expected += " OUT003 PRC001 PRC002 REC001 REC002"
    assert set(expected.split()) <= set(rules())


def test_it_names_its_fault_first(rule: Rule) -> None:
    diagnosis = examined(rule.case("sick"))
    assert diagnosis.findings, "nothing was found"
    assert diagnosis.findings[0].code == rule.code, diagnosis.codes("note")
    assert diagnosis.healthy == (rule.code in ("GRF003", "LOS003"))  # frozen on purpose, a sum: notes


def test_it_is_silent_on_the_look_alike(rule: Rule) -> None:
    diagnosis = examined(rule.case("healthy"))
    assert diagnosis.codes("warning") == ()
    assert rule.code not in diagnosis.codes("note")


@pytest.mark.parametrize("factor", [1e6, 1e-6])
def test_the_scale_of_the_loss_changes_no_verdict(rule: Rule, factor: float) -> None:
    if "history" in rule.needs:
        return  # an optimizer and a clipping limit see the scale, and so a training is another one
    for which in ("sick", "healthy"):
        case = rule.case(which)
        scaled = at_scale(rule.case(which), factor)
        if case.loss is not None:
            found = examined(scaled)
            facts = found.trace.facts.get("precision", {})  # what the dtype cannot hold is said beside
            lost = {"GRF007": facts.get("zero_unscaled"), "PRC002": facts.get("overflow_unscaled")}
            more = {code for code, is_lost in lost.items() if is_lost}
            assert more <= set(found.codes())
            more |= {"OPT008"} if case.options.get("optimizer") else set()  # which sees the scale
            usual = examined(case).codes()
            assert [c for c in found.codes() if c not in more] == [c for c in usual if c not in more]


def test_cases_are_the_same_every_time_and_leave_the_generator_alone(rule: Rule) -> None:
    before = torch.get_rng_state()
    first, second = rule.case("sick"), rule.case("sick")
    assert torch.equal(before, torch.get_rng_state())
    pairs = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def test_its_findings_can_be_read(rule: Rule) -> None:
    for finding in examined(rule.case("sick")).walk():
        readable(finding)


def readable(finding: Finding) -> None:
    assert finding.severity in SEVERITIES and finding.cause and finding.cause[-1] != "\n"
    assert finding.evidence, f"{finding.code} shows no numbers"
    assert len(finding.sites) <= 12
    assert math.isfinite(finding.weight) and finding.weight >= 0
    assert finding.severity == "note" or finding.remedies, f"{finding.code} has no remedy"
    for remedy in finding.remedies:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", remedy.cure) and remedy.why
        assert remedy.safety in ("exact", "retrain", "advice")


def test_its_page_says_all_a_reader_needs(rule: Rule) -> None:
    assert rule.needs and rule.needs <= NEEDS
    assert rule.explains <= {*rules()} - {rule.code}
    places = [rule.page.find(f"\n\n{part}") for part in PARTS]
    assert -1 not in places, f"missing: {[p for p, at in zip(PARTS, places, strict=True) if at < 0]}"
    assert places == sorted(places)
    assert all(len(line) <= 100 for line in rule.page.splitlines())
    first = rule.page.split("\n\n")[0]
    assert first.endswith(".") and len(" ".join(first.split())) <= 160


def test_its_limits_are_settings(rule: Rule) -> None:
    """Limits that nothing can reach silence the rule, where it has limits."""
    limits = {k: v for k, v in rule.settings.items() if k == "limit" and isinstance(v, float)}
    if not limits or rule.code in ("DEP001", "NRM002", "OPT001"):
        return
    far = {name: math.inf for name in limits}
    diagnosis = examined(rule.case("sick"), settings={rule.code: far})
    low = {name: -math.inf for name in limits}
    other = examined(rule.case("sick"), settings={rule.code: low})
    assert rule.code not in diagnosis.codes() or rule.code not in other.codes()
