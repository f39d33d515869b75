"""Annotations of a GitHub workflow: one command a finding, on its line of the code.

Source: "Workflow commands for GitHub Actions". Notable:
- `%`, line ends, and in properties `:` and `,` are escaped, so that no name ends a command or begins one.
- What does not count is not annotated.
"""

from __future__ import annotations

from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.reports.diagnosis.messages import split_line, write_message, write_title
from unvanish.reports.parts.words import clean

COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def render(diagnosis: Diagnosis) -> str:
    """A line `::error file=net.py,line=12,title=ACT002 ...::message` for each finding that counts."""
    return "".join(f"{_annotate(finding)}\n" for finding in diagnosis.counted("note"))


def _annotate(finding: Finding) -> str:
    where = split_line(finding.line)
    properties = {"title": write_title(finding)}
    if where is not None:
        properties = {"file": clean(where[0]), "line": str(where[1]), **properties}
    listed = ",".join(f"{name}={_escape_property(value)}" for name, value in properties.items())
    message = _escape("\n".join(write_message(finding)))
    return f"::{COMMANDS[finding.severity]} {listed}::{message}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")
