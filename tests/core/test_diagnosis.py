"""A diagnosis made by hand: what is healthy, which codes it has, how findings are walked."""

from __future__ import annotations

import math

import numpy as np

from unvanish.core.cured import Attempt, Cured, Proof
from unvanish.core.diagnosis import Case, Diagnosis, Evidence, Finding, Remedy, Severity, at_least
from unvanish.core.trace import STATISTICS, Trace

TRACE = Trace((), np.zeros((1, 0, len(STATISTICS))))


def build_finding(code: str, severity: Severity, *consequences: Finding) -> Finding:
    return Finding(code, code.lower(), severity, "a cause", consequences=consequences)


NOTE = build_finding("N", "note")
WARNING = build_finding("W", "warning", build_finding("E", "error", NOTE), build_finding("W2", "warning"))
ERROR = build_finding("E", "error")


def test_a_note_leaves_a_model_healthy() -> None:
    assert Diagnosis((), TRACE).healthy and Diagnosis((NOTE,), TRACE).healthy
    assert not Diagnosis((NOTE, build_finding("W", "warning")), TRACE).healthy
    assert not Diagnosis((ERROR,), TRACE).healthy


def test_findings_are_taken_from_a_severity_on_in_their_order() -> None:
    found = (NOTE, ERROR, WARNING)
    assert at_least(found, "note") == found
    assert at_least(found, "warning") == (ERROR, WARNING) == Diagnosis(found, TRACE).at_least("warning")
    assert at_least(found, "error") == (ERROR,)


def test_codes_include_consequences_and_do_not_repeat() -> None:
    diagnosis = Diagnosis((WARNING, ERROR, NOTE), TRACE)
    assert diagnosis.codes() == ("W", "E", "W2")
    assert diagnosis.codes("note") == ("W", "E", "N", "W2")
    assert diagnosis.codes("error") == ("E",)


def test_each_finding_is_followed_by_its_consequences() -> None:
    assert [f.code for f in Diagnosis((WARNING, ERROR), TRACE).walk()] == ["W", "E", "N", "W2", "E"]


def test_what_is_not_given_is_unknown_or_empty() -> None:
    assert (NOTE.weight, NOTE.confirmed, NOTE.direction) == (0.0, None, "none")
    assert (NOTE.sites, NOTE.evidence, NOTE.remedies, NOTE.experiment) == ((), (), (), "")
    assert math.isnan(Diagnosis((), TRACE).seconds) and Diagnosis((), TRACE).subject == "model"
    assert Remedy("cure", (), "why") == Remedy("cure", (), "why", "retrain", {})
    assert (Evidence("n", 1.0).limit, Case(None, None).options) == ("", {})


# -- a proof, and a cure


def test_a_proof_names_the_new_codes_and_is_healed_without_any() -> None:
    proof = Proof(("A", "B"), ("B", "C"))
    assert proof.new == ("C",) and not proof.healed
    assert Proof(("A",), ()).healed and Proof(("A",), ()).new == ()
    assert (proof.comparable, proof.towards_zero, proof.behind) == (True, True, 0.0)
    assert math.isnan(proof.total_before) and math.isnan(proof.total_after)
    assert (proof.training, proof.outcome) == ("no effect", "no effect")
    assert math.isnan(Attempt((), "").seconds)


def test_a_cure_succeeds_if_the_model_is_healthy_and_not_shown_to_be_worse() -> None:
    well, ill = Diagnosis((), TRACE), Diagnosis((ERROR,), TRACE)
    better, same = Proof((), (), outcome="better"), Proof((), ())

    def succeeds(after: Diagnosis, proof: Proof | None) -> bool:
        return Cured(None, None, None, ill, after, proof).success

    assert succeeds(well, better) and succeeds(well, None)
    assert not succeeds(well, same) and not succeeds(ill, better) and not succeeds(ill, None)
    assert not succeeds(well, Proof((), (), outcome="worse"))
