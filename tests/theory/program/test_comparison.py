"""A prediction against a trace: chains of linear layers whose gains are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.core.trace import STATISTICS, Axis, Site, Trace
from unvanish.theory.program.comparison import Comparison, Sketch, compare
from unvanish.theory.program.steps import Program, Step

SHAPE = (4, 10**9)
NAMES = list(STATISTICS)


def _build(decades: list[float], gains: list[float] | None = None, rms: float = 1.0) -> tuple[Trace, Sketch]:
    """A chain whose rows gain these decades as measured, and `gains` in theory, from the loss."""
    count = len(decades)
    known = gains or [10.0**d for d in decades]
    steps = tuple(
        Step("linear", "", (n,), (n + 1,), (SHAPE,), (SHAPE,),
             {"taps": np.array([known[count - 1 - n] ** 2]), "bias_power": 0.0, "bias_mean": 0.0})
        for n in range(count)
    )  # fmt: skip
    sites = [Site.node(f"layer{n}", "linear", 0, {}) for n in range(count + 1)]
    sites.append(Site.input("input", {"floating": True}))
    values = np.full((1, len(sites), len(NAMES)), np.nan)
    logs = np.concatenate([[0.0], np.cumsum(decades)]) * math.log(10)
    values[0, : count + 1, NAMES.index("backward_log")] = logs
    values[0, -1, NAMES.index("forward_rms")] = rms
    axis = Axis("input", "depth", tuple(range(count + 1)))
    sketch = Sketch(Program(steps, {0: SHAPE}, {count: SHAPE}), {n: (count - n,) for n in range(count + 1)})
    return Trace(tuple(sites), values, (axis,)), sketch


def test_a_chain_as_predicted_has_no_rows_apart() -> None:
    found = Comparison(*_build([-0.3, 0.2, -0.1]))
    assert found["measured"] == pytest.approx(-0.2) and found["predicted"] == pytest.approx(-0.2, abs=1e-6)
    assert found["apart"] == () and len(found) == 3 and set(found) == {"predicted", "measured", "apart"}
    assert "measured" in repr(found)


def test_up_to_three_rows_apart_the_worst_first() -> None:
    found = compare(*_build([-0.49, 0.51, -0.9, 1.2, -0.7], [1.0] * 5))
    assert [row[2] for row in found["apart"]] == pytest.approx([1.2, -0.9, -0.7])
    assert found["apart"][0][0] == "layer3" and found["apart"][0][1] == pytest.approx(0.0, abs=1e-6)
    assert len(compare(*_build([-0.49, 0.51], [1.0] * 2))["apart"]) == 1


def test_a_row_is_apart_by_the_difference_not_by_its_size() -> None:
    found = compare(*_build([2.0, -2.0, 1.5, 1.2], [10**1.9, 10**-1.8, 10**-0.2, 10**0.4]))
    assert [row[2] for row in found["apart"]] == pytest.approx([1.5, 1.2])


@pytest.mark.parametrize("rms", [math.nan, math.inf, 0.0])
def test_without_a_measured_input_there_is_no_comparison(rms: float) -> None:
    assert compare(*_build([-0.3, 0.2], rms=rms)) == {}
    assert compare(*_build([-0.3, 0.2], rms=0.1)) != {}


def test_too_few_known_rows_make_no_comparison() -> None:
    trace, sketch = _build([-0.3, 0.2, -0.1, 0.1])
    known: dict[int, Any] = dict(sketch.tensors)
    some = Sketch(sketch.program, {n: known[n] for n in range(4)})
    assert compare(trace, some)["measured"] == pytest.approx(-0.2)
    assert compare(trace, Sketch(sketch.program, {n: known[n] for n in range(3)})) == {}
    assert compare(*_build([-0.3, 0.2])) and compare(*_build([-0.3])) == {}
    assert compare(Trace(trace.sites, trace.values), sketch) == {}


def test_a_vanished_gradient_is_not_compared() -> None:
    trace, sketch = _build([-0.3, 0.2])
    trace.values[0, 2, NAMES.index("backward_log")] = -math.inf
    assert compare(trace, sketch) == {}


def test_the_gradients_of_several_tensors_are_taken_together() -> None:
    trace, sketch = _build([0.0, 0.0, 0.0], [1.0] * 3)
    found = compare(trace, Sketch(sketch.program, {0: (3,), 1: (2,), 2: (1,), 3: (0, 1)}))
    assert found["predicted"] == pytest.approx(0.5 * math.log10(2), abs=1e-6)


def test_what_the_theory_does_not_cover_is_empty() -> None:
    trace, sketch = _build([-0.3, 0.2])
    broken = sketch.program.steps[0]._replace(kind="tanh", facts={"settings": {"slant": 1.0}})
    bad = Program((broken, *sketch.program.steps[1:]), sketch.program.inputs, sketch.program.outputs)
    found = Comparison(trace, Sketch(bad, sketch.tensors))
    assert len(found) == 0 and list(found) == []
