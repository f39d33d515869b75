"""`rules`, `explain` and `demo` show what the rules say of themselves."""

from __future__ import annotations

import pytest

from unvanish.registry import rules

CODES = tuple(rules())


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


@pytest.mark.parametrize("command_name", ["explain", "demo"])
def test_an_unknown_code_is_refused_with_the_nearest(call, command_name):
    answer = call(command_name, "ACT0002")
    assert (answer.code, answer.out) == (2, "")
    assert "no rule 'ACT0002' (did you mean 'ACT002'?)" in answer.line


def test_demo_finds_the_planted_fault(command):
    answer = command("demo")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("ACT002 contracting-activation: the sick model. ")
    assert "[ACT002]" in answer.stdout


def test_demo_of_the_healthy_model(call):
    answer = call("demo", "contracting-activation", "--healthy")
    assert (answer.code, answer.err) == (0, "")
    assert "[ACT002]" not in answer.out
