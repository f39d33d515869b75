"""The reading over time, on profiles whose slope is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import STATISTICS, Site, Trace
from unvanish.rules import _time

NAMES = list(STATISTICS)
Profile = tuple[Sequence[float], Sequence[float]]  # states and carries, step 0 first


def build_trace(recurrences: Mapping[str, Profile], shuffle: bool = False) -> Trace:
    rows = [
        (name, t, state, carry)
        for name, (states, carries) in recurrences.items()
        for t, (state, carry) in enumerate(zip(states, carries, strict=True))
    ]
    if shuffle:
        np.random.default_rng(0).shuffle(rows)  # type: ignore[arg-type]
    sites = tuple(
        Site.step(name, "lstm", int(t), {"of": name, "step": int(t), "steps": len(rows)})
        for name, t, _, _ in rows
    )
    values = np.full((1, len(sites), len(STATISTICS)), math.nan)
    values[0, :, NAMES.index("state_log")] = [row[2] for row in rows]
    values[0, :, NAMES.index("carry_log")] = [row[3] for row in rows]
    return Trace(sites, values)


def read_one(states: Sequence[float], carries: Sequence[float] | None = None) -> _time.TimeReading:
    (found,) = _time.read(build_trace({"rnn": (states, carries or [math.nan] * len(states))}))
    return found


@pytest.mark.parametrize("slope", [-0.5, 0.25])
def test_the_slope_goes_back_in_time(slope: float) -> None:
    """A gradient exp(slope (T - t)) at step t grows by `slope` nats a step back."""
    found = read_one([slope * (9 - t) for t in range(10)])
    assert (found.name, found.kind, found.steps) == ("rnn", "lstm", 10)
    assert found.slope == pytest.approx(slope) and found.ratio == pytest.approx(9 * slope)
    assert found.horizon == pytest.approx(3 / abs(slope))


def test_steps_are_read_by_their_number() -> None:
    states = [0.3 * t for t in range(8)]
    (found,) = _time.read(build_trace({"rnn": (states, states)}, shuffle=True))
    np.testing.assert_allclose(found.state_log, states)


def test_the_horizon_is_that_of_the_carried_gradient() -> None:
    """A loss at every step feeds every state; what is carried fades by half a nat a step all the same."""
    found = read_one([0.0] * 10, [-0.5 * (9 - t) for t in range(10)])
    assert found.ratio == 0 and found.horizon == pytest.approx(6.0)
    assert read_one([0.0] * 10).horizon == math.inf
    single = [math.nan] * 9 + [-7.0]  # one number has no slope: that of the states counts
    assert read_one([0.1 * t for t in range(10)], single).horizon == pytest.approx(30.0)
    pair = [math.nan] * 8 + [-2.0, 0.0]
    assert read_one([0.1 * t for t in range(10)], pair).horizon == pytest.approx(1.5)


def test_steps_after_the_last_one_with_a_gradient_are_not_judged() -> None:
    states = [0.5 * t for t in range(5)] + [-math.inf, math.nan]
    carries = [0.25 * t for t in range(5)] + [1e3, 2e3]
    found = read_one(states, carries)
    assert found.steps == 5 and found.slope == pytest.approx(-0.5)
    assert found.horizon == pytest.approx(12.0)


def test_a_gradient_that_is_gone_at_once_has_an_infinite_slope() -> None:
    found = read_one([-math.inf] * 6 + [-1.0, 0.0])
    assert found.slope == -math.inf and found.ratio == -math.inf and found.horizon == 0.0
    assert read_one([-math.inf] * 7 + [0.0]).slope == -math.inf


def test_a_gradient_that_lasts_some_steps_has_the_slope_of_those() -> None:
    assert read_one([-math.inf] * 8 + [-2.0, -1.5, -1.0, -0.5, 0.0]).slope == pytest.approx(-0.5)
    half = [-math.inf] * 4 + [-0.6, -0.4, -0.2, 0.0]  # no more than half of the steps are zero
    assert read_one(half).slope == pytest.approx(-0.2)
    assert read_one([-math.inf, *half[:4], *half[4:]]).slope == -math.inf
    unknown = [math.nan] * 6 + [-0.5, 0.0]  # not measured is not zero
    assert read_one(unknown).slope == pytest.approx(-0.5)
    assert read_one([math.nan] * 7 + [0.0]).slope == -math.inf


def test_five_steps_are_judged_and_four_are_not() -> None:
    assert read_one([0.0, 0.1, 0.2, 0.3, 0.4]).slope == pytest.approx(-0.1)
    short, long = [0.0] * 4, [0.0] * 5
    found = _time.read(build_trace({"a": (short, short), "b": (long, long), "c": ([-math.inf] * 9,) * 2}))
    assert [r.name for r in found] == ["b"]
    with pytest.raises(NotApplicable, match="five steps that get a gradient"):
        _time.read(build_trace({"a": (short, short)}))
    with pytest.raises(NotApplicable, match="nothing in the model is recurrent"):
        _time.read(build_trace({}))


def test_it_is_read_once() -> None:
    trace = build_trace({"a": ([0.0] * 5, [0.0] * 5)})
    assert _time.read(trace) is _time.read(trace)
