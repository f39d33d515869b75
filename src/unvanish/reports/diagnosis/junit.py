"""JUnit's XML, which CI servers show as tests: one case a finding, and one for each rule that found nothing.

Notable:
- A finding fails its case exactly if it fails the command, by `fail_on`; what is excused is skipped with the
  reason. Names are made printable first, as XML 1.0 cannot hold control characters at all; the text is ASCII.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from xml.etree import ElementTree

from unvanish.core.diagnosis import Diagnosis, Finding, Verdict
from unvanish.reports.diagnosis.messages import list_failing, split_line, write_message, write_title
from unvanish.reports.parts.words import clean

Element = ElementTree.Element


def render(diagnosis: Diagnosis, fail_on: str = "warning") -> str:
    """The diagnosis as one test suite; `fail_on`: the level from which a finding is a failure."""
    failing = {id(finding) for finding in list_failing(diagnosis, fail_on)}
    cases = [_present_finding(f, id(f) in failing) for f in diagnosis.findings]
    cases += [_present_verdict(v) for v in diagnosis.passed]
    cases += [_skip(_present_verdict(v), v.reason) for v in (*diagnosis.not_applicable, *diagnosis.skipped)]
    seconds = diagnosis.seconds if math.isfinite(diagnosis.seconds) else 0.0
    totals = {
        "tests": str(len(cases)),
        "failures": str(_count(cases, "failure")),
        "errors": "0",
        "skipped": str(_count(cases, "skipped")),
        "time": f"{seconds:.3f}",
    }
    name = clean(diagnosis.subject) or "model"
    for case in cases:
        case.set("classname", name)
    suites = Element("testsuites", {"name": "unvanish", **totals})
    ElementTree.SubElement(suites, "testsuite", {"name": name, **totals}).extend(cases)
    ElementTree.indent(suites)
    return str(ElementTree.tostring(suites, encoding="us-ascii", xml_declaration=True), "ascii") + "\n"


def _present_finding(finding: Finding, fails: bool) -> Element:
    where = f" at {clean(finding.sites[0]) or '(model)'}" if finding.sites else ""
    case = Element("testcase", {"name": write_title(finding) + where, "time": "0"})
    if place := split_line(finding.line):
        case.set("file", clean(place[0]))
        case.set("line", str(place[1]))
    if finding.excuse is not None:
        return _skip(case, f"{finding.excuse.kind}: {finding.excuse.reason}")
    body = "\n".join([*([clean(finding.line)] if place else []), *write_message(finding)])
    if fails:
        failure = {"type": finding.severity, "message": clean(finding.cause)}
        ElementTree.SubElement(case, "failure", failure).text = body
    else:
        ElementTree.SubElement(case, "system-out").text = f"{finding.severity}: {body}"
    return case


def _present_verdict(verdict: Verdict) -> Element:
    return Element("testcase", {"name": f"{clean(verdict.code)} {clean(verdict.name)}", "time": "0"})


def _skip(case: Element, reason: str) -> Element:
    ElementTree.SubElement(case, "skipped", {"message": clean(reason)})
    return case


def _count(cases: Iterable[Element], child: str) -> int:
    return sum(case.find(child) is not None for case in cases)
