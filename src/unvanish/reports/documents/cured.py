"""The outcome of a cure: its prescription, its proof, what was tried."""

from __future__ import annotations

from typing import Any

from unvanish.core.cured import Attempt, Cured, Proof
from unvanish.core.diagnosis import Diagnosis
from unvanish.core.plain import plain
from unvanish.reports.cure.headline import write_headline
from unvanish.reports.diagnosis.headline import find_ledger
from unvanish.reports.diagnosis.headline import write_headline as write_verdict
from unvanish.reports.diagnosis.json import build_finding, build_remedy
from unvanish.reports.diagnosis.schema import FINDING
from unvanish.reports.documents._head import begin
from unvanish.reports.parts.shape import (
    COUNT,
    FLAG,
    NUMBER,
    STRING,
    describe_document,
    list_of,
    object_of,
    one_of,
    or_null,
    refer,
)  # fmt: skip

NAME = "unvanish.cured/1"
JUDGED = object_of(
    healthy=FLAG, verdict=STRING, summary=STRING, decades=or_null(NUMBER), findings=list_of(refer("finding"))
)
PROOF = object_of(
    outcome=one_of(("better", "no effect", "worse")),
    training=one_of(("better", "no effect", "worse")),
    codes_before=list_of(STRING),
    codes_after=list_of(STRING),
    total_before=NUMBER,
    total_after=NUMBER,
    losses_before=list_of(NUMBER),
    losses_after=list_of(NUMBER),
    comparable=FLAG,
    behind=NUMBER,
    unseen=COUNT,
)
SCHEMA = describe_document(
    "The outcome of a cure by unvanish",
    NAME,
    FINDING,
    subject=STRING,
    success=FLAG,
    verdict=one_of(("healthy", "cured", "better", "not cured")),
    summary=STRING,
    safety=or_null(one_of(("exact", "retrain"))),
    remedies=list_of(refer("remedy")),
    prescription=or_null(STRING),
    code=or_null(STRING),
    proof=or_null(PROOF),
    before=JUDGED,
    after=JUDGED,
    advice=list_of(refer("remedy")),
    attempts=list_of(object_of(cures=list_of(STRING), result=STRING, seconds=or_null(NUMBER))),
    seconds=or_null(NUMBER),
    assumptions=list_of(STRING),
)


def build(cured: Cured) -> dict[str, Any]:
    """The outcome; `prescription` is the YAML that `unvanish.apply` takes, `code` the same by hand."""
    top, made = write_headline(cured), cured.prescription
    return {
        **begin(NAME),
        "subject": cured.before.subject,
        "success": cured.success,
        "verdict": top.word,
        "summary": top.sentence,
        "safety": made.safety if made else None,
        "remedies": [build_remedy(r) for r in made.remedies] if made else [],
        "prescription": made.yaml() if made else None,
        "code": _write_code(made) if made else None,
        "proof": None if cured.proof is None else _build_proof(cured.proof),
        "before": _judge(cured.before),
        "after": _judge(cured.after),
        "advice": [build_remedy(r) for r in cured.advice],
        "attempts": [_build_attempt(a) for a in cured.attempts],
        "seconds": plain(cured.seconds),
        "assumptions": list(cured.before.trace.facts.get("assumptions") or ()),
    }


def _write_code(prescription: Any) -> str | None:
    try:
        return str(prescription.code())
    except ValueError:  # settings that a cure cannot have: the prescription is a file of somebody's
        return None


def _judge(diagnosis: Diagnosis) -> dict[str, Any]:
    top = write_verdict(diagnosis, find_ledger(diagnosis))
    return {
        "healthy": diagnosis.healthy,
        "verdict": top.word,
        "summary": top.sentence,
        "decades": plain(top.total),
        "findings": [build_finding(f) for f in diagnosis.findings],
    }


def _build_proof(proof: Proof) -> dict[str, Any]:
    return {name: plain(getattr(proof, name)) for name in PROOF["properties"]}


def _build_attempt(attempt: Attempt) -> dict[str, Any]:
    return {"cures": list(attempt.cures), "result": attempt.result, "seconds": plain(attempt.seconds)}
