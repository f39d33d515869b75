"""The report of `cure` as text: the verdict, the prescription, the proof, and the same by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.text import Text

from unvanish.core.cured import Cured, Proof
from unvanish.core.diagnosis import Remedy
from unvanish.core.names import show
from unvanish.reports.cure import words
from unvanish.reports.cure.headline import write_headline
from unvanish.reports.diagnosis.findings_text import SAFETIES
from unvanish.reports.parts.bars import draw_sparkline
from unvanish.reports.parts.series import thin
from unvanish.reports.parts.sheet import Piece, assemble, fit_width, hang, print_lines, separate
from unvanish.reports.parts.words import cap, clean

STYLES = {"cured": "bold green", "healthy": "bold green", "better": "bold yellow", "not cured": "bold red"}
MOST, CODE = 8, 24  # entries of a list, lines of code


def render(cured: Cured, width: int = 80) -> str:
    """Plain text without escape codes, in lines of at most `width` cells (60 to 100)."""
    return "\n".join(line.plain.rstrip() for line in write_lines(cured, width)) + "\n"


def print_report(cured: Cured, console: Console | None = None) -> None:
    """Print to a console: coloured on a terminal, plain when piped or under NO_COLOR."""
    console = console or Console(highlight=False)
    print_lines(write_lines(cured, console.width), console)


def write_lines(cured: Cured, width: int = 80) -> list[Text]:
    """The report as styled lines."""
    width = fit_width(width)
    top = write_headline(cured)
    head = hang([("unvanish cure: ", "bold")], words.name_subject(cured), width, 15, "bold")
    head += hang([(f"  {top.word}: ", STYLES[top.word])], clean(top.sentence), width, 4)
    blocks = (
        head,
        _prescription(cured, width),
        _proof(cured.proof, width),
        _code(cured),
        _failures(cured, width),
        _advice(cured, width),
        _assumed(cured, width),
    )
    return list(separate(blocks))


def _assumed(cured: Cured, width: int) -> list[Text]:
    """What the first examination had to assume, as how the batch was read."""
    said = cured.before.trace.facts.get("assumptions") or ()
    return [line for sentence in said for line in hang([("assumed: ", "bold")], clean(sentence), width, 2)]


def _prescription(cured: Cured, width: int) -> list[Text]:
    steps = words.group_steps(cured)
    out = [assemble(("prescription", "bold"))] if steps else []
    for index, step in enumerate(steps, 1):
        out += _step(index, step, width)
    return out


def _step(index: int, step: Sequence[Remedy], width: int) -> list[Text]:
    first = step[0]
    safety = (first.safety, SAFETIES[first.safety])
    head: list[Piece] = [f"  {index}. ", (clean(first.cure), "bold"), " (", safety, "): "]
    out = hang(head, clean(first.why), width, 5)
    shown, rest = cap(step, MOST)
    for remedy in shown:
        out += hang([("     at ", "dim")], words.describe_place(remedy), width, 8)
    return out + ([assemble((f"     and {rest} more", "dim"))] if rest else [])


def _proof(proof: Proof | None, width: int) -> list[Text]:
    if proof is None:
        return []
    rows = (
        ("rules", words.describe_rules(proof)),
        ("gradient", words.describe_totals(proof)),
        ("training", words.describe_training(proof)),
    )
    out = [assemble(("proof", "bold"))]
    for label, text in rows:
        out += hang([(f"  {label}: ", "cyan")], text, width, 4) if text else []
    if proof.losses_before and proof.losses_after:
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


def _code(cured: Cured) -> list[Text]:
    if not cured.prescription:
        return []
    shown, rest = cap(cured.prescription.code().splitlines(), CODE)
    out = [assemble(("by hand, in PyTorch", "bold"))]
    out += [assemble((f"  {show(line)}", "dim")) for line in shown]
    return out + ([assemble((f"  and {rest} more lines", "dim"))] if rest else [])


def _failures(cured: Cured, width: int) -> list[Text]:
    failures = words.list_failures(cured)
    if not failures:
        return []
    out = [assemble((f"tried without success ({len(failures)})", "bold"))]
    shown, rest = cap(failures, MOST)
    for attempt in shown:
        out += hang([("  ", "dim"), f"{' + '.join(attempt.cures)}: "], clean(attempt.result), width, 6, "dim")
    return out + ([assemble((f"  and {rest} more", "dim"))] if rest else [])


def _advice(cured: Cured, width: int) -> list[Text]:
    if cured.before.healthy or not cured.advice:
        return []
    out = [assemble(("for a person to decide", "bold"))]
    for remedy in cured.advice:
        out += hang(["  ", (clean(remedy.cure), "cyan"), ": "], clean(remedy.why), width, 6)
    return out
