"""The order-chaos diagram: the bands, the picture and its table, the sentence about a net, the page."""

from __future__ import annotations

import math
import re

import pytest

from unvanish.reports.phase import html, text
from unvanish.reports.phase.bands import BANDS, OwnNet, find_band
from unvanish.theory.phase import Phase, phase


@pytest.fixture(scope="module")
def diagram() -> Phase:
    return phase("tanh", columns=12, rows=5)


@pytest.mark.parametrize(
    ("depth", "label"), [(1, "up to 10"), (10, "up to 10"), (11, "up to 30"), (1e6, "deeper")]
)
def test_every_depth_has_a_band(depth: float, label: str) -> None:
    assert find_band(depth).label == label
    assert BANDS[-1].top == math.inf


def test_the_picture_marks_the_net_where_it_is(diagram: Phase) -> None:
    lines = [
        line.plain
        for line in text.draw_picture(diagram, [OwnNet("mine", float(diagram.sw[3]), float(diagram.sb[-1]))])
    ]
    assert len(lines) == 5 + 2
    assert lines[0][7 + 3] == "X" and sum(line.count("X") for line in lines) == 1
    assert lines[-1].endswith("# deeper")


def test_the_sentence_names_the_side() -> None:
    assert "vanishing, trainable to about" in text.describe_net(OwnNet("mine", 0.5, 0.0), "tanh")
    assert "exploding, trainable to about" in text.describe_net(OwnNet("mine", 2.0, 0.0), "tanh")
    assert "on the critical line" in text.describe_net(OwnNet("mine", math.sqrt(2), 0.0), "relu")


def test_the_page_is_whole(diagram: Phase) -> None:
    page = html.render(diagram, [OwnNet("<mine>", 1.0, 0.1)])
    assert page.count("<rect") == 12 * 5
    assert "&lt;mine&gt;" in page and "<mine>" not in page
    assert "tanh: order and chaos" in page and "src=" not in page
    assert all(band.label in page for band in BANDS)
    assert not re.search(r'(?:[xy]|points|transform)="[^"]*(?:nan|inf)', page)
