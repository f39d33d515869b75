"""The report of `cure` as text: the verdict, the prescription, the proof, and the same by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from rich.console import Console
from rich.text import Text

from unvanish.core.cured import Cured, Proof
from unvanish.reports.cure import words
from unvanish.reports.diagnosis.findings_text import SAFETIES
from unvanish.reports.parts.bars import ASCII, sparkline
from unvanish.reports.parts.series import thinned
from unvanish.reports.parts.sheet import hang, joined
from unvanish.reports.parts.words import clean, plural

STYLES = {"cured": "bold green", "healthy": "bold green", "better": "bold yellow", "not cured": "bold red"}
MOST = 8


def render(cured: Cured, width: int = 80) -> str:
    """Plain text without escape codes, in lines of at most `width` cells (60 to 100)."""
    return "\n".join(line.plain.rstrip() for line in lines(cured, width)) + "\n"


def print_report(cured: Cured, console: Console | None = None) -> None:
    """Print to a console: coloured on a terminal, plain when piped or under NO_COLOR."""
    console = console or Console(highlight=False)
    spelled = console.encoding.lower().replace("-", "").startswith("utf")
    for line in lines(cured, console.width):
        if not spelled:
            line.plain = line.plain.translate(ASCII).encode("ascii", "replace").decode("ascii")
        console.print(line, soft_wrap=True, highlight=False)


def lines(cured: Cured, width: int = 80) -> list[Text]:
    """The report as styled lines."""
    width = min(max(width, 60), 100)
    word, sentence = words.verdict(cured)
    out = hang([("unvanish cure: ", "bold")], words.name(cured), width, 15, "bold")
    out += hang([(f"  {word}: ", STYLES[word])], clean(sentence), width, 4)
    for block in (
        _prescription(cured, width),
        _proof(cured, width),
        _code(cured),
        _attempts(cured, width),
        _advice(cured, width),
    ):
        if block:
            out += [Text(), *block]
    return out


def _prescription(cured: Cured, width: int) -> list[Text]:
    steps = words.steps(cured)
    out = [joined(("prescription", "bold"))] if steps else []
    for index, (first, run) in enumerate(steps, 1):
        head: list[str | tuple[str, str]] = [
            f"  {index}. ",
            (clean(first.cure), "bold"),
            " (",
            (first.safety, SAFETIES[first.safety]),
            "): ",
        ]
        out += hang(head, clean(first.why), width, 5)
        for remedy in run[:MOST]:
            told = "; ".join(part for part in (words.targets(remedy), words.settings(remedy)) if part)
            out += hang([("     at ", "dim")], told, width, 8)
        out += [joined((f"     and {len(run) - MOST} more", "dim"))] if len(run) > MOST else []
    return out


def _proof(cured: Cured, width: int) -> list[Text]:
    proof = cured.proof
    if proof is None:
        return []
    out = [joined(("proof", "bold"))]
    rows = (
        ("rules", words.rules_line(proof)),
        ("gradient", words.total_line(proof)),
        ("training", words.training_line(proof)),
    )
    for label, told in rows:
        out += hang([(f"  {label}: ", "cyan")], told, width, 4) if told else []
    if proof.losses_before and proof.losses_after:
        out += _curves(proof, width)
    return out


def _curves(proof: Proof, width: int) -> list[Text]:
    """Both losses as sparklines on one scale, logarithmic where they are positive."""
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
    lines = [sparkline([*thinned(c, cells), *ends], cells + 2)[:-2] if len(c) else "not finite" for c in both]
    return [
        joined(f"    {name:7}", (line, "bright_blue"))
        for name, line in zip(("before", "after"), lines, strict=True)
    ]


def _code(cured: Cured) -> list[Text]:
    if not cured.prescription:
        return []
    lines = cured.prescription.code().splitlines()
    return [
        joined(("by hand, in PyTorch", "bold")),
        *(joined((f"  {clean_code(line)}", "dim")) for line in lines[:24]),
    ]


def clean_code(line: str) -> str:
    """A line of code with its indentation and without control characters."""
    return " " * (len(line) - len(line.lstrip())) + clean(line)


def _attempts(cured: Cured, width: int) -> list[Text]:
    failed = [a for a in cured.attempts if a.result != "healed and proven"]
    if not failed:
        return []
    out = [joined((f"tried without success ({len(failed)})", "bold"))]
    for attempt in failed[:MOST]:
        out += hang([("  ", "dim"), f"{' + '.join(attempt.cures)}: "], clean(attempt.result), width, 6, "dim")
    return [
        *out,
        *([joined((f"  and {plural(len(failed) - MOST, 'other')}", "dim"))] if len(failed) > MOST else []),
    ]


def _advice(cured: Cured, width: int) -> list[Text]:
    shown: Iterable[Text] = (
        line
        for remedy in cured.advice
        for line in hang([("  ", ""), (clean(remedy.cure), "cyan"), ": "], clean(remedy.why), width, 6)
    )
    return (
        [joined(("for a person to decide", "bold")), *shown]
        if cured.advice and not cured.before.healthy
        else []
    )
