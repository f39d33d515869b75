"""SARIF, annotations, JUnit and Markdown: as their specifications say, whatever the names hold."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from hypothesis import example as such
from hypothesis import given, settings
from hypothesis import strategies as st

from unvanish import reports
from unvanish.core.diagnosis import Diagnosis, Excuse, Finding, Remedy, Verdict
from unvanish.core.trace import STATISTICS, Trace
from unvanish.core.version import __version__
from unvanish.reports.diagnosis import github, junit, markdown, sarif
from unvanish.reports.diagnosis.messages import split_line
from unvanish.reports.parts.words import clean

Build = Callable[[str], Diagnosis]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")


def closed(*required: str, **properties: Any) -> dict[str, Any]:
    """An object of SARIF: no property that the specification does not name."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def several(items: dict[str, Any], least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least}


# What our logs use of SARIF 2.1.0, written down from the sections of the specification
TEXT = {"type": "string", "minLength": 1}
MESSAGE = closed("text", text=TEXT)  # 3.11
PAGE = closed("text", text=TEXT, markdown=TEXT)  # 3.12
LEVEL = {"enum": ["none", "note", "warning", "error"]}  # 3.27.10
RULE = closed(  # 3.49
    "id",
    id=TEXT,
    name=TEXT,
    shortDescription=PAGE,
    fullDescription=PAGE,
    help=PAGE,
    defaultConfiguration=closed(level=LEVEL),
)
PHYSICAL = closed(  # 3.29
    "artifactLocation",
    artifactLocation=closed("uri", uri={"type": "string", "pattern": r"^[!#-;=?-Z_a-z~]+$"}),
    region=closed("startLine", startLine={"type": "integer", "minimum": 1}),
)
LOGICAL = closed("name", name=TEXT, fullyQualifiedName=TEXT, kind=TEXT)  # 3.33
RESULT = closed(  # 3.27
    "message",
    ruleId=TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=MESSAGE,
    locations=several(closed(physicalLocation=PHYSICAL, logicalLocations=several(LOGICAL))),
    partialFingerprints={"type": "object", "additionalProperties": TEXT},
    baselineState={"enum": ["new", "unchanged", "updated", "absent"]},
    suppressions=several(  # 3.35
        closed(
            "kind",
            kind={"enum": ["inSource", "external"]},
            status={"enum": ["accepted", "underReview", "rejected"]},
            justification=TEXT,
        )
    ),
    properties={"type": "object"},
)
NOTICE = closed("message", level=LEVEL, message=MESSAGE)  # 3.58
RUN = closed(  # 3.14
    "tool",
    tool=closed(
        "driver", driver=closed("name", name=TEXT, version=TEXT, semanticVersion=TEXT, rules=several(RULE))
    ),
    automationDetails=closed(id=TEXT),
    invocations=several(
        closed(
            "executionSuccessful",
            executionSuccessful={"type": "boolean"},
            toolExecutionNotifications=several(NOTICE),
        )
    ),
    results=several(RESULT),
)
LOG = closed(
    "version",
    "runs",
    **{"$schema": {"type": "string", "format": "uri"}, "version": {"const": "2.1.0"}, "runs": several(RUN)},
)


def place(found: Diagnosis, **changes: Any) -> Diagnosis:
    """The diagnosis whose first finding is changed."""
    first, *others = found.findings
    return replace(found, findings=(replace(first, **changes), *others))


def read_sarif(found: Diagnosis) -> dict[str, Any]:
    text = sarif.render(found)
    assert text.isascii()
    log = json.loads(text)
    jsonschema.validate(log, LOG)
    run: dict[str, Any] = log["runs"][0]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    states = ["baselineState" in result for result in run["results"]]
    assert all(states) or not any(states)  # 3.27.24: in every result or in none
    return run


def read_github(found: Diagnosis) -> list[tuple[str, dict[str, str], str]]:
    """Each command with its properties and its message, as a runner reads them."""
    out = []
    for line in github.render(found).split("\n")[:-1]:
        command, _, rest = line.removeprefix("::").partition(" ")
        listed, _, message = rest.partition("::")
        properties = dict(part.split("=", 1) for part in listed.split(","))
        for code, sign in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            properties = {key: value.replace(code, sign) for key, value in properties.items()}
            message = message if sign in ":," else message.replace(code, sign)
        out.append((command, properties, message))
    return out


