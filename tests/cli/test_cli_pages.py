"""`rules`, `cures`, `explain` and `demo` show what rules and cures say of themselves."""

from __future__ import annotations

import re
import sys

import pytest

from unvanish.cures import cures
from unvanish.rules import rules
from unvanish.symptoms import symptoms

CODES, CURES = tuple(rules()), tuple(cures())


def test_rules_lists_every_rule_once(call):
    lines = [line.split("\t") for line in call("rules").out.splitlines()]
    assert [line[0] for line in lines] == list(CODES)
    assert all(len(line) == 5 for line in lines)
    assert all(line[1] == rules()[line[0]].name and line[2] for line in lines)


@pytest.mark.parametrize("code", CODES)
def test_explain_shows_the_page(call, code):
    answer = call("explain", code.lower())
    assert answer.code == 0
    assert answer.out.startswith(f"{code} {rules()[code].name}\n")
    assert rules()[code].page in answer.out
    assert call("explain", rules()[code].name).out == answer.out


def test_explain_is_drawn_on_a_terminal(call, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "ACT002" in call("explain", "ACT002").out
    assert "ACT002" in call("rules").out


def test_cures_lists_every_cure_once(call):
    lines = [line.split("\t") for line in call("cures").out.splitlines()]
    assert [line[0] for line in lines] == list(CURES)
    assert all(line[1] in ("exact", "retrain", "advice") for line in lines)


@pytest.mark.parametrize("name", CURES)
def test_explain_shows_a_cure_s_page(call, name):
    answer = call("explain", name)
    assert answer.code == 0
    assert answer.out.startswith(name)
    assert cures()[name].page in answer.out


def test_the_lists_show_one_entry_in_full_too(call):
    code, cure = CODES[0], CURES[0]
    assert call("rules", code).out == call("explain", code).out
    assert call("cures", cure).out == call("explain", cure).out


def test_explain_shows_the_page_of_a_symptom_by_its_name_and_its_words(call):
    page = symptoms()["loss-is-nan"]
    answer = call("explain", "loss-is-nan")
    assert answer.code == 0 and answer.out.startswith(page.title) and page.page in answer.out
    assert call("explain", "my", "loss", "is", "NaN").out.startswith(answer.out)


def test_explain_without_a_name_lists_the_symptoms(call):
    lines = [line.split("\t") for line in call("explain").out.splitlines()]
    assert [line[0] for line in lines] == list(symptoms()) and all(len(line) == 3 for line in lines)


@pytest.mark.parametrize(("command_name", "what"), [("explain", "rule, cure or symptom"), ("demo", "rule")])
def test_an_unknown_code_is_refused_with_the_nearest(call, command_name, what):
    answer = call(command_name, "ACT0002")
    assert (answer.code, answer.out) == (2, "")
    assert f"no {what} 'ACT0002' (did you mean 'ACT002'?)" in answer.line


def test_demo_finds_and_cures_the_planted_fault(call):
    answer = call("demo", "ACT002")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("ACT002 contracting-activation: the sick model. ")
    assert "[ACT002]" in answer.out
    assert "prescription" in answer.out
    assert "proof" in answer.out


def test_demo_of_the_healthy_model(call):
    answer = call("demo", "contracting-activation", "--healthy")
    assert (answer.code, answer.err) == (0, "")
    assert "[ACT002]" not in answer.out
    assert "prescription" not in answer.out


@pytest.mark.slow
def test_the_story_goes_from_chance_to_reading(command):
    answer = command("demo")
    assert (answer.returncode, answer.stderr) == (0, "")
    before, after = (float(share) for share in re.findall(r"unseen digits: ([\d.]+)%", answer.stdout))
    assert before < 20
    assert after > 90


def test_the_story_needs_the_digits(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    answer = call("demo")
    assert answer.code == 2
    assert "pip install 'unvanish[demo]'" in answer.line
