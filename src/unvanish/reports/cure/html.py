"""The report of `cure` as one self-contained page: verdict, before and after, losses, prescription."""

from __future__ import annotations

import math

from unvanish.core.cured import Cured, Proof
from unvanish.core.version import __version__
from unvanish.reports.cure import words
from unvanish.reports.diagnosis.html import PAGE, STYLE
from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.parts.words import clean, decades

WORDS = {"cured": "healthy", "healthy": "healthy", "better": "warning", "not cured": "error"}
WIDTH, HEIGHT, LEFT, BOTTOM = 640.0, 220.0, 64.0, 28.0
EXTRA = (
    ".uv-two{display:grid;grid-template-columns:repeat(auto-fit,minmax(14rem,1fr));gap:1rem;margin:1rem 0}"
    ".uv-two>div{border:1px solid light-dark(#d6dae0,#2b333d);border-radius:10px;padding:.8rem 1rem}"
    ".uv-two b{display:block;font-size:1.7rem}.uv-code{overflow:auto;padding:1rem;border-radius:10px;"
    "background:light-dark(#eef0f3,#11161d);font-size:.85rem}.uv-sides{width:100%;height:auto;max-width:44rem}"
    ".uv-sides text{font-size:11px;fill:light-dark(#5a6472,#9aa5b1)}"
    ".uv-sides path{fill:none;stroke-width:2.2}"
    ".uv-was{stroke:light-dark(#b45309,#f5a524)}.uv-is{stroke:light-dark(#0369a1,#38bdf8)}"
    ".uv-rule{stroke:light-dark(#e2e5ea,#232a33);stroke-width:1}"
)


def render(cured: Cured) -> str:
    """One self-contained HTML page."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{words.name(cured)} - unvanish cure"),
        tag("style", Html(PAGE)),
    ]
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', _article(cured, 1)), lang='en')}\n"


def fragment(cured: Cured) -> str:
    """The report as one element with its own style, for a notebook's cell."""
    return str(_article(cured, 2))


def _article(cured: Cured, level: int) -> Html:
    word, sentence = words.verdict(cured)
    header = tag(
        "header",
        tag("p", tag("b", "unvanish"), " cure", class_="uv-brand"),
        tag(f"h{level}", words.name(cured)),
        tag(
            "div",
            tag(
                "div",
                tag("p", word, class_="uv-pill"),
                tag("p", sentence[:1].upper() + sentence[1:] + ".", class_="uv-sentence"),
            ),
            class_="uv-hero",
        ),
    )
    sections = [
        _change(cured, level + 1),
        _losses(cured.proof, level + 1),
        _prescription(cured, level + 1),
        _attempts(cured, level + 1),
    ]
    footer = tag("footer", tag("p", f"unvanish {__version__}", class_="uv-quiet"))
    style = tag("style", Html(STYLE.read_text(encoding="utf-8") + EXTRA))
    return tag("div", style, tag("article", header, sections, footer), class_=f"uv uv-is-{WORDS[word]}")


def _change(cured: Cured, level: int) -> Html | None:
    proof = cured.proof
    if proof is None:
        return None

    def side(title: str, total: float, codes: tuple[str, ...]) -> Html:
        large = decades(total) if not math.isnan(total) else ", ".join(codes) or "healthy"
        unit = "decades, last hidden layer to first" if not math.isnan(total) else ""
        return tag(
            "div",
            tag("span", title),
            tag("b", large),
            tag("small", unit),
            tag("p", f"found: {', '.join(codes) or 'nothing'}"),
        )

    return tag(
        "section",
        tag(f"h{level}", "Before and after"),
        tag(
            "div",
            side("before", proof.total_before, proof.codes_before),
            side("after", proof.total_after, proof.codes_after),
            class_="uv-two",
        ),
    )


def _losses(proof: Proof | None, level: int) -> Html | None:
    if proof is None or not proof.losses_before or not proof.losses_after:
        return None
    return tag(
        "section",
        tag(f"h{level}", "Trained side by side"),
        tag("p", words.training_line(proof)),
        chart(proof),
    )


def chart(proof: Proof) -> Html:
    """Both losses over the steps, on a logarithmic axis where they are positive."""
    curves = [[x for x in losses if math.isfinite(x)] for losses in (proof.losses_before, proof.losses_after)]
    known = [x for curve in curves for x in curve]
    log = bool(known) and min(known) > 0
    scale = (lambda x: math.log10(x)) if log else (lambda x: x)
    low, high = min(map(scale, known), default=0.0), max(map(scale, known), default=1.0)
    low, high = (low - 0.5, high + 0.5) if high - low < 1e-9 else (low, high)
    steps = max(len(proof.losses_before), len(proof.losses_after), 2) - 1

    def point(step: int, loss: float) -> str:
        x = LEFT + (WIDTH - LEFT - 10) * step / steps
        y = 10 + (HEIGHT - BOTTOM - 10) * (high - scale(loss)) / (high - low)
        return f"{x:.1f} {y:.1f}"

    parts: list[Html] = []
    for k in range(5):
        value = low + (high - low) * k / 4
        y = 10 + (HEIGHT - BOTTOM - 10) * (1 - k / 4)
        label = f"{10**value:.2g}" if log else f"{value:.3g}"
        parts.append(tag("line", x1=LEFT, x2=WIDTH - 10, y1=y, y2=y, class_="uv-rule"))
        parts.append(tag("text", label, x=LEFT - 8, y=y + 4, text_anchor="end"))
    for curve, name in zip(curves, ("uv-was", "uv-is"), strict=True):
        if curve:
            path = "M" + " L".join(point(i, x) for i, x in enumerate(curve))
            parts.append(tag("path", d=path, class_=name))
    parts.append(tag("text", f"{steps} steps; orange: before, blue: after", x=LEFT, y=HEIGHT - 8))
    box = f"0 0 {WIDTH:.0f} {HEIGHT:.0f}"
    return tag("svg", parts, viewBox=box, class_="uv-sides", role="img", aria_label="losses before and after")


def _prescription(cured: Cured, level: int) -> Html | None:
    if not cured.prescription:
        return None
    items = [
        tag(
            "li",
            tag("b", first.cure),
            f" ({first.safety}): ",
            first.why,
            tag(
                "p",
                "; ".join(part for part in (words.targets(run[0]), words.settings(run[0])) if part),
                class_="uv-quiet",
            ),
        )
        for first, run in words.steps(cured)
    ]
    return tag(
        "section",
        tag(f"h{level}", "Prescription"),
        tag("ol", items),
        tag("p", "By hand, in PyTorch:"),
        _pre(cured.prescription.code()),
        tag("details", tag("summary", "as YAML, for unvanish.apply"), _pre(cured.prescription.yaml())),
    )


def _pre(text: str) -> Html:
    """Preformatted text, line by line escaped."""
    lines = [
        tag("span", clean(line.lstrip()), style=f"padding-left:{len(line) - len(line.lstrip())}ch")
        for line in text.splitlines()
    ]
    return tag("pre", Html("\n".join(lines)), class_="uv-code")


def _attempts(cured: Cured, level: int) -> Html | None:
    failed = [a for a in cured.attempts if a.result != "healed and proven"]
    if not failed:
        return None
    rows = [tag("li", tag("code", " + ".join(a.cures)), f": {a.result}") for a in failed[:20]]
    return tag("section", tag(f"h{level}", "Tried without success"), tag("ul", rows))