def test_every_diagnosis_fits_sarif(diagnosis: Diagnosis) -> None:
    run = read_sarif(diagnosis)
    assert len(run["results"]) == len(diagnosis.findings)
    assert run["tool"]["driver"]["version"] == __version__


def test_the_schema_refuses_what_sarif_does_not_know(example: Build) -> None:
    log = sarif.build_log(example("sick"))
    log["runs"][0]["results"][0]["severity"] = "error"
    with pytest.raises(jsonschema.ValidationError, match="severity"):
        jsonschema.validate(log, LOG)


def test_sarif_says_rule_place_and_level(example: Build) -> None:
    run = read_sarif(place(example("sick"), line="models/my net.py:12"))
    rule, result = run["tool"]["driver"]["rules"][0], run["results"][0]
    assert rule["id"] == "ACT002" and "Limits" in rule["help"]["text"]
    assert result["level"] == "error"
    assert result["message"]["text"].startswith("the slope of Sigmoid")
    where = result["locations"][0]
    assert where["physicalLocation"]["artifactLocation"]["uri"] == "models/my%20net.py"
    assert where["physicalLocation"]["region"] == {"startLine": 12}
    assert where["logicalLocations"][3]["fullyQualifiedName"] == "layers.3.act"
    assert "physicalLocation" not in run["results"][1]["locations"][0]
    whole = read_sarif(place(example("sick"), line="/elsewhere/net.py:3"))["results"][0]["locations"][0]
    assert whole["physicalLocation"]["artifactLocation"]["uri"] == "file:///elsewhere/net.py"


def test_a_fingerprint_survives_moved_lines_and_tells_models_apart(example: Build) -> None:
    found = example("sick")

    def mark(one: Diagnosis) -> str:
        return str(read_sarif(one)["results"][0]["partialFingerprints"]["unvanish/v1"])

    assert mark(place(found, line="net.py:1")) == mark(place(found, line="net.py:99", cause="other words"))
    assert len({mark(found), mark(replace(found, subject="b")), mark(place(found, sites=("x",)))}) == 3


def test_what_is_excused_is_suppressed_and_never_dropped(example: Build) -> None:
    found = place(example("sick"), excuse=Excuse("ignored", "on <purpose>"))
    run = read_sarif(found)
    assert run["results"][0]["suppressions"][0]["justification"] == "ignored: on <purpose>"
    assert "suppressions" not in run["results"][1] and "baselineState" not in run["results"][1]
    old = read_sarif(place(found, excuse=Excuse("baseline", "old")))
    assert [result["baselineState"] for result in old["results"]] == ["unchanged", "new"]
    assert [command[1]["title"] for command in read_github(found)] == ["GRF002 unused-parameter"]
    text = reports.render(found, ".txt")
    assert "suppressed (1):" in text and "ignored: on <purpose>" in " ".join(text.split())
    assert "error[ACT002]" not in text and "the gradient vanishes" in text
    assert "found 1 warning: GRF002" in text
    shown = markdown.render(found)
    assert "1 finding suppressed" in shown and "on &#60;purpose&#62;" in shown


def test_annotations_stand_on_their_lines(example: Build) -> None:
    (first, properties, message), (second, *_) = read_github(place(example("sick"), line="a,b:c%.py:7"))
    assert (first, second) == ("error", "warning")
    assert properties == {"file": "a,b:c%.py", "line": "7", "title": "ACT002 contracting-activation"}
    assert message.startswith("the slope of Sigmoid") and "\nhelp: unvanish explain ACT002" in message
    assert read_github(example("healthy"))[0][0] == "notice"
    assert github.render(replace(example("healthy"), findings=())) == ""


