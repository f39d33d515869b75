"""ACT001 on traces written by hand: which activations are flat, how bad it is, and the reason."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.diagnosis import Finding, NotApplicable
from unvanish.core.trace import STATISTICS, Axis, Site, Trace
from unvanish.rules import rule
from unvanish.rules._tiers import MEASURED, SLOW

Row = tuple[Site, dict[str, float]]


def _build_trace(rows: list[Row], axis: tuple[int, ...] | None = None) -> Trace:
    """Sites on one axis, from the loss to the input; all of them, unless `axis` names some."""
    values = np.full((1, len(rows), len(STATISTICS)), np.nan)
    for i, (_, numbers) in enumerate(rows):
        for name, number in numbers.items():
            values[0, i, list(STATISTICS).index(name)] = number
    places = tuple(range(len(rows))) if axis is None else axis
    return Trace(tuple(site for site, _ in rows), values, (Axis("x", "depth", places),))


def _tanh(name: str, share: float, order: int = 0, cut: bool = True, **more: Any) -> Row:
    numbers = {"saturated": share, "pinned": 0.0, "slope_sq": 0.04, **more.pop("numbers", {})}
    facts: Any = {"squashing": True, "cut": cut, "family": "activation", "order": order, **more}
    return Site.node(name, "tanh", 0, facts), numbers


def _linear(name: str, gain_log: float, **numbers: float) -> Row:
    facts: Any = {"family": "layer", "cut": True, "simple": True, "row_layers": 1}
    return Site.node(name, "linear", 0, facts), {"weight_log": gain_log, **numbers}


def _judge(rows: list[Row], axis: tuple[int, ...] | None = None, **settings: float) -> Finding:
    (found,) = rule("ACT001").check(_build_trace(rows, axis), **settings)
    return found


def test_a_share_at_the_limit_is_healthy_and_one_above_it_is_not() -> None:
    assert rule("ACT001").check(_build_trace([_tanh("a", 0.5)])) == []
    assert _judge([_tanh("a", 0.51)]).severity == "warning"
    assert rule("ACT001").check(_build_trace([_tanh("a", 0.8)]), limit=0.8) == []
    assert _judge([_tanh("a", 0.8)], limit=0.79).evidence[0].limit == "< 0.79"


@pytest.mark.parametrize(
    "row",
    [
        _tanh("the output", 0.9, output=True),
        _tanh("a gate", 0.9, cut=False),
        _tanh("not measured", math.nan),
        _tanh("not squashing", 0.9, squashing=False),
    ],
)
def test_what_is_not_on_the_axis_or_unknown_is_not_judged(row: Row) -> None:
    with pytest.raises(NotApplicable, match="no squashing activation"):
        rule("ACT001").check(_build_trace([row]))


def test_the_worst_comes_first_and_the_rest_is_counted() -> None:
    found = _judge([_tanh("a", 0.6, 3), _tanh("b", 0.9, 2), _tanh("c", 0.1, 1), _tanh("d", 0.7, 0)])
    assert found.sites == ("b", "d", "a")
    assert found.cause.startswith("90% of the tanh units of b ")
    assert [(e.value, e.unit) for e in found.evidence] == [
        (0.9, ""),
        (pytest.approx(0.2), ""),
        (3, "of 4"),
    ]
    assert found.direction == "vanishing"
    assert found.weight == SLOW.weigh(0.9)
    assert all(remedy.targets == found.sites for remedy in found.remedies)


def test_a_slope_of_zero_is_reported_as_zero() -> None:
    assert _judge([_tanh("a", 1.0, numbers={"slope_sq": 0.0})]).evidence[1].value == 0.0


@pytest.mark.parametrize(
    ("pinned", "gain", "words", "cure"),
    [
        (0.25, 0.7, "what they are given is too large", "reinitialise"),
        (0.25, 0.71, "too large (gain 2.03)", "reinitialise"),
        (0.26, 0.71, "the biases hold them there", "zero-bias"),
        (0.26, 1.0, "the biases hold them there", "zero-bias"),
        (0.26, 1.01, "too large (gain 2.75)", "reinitialise"),
        (0.26, math.nan, "the biases hold them there", "zero-bias"),
        (0.0, math.nan, "what they are given is too large", "reinitialise"),
    ],
)
def test_the_reason_is_read_off_the_layer_before(pinned: float, gain: float, words: str, cure: str) -> None:
    above = _linear("after", 3.0)
    found = _judge([above, _tanh("a", 0.9, numbers={"pinned": pinned}), _linear("before", gain)])
    assert words in found.cause
    assert found.remedies[0].cure == cure


def test_the_reason_is_that_of_the_first_flat_activation_and_of_the_nearest_layer() -> None:
    rows = [
        _tanh("last", 0.95, order=5),
        _linear("l2", 0.0),
        _tanh("first", 0.6, order=1),
        _linear("l1", math.log(5.0)),
        _linear("l0", math.log(9.0)),
    ]
    assert "(gain 5)" in _judge(rows).cause


def test_an_operation_between_that_is_no_layer_is_passed_over() -> None:
    norm = Site.node("norm", "layer_norm", 0, {"family": "norm", "cut": True}), {"weight_log": 4.0}
    assert "(gain 5)" in _judge([_tanh("a", 0.9), norm, _linear("l", math.log(5.0))]).cause


def test_the_layer_before_is_unknown_off_the_main_axis() -> None:
    rows = [_linear("l1", 3.0), _linear("l0", 3.0), _tanh("aside", 0.9)]
    assert "what they are given" in _judge(rows, axis=(0, 1)).cause


@pytest.mark.parametrize(
    ("loss", "severity", "direction"),
    [
        (-2.9, "warning", "vanishing"),
        (-4.0, "error", "vanishing"),
        (2.9, "warning", "vanishing"),
        (4.0, "error", "exploding"),
    ],
)
def test_a_gradient_out_of_bounds_makes_it_an_error(loss: float, severity: str, direction: str) -> None:
    """Three layers behind the output layer: the trend over them is `loss` nats in all."""
    rows = [_linear("out", 0.0, backward_log=0.0)]
    for k in range(3):
        row = _linear(f"l{k}", 0.0, backward_log=loss * k / 2)
        rows.append(row)
    rows.append(_tanh("a", 0.9, numbers={"backward_log": 1.5 * loss}))
    found = _judge(rows)
    assert (found.severity, found.direction) == (severity, direction)
    assert found.weight == pytest.approx(MEASURED.weigh(abs(loss)) if severity == "error" else 3.9)
