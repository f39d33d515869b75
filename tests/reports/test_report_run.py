"""The text of a watched training: its last line, its sparklines, its findings, its times."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Diagnosis, Finding, Remedy
from unvanish.core.ledger import ledger
from unvanish.core.trace import STATISTICS, Axis, Site, Trace
from unvanish.reports.run import curves, data, text
from unvanish.reports.run.lines import RunDetail, RunStory, describe_finding, tell
from unvanish.reports.run.panels import draw_panels
from unvanish.reports.run.timeline import Moment, list_moments
from unvanish.reports.run.verdict import Spotted, write_verdict

NOTE = Finding("GRF003", "frozen", "note", "frozen on purpose")
FAULT = Finding(
    "NUM001", "non-finite", "error", "NaN in fc", tuple("abcdef"), remedies=(Remedy("x", (), "y"),)
)


def test_the_last_line_counts_warnings_and_errors_alone() -> None:
    assert text.conclude([]) == text.conclude([NOTE]) == "nothing wrong was seen"
    assert text.conclude([NOTE, FAULT]) == "found 1: NUM001"


def test_a_sparkline_shows_infinities_and_gaps() -> None:
    assert curves.draw_spark(np.array([0.0, math.nan, math.inf, 7.0])) == "▁ x█"
    assert curves.draw_spark(np.zeros(0)) == ""
    long = np.zeros(600)
    long[305] = math.inf
    assert curves.draw_spark(long, 60).index("x") == 30


def test_a_finding_names_four_sites_and_its_remedy() -> None:
    lines = describe_finding(FAULT, "step 3 to 5", 80, RunDetail())
    assert [line.plain for line in lines] == [
        "error[NUM001] non-finite (step 3 to 5): NaN in fc",
        "  --> a, b, c, d ...",
        "   = remedy [retrain] x: y",
    ]


def test_a_finding_of_a_run_names_what_follows_from_it() -> None:
    """Else a NaN that was told while it trained would be in no report of it."""
    cause = Finding("OPT008", "beyond-critical-step", "error", "too long", consequences=(FAULT,))
    lines = describe_finding(cause, "step 1", 80, RunDetail())
    assert "   = follows: NUM001 non-finite" in [line.plain for line in lines]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_training_of_many_findings_fits_a_screen(width: int) -> None:
    moments = [Moment(i, f"the learning rate went from {i} to {i + 1}, " * 3) for i in range(40)]
    finding = replace(FAULT, cause="a cause of many words " * 20, sites=("layer" * 30,) * 9)
    spotted = [Spotted(replace(finding, code=f"NUM{i:03}"), i, i + 1) for i in range(30)]
    history: Any = {"step": np.arange(200.0), "loss": np.geomspace(1, 9, 200), "lr": np.geomspace(1, 2, 200)}
    trace = Trace((), np.zeros((0, 0, len(STATISTICS))))
    story = RunStory(
        "run",
        write_verdict(spotted, 200, 3),
        ["200 steps"],
        history,
        trace,
        moments,
        spotted,
        ["note " * 40] * 9,
    )
    lines = tell(story, width, 24)
    assert len(lines) <= 24 and max(line.cell_len for line in lines) <= width
    assert "NUM000" in "".join(line.plain for line in lines)
    whole = "".join(line.plain for line in tell(story, width, 24, verbose=True))
    assert "NUM029" in whole and "from 39 to 40" in whole


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99.4, "99 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert text.format_duration(seconds) == words


def test_a_watch_in_memory_is_reported_from_its_history() -> None:
    history = {"loss": [2.0, 1.0], "norm_log": [0.0, math.log(10)]}
    trace = Trace((), np.zeros((0, 0, len(STATISTICS))), facts={"history": history})
    lines = text.render_watch(Diagnosis((FAULT,), trace, subject="mlp")).splitlines()
    assert lines[0] == "unvanish watch: mlp"
    assert lines[1].startswith("  loss") and lines[1].endswith("2 to 1")
    assert lines[2].endswith("1e0.0 to 1e1.0, norm of all parameters")
    assert lines[-1] == "found 1: NUM001"


def history(**columns: list[float]) -> dict[str, np.ndarray]:
    steps = len(next(iter(columns.values())))
    usual = {"step": range(steps), "finite": [1] * steps, "norm_log": [0.0] * steps, "loss": [1.0] * steps}
    return {k: np.array(list(v), float) for k, v in {**usual, **columns}.items()}


COLUMNS = ("gradient_log", "update_log")
FC, HEAD = (Site(name, "Linear", role="parameter", facts={"dimensions": 2}) for name in ("fc", "head"))


def trace_of(logs: list[float], statistic: str, steps: list[int]) -> Trace:
    values = np.full((len(logs), 1, len(COLUMNS)), math.nan)
    values[:, 0, COLUMNS.index(statistic)] = logs
    return Trace((FC,), values, facts={"steps": steps}, statistics=COLUMNS)


NOTHING = Trace((), np.zeros((0, 0, len(STATISTICS))))


def test_a_zero_gradient_is_drawn_and_written_as_zero() -> None:
    assert curves.draw_spark(np.array([0.0, -math.inf, 7.0])) == "▁_█"
    line = curves.draw_curves(history(norm_log=[0.0, 1.0, -math.inf]), NOTHING)[1]
    assert line.split()[1].endswith("_") and "1e0.0 to 0," in line
    long = np.zeros(440)
    long[11] = -math.inf
    assert curves.draw_spark(long)[1] == "_"


def test_a_zero_gradient_stands_on_the_floor_of_the_page() -> None:
    steps = history(
        norm_log=[0.0, -math.inf], finite=[1, 1], before_log=[math.nan] * 2, clipped=[0, 0], lr=[1, 1]
    )
    one, zero = data.list_steps(steps)
    assert (one["norm"], one["zero"], zero["norm"], zero["zero"], zero["bad"]) == (
        0.0,
        False,
        -1.0,
        True,
        False,
    )
    assert data.put_zeros_on_floor(np.array([-math.inf]))[0] == [data.FLOOR] != [0.0]
    assert one["clipped"] is None  # no step ever was


def test_steps_whose_norm_was_not_read_are_no_gaps() -> None:
    values = np.array([math.nan, 0.0, math.nan, math.nan, 3.0, math.nan, math.inf, math.nan])
    filled = curves.bridge_gaps(values)
    np.testing.assert_array_equal(filled[:5], [math.nan, 0.0, 1.0, 2.0, 3.0])
    assert np.isnan(filled[[5, 7]]).all() and filled[6] == math.inf
    nan, infinite = math.nan, math.log(10)
    seen = history(norm_log=[0.0, nan, nan, nan, infinite], finite=[1, 1, 1, 0, 1])
    np.testing.assert_allclose(curves.read_norms(seen), [0, nan, nan, math.inf, 1])  # not across a NaN


def test_one_reading_in_many_steps_is_drawn_as_one_line() -> None:
    norms = np.full(100, math.nan)
    norms[::10] = np.linspace(0, -4, 10)
    loss, gradient = draw_panels(history(norm_log=list(norms), loss=[1.44, *[1.38] * 99]), NOTHING, ())
    assert gradient.count("M") == 1 and gradient.count("L") > 50
    marks = re.findall(r">(1\.[0-9]+)<", loss)
    assert len(marks) == len(set(marks)) > 1  # within a decade the axis is linear


def test_a_page_blames_the_piece_that_the_ledger_blames() -> None:
    sites = tuple(Site(name, name) for name in ("head", "act", "fc"))
    logs = np.array([[0.0, -1.0, -4.0]])[:, :, None] * math.log(10)
    trace = Trace(sites, logs, (Axis("depth", "depth", (0, 1, 2)),), {"steps": [0]}, ("backward_log",))
    book = ledger(trace)
    assert book is not None
    changes = [row["change"] for row in data.list_flow(trace)]
    assert changes == [*(row.decades for row in book.leaves()), None] == [-1.0, -3.0, None]


def test_looks_lie_on_the_time_axis_of_the_steps() -> None:
    trace = trace_of([math.log(0.1), -math.inf], "update_log", [0, 3])
    held = curves.spread_looks(curves.measure_moves(trace), trace, history(loss=[1.0] * 5))
    assert held.tolist() == pytest.approx([-1, -1, -1, -math.inf, -math.inf])


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ([1e-3] * 5 + [5e-2] * 5, [(5, "the learning rate went from 0.001 to 0.05")]),
        ([1e-3] * 5 + [5e-4] * 5, [(5, "the learning rate went from 0.001 to 0.0005")]),
        ([1e-3] * 5 + [0.0] * 5, [(5, "the learning rate went from 0.001 to 0")]),
        ([1e-3 * k / 9 for k in range(10)], []),  # a warmup
        ([1e-3 * (1 + math.cos(math.pi * k / 10)) for k in range(10)], []),
        ([0.97**k for k in range(30)], []),
    ],
)
def test_a_rate_that_jumps_is_told_and_one_that_glides_is_not(rates: list[float], told: list[Any]) -> None:
    found = list_moments(history(lr=rates), NOTHING, ())
    assert [(m.step, m.text) for m in found] == told


def test_what_freezes_and_thaws_is_told_and_what_flickers_is_not() -> None:
    steps = list(range(6))
    none = math.nan
    frozen = list_moments(history(loss=[1.0] * 6), _two([0, 0, none, none, none, none], steps), ())
    assert [m.step for m in frozen if "no longer get a gradient" in m.text] == [2]
    thawed = list_moments(history(loss=[1.0] * 6), _two([none, none, 0, 0, 0, 0], steps), ())
    assert [m.step for m in thawed if "1 of 2 tensors get a gradient" in m.text] == [2]
    flicker = list_moments(history(loss=[1.0] * 6), _two([0, none, 0, none, 0, none], steps), ())
    assert len(flicker) == 1 and "first look" in flicker[0].text


def _two(logs: list[float], steps: list[int]) -> Trace:
    """Two parameters, of which the other one always has a gradient."""
    one = trace_of(logs, "gradient_log", steps)
    values = np.concatenate([one.values, np.zeros_like(one.values)], axis=1)
    return Trace((FC, HEAD), values, facts={"steps": steps}, statistics=COLUMNS)


def test_the_timeline_is_in_order_and_does_not_run_away() -> None:
    spotted = [Spotted(FAULT, 4, 9)]
    norms = [0.0, 1.0, -math.inf, -math.inf]
    found = list_moments(history(norm_log=norms), NOTHING, spotted, [[0, 1], [3, 1]])
    assert found == [
        Moment(2, "the gradient is exactly zero, to the end"),
        Moment(3, "the run was continued"),
        Moment(4, "error[NUM001] non-finite, until step 9", "error"),
    ]
    many = list_moments(history(norm_log=[0.0, -math.inf] * 40), NOTHING, ())
    assert len(many) == 12 and many[-1].text.endswith("and 28 more of the kind")


def test_the_verdict_names_the_worst_or_how_much_was_seen() -> None:
    assert write_verdict([], 0, 0).word == "unseen"
    assert (
        write_verdict([Spotted(NOTE, 0, 0)], 40, 3).sentence
        == "nothing wrong was seen in 40 steps and 3 looks"
    )
    assert "no look at activations" in write_verdict([], 40, 0).sentence
    warning = Finding("OPT001", "step-too-large", "warning", "large")
    verdict = write_verdict([Spotted(warning, 1, 1), Spotted(FAULT, 3, 5)], 40, 3)
    assert verdict.word == "error"
    assert verdict.sentence == "1 error, 1 warning: NUM001 non-finite at step 3: NaN in fc"
