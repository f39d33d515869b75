"""Readings of a watched training: its columns, what moved, whether its loss falls, whether it converged."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import NotApplicable
from unvanish.core.trace import Site, Trace
from unvanish.rules import _history
from unvanish.rules._converged import has_converged
from unvanish.rules._learning import falls, learns
from unvanish.rules._scatter import measure_scatter


def _build_run(loss: Any, *, norms: Any = (), start: Any = (), live: bool = True) -> Trace:
    columns: Any = {"loss": np.asarray(loss, np.float64), "norm_log": np.asarray(norms, np.float64)}
    facts: Any = {"live": live, "history": columns, "start": list(start)}
    return Trace((), np.zeros((1, 0, 1)), facts=facts, statistics=("update_log",))


def _build_fall(last: float, steps: int = 40) -> Any:
    """A loss of 1 in the first half, and of `last` in the second."""
    return np.where(np.arange(steps) < steps // 2, 1.0, last)


def test_columns_of_the_steps() -> None:
    trace = _build_run([1, 2, 3])
    assert _history.read_steps(trace, "loss").tolist() == [1.0, 2.0, 3.0]
    assert _history.read_steps(trace, "lr").size == 0
    with pytest.raises(NotApplicable, match="under watch"):
        _history.read_steps(Trace((), np.zeros((1, 0, 1)), statistics=("update_log",)), "loss")


def test_weights_have_two_dimensions_or_more() -> None:
    sites = [Site.parameter(f"p{d}", "Linear", {"dimensions": d}) for d in range(5)]
    sites += [Site.parameter("unknown", "Linear", {}), Site.node("n", "linear", 0, {})]
    trace = Trace(tuple(sites), np.zeros((1, 7, 1)), statistics=("update_log",))
    assert _history.find_weights(trace) == [2, 3, 4]


def test_looks_of_some_sites() -> None:
    sites = tuple(Site.parameter(f"p{i}", "Linear", {}) for i in range(3))
    values = np.arange(12.0).reshape(2, 3, 2)
    trace = Trace(sites, values, statistics=("norm_log", "update_log"))
    assert _history.read_looks(trace, [2, 0], "update_log").tolist() == [[5.0, 1.0], [11.0, 7.0]]


def test_medians_leave_out_what_is_not_finite() -> None:
    nan, inf = math.nan, math.inf
    found = _history.take_medians(
        np.array([[1.0, 2.0, 9.0], [nan, 4.0, 6.0], [nan, inf, -inf], [inf, 3.0, nan]])
    )
    assert found[[0, 1, 3]].tolist() == [2.0, 5.0, 3.0] and math.isnan(found[2])
    assert np.isnan(_history.take_medians(np.full((2, 1), nan))).all()


def test_the_scatter_of_normal_numbers_is_their_deviation_and_outliers_do_not_move_it() -> None:
    values = np.random.default_rng(0).normal(5.0, 3.0, 100_000)
    assert measure_scatter(values, 5.0) == pytest.approx(3.0, rel=0.01)
    values[::10] = 1e6
    assert measure_scatter(values, 5.0) == pytest.approx(3.0, rel=0.2)
    assert measure_scatter(np.array([1.0, 2.0, 4.0]), 2.0) == pytest.approx(1.4826)


@pytest.mark.parametrize(("last", "expected"), [(0.9985, True), (0.9995, False), (1.0, False), (1.5, False)])
def test_a_loss_falls_by_a_thousandth_at_least(last: float, expected: bool) -> None:
    assert falls(_build_fall(last, 30)) == expected
    assert falls(_build_fall(last, 30) - 2.0) == expected  # of its size, whatever its sign


@pytest.mark.parametrize(("fall", "expected"), [(0.49, False), (0.51, True)])
def test_a_noisy_loss_falls_by_half_its_scatter(fall: float, expected: bool) -> None:
    noise = np.tile([-0.1, 0.0, 0.1], 10)  # a scatter of 0.14826
    assert falls(1.0 + noise - fall * 0.14826 * (np.arange(30) >= 20)) == expected


def test_the_first_and_the_last_third_are_compared() -> None:
    assert falls(np.repeat([2.0, 9.0, 1.0], 10)) and falls(np.repeat([2.0, 0.1, 1.0], 10))
    assert not falls(np.repeat([2.0, 0.1, 3.0], 10))
    assert falls(np.repeat([2.0, 3.0, 2.5, 1.0, 1.0, 1.0], [9, 1, 8, 1, 1, 10]))


def test_a_loss_of_few_steps_is_believed_to_fall_and_an_unknown_one_is_not() -> None:
    assert falls(np.ones(19)) and falls(np.ones(1)) and not falls(np.ones(20))
    assert not falls(np.zeros(0)) and not falls(np.full(30, math.nan))
    assert falls(np.concatenate([np.ones(19), np.full(30, math.nan)]))


def test_a_long_run_learns_if_it_is_below_its_first_steps() -> None:
    flat = np.ones(60)
    assert not learns(_build_run(flat))
    assert learns(_build_run(flat, start=[2.0] * 7)) and not learns(_build_run(flat, start=[2.0] * 6))
    assert not learns(_build_run(flat, start=[1.0] * 7)) and not learns(_build_run(flat, start=[0.5] * 7))
    assert learns(_build_run(_build_fall(0.5), start=[0.1] * 7))
    # the last twice as many steps, so that the third of the start is the first third
    late = np.concatenate([np.full(40, 0.5), np.full(20, 1.0)])
    assert learns(_build_run(np.where(np.arange(60) < 40, 3.0, 1.9), start=[2.0] * 10))
    assert not learns(_build_run(late, start=[0.9] * 10))


@pytest.mark.parametrize(("last", "expected"), [(0.09, True), (0.11, False), (0.95, False)])
def test_a_run_has_converged_if_its_loss_fell_tenfold(last: float, expected: bool) -> None:
    assert has_converged(_build_run(_build_fall(last))) == expected
    assert has_converged(_build_run(-_build_fall(last))) == expected  # its size counts
    assert not has_converged(_build_run(_build_fall(last), live=False))


@pytest.mark.parametrize(("last", "fell", "expected"), [
    (0.89, 101.0, True), (0.89, 99.0, False), (0.91, 101.0, False), (0.89, 0.001, False),
])  # fmt: skip
def test_a_lower_loss_is_enough_if_the_gradient_fell_a_hundredfold(
    last: float, fell: float, expected: bool
) -> None:
    norms = np.log(_build_fall(1 / fell))
    assert has_converged(_build_run(_build_fall(last), norms=norms)) == expected


def test_the_gradient_is_judged_by_the_medians_of_ten_known_steps() -> None:
    loss, norms = _build_fall(0.5), np.concatenate([np.zeros(6), np.full(28, -6.0), np.full(6, -12.0)])
    assert has_converged(_build_run(loss, norms=norms))
    norms = np.concatenate([np.zeros(4), np.full(32, -6.0), np.full(4, -12.0)])
    assert not has_converged(_build_run(loss, norms=norms))
    norms = np.concatenate([np.full(20, math.nan), np.zeros(10), np.full(20, -6.0)])
    assert has_converged(_build_run(_build_fall(0.5, 50), norms=norms))
    norms[20] = math.nan  # 29 are known
    assert not has_converged(_build_run(_build_fall(0.5, 50), norms=norms))


def test_a_loss_that_rose_again_has_not_converged() -> None:
    level = np.repeat([1.0, 0.02, 0.029], 20)
    assert has_converged(_build_run(level))
    assert has_converged(_build_run(np.repeat([1.0, 0.02, 0.0309], 20)))  # a thousandth of the first is slack
    assert not has_converged(_build_run(np.repeat([1.0, 0.02, 0.0311], 20)))


def test_the_lowest_loss_is_looked_for_at_every_fifth_step() -> None:
    loss = np.full(60, 0.08)
    loss[:10], loss[25:35] = 1.0, 0.01  # ten steps, found from step 25
    assert not has_converged(_build_run(loss))
    loss[25:35], loss[26:30] = 0.08, 0.01  # four steps are no median
    assert has_converged(_build_run(loss))


def test_thirty_steps_must_be_known() -> None:
    loss = np.concatenate([np.ones(15), np.full(15, 0.01)])
    assert has_converged(_build_run(loss))
    assert not has_converged(_build_run(loss[1:]))
    loss[3] = math.nan
    assert not has_converged(_build_run(loss))
    assert not has_converged(_build_run(np.zeros(0)))


def test_the_first_losses_of_a_long_run_are_those_of_its_start() -> None:
    flat = np.full(60, 0.05)
    assert not has_converged(_build_run(flat))
    assert has_converged(_build_run(flat, start=[-1.0] * 10 + [0.01] * 20))  # of these the first ten
    assert not has_converged(_build_run(flat, start=[0.4] * 10))


def test_converged_is_a_loss_that_fell_and_stayed() -> None:
    fallen = [2.0 * 0.9**k + 0.01 for k in range(80)]
    flat = [1.0] * 80
    assert has_converged(_build_run(fallen, norms=np.log(flat)))
    assert not has_converged(_build_run(flat, norms=np.log(flat)))
    assert not has_converged(
        _build_run([*fallen, *[1.5] * 10], norms=np.log([*flat, *[1e-9] * 10]))
    )  # it broke
    assert not has_converged(_build_run(flat, norms=np.log([0.7**k for k in range(80)])))  # a layer died
    half = [1.0 + 0.9**k for k in range(80)]
    assert has_converged(_build_run(half, norms=np.log([0.9**k for k in range(80)])))
    assert not has_converged(_build_run(half, norms=np.log(flat)))


def test_a_long_run_that_learned_before_the_window_still_learns() -> None:
    level = [0.5 + 0.01 * (k % 3) for k in range(300)]
    assert not learns(_build_run(level, norms=np.log(level)))
    assert learns(_build_run(level, norms=np.log(level), start=[2.3] * 20))
