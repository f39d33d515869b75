"""SARIF 2.1.0, the format in which code scanning reads findings: rules with their pages, results with places.

Source: OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0". Notable:
- A module's path is a logical location, its line of the code a physical one, if it is known.
- What does not count is a result with `suppressions` and the reason; an old finding also is "unchanged".
- A result's fingerprint is made of model, code and paths: it survives edits that move lines.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.core.plain import plain
from unvanish.core.version import __version__
from unvanish.reports.diagnosis.messages import split_line, write_message
from unvanish.reports.parts.words import clean
from unvanish.rules import rules

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
VERSION = "2.1.0"
FINGERPRINT = "unvanish/v1"


def render(diagnosis: Diagnosis) -> str:
    """The diagnosis as a SARIF log with one run, indented strict ASCII JSON."""
    return json.dumps(build_log(diagnosis), indent=2, allow_nan=False) + "\n"


def build_log(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as dicts, lists, texts and finite numbers, as SARIF 2.1.0 describes them."""
    codes = list(dict.fromkeys(finding.code for finding in diagnosis.findings))
    driver = {
        "name": "unvanish",
        "version": __version__,
        "rules": [_describe_rule(code, diagnosis) for code in codes],
    }
    told = [*diagnosis.trace.facts.get("assumptions", ()), *diagnosis.unmeasured, *diagnosis.not_put_back]
    invocation = {
        "executionSuccessful": True,
        "toolExecutionNotifications": [{"level": "note", "message": {"text": clean(text)}} for text in told],
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"unvanish/{clean(diagnosis.subject)}/"},
        "invocations": [invocation],
        "results": [_describe_result(f, codes.index(f.code), diagnosis) for f in diagnosis.findings],
    }
    return {"$schema": SCHEMA, "version": VERSION, "runs": [run]}


def _describe_rule(code: str, diagnosis: Diagnosis) -> dict[str, Any]:
    """A rule with its page; what no file describes has its name alone."""
    first = next(finding for finding in diagnosis.findings if finding.code == code)
    known, name = rules().get(code), clean(first.name) or clean(code)
    page = known.page if known else name
    opening = " ".join(page.partition("\n\n")[0].split())
    return {
        "id": clean(code),
        "name": name,
        "shortDescription": {"text": name.replace("-", " ")},
        "fullDescription": {"text": opening},
        "help": {"text": page, "markdown": page},
        "defaultConfiguration": {"level": "warning"},
    }


def _describe_result(finding: Finding, rule: int, diagnosis: Diagnosis) -> dict[str, Any]:
    result = {
        "ruleId": clean(finding.code),
        "ruleIndex": rule,
        "level": finding.severity,
        "message": {"text": "\n".join(write_message(finding))},
        "locations": [_describe_place(finding)],
        "partialFingerprints": {FINGERPRINT: _fingerprint(finding, diagnosis.subject)},
        "properties": {
            "confirmed": finding.confirmed,
            "direction": finding.direction,
            "consequences": [clean(child.code) for child in finding.consequences],
        },
    }
    if any(f.excuse is not None and f.excuse.kind == "baseline" for f in diagnosis.findings):
        old = finding.excuse is not None and finding.excuse.kind == "baseline"
        result["baselineState"] = "unchanged" if old else "new"
    if finding.excuse is not None:
        reason = f"{finding.excuse.kind}: {clean(finding.excuse.reason)}"
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": reason}]
    return result


def _describe_place(finding: Finding) -> dict[str, Any]:
    """One location: the line, if it is known, and the modules."""
    names = [clean(path) or "(model)" for path in finding.paths]
    place: dict[str, Any] = {
        "logicalLocations": [
            {"name": name.rpartition(".")[2] or name, "fullyQualifiedName": name, "kind": "module"}
            for name in names
        ]
    }
    if where := split_line(finding.line):
        file, line = where
        place["physicalLocation"] = {
            "artifactLocation": {"uri": _write_uri(file)},
            "region": {"startLine": line},
        }
    return place


def _write_uri(file: str) -> str:
    """A file as a URI: relative to where the check ran, or whole."""
    root = "" if not Path(file).is_absolute() else "file://" if file.startswith("/") else "file:///"
    return root + quote(file.encode("utf-8", "surrogatepass"))


def _fingerprint(finding: Finding, subject: str) -> str:
    parts = json.dumps(plain([subject, finding.code, finding.paths]))
    return hashlib.sha256(parts.encode()).hexdigest()[:32]
