"""OPT002 on watched trainings written by hand: steps that are too short, and runs whose steps may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import Site, Trace
from unvanish.rules import rule

SHORT = 1e-8


def _build(ratio: Any, *, steps: int = 30, **columns: Any) -> Trace:
    """A run whose steps changed the weights by these ratios, the last of it; its loss stays at 1."""
    site = Site.parameter("layer", "Linear", {"dimensions": 2})
    known = np.atleast_1d(np.asarray(ratio, np.float64))
    with np.errstate(divide="ignore"):
        change = np.concatenate([np.full(steps, math.nan), np.log(known)])[-steps:]
    usual: Any = {"step": np.arange(steps), "loss": [1.0] * steps, "lr": [0.1] * steps, "update_log": change}
    usual |= {"norm_log": [0.5] * steps, "agree": [0.9] * steps}
    facts: Any = {"live": True, "history": {**usual, **columns}}
    return Trace((site,), np.zeros((1, 1, 1)), facts=facts, statistics=("update_log",))


def _judge(trace: Trace, **settings: float) -> Finding | None:
    found = rule("OPT002").check(trace, **settings)
    return found[0] if found else None


@pytest.mark.parametrize(("ratio", "fires"), [(1.1e-6, False), (0.9e-6, True)])
def test_a_millionth_is_too_short(ratio: float, fires: bool) -> None:
    assert (_judge(_build([ratio] * 16)) is not None) == fires
    assert (_judge(_build([ratio * 1e3] * 16), least=1e-3) is not None) == fires


def test_the_finding_holds_the_usual_ratio_the_direction_the_rate_and_the_norm() -> None:
    found = _judge(_build([SHORT] * 16, lr=[0.5] * 29 + [0.25], norm_log=[0.5] * 29 + [-0.5]))
    assert found is not None and found.severity == "warning" and found.direction == "vanishing"
    assert found.cause == "a step changes the weights by 1.0e-08 of them, and the loss hardly falls"
    assert found.sites == ("layer",)
    assert [e.value for e in found.evidence] == [pytest.approx(1e-8), 0.9, 0.25, -0.5]
    assert found.evidence[0].limit == "> 0.0001" and found.weight == 3.0
    assert [(r.cure, r.safety) for r in found.remedies] == [("raise-learning-rate", "advice")]


def test_the_last_sixteen_readings_count_and_one_that_moves_is_enough() -> None:
    assert _judge(_build([1e-3] + [SHORT] * 16)) is not None
    assert _judge(_build([SHORT] * 15 + [1e-3])) is None


def test_steps_of_zero_have_words_of_their_own_and_a_rate_of_zero_is_another_fault() -> None:
    found = _judge(_build([0.0] * 16))
    assert found is not None and found.cause.startswith("no weight changes at all")
    assert _judge(_build([0.0] * 16, lr=[0.0] * 30)) is None


def test_weights_that_get_no_gradient_any_more_are_no_matter_of_the_rate() -> None:
    ratios = [1e-3] * 4 + [0.0] * 16
    assert _judge(_build(ratios, still=[0.0] * 14 + [math.nan] * 16)) is None
    assert _judge(_build(ratios, still=[0.0] * 30)) is not None


def test_a_gradient_of_zero_is_mended_by_no_rate() -> None:
    assert _judge(_build([SHORT] * 16, norm_log=[-math.inf] * 30)) is None


@pytest.mark.parametrize(
    ("changed", "fires"),
    [
        ({}, True),
        ({"agree": [0.2] * 120}, False),  # it bounces, or is at its floor
        ({"loss": np.linspace(1.0, 0.85, 120)}, False),
        ({"loss": np.linspace(1.0, 0.95, 120)}, True),
        ({"lr": np.geomspace(1e-3, 1.0, 120)}, False),  # a rate that is on its way up
        ({"lr": np.geomspace(1.0, 1e-4, 120)}, False),  # one that has died
        ({"loss": [math.nan] * 120}, False),
    ],
)
def test_short_steps_that_keep_their_direction_are_too_short(changed: Any, fires: bool) -> None:
    assert (_judge(_build([5e-5] * 120, steps=120, **{"agree": [0.6] * 120, **changed})) is not None) == fires


@pytest.mark.parametrize(("ratio", "steps"), [(2e-4, 120), (5e-5, 99)])
def test_usual_steps_and_a_run_that_has_just_begun_are_left_alone(ratio: float, steps: int) -> None:
    assert _judge(_build([ratio] * steps, steps=steps)) is None


def test_a_loss_that_falls_is_no_fault() -> None:
    assert _judge(_build([SHORT] * 16, loss=np.linspace(1.0, 0.5, 30))) is None


@pytest.mark.parametrize(("fell", "fires"), [(99.0, True), (101.0, False)])
def test_a_gradient_a_hundredth_of_the_first_has_converged(fell: float, fires: bool) -> None:
    norms = np.full(30, -math.log(fell))
    norms[4] = 0.0  # the largest of the first five
    assert (_judge(_build([SHORT] * 16, norm_log=norms)) is not None) == fires
    norms[4], norms[5] = -math.log(fell), 0.0  # the sixth does not count
    assert _judge(_build([SHORT] * 16, norm_log=norms)) is not None


def test_the_last_known_norm_counts() -> None:
    norms: Sequence[float] = [0.0] * 28 + [-10.0, math.nan]
    assert _judge(_build([SHORT] * 16, norm_log=norms)) is None
    assert _judge(_build([SHORT] * 16, norm_log=[math.nan] * 30)) is not None


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("last", "fires"), [(0.9e-3, False), (1.1e-3, True)])
def test_a_loss_a_thousandth_of_the_first_is_solved(last: float, fires: bool, sign: float) -> None:
    losses = [sign] * 29 + [sign * last]
    assert (_judge(_build([SHORT] * 16, loss=losses)) is not None) == fires


def test_an_unknown_loss_does_not_fall() -> None:
    assert _judge(_build([SHORT] * 16, loss=[math.nan] * 30)) is not None


@pytest.mark.parametrize(("readings", "steps"), [(15, 30), (16, 19)])
def test_it_needs_sixteen_readings_and_twenty_steps(readings: int, steps: int) -> None:
    with pytest.raises(NotApplicable, match="fewer than 16 readings of weights, or 20 steps"):
        _judge(_build([SHORT] * readings, steps=steps))
    assert _judge(_build([SHORT] * 16, steps=20)) is not None
