"""The HTML report: self-contained, escaped, scoped, readable in both themes and by a screen reader."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from unvanish.core.diagnosis import Diagnosis
from unvanish.reports.diagnosis import html
from unvanish.reports.parts.code import draw_code
from unvanish.reports.parts.markup import Html, tag
from unvanish.reports.parts.page import GROUND, read_style, render_report

Build = Callable[[str], Diagnosis]
EMPTY = {"meta", "br", "hr"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
CSS = read_style()


class Page(HTMLParser):
    """The tags, the attributes, the text, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def test_well_formed(diagnosis: Diagnosis) -> None:
    page = Page(html.render(diagnosis))
    assert not page.open
    html.render(diagnosis).encode("utf-8")


def test_nothing_is_fetched_and_nothing_runs(diagnosis: Diagnosis) -> None:
    for name, attributes in Page(html.render(diagnosis)).tags:
        assert name not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        assert not [a for a in attributes if a.startswith("on") or a in {"src", "href", "action"}]
    assert "url(" not in CSS and "@import" not in CSS


def test_the_policy_of_a_page_allows_nothing_from_elsewhere(diagnosis: Diagnosis) -> None:
    metas = [a for name, a in Page(html.render(diagnosis)).tags if name == "meta"]
    [policy] = [a["content"] for a in metas if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith(POLICY) and "script-src" not in policy


def test_the_one_script_of_a_page_with_code_is_allowed_by_its_hash() -> None:
    page = render_report("t", Html(f'<div class="uv">{draw_code("x = 1 < 2")}</div>'))
    [script] = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None and f"script-src &#x27;sha256-{digest}&#x27;" in policy[1]
    assert "unsafe-eval" not in page and "x = 1 &lt; 2" in page
    assert 'hidden="hidden"' in page  # until the script runs
    assert "<script" not in render_report("t", Html('<div class="uv"></div>'))


def test_colours_have_a_legend(example: Build) -> None:
    shown = html.render(example("sick"))
    assert 'class="uv-key uv-loss"' in shown and "loses gradient" in shown
    assert not re.search(r"\b(blue|orange)\b", Page(shown).text.partition("unvanish check")[2])
    assert "lets none through" in html.render(example("silent"))


def test_names_are_escaped(example: Build) -> None:
    shown = html.render(example("weird"))
    assert "<script" not in shown
    assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in shown
    assert "<script>alert('&')</script>" in Page(shown).text
    assert "\x1b" not in shown and "\x00" not in shown


def test_every_style_is_scoped() -> None:
    bare = re.sub(r"/\*.*?\*/", "", CSS, flags=re.S)
    bare = re.sub(r"@media[^{]*\{((?:[^{}]*\{[^{}]*\})*)\s*\}", r"\1", bare)
    selectors = [s.strip() for group in re.findall(r"([^{}]+)\{", bare) for s in group.split(",")]
    assert selectors and all(re.search(r"(^|\s)\.uv(?![a-z])|^\.uv-is-\w+$", s) for s in selectors)


def test_a_fragment_is_one_element_without_page_styles(diagnosis: Diagnosis) -> None:
    shown = html.fragment(diagnosis)
    assert shown.startswith('<div class="uv ') and shown.endswith("</div>")
    assert not re.search(r"<(html|head|body)[ >]", shown)
    assert GROUND not in shown
    assert not [a for _, a in Page(shown).tags if "id" in a]


def test_notebooks_get_the_fragment(example: Build) -> None:
    assert example("sick")._repr_html_() == html.fragment(example("sick"))


def test_save_writes_the_page(example: Build, tmp_path: Path) -> None:
    found = example("healthy")
    assert found.save(tmp_path / "report.html").read_text(encoding="utf-8") == html.render(found)


def test_headings_nest_and_charts_are_named(diagnosis: Diagnosis) -> None:
    tags = Page(html.render(diagnosis)).tags
    levels = [int(name[1]) for name, _ in tags if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    drawings = [a for name, a in tags if name == "svg" or a.get("role") == "img"]
    assert all(a.get("role") == "img" and a.get("aria-label") for a in drawings)


def test_sick_shows_everything(example: Build) -> None:
    text = Page(html.render(example("sick"))).text
    for words in (
        "The gradient vanishes: it loses 18.9 decades",
        "-18.9",
        "contracting-activation",
        "confirmed with the slopes set to 1",
        "information-collapse",
        "swap-activation(to=Tanh, gain=1.467) on 30 sites",
        "and 26 more",
        "57 more: 29 Linear, 28 Sigmoid",
        "no module runs through time",
        "the batch was standard normal noise",
    ):
        assert words in text


def test_a_forecast_is_not_called_a_measurement(example: Build) -> None:
    found = example("healthy")
    assert "Measured in one batch" in Page(html.render(found)).text
    trace = replace(found.trace, facts={**found.trace.facts, "predicted": True})
    text = Page(html.render(replace(found, trace=trace))).text
    assert "unvanish forecast" in text and "Predicted from theory" in text
    assert "Measured in one batch" not in text


def test_folds_keep_their_rows(example: Build) -> None:
    text = Page(html.render(example("sick"))).text
    assert all(f"layers.{i}.act" in text for i in range(30))


def test_a_page_stays_small(example: Build) -> None:
    assert len(html.render(example("thousands"))) < 2_000_000


def test_no_number_in_a_drawing_is_broken(diagnosis: Diagnosis) -> None:
    for name, attributes in Page(html.render(diagnosis)).tags:
        if name in {"path", "line", "circle", "text", "rect"}:
            geometry = " ".join(
                attributes.get(a) or "" for a in ("d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy")
            )
            assert not re.search(r"nan|inf", geometry)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast_of_every_ink_on_every_ground(theme: int) -> None:
    pairs = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", CSS)
    colours = {name: (light, dark)[theme] for name, light, dark in pairs}
    grounds, inks = (
        ("page", "card", "sunk"),
        ("ink", "quiet", "loss", "gain", "error", "warning", "note", "good", "before", "after"),
    )
    for ink in inks:
        for ground in grounds:
            low, high = sorted((luminance(colours[ink]), luminance(colours[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)


def test_tag_escapes_all_but_markup() -> None:
    assert tag("p", "<", Html("<b>"), title='"<') == '<p title="&quot;&lt;">&lt;<b></p>'
    assert tag("p", " a ", None, ["b", [" c"]], class_=None) == "<p> a b c</p>"
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8"/>'
