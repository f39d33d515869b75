"""A cure as a picture: verdict, the gradient before and after over each other, the steps and the proof."""

from __future__ import annotations

from unvanish.core.cured import Cured
from unvanish.reports.cure import words
from unvanish.reports.cure.headline import write_headline
from unvanish.reports.cure.overlay import draw_overlay, match_cured
from unvanish.reports.parts.picture import EDGE, Sheet
from unvanish.reports.parts.words import cap, capitalise, clean

TONES = {"healthy": "good", "cured": "good", "better": "warning", "not cured": "error"}
STEPS = 4  # of a prescription, shown


def render(cured: Cured) -> str:
    """The picture as SVG."""
    top = write_headline(cured)
    sheet = Sheet(TONES[top.word])
    sheet.head("cure", words.name_subject(cured), top.word, capitalise(top.sentence))
    pairs = match_cured(cured) if cured.prescription else []
    overlay = draw_overlay(pairs) if pairs else None
    if overlay is not None:
        sheet.draw(overlay)
    steps, rest = cap(words.group_steps(cured) if cured.prescription else [], STEPS)
    for index, step in enumerate(steps, 1):
        sheet.y += 6
        sheet.write(f"{index}. {step[0].cure}: {step[0].why}", "ink", 15, 2)
        sheet.write(words.describe_place(step[0]), "code", 14.5, left=float(EDGE + 20))
    if rest:
        sheet.write(f"and {rest} more steps", "small", 13)
    if cured.proof is not None:
        sheet.y += 8
        for text in (words.describe_rules(cured.proof), words.describe_training(cured.proof)):
            sheet.write(text, "small", 13, 2)
    return sheet.finish(f"unvanish cure: {clean(words.name_subject(cured))}: {top.sentence}")
