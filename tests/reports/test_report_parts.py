"""The parts that reports share: folding, words, bars, curves and ticks."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from rich.cells import cell_len

from unvanish.core.diagnosis import Diagnosis
from unvanish.core.ledger import Ledger, Row, ledger
from unvanish.reports.diagnosis.headline import describe_ratio
from unvanish.reports.parts.bars import ASCII, BarScale, draw_sparkline
from unvanish.reports.parts.figures import choose_ticks, pick_places
from unvanish.reports.parts.fold import Fold, fold
from unvanish.reports.parts.series import read_depth, read_times, thin
from unvanish.reports.parts.sheet import hang, pad, wrap
from unvanish.reports.parts.words import amount, cap, clean, decades, list_names, number

Build = Callable[[str], Diagnosis]


def rows(*values: float, kind: str = "Linear") -> list[Row]:
    return [Row(f"layers.{i}", kind, v, {"weights": v}, (), 0.0) for i, v in enumerate(values)]


def test_short_ledgers_are_not_folded() -> None:
    assert fold(rows(*[-0.1] * 16)) == rows(*[-0.1] * 16)


def test_a_fold_keeps_ends_and_outliers_and_the_sum() -> None:
    values = [-0.1] * 40
    values[17] = -3.0
    shown = fold(rows(*values))
    kept = [item.path for item in shown if isinstance(item, Row)]
    assert kept == ["layers.0", "layers.1", "layers.17", "layers.38", "layers.39"]
    assert sum(item.decades for item in shown) == pytest.approx(sum(values))
    assert [len(item.rows) for item in shown if isinstance(item, Fold)] == [15, 20]


def test_no_fold_hides_one_or_two_rows() -> None:
    values = [-0.1] * 40
    values[4] = 5.0
    assert all(len(item.rows) > 2 for item in fold(rows(*values)) if isinstance(item, Fold))


def test_rows_unlike_all_others_are_shown_worst_first() -> None:
    odd = [Row(f"{'abcdefghijklmnopqrstuvwxyz'[i]}.conv", f"K{i}", -float(i), {}, (), 0.0) for i in range(26)]
    kept = {item.path[0] for item in fold(odd) if isinstance(item, Row)}
    assert {"z", "y", "x", "w", "v", "u"} <= kept and len(kept) < 12


def test_rows_without_gradient_are_always_shown() -> None:
    shown = fold(rows(*[-0.1] * 20, -math.inf, *[-0.1] * 20))
    assert "layers.20" in [item.path for item in shown if isinstance(item, Row)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-18.204, "-18.20"),
        (0.001, "0.00"),
        (-0.001, "0.00"),
        (3, "+3.00"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_decades(value: float, text: str) -> None:
    assert decades(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0569, "0.0569"),
        (4.3e-22, "4.30e-22"),
        (30.0, "30"),
        (1290, "1290"),
        (-0.62, "-0.62"),
        (math.inf, "inf"),
        (True, "True"),
        ("a\nb", "a b"),
        (0.0, "0"),
        (1.5e9, "1.50e9"),
        (2.5e-5, "2.50e-5"),
    ],
)
def test_number(value: object, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(12, "12"), (999, "999"), (1000, "1.00 k"), (242_000, "242 k"), (999_900, "1.00 M"), (7e9, "7.00 B")],
)
def test_amount(count: float, text: str) -> None:
    assert amount(count) == text


def test_lists_are_capped_but_never_hide_one() -> None:
    assert list_names(["a", "b", "c", "d"]) == "a, b, c, d"
    assert list_names(["a", "b", "c", "d", "e"]) == "a, b, c, and 2 more"
    assert cap([1, 2], 5) == ([1, 2], 0)


def test_clean_shows_what_a_terminal_would_obey() -> None:
    assert clean("\x1b[31ma\tb\n\x00\ud800 é層") == "\\x1b[31ma b \\x00\\ud800 é層"


def test_a_total_as_a_ratio() -> None:
    assert describe_ratio(-18.94) == "8.7e18 times weaker at the input than at the loss"
    assert describe_ratio(1.0).startswith("10 times stronger")
    assert describe_ratio(0.1) == describe_ratio(-math.inf) == ""


def test_bars_share_one_scale() -> None:
    scale = BarScale.over([-4.0, 2.0], 31)
    assert (scale.left, scale.right) == (20, 10)
    assert scale.bar(-2.0)[0].strip() == "█" * 10 and scale.bar(2.0)[1].strip() == "█" * 10
    assert scale.bar(-0.3)[0].endswith("▐█")


@pytest.mark.parametrize("value", [0.0, -math.inf, math.inf, math.nan, 1e-300, -5e300])
@pytest.mark.parametrize("others", [[], [1.0], [-1.0, -math.inf], [math.nan]])
def test_bars_fill_exactly_their_cells(value: float, others: list[float]) -> None:
    scale = BarScale.over([value, *others], 15)
    assert sum(map(len, scale.bar(value))) == 14


def test_sparklines_show_dips_and_zeros() -> None:
    assert draw_sparkline([-2.0, -1.0, 0.0], 10) == "▁▅█"
    assert draw_sparkline([-math.inf, math.nan, 0.0, math.inf], 10) == ". ██"
    assert draw_sparkline([0.0] * 50 + [-math.inf] + [0.0] * 50, 10).count(".") == 1
    assert len(thin(np.zeros(1000), 40)) == 40


def test_every_drawn_character_has_an_ascii_stand_in() -> None:
    drawn = "▐▌█│…▁▂▃▄▅▆▇"
    assert drawn.translate(ASCII).isascii()


@pytest.mark.parametrize("text", ["a" * 200, "層" * 90, "word " * 40, "", "a" * 30 + " b"])
def test_wrapping_keeps_the_text_and_the_width(text: str) -> None:
    lines = wrap(text, 24)
    assert all(cell_len(line) <= 24 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_hanging_lines_start_where_told() -> None:
    shown = [line.plain for line in hang(["head: "], "one two three four", 16, 4)]
    assert shown == ["head: one two", "    three four"]


@pytest.mark.parametrize("width", [1, 2, 5, 11, 40])
def test_padding_is_exact(width: int) -> None:
    for text in ("", "layers.10.attention.query", "層層層層層層"):
        assert cell_len(pad(text, width)) == width
    assert pad("layers.10.attention.query", 14) == "layer…on.query"


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-18.9, 0.3), (-1e-9, 1e-9), (-400, 12), (3, 3), (-1e6, 1e6)]
)
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    step, marks = choose_ticks(low, high)
    assert len(marks) <= 8 and step > 0
    assert all(low - step <= mark <= high + step for mark in marks)


def test_curves_are_relative_to_the_loss(example: Build) -> None:
    found = example("sick").trace
    curves = read_depth(found)
    assert curves is not None
    assert curves.gradient[0] == 0 and curves.gradient[-1] == pytest.approx(-18.94, abs=0.01)
    assert curves.activation[-1] == pytest.approx(math.log10(0.52))


def test_time_is_read_from_the_steps(example: Build) -> None:
    (time,) = read_times(example("recurrent").trace)
    assert (time.path, time.steps[0], time.steps[-1]) == ("rnn", 0, 119)
    assert time.total == pytest.approx(-0.4187 * 119 / math.log(10))
    assert time.state[-1] == 0


def test_the_real_ledger_is_accepted(example: Build) -> None:
    book = ledger(example("sick").trace)
    assert book is None or isinstance(book, Ledger)


def test_reports_need_no_torch() -> None:
    imports = "from unvanish.reports.diagnosis import html, json, text"
    code = f"import sys; {imports}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_long_curves_keep_their_dips() -> None:
    values = np.zeros(5000)
    values[1234] = -3.0
    shown = pick_places(values)
    assert 1234 in shown and {0, 4999} <= set(shown) and len(shown) <= 802
