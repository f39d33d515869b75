"""The headline: one word and one sentence, the same in every report, and never healthy with a fault."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.core.ledger import Ledger, Row
from unvanish.reports.diagnosis import html, text
from unvanish.reports.diagnosis.headline import WORDS, find_ledger, write_headline
from unvanish.reports.diagnosis.json import build_document

Build = Callable[[str], Diagnosis]
EXPECTED = {
    "sick": ("vanishing", "error"),
    "healthy": ("healthy", None),
    "blocks": ("exploding", "warning"),
    "recurrent": ("vanishing", "error"),
    "broken": ("crashed", "error"),
    "silent": ("blocked", "error"),
    "empty": ("unmeasured", None),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_word_and_the_severity(example: Build, name: str) -> None:
    found = example(name)
    top = write_headline(found, find_ledger(found))
    assert (top.word, top.severity) == EXPECTED[name]
    assert (top.time is not None) == (name == "recurrent")


def test_every_report_has_the_same_headline(diagnosis: Diagnosis) -> None:
    top = write_headline(diagnosis, find_ledger(diagnosis))
    assert top.word in WORDS
    parsed = build_document(diagnosis)
    assert (parsed["verdict"], parsed["summary"]) == (top.word, top.sentence)
    assert f'<p class="uv-pill">{top.word}</p>' in html.render(diagnosis)
    assert top.sentence in " ".join(text.render(diagnosis, 100).split())


def test_a_fault_without_a_direction_is_faulty(example: Build) -> None:
    finding = Finding("INP001", "alike-inputs", "warning", "all inputs are alike")
    found = replace(example("healthy"), findings=(finding,))
    top = write_headline(found, find_ledger(found))
    assert top.word == "faulty"
    assert top.sentence.startswith("the gradient flows, but something is wrong; +0.19 decades")


def test_without_a_finding_no_gradient_at_the_input_is_said_and_no_fault(example: Build) -> None:
    book = Ledger("depth", (Row("gate", "Round", -math.inf, {}, (), -math.inf),))
    top = write_headline(example("healthy"), book)
    assert top.word == "healthy"
    assert top.sentence == "healthy: the gradient reaches every parameter, and none the input"
