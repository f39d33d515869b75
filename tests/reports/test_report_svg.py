"""The pictures for a README: well-formed, self-contained, escaped, readable on light and dark ground."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reports.test_report_cure import CASES

from unvanish.core.diagnosis import Diagnosis, Finding, Remedy
from unvanish.core.trace import Site
from unvanish.reports.cure import svg as cure_svg
from unvanish.reports.diagnosis import svg
from unvanish.reports.parts.picture import WIDTH, break_text
from unvanish.store import Store, open_run

SPACE = "{http://www.w3.org/2000/svg}"
TAGS = {"svg", "title", "style", "rect", "text", "g", "line", "path", "circle"}
HOSTILE = "</text><script>alert(1)</script>&\x1b[31m\u202e<![CDATA["


def read(picture: str) -> ElementTree.Element:
    """The picture as XML, after what must hold for each."""
    root = ElementTree.fromstring(picture)
    for element in root.iter():
        assert element.tag.removeprefix(SPACE) in TAGS
        assert not [key for key in element.attrib if key.startswith("on") or "href" in key]
        for key in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "d", "width", "height"):
            assert not re.search(r"nan|inf", element.attrib.get(key, ""))
    style = "".join(element.text or "" for element in root.iter(f"{SPACE}style"))
    assert (
        "var(" not in style and "light-dark" not in style and "url(" not in style and "@import" not in style
    )
    assert "prefers-color-scheme: dark" in style
    assert root.attrib["viewBox"].startswith(f"0 0 {WIDTH} ") and root.find(f"{SPACE}title") is not None
    return root


def list_texts(root: ElementTree.Element) -> str:
    return "\n".join(element.text or "" for element in root.iter(f"{SPACE}text"))


def test_a_diagnosis_is_a_picture(diagnosis: Diagnosis) -> None:
    root = read(svg.render(diagnosis))
    assert all(f.code in list_texts(root) for f in diagnosis.counted("note")[:1])


def test_the_picture_says_what_where_and_what_to_do(example: Callable[[str], Diagnosis]) -> None:
    texts = list_texts(read(svg.render(example("sick"))))
    for words in ("deep_sigmoid.py:build", "loses 18.9 decades", "ACT002", "layers.0.act", "centred-sigmoid"):
        assert words in texts


@pytest.mark.parametrize("name", CASES)
def test_a_cure_is_a_picture(name: str) -> None:
    assert name.replace("_", " ") in list_texts(read(cure_svg.render(CASES[name]())))


def test_a_run_is_a_picture(tmp_path: Path) -> None:
    run = record(tmp_path)
    path = run.save(tmp_path / "run.svg")
    root = read(path.read_text(encoding="utf-8"))
    assert "NUM001" in list_texts(root) and "<script" not in path.read_text(encoding="utf-8")
    empty = Store(tmp_path / "empty", pause=0.01)
    empty.close()
    read(open_run(empty.folder).save(tmp_path / "empty.svg").read_text(encoding="utf-8"))


def record(folder: Path) -> Any:
    """A run of few steps whose names are hostile."""
    store = Store(folder / "run", pause=0.01)
    store.describe(model=HOSTILE, axes=[{"name": "depth", "kind": "depth", "sites": [1, 0]}])
    store.sites([Site(HOSTILE, HOSTILE), Site("b", "relu")], ("backward_log", "forward_rms"))
    losses = [1.0, 2.0, float("inf"), float("nan"), 0.5]
    store.steps(
        {"step": i, "wall": float(i), "loss": loss, "norm_log": -i, "finite": 1}
        for i, loss in enumerate(losses)
    )
    for step in (0, 4):
        store.sample(step, np.array([[-9.0, 1.0], [-1.0, 1.0]]))
    finding = Finding(
        "NUM001", HOSTILE, "error", HOSTILE, (HOSTILE,), remedies=(Remedy("freeze", (HOSTILE,), HOSTILE),)
    )
    store.finding(1, 0, 2, finding)
    store.close()
    return open_run(store.folder)


def test_names_are_escaped(example: Callable[[str], Diagnosis]) -> None:
    found = replace(example("sick"), subject=HOSTILE)
    picture = svg.render(found)
    read(picture)
    assert "<script" not in picture and "\x1b" not in picture and "\u202e" not in picture


def test_text_is_broken_to_its_width() -> None:
    assert break_text("one two", 500, 15, 1) == ["one two"]
    lines = break_text("word " * 60, 300, 15, 2)
    assert len(lines) == 2 and lines[1].endswith("…") and max(map(len, lines)) <= 300 / (15 * 0.56)
    assert len(break_text("x" * 500, 300, 15, 3)) == 3
