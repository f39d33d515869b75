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


def _build(ratios: Any, *, steps: int = 30, **columns: Any) -> Trace:
    """A run with these update ratios at its looks, (looks,) or (looks, layers); its loss stays at 1."""
    table = np.asarray(ratios, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    sites = tuple(Site.parameter(f"layer{i}", "Linear", {"dimensions": 2}) for i in range(table.shape[1]))
    with np.errstate(divide="ignore"):
        values = np.log(table)[:, :, None]
    usual: Any = {"step": np.arange(steps), "loss": [1.0] * steps, "lr": [0.1] * steps}
    usual["norm_log"] = [0.5] * steps
    facts: Any = {"live": True, "history": {**usual, **columns}}
    return Trace(sites, values, facts=facts, statistics=("update_log",))


def _judge(trace: Trace, **settings: float) -> Finding | None:
    found = rule("OPT002").check(trace, **settings)
    return found[0] if found else None


@pytest.mark.parametrize(("ratio", "fires"), [(1.1e-6, False), (0.9e-6, True)])
def test_a_millionth_is_too_short(ratio: float, fires: bool) -> None:
    assert (_judge(_build([ratio] * 5)) is not None) == fires
    assert (_judge(_build([ratio * 1e3] * 5), limit=1e-3) is not None) == fires


def test_the_finding_holds_the_largest_ratio_the_rate_and_the_norm() -> None:
    ratios = [[1e-8] * 6, [1e-8] * 6, [1e-8, 1e-8, 1e-8, 1e-8, 1e-8, 3e-8], [1e-9] * 6, [1e-9] * 6]
    found = _judge(_build(ratios, lr=[0.5] * 29 + [0.25], norm_log=[0.5] * 29 + [-0.5]))
    assert found is not None and found.severity == "warning" and found.direction == "vanishing"
    assert found.cause == "no step changes any weight by more than 3.0e-08 of it, and the loss does not fall"
    assert found.sites == tuple(f"layer{i}" for i in range(5))
    assert [e.value for e in found.evidence] == [pytest.approx(3e-8), 0.25, -0.5]
    assert found.evidence[0].limit == "> 1e-06" and found.weight == 3.0
    assert [(r.cure, r.safety) for r in found.remedies] == [("raise-learning-rate", "advice")]


def test_one_layer_that_moves_is_enough() -> None:
    assert _judge(_build([[SHORT, 1e-3]] * 5)) is None


def test_only_the_last_five_looks_count() -> None:
    assert _judge(_build([1e-3] + [SHORT] * 5)) is not None
    assert _judge(_build([1e-3] + [SHORT] * 4)) is None


def test_a_look_counts_if_one_layer_is_known() -> None:
    assert _judge(_build([[math.nan, math.nan], *[[SHORT, math.nan]] * 5])) is not None
    with pytest.raises(NotApplicable, match="fewer than 5 looks"):
        _judge(_build([[math.nan, math.nan], *[[SHORT, math.nan]] * 4]))


def test_steps_of_zero_and_a_rate_of_zero_have_words_of_their_own() -> None:
    found = _judge(_build([0.0] * 5))
    assert found is not None and found.cause.startswith("no weight changes at all")
    found = _judge(_build([0.0] * 5, lr=[0.0] * 30))
    assert found is not None and found.cause == "the learning rate is 0: no weight moves"


def test_a_loss_that_falls_is_no_fault() -> None:
    assert _judge(_build([SHORT] * 5, loss=np.linspace(1.0, 0.5, 30))) is None


@pytest.mark.parametrize(("fell", "fires"), [(99.0, True), (101.0, False)])
def test_a_gradient_a_hundredth_of_the_first_has_converged(fell: float, fires: bool) -> None:
    norms = np.full(30, -math.log(fell))
    norms[4] = 0.0  # the largest of the first five
    assert (_judge(_build([SHORT] * 5, norm_log=norms)) is not None) == fires
    norms[4], norms[5] = -math.log(fell), 0.0  # the sixth does not count
    assert _judge(_build([SHORT] * 5, norm_log=norms)) is not None


def test_the_last_known_norm_counts() -> None:
    norms: Sequence[float] = [0.0] * 28 + [-10.0, math.nan]
    assert _judge(_build([SHORT] * 5, norm_log=norms)) is None
    assert _judge(_build([SHORT] * 5, norm_log=[math.nan] * 30)) is not None


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("last", "fires"), [(0.9e-3, False), (1.1e-3, True)])
def test_a_loss_a_thousandth_of_the_first_is_solved(last: float, fires: bool, sign: float) -> None:
    losses = [sign] * 29 + [sign * last]
    assert (_judge(_build([SHORT] * 5, loss=losses)) is not None) == fires


def test_an_unknown_loss_does_not_fall() -> None:
    assert _judge(_build([SHORT] * 5, loss=[math.nan] * 30)) is not None


@pytest.mark.parametrize(("looks", "steps"), [(4, 30), (5, 19)])
def test_it_needs_five_looks_and_twenty_steps(looks: int, steps: int) -> None:
    with pytest.raises(NotApplicable, match="fewer than 5 looks at a step, or 20 steps"):
        _judge(_build([SHORT] * looks, steps=steps))
    assert _judge(_build([SHORT] * 5, steps=20)) is not None
