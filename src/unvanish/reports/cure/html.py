"""The report of `cure` as one self-contained page: verdict, before and after, losses, prescription."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from unvanish.core.cured import Cured, Proof
from unvanish.core.diagnosis import Remedy
from unvanish.core.version import __version__
from unvanish.reports.cure import words
from unvanish.reports.cure.headline import CureHeadline, write_headline
from unvanish.reports.cure.losses import draw_losses
from unvanish.reports.cure.overlay import draw_overlay, draw_table, match_cured
from unvanish.reports.parts.code import draw_code
from unvanish.reports.parts.legend import draw_legend
from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.parts.page import read_style, render_report
from unvanish.reports.parts.words import cap, capitalise, decades

STYLE = Path(__file__).with_name("cure.css")
PLACES, FAILURES = 8, 20  # listed: places of a step, failed attempts


def render(cured: Cured) -> str:
    """One self-contained HTML page."""
    return render_report(f"{words.name_subject(cured)} - unvanish cure", _article(cured, 1))


def fragment(cured: Cured) -> str:
    """The report as one element with its own style, for a notebook's cell."""
    return str(_article(cured, 2, page=False))


def _article(cured: Cured, level: int, *, page: bool = True) -> Html:
    top = write_headline(cured)
    sections = [
        _change(cured.proof, level + 1),
        *_flow(cured, level + 1),
        _losses(cured.proof, level + 1),
        _prescription(cured, level + 1, page),
        _advice(cured, level + 1),
        _failures(cured, level + 1),
        _assumed(cured, level + 1),
    ]
    footer = tag("footer", tag("p", f"unvanish {__version__}", class_="uv-quiet"))
    style = tag("style", Html(read_style() + STYLE.read_text(encoding="utf-8")))
    article = tag("article", _header(cured, top, level), sections, footer)
    kind = "uv" if page else "uv uv-cell"
    return tag("div", style, article, class_=f"{kind} uv-is-{top.word.replace(' ', '-')}")


def _header(cured: Cured, top: CureHeadline, level: int) -> Html:
    verdict = tag(
        "div", tag("p", top.word, class_="uv-pill"), tag("p", capitalise(top.sentence), class_="uv-sentence")
    )
    return tag(
        "header",
        tag("p", tag("b", "unvanish"), " cure", class_="uv-brand"),
        tag(f"h{level}", words.name_subject(cured)),
        tag("div", verdict, class_="uv-hero"),
    )


def _change(proof: Proof | None, level: int) -> Html | None:
    if proof is None:
        return None
    sides = [
        _side("before", proof.total_before, proof.codes_before),
        _side("after", proof.total_after, proof.codes_after),
    ]
    return tag("section", tag(f"h{level}", "Before and after"), tag("div", sides, class_="uv-two"))


def _side(title: str, total: float, codes: tuple[str, ...]) -> Html:
    """The total and the codes; without a total the codes are large."""
    known = not math.isnan(total)
    return tag(
        "div",
        tag("span", title),
        tag("b", decades(total) if known else words.describe_codes(codes)),
        tag("small", "decades, last hidden layer to first") if known else None,
        tag("p", f"found: {', '.join(codes) or 'nothing'}") if known else None,
    )


def _losses(proof: Proof | None, level: int) -> Html | None:
    text = words.describe_training(proof) if proof is not None else ""
    if proof is None or not text:
        return None
    drawn = bool(proof.losses_before and proof.losses_after)
    legend = draw_legend(("before", "before"), ("after", "after")) if drawn else None
    return tag(
        "section", tag(f"h{level}", "Trained side by side"), tag("p", text), legend, draw_losses(proof)
    )


def _flow(cured: Cured, level: int) -> list[Html]:
    """The gradient by depth and the ledgers, before and after over each other."""
    pairs = match_cured(cured) if cured.prescription else []
    if not pairs:
        return []
    curve = draw_overlay(pairs)
    lead = "In decades relative to the loss: a healthy network stays near 0."
    found = (
        [_section("The gradient by depth", level, lead, tag("figure", curve))] if curve is not None else []
    )
    lead = "Each bar starts where the one above ended. A decade is a factor of ten."
    return [*found, _section("Where the gradient goes", level, lead, draw_table(pairs))]


def _section(title: str, level: int, lead: str, content: Html) -> Html:
    return tag("section", tag(f"h{level}", title), tag("p", lead, class_="uv-quiet"), content)


def _prescription(cured: Cured, level: int, page: bool) -> Html | None:
    if not cured.prescription:
        return None
    return tag(
        "section",
        tag(f"h{level}", "Prescription"),
        draw_steps(words.group_steps(cured)),
        tag("p", "The same by hand, in PyTorch, as a file that runs:", class_="uv-quiet"),
        draw_code(cured.prescription.script(), button=page),
        tag(
            "details",
            tag("summary", "as YAML, for unvanish.apply"),
            draw_code(cured.prescription.yaml(), button=page),
            class_="uv-more",
        ),
    )


def _advice(cured: Cured, level: int) -> Html | None:
    if cured.before.healthy or not cured.advice:
        return None
    rows = [tag("li", tag("code", remedy.cure), f": {remedy.why}") for remedy in cured.advice]
    return tag("section", tag(f"h{level}", "For a person to decide"), tag("ul", rows))


def draw_steps(steps: Sequence[Sequence[Remedy]]) -> Html:
    """The steps in order, each with its places."""
    return tag("ol", [_step(step) for step in steps], class_="uv-steps")


def _step(step: Sequence[Remedy]) -> Html:
    shown, rest = cap(step, PLACES)
    places = [tag("p", words.describe_place(remedy), class_="uv-quiet") for remedy in shown]
    more = tag("p", f"and {rest} more", class_="uv-more") if rest else None
    return tag("li", tag("b", step[0].cure), f" ({step[0].safety}): ", step[0].why, places, more)


def _failures(cured: Cured, level: int) -> Html | None:
    failures = words.list_failures(cured)
    if not failures:
        return None
    rows = [tag("li", tag("code", " + ".join(a.cures)), f": {a.result}") for a in failures[:FAILURES]]
    return tag("section", tag(f"h{level}", "Tried without success"), tag("ul", rows))


def _assumed(cured: Cured, level: int) -> Html | None:
    """What the first examination had to assume."""
    rows = [tag("li", str(sentence)) for sentence in cured.before.trace.facts.get("assumptions") or ()]
    return tag("section", tag(f"h{level}", "Assumed"), tag("ul", rows)) if rows else None
