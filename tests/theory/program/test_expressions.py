"""Functions of one tensor written as several operations, against the same function in one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.theory.program.expressions import compose
from unvanish.theory.program.follow import predict
from unvanish.theory.program.steps import Program, Step

SHAPE = (4, 10**9)  # wide: nothing is lost to the width


def _build(*steps: tuple[str, tuple[int, ...], Any]) -> Program:
    made = [
        Step(kind, "", inputs, (n,), (SHAPE,) * len(inputs), (SHAPE,), facts)
        for n, (kind, inputs, facts) in enumerate(steps, 1)
    ]
    return Program(tuple(made), {0: SHAPE}, {len(steps): SHAPE})


def _number(kind: str, source: int, value: float) -> tuple[str, tuple[int, ...], Any]:
    return kind, (source,), {"number": value, "power": value**2, "mean": value}


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(100)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
FORMS: dict[str, Any] = {
    "silu": ((("sigmoid", (0,), {}), ("mul", (0, 1), {})), lambda x: x / (1 + np.exp(-x))),
    "shifted": (
        (_number("mul", 0, 0.5), _number("add", 1, 0.3), ("tanh", (2,), {})),
        lambda x: np.tanh(0.5 * x + 0.3),
    ),
    "negative": ((("neg", (0,), {}), ("tanh", (1,), {}), ("sub", (0, 2), {})), lambda x: x + np.tanh(x)),
    "quotient": (
        (("square", (0,), {}), _number("add", 1, 1.0), ("div", (0, 2), {})),
        lambda x: x / (x**2 + 1),
    ),
    "square": ((("tanh", (0,), {}), ("mul", (1, 1), {})), lambda x: np.tanh(x) ** 2),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("q", [0.4, 1.5])
def test_the_whole_function_has_its_gaussian_means(name: str, q: float) -> None:
    steps, function = FORMS[name]
    found = predict(_build(*steps), q, 0.5)
    x, last = math.sqrt(q) * NODES, found.signals[len(steps)]
    power = float(WEIGHTS @ function(x) ** 2)
    slope = (function(x + 1e-5) - function(x - 1e-5)) / 2e-5
    assert last.q == pytest.approx(power, rel=2e-3)
    assert last.mean == pytest.approx(float(WEIGHTS @ function(x)) / math.sqrt(power), rel=2e-3, abs=1e-4)
    other = math.sqrt(q) * (0.5 * NODES[:, None] + math.sqrt(0.75) * NODES)
    both = float(WEIGHTS @ (function(x)[:, None] * function(other)) @ WEIGHTS)
    assert last.samples == pytest.approx(both / power, abs=2e-3)
    assert math.exp(found.pulls[0].log) == pytest.approx(float(WEIGHTS @ slope**2), rel=5e-3)


def test_operands_of_two_tensors_are_not_one_function() -> None:
    program = Program(
        (Step("mul", "", (0, 1), (2,), (SHAPE,) * 2, (SHAPE,)),), {0: SHAPE, 1: SHAPE}, {2: SHAPE}
    )
    assert compose(program).steps == program.steps


@pytest.mark.parametrize(
    "steps",
    [
        (("tanh", (0,), {}),),
        (("add", (0, 0), {}),),
        (("identity", (0,), {}), ("tanh", (1,), {})),
        (("mul", (0,), {}), ("tanh", (1,), {})),
        (_number("sub", 0, 0.5), ("tanh", (1,), {})),
        (("maximum", (0, 0), {}),),
    ],
)
def test_what_needs_no_expression_stays(steps: Any) -> None:
    program = _build(*steps)
    assert compose(program).steps == program.steps


def test_a_function_is_followed_up_to_forty_operations() -> None:
    steps = [_number("mul", i, 1.0) for i in range(38)]
    assert compose(_build(*steps, ("tanh", (38,), {}))).steps[-1].kind == "composed"
    steps.append(_number("mul", 38, 1.0))
    assert compose(_build(*steps, ("tanh", (39,), {}))).steps[-1].kind == "tanh"


def test_other_shapes_are_not_composed() -> None:
    steps = (
        Step("sigmoid", "", (0,), (1,), ((4, 1),), ((4, 1),)),
        Step("mul", "", (0, 1), (2,), ((4, 1), (4, 1)), ((4, 5),)),
    )
    assert compose(Program(steps, {0: (4, 1)}, {2: (4, 5)})).steps == steps