@pytest.mark.parametrize(("level", "failures"), [("note", 2), ("warning", 2), ("error", 1), ("never", 0)])
def test_junit_fails_what_fails_the_command(example: Build, level: str, failures: int) -> None:
    found = place(example("sick"), line="net.py:12")
    suites = ElementTree.fromstring(junit.render(found, level))
    cases = suites.findall("testsuite/testcase")
    assert suites.get("failures") == str(failures) == str(len(suites.findall(".//failure")))
    rules = len(found.passed) + len(found.not_applicable) + len(found.skipped)
    assert suites.get("tests") == str(len(cases)) == str(len(found.findings) + rules)
    assert suites.get("skipped") == str(len(found.not_applicable) + len(found.skipped))
    assert (cases[0].get("file"), cases[0].get("line")) == ("net.py", "12")


def test_junit_skips_what_is_excused(example: Build) -> None:
    found = place(example("sick"), excuse=Excuse("ignored", "known"))
    suites = ElementTree.fromstring(junit.render(found))
    skipped = suites.find("testsuite/testcase/skipped")
    assert skipped is not None and skipped.get("message") == "ignored: known"
    assert suites.get("failures") == "1"


def test_the_verdict_of_the_table_is_that_of_the_command(example: Build) -> None:
    found = example("sick")
    assert "**fails: 2 findings**" in markdown.render(found)
    assert "**fails: 1 finding**" in markdown.render(found, "error")
    assert "**passes**" in markdown.render(found, "never")
    assert "|" not in markdown.render(replace(found, findings=()))


def test_formats_and_endings_lead_to_the_same_report(example: Build, tmp_path: Any) -> None:
    found = example("sick")
    for form, ending in reports.FORMATS.items():
        assert found.save(tmp_path / f"r{ending}").read_text("utf-8") == reports.write(found, form)
    with pytest.raises(ValueError, match="did you mean 'sarif'"):
        reports.write(found, "sarf")
    with pytest.raises(ValueError, match="fail_on is 'warn'"):
        reports.write(found, "junit", "warn")


@pytest.mark.parametrize("line", ["", "net.py", "net.py:", ":3", "net.py:0", "net.py:x", "net.py:²"])
def test_what_is_no_line(line: str) -> None:
    assert split_line(line) is None


NASTY = "\x00\x1b[31m\r\n::error::x\u202e\ud800\ufffe|a|`</code><b>&\"'%0A:,;@#*_~[x](y)\\!]]>--> "
NAMES = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("\x00\x1b\r\n\t\u2028\u202e\ud800\ufffe|`<>&\"'%:,;@#*_~[](){}\\!-="),
    ),
    max_size=24,
)


@settings(max_examples=60, deadline=None)
@such(NASTY, NASTY, NASTY, NASTY, None)
@such(NASTY, NASTY, NASTY, f"/{NASTY}", "ignored")
@given(NAMES, NAMES, NAMES, NAMES, st.sampled_from([None, "ignored", "baseline"]))
def test_no_name_breaks_a_format(subject: str, name: str, cause: str, file: str, kind: Any) -> None:
    finding = Finding(
        "ACT002", name, "error", cause, (name, subject), remedies=(Remedy(name, (cause,), subject),)
    )
    finding = replace(finding, line=f"{file}:3", excuse=Excuse(kind, cause) if kind else None)
    other = Finding("X\n::error::1", name, "note", cause)
    passed = (Verdict(name, cause, subject),)
    found = Diagnosis(
        (finding, other), Trace((), np.zeros((0, 0, len(STATISTICS)))), passed, passed, passed, subject
    )
    run = read_sarif(found)
    assert run["results"][0]["message"]["text"].split("\n")[0] == clean(cause)
    commands = read_github(found)
    assert [command for command, *_ in commands] == (["notice"] if kind else ["error", "notice"])
    assert all(properties["title"].endswith(clean(name)) for _, properties, _ in commands)
    suites = ElementTree.fromstring(junit.render(found))
    assert all(case.get("classname") == (clean(subject) or "model") for case in suites.iter("testcase"))
    table = markdown.render(found)
    rows = [line for line in table.split("\n") if line.startswith("|")]
    assert {row.count("|") for row in rows} == {6}
    assert set(re.findall(r"<[^>]*>?", table)) <= {
        "<code>", "</code>", "<details>", "</details>", "<summary>", "</summary>",
    }  # fmt: skip
    assert clean(cause) in html.unescape(table)
    for text in (github.render(found), junit.render(found), table, sarif.render(found)):
        assert not CONTROL.search(text)
