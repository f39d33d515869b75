"""The reports of a cure: the headline, the text as a golden file, the page, the drawing of both trainings."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from unvanish.clinic.proof import conclude
from unvanish.core.cured import Attempt, Cured, Proof
from unvanish.core.diagnosis import Diagnosis, Finding, Remedy
from unvanish.core.trace import STATISTICS, Trace
from unvanish.reports.cure import html, text, words
from unvanish.reports.cure.headline import write_headline
from unvanish.reports.cure.losses import LossAxes, draw_losses

GOLDEN = Path(__file__).with_name("golden")
STEPS = (
    Remedy("swap-activation", ("act1",), "the slope of tanh is 1 at 0", "retrain", {"to": "tanh"}),
    Remedy("swap-activation", ("act2", "act3"), "the slope of tanh is 1 at 0", "retrain", {"to": "tanh"}),
    Remedy("reinitialise", ("fc1",), "to fit what swap-activation changed", "retrain", {"names": ["a", "b"]}),
)
PROOF = conclude(
    Proof(
        codes_before=("ACT002", "DEP001"),
        codes_after=(),
        total_before=-16.55,
        total_after=-1.17,
        losses_before=(1.4, 1.39, 1.38, 1.38),
        losses_after=(1.4, 1.0, 0.8, 0.6),
        training="better",
    )
)


@dataclass(frozen=True)
class Script:
    """A prescription as the reports read it."""

    remedies: tuple[Remedy, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.remedies)

    def code(self) -> str:
        return 'for name in ["fc1"]:\n    w = model.get_parameter(name)  # <w>'

    def script(self) -> str:
        return f"import torch\n\n{self.code()}\n"

    def yaml(self) -> str:
        return "cures: []\n"


def diagnose(*codes: str, model: str = "net.py:sick") -> Diagnosis:
    trace = Trace((), np.zeros((0, 0, len(STATISTICS))))
    return Diagnosis(tuple(Finding(c, "name", "error", "cause") for c in codes), trace, subject=model)


def cured() -> Cured:
    attempts = (
        Attempt(("add-skips",), "no better"),
        Attempt(("swap-activation", "reinitialise"), "healed and proven"),
    )
    advice = (Remedy("narrower", (), "the net is wider than its data needs", "advice"),)
    return Cured(
        None, None, Script(STEPS), diagnose("ACT002"), diagnose(), PROOF, attempts=attempts, advice=advice
    )


def better() -> Cured:
    proof = replace(PROOF, codes_after=("DEP001",), total_after=math.nan, total_before=math.nan)
    return replace(
        cured(), after=diagnose("DEP001"), proof=proof, reason="DEP001 is left: no remedy reaches it"
    )


def not_cured() -> Cured:
    reason = "no remedy applies"
    return Cured(None, None, Script(), diagnose("ACT002"), diagnose("ACT002"), reason=reason)


def healthy() -> Cured:
    return Cured(None, None, Script(), diagnose(), diagnose(), advice=cured().advice)


CASES = {case.__name__: case for case in (cured, better, not_cured, healthy)}


@pytest.mark.parametrize("name", CASES)
def test_the_word_agrees_with_success(name: str) -> None:
    """Exit code 0 is `success`; the words "cured" and "healthy" are those of a success, and no others."""
    outcome = CASES[name]()
    top = write_headline(outcome)
    assert top.word == name.replace("_", " ")
    assert outcome.success == (top.word in ("cured", "healthy"))
    assert top.sentence


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    """UNVANISH_REGOLD=1 writes the files again; read their diff before you commit it."""
    path = GOLDEN / f"cure-{name}-80.txt"
    got = text.render(CASES[name](), 80)
    if os.environ.get("UNVANISH_REGOLD"):
        path.write_text(got, encoding="utf-8")
    assert got == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_the_page_shows_the_verdict_in_its_colour(name: str) -> None:
    page = html.render(CASES[name]())
    word = write_headline(CASES[name]()).word
    assert f'<div class="uv uv-is-{word.replace(" ", "-")}">' in page
    assert f'<p class="uv-pill">{word}</p>' in page
    assert f".uv-is-{word.replace(' ', '-')} {{ --verdict" in page
    assert page.count("<script") == ('class="uv-copy"' in page) and "src=" not in page


def test_code_is_escaped_and_keeps_its_indentation() -> None:
    page = html.render(cured())
    assert "\n    w = model.get_parameter(name)  # &lt;w&gt;</code></pre>" in page


def test_a_page_lists_every_place_of_a_step() -> None:
    page = html.render(cured())
    for place in ("act1; to = tanh", "act2, act3; to = tanh", "fc1; names = 2 names"):
        assert f'<p class="uv-quiet">{place}</p>' in page


def test_without_a_total_the_codes_are_shown_once() -> None:
    assert html.render(better()).count("ACT002, DEP001") == 1
    assert html.render(cured()).count("found: ACT002, DEP001") == 1


def test_long_code_is_whole_or_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Script, "code", lambda self: "\n".join(f"line {k}" for k in range(30)))
    shown = text.render(cured())
    assert "by hand, in PyTorch: 30 lines; -v" in shown and "line 0" not in shown
    assert "line 0\n" in text.render(cured(), height=60) and "line 29\n" in text.render(cured(), height=60)
    assert "line 29\n" in text.render(cured(), verbose=True)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_cure_fits_a_screen(name: str, width: int) -> None:
    lines = text.render(CASES[name](), width).splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= width
    whole = text.render(CASES[name](), width, verbose=True)
    assert all(place in whole for place in ("act2, act3", "fc1")) or name in ("not_cured", "healthy")


def test_a_page_explains_colours_by_a_legend_not_in_words() -> None:
    page = html.render(cured())
    assert 'class="uv-key uv-before"' in page and 'class="uv-key uv-after"' in page
    assert not re.search(r"\b(orange|blue)\b", re.sub(r"<style>.*?</style>", "", page, flags=re.S))


def test_steps_join_remedies_of_one_cure() -> None:
    first, second = words.group_steps(cured())
    assert [r.cure for r in first] == ["swap-activation"] * 2 and second == [STEPS[2]]
    assert words.describe_place(STEPS[1]) == "act2, act3; to = tanh"
    assert words.describe_place(STEPS[2]) == "fc1; names = 2 names"
    assert words.describe_place(Remedy("x", (), "y")) == "the whole model"


def test_a_training_that_breaks_says_from_which_step() -> None:
    proof = replace(PROOF, losses_before=(1.4, math.inf), comparable=False)
    line = words.describe_training(proof)
    assert "loss not finite from step 1 before, 1.4 to 0.6 after" in line
    assert line.endswith("(another loss: compare the shares)")


def test_axes_are_logarithmic_only_for_positive_losses() -> None:
    log = LossAxes.around([(1.0, 0.1), (1.0, math.nan)])
    assert log.log and (log.low, log.high) == (-1.0, 0.0)
    linear = LossAxes.around([(1.0, -1.0), ()])
    assert not linear.log and (linear.low, linear.high) == (-1.0, 1.0)
    flat = LossAxes.around([(2.0, 2.0), (2.0,)])
    assert flat.high - flat.low == pytest.approx(1.0)


def test_a_loss_stands_at_its_step_after_one_that_is_not_finite() -> None:
    whole, broken = (draw_losses(replace(PROOF, losses_before=(4.0, x, 2.0))) for x in (3.0, math.nan))
    ends = [re.findall(r'd="M[^"]* (?:L)?([0-9.]+ [0-9.]+)" class="uv-before"', d) for d in (whole, broken)]
    assert ends[0] == ends[1] and len(ends[0]) == 1


def test_what_was_assumed_is_on_the_page() -> None:
    before = diagnose("ACT002")
    trace = replace(before.trace, facts={"assumptions": ["the <batch> is random"]})
    page = html.render(replace(cured(), before=replace(before, trace=trace)))
    assert "Assumed" in page and "the &lt;batch&gt; is random" in page


@pytest.mark.parametrize("losses", [(), (math.nan, math.inf), (1e300, 1e-300), (0.0, 0.0), (-5.0, 3.0)])
def test_no_number_in_the_drawing_is_broken(losses: tuple[float, ...]) -> None:
    drawing = draw_losses(replace(PROOF, losses_before=losses))
    assert not re.search(r'(?:[xy][12]?|d)="[^"]*(?:nan|inf)', drawing)
    assert drawing.count('class="uv-after"') == 1
