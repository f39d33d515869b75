"""The report of `cure` as text: the verdict, the prescription, the proof, and the same by hand.

Notable: it fits a screen; the code by hand is shown whole or only counted, and failures and advice are counts
if there is no room. `verbose` lists everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from unvanish.core.cured import Cured, Proof
from unvanish.core.diagnosis import Remedy
from unvanish.core.names import show
from unvanish.reports.cure import words
from unvanish.reports.cure.headline import write_headline
from unvanish.reports.diagnosis.findings_text import SAFETIES
from unvanish.reports.parts import sheet
from unvanish.reports.parts.bars import draw_sparkline
from unvanish.reports.parts.screen import fit_screen
from unvanish.reports.parts.series import thin
from unvanish.reports.parts.sheet import (
    Piece,
    assemble,
    clip,
    fit_height,
    fit_width,
    hang,
    join_lines,
    print_lines,
    separate,
)
from unvanish.reports.parts.words import cap, clean, plural

STYLES = {"cured": "bold green", "healthy": "bold green", "better": "bold yellow", "not cured": "bold red"}


@dataclass(frozen=True)
class CureDetail:
    """At most so many: places of a step, lines of a sentence, of code, failures, pieces of advice."""

    places: int = 0
    sentence: int = 1
    code: int = 0
    failures: int = 0
    advice: int = 0
    curves: bool = False
    airy: bool = False


EVERYTHING = CureDetail(1_000, 1_000, 10_000, 1_000, 1_000, curves=True, airy=True)
WISHES: tuple[dict[str, Any], ...] = (
    {"sentence": 2},
    {"places": 1},
    {"sentence": 3},
    {"advice": 1},
    {"curves": True},
    {"places": 2},
    {"code": 24},
    {"advice": 3},
    {"airy": True},
    {"failures": 2},
    {"code": 48},
    {"places": 8, "failures": 8, "advice": 8},
)  # of a reader, the most urgent first


def render(cured: Cured, width: int = 80, height: int = sheet.SCREEN, *, verbose: bool = False) -> str:
    """Plain text without escape codes, in lines of at most `width` cells (60 to 100)."""
    return join_lines(write_lines(cured, width, height, verbose=verbose))


def print_report(cured: Cured, console: Console | None = None, *, verbose: bool = False) -> None:
    """Print to a console: coloured on a terminal, plain when piped or under NO_COLOR."""
    console = console or Console(highlight=False)
    print_lines(write_lines(cured, console.width, fit_height(console), verbose=verbose), console)


def write_lines(
    cured: Cured, width: int = 80, height: int = sheet.SCREEN, *, verbose: bool = False
) -> list[Text]:
    """The report as styled lines, at most `height` unless verbose."""
    width = fit_width(width)

    def compose(detail: CureDetail) -> list[Text]:
        blocks = _compose(cured, width, detail)
        if detail.airy:
            return list(separate(blocks))
        return list(separate([blocks[0], [line for block in blocks[1:] for line in block]]))

    return compose(EVERYTHING) if verbose else fit_screen(compose, CureDetail(), WISHES, height)


def _compose(cured: Cured, width: int, detail: CureDetail) -> list[list[Text]]:
    top = write_headline(cured)
    head = clip(hang([("unvanish cure: ", "bold")], words.name_subject(cured), width, 15, "bold"), 2)
    sentence = hang([(f"  {top.word}: ", STYLES[top.word])], clean(top.sentence), width, 4)
    return [
        [*head, *clip(sentence, max(detail.sentence, 2))],
        _prescription(cured, width, detail),
        _proof(cured.proof, width, detail),
        _code(cured, width, detail),
        _failures(cured, width, detail),
        _advice(cured, width, detail),
        _assumed(cured, width, detail),
    ]


def _assumed(cured: Cured, width: int, detail: CureDetail) -> list[Text]:
    """What the first examination had to assume, as how the batch was read."""
    out: list[Text] = []
    for sentence in (cured.before.trace.facts.get("assumptions") or ())[: 2 * detail.sentence]:
        out += clip(hang([("assumed: ", "bold")], clean(sentence), width, 2), detail.sentence)
    return out


def _prescription(cured: Cured, width: int, detail: CureDetail) -> list[Text]:
    steps = words.group_steps(cured)
    out = [assemble(("prescription", "bold"))] if steps else []
    for index, step in enumerate(steps, 1):
        out += _step(index, step, width, detail)
    return out


def _step(index: int, step: Sequence[Remedy], width: int, detail: CureDetail) -> list[Text]:
    first = step[0]
    safety = (first.safety, SAFETIES[first.safety])
    head: list[Piece] = [f"  {index}. ", (clean(first.cure), "bold"), " (", safety, "): "]
    out = clip(hang(head, clean(first.why), width, 5), detail.sentence)
    shown, rest = cap(step, detail.places) if detail.places else ((), 0)
    for remedy in shown:
        lines = hang([("     at ", "dim")], words.describe_place(remedy), width, 8)
        out += clip(lines, detail.sentence)
    return out + ([assemble((f"     and {rest} more", "dim"))] if rest else [])


def _proof(proof: Proof | None, width: int, detail: CureDetail) -> list[Text]:
    if proof is None:
        return []
    rows = (
        ("rules", words.describe_rules(proof)),
        ("gradient", words.describe_totals(proof)),
        ("training", words.describe_training(proof)),
    )
    out = [assemble(("proof", "bold"))]
    for label, text in rows:
        out += clip(hang([(f"  {label}: ", "cyan")], text, width, 4), detail.sentence) if text else []
    if proof.losses_before and proof.losses_after and detail.curves:
        out += _curves(proof, width)
    return out


def _curves(proof: Proof, width: int) -> list[Text]:
    """Both losses as sparklines on one scale, logarithmic if they are positive."""
    both = [
        np.array([x for x in losses if math.isfinite(x)])
        for losses in (proof.losses_before, proof.losses_after)
    ]
    known = np.concatenate(both)
    if not len(known):
        return []
    both = [np.log10(c) for c in both] if known.min() > 0 else both
    ends = [min(float(c.min()) for c in both if len(c)), max(float(c.max()) for c in both if len(c))]
    cells = width - 14
    drawings = [
        draw_sparkline([*thin(c, cells), *ends], cells + 2)[:-2] if len(c) else "not finite" for c in both
    ]
    return [
        assemble(f"    {name:7}", (drawing, "bright_blue"))
        for name, drawing in zip(("before", "after"), drawings, strict=True)
    ]


def _code(cured: Cured, width: int, detail: CureDetail) -> list[Text]:
    """The whole code, since a part of it would not run; without room for it, where it is."""
    if not cured.prescription:
        return []
    lines = cured.prescription.code().splitlines()
    if len(lines) > detail.code:
        text = f"{plural(len(lines), 'line')}; -v and .prescription.code() show them"
        return clip(hang([("by hand, in PyTorch: ", "bold")], text, width, 2, "dim"), 2)
    return [assemble(("by hand, in PyTorch", "bold")), *(assemble((f"  {show(x)}", "dim")) for x in lines)]


def _failures(cured: Cured, width: int, detail: CureDetail) -> list[Text]:
    failures = words.list_failures(cured)
    if not failures:
        return []
    out = [assemble((f"tried without success ({len(failures)})", "bold"))]
    shown, rest = cap(failures, detail.failures) if detail.failures else ((), 0)
    for attempt in shown:
        head: list[Piece] = [("  ", "dim"), f"{' + '.join(attempt.cures)}: "]
        out += clip(hang(head, clean(attempt.result), width, 6, "dim"), detail.sentence)
    return out + ([assemble((f"  and {rest} more", "dim"))] if rest else [])


def _advice(cured: Cured, width: int, detail: CureDetail) -> list[Text]:
    if cured.before.healthy or not cured.advice:
        return []
    if not detail.advice:
        return [assemble((f"for a person to decide ({len(cured.advice)})", "bold"))]
    out = [assemble(("for a person to decide", "bold"))]
    shown, rest = cap(cured.advice, detail.advice)
    for remedy in shown:
        lines = hang(["  ", (clean(remedy.cure), "cyan"), ": "], clean(remedy.why), width, 6)
        out += clip(lines, detail.sentence)
    return out + ([assemble((f"  and {rest} more", "dim"))] if rest else [])
