"""OPT003 on watched trainings written by hand: how far out, and how often, a gradient spikes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import Trace
from unvanish.rules import rule

STEPS = 100


def _build(norms: Any, first: int = 0) -> Trace:
    steps = np.arange(first, first + len(norms), dtype=np.float64)
    facts: Any = {"history": {"step": steps, "norm_log": np.asarray(norms, np.float64)}}
    return Trace((), np.zeros((1, 0, 1)), facts=facts, statistics=("update_log",))


def _build_norms(size: float, at: Iterable[int] = (50, 60, 70), steps: int = STEPS) -> Any:
    """ln of norms of 1 with spikes of this ln."""
    norms = np.zeros(steps)
    norms[list(at)] = size
    return norms


def _judge(norms: Any, first: int = 0, **settings: Any) -> Finding | None:
    found = rule("OPT003").check(_build(norms, first), **settings)
    return found[0] if found else None


def test_the_finding_holds_the_count_the_size_and_the_last_step() -> None:
    norms = _build_norms(math.log(50.0))
    norms[60] = math.log(100.0)
    found = _judge(norms)
    assert found is not None and found.severity == "warning" and found.direction == "exploding"
    assert found.cause == (
        "3 of the last 75 gradients are spikes, up to 100 times the usual norm (the last at step 70)"
    )
    count, factor, deviations = found.evidence
    assert (count.value, count.unit, count.limit) == (3, "of 75 steps", "< 3")
    assert factor.value == pytest.approx(100.0)
    assert deviations.value == pytest.approx(math.log(100.0) / 0.1) and deviations.limit == "< 8"
    assert found.weight == 4.0
    assert [(r.cure, r.safety) for r in found.remedies] == [
        ("zclip", "exact"), ("adaptive-clip", "exact"), ("lower-learning-rate", "advice"),
    ]  # fmt: skip


@pytest.mark.parametrize(("factor", "fires"), [(9.9, False), (10.1, True)])
def test_a_quiet_run_spikes_at_ten_times_the_median(factor: float, fires: bool) -> None:
    norms = _build_norms(math.log(factor))
    assert (_judge(norms) is not None) == fires
    assert (_judge(norms + 5.0) is not None) == fires  # whatever the scale of the loss


@pytest.mark.parametrize(("deviations", "fires"), [(7.9, False), (8.1, True)])
def test_a_noisy_run_spikes_at_eight_deviations(deviations: float, fires: bool) -> None:
    norms = np.tile([-0.4, 0.0, 0.4], 34)[:STEPS]  # median 0, a median distance of 0.4
    norms[[51, 60, 69]] = deviations * 1.4826 * 0.4
    found = _judge(norms)
    assert (found is not None) == fires
    if found:
        assert found.evidence[2].value == pytest.approx(8.1)
        assert _judge(norms, deviations=9.0) is None


@pytest.mark.parametrize(("quiet", "fires"), [(0.79, False), (0.81, True)])
def test_a_run_without_noise_has_a_scatter_of_a_tenth(quiet: float, fires: bool) -> None:
    norms = _build_norms(math.log(10.0) * 1.05)  # 24.2 times 0.1
    assert (_judge(norms, deviations=24.18 / quiet * 0.8) is not None) == fires


def test_three_spikes_are_a_fault() -> None:
    assert _judge(_build_norms(5.0, (50, 60))) is None
    assert _judge(_build_norms(5.0, (50, 60, 99))) is not None


def test_low_norms_are_no_spikes() -> None:
    assert _judge(_build_norms(-5.0)) is None


def test_the_first_twenty_five_steps_do_not_count() -> None:
    assert _judge(_build_norms(5.0, (24, 60, 70))) is None
    assert _judge(_build_norms(5.0, (25, 60, 70))) is not None
    assert _judge(_build_norms(5.0, (1, 60, 70)), first=25) is not None  # a run whose start left the window


def test_only_the_window_counts() -> None:
    assert _judge(_build_norms(5.0, (50, 250, 260), 300)) is None
    assert _judge(_build_norms(5.0, (50, 250, 260), 300), window=250) is not None
    assert _judge(_build_norms(5.0, (100, 250, 260), 300)) is not None


@pytest.mark.parametrize(("steps", "known"), [(74, False), (75, True)])
def test_fifty_steps_must_follow_the_first(steps: int, known: bool) -> None:
    norms = _build_norms(5.0, (50, 60, 70), steps)
    if known:
        assert _judge(norms) is not None
    else:
        with pytest.raises(NotApplicable, match="fewer than 50 steps after the first 25"):
            _judge(norms)


def test_unknown_norms_are_left_out() -> None:
    norms = _build_norms(5.0)
    norms[[30, 31]] = math.nan, math.inf
    found = _judge(norms)
    assert found is not None and found.evidence[0].unit == "of 73 steps"


def test_an_empty_run_is_not_judged() -> None:
    with pytest.raises(NotApplicable, match="fewer than 50"):
        _judge(np.zeros(0))
