"""Normalisations written out by hand, in the ways people write them and in ways that are none."""

from __future__ import annotations

from typing import Any

import pytest

from unvanish.theory.program.handwritten_norms import recognise_norms
from unvanish.theory.program.steps import Program, Step

FULL, ONE = (4, 10), (4, 1)


def _build(*steps: tuple[str, tuple[int, ...], Any], outputs: tuple[int, ...] = ()) -> Program:
    """Steps (kind, inputs, facts) whose outputs are numbered from 1; a sum leaves one number of ten."""
    made, shapes = [], {0: FULL}
    for number, (kind, inputs, facts) in enumerate(steps, 1):
        shape = ONE if kind in ("mean", "sum", "var", "std", "norm") else shapes[inputs[0]]
        shapes[number] = FULL if FULL in [shapes[i] for i in inputs] and shape != ONE else shape
        reads = tuple(shapes[i] for i in inputs)
        made.append(Step(kind, "", inputs, (number,), reads, (shapes[number],), facts))
    last = outputs or (len(steps),)
    return Program(tuple(made), {0: FULL}, {i: shapes[i] for i in last})


POWER = ("pow", (0,), {"settings": {"exponent": 2}})
SQUARE, MEAN = ("square", (0,), {}), ("mean", (1,), {})
EPS, ROOT = ("add", (2,), {"mean": 0.02}), ("rsqrt", (3,), {})


def _last(program: Program) -> Step:
    return recognise_norms(program).steps[-1]


@pytest.mark.parametrize(
    "square", [SQUARE, ("pow", (0,), {"settings": {"exponent": 2}}), ("mul", (0, 0), {})]
)
@pytest.mark.parametrize("inputs", [(0, 4), (4, 0)])
def test_an_rms_norm(square: Any, inputs: tuple[int, int]) -> None:
    program = _build(square, MEAN, EPS, ROOT, ("mul", inputs, {}))
    found = recognise_norms(program)
    assert [s.kind for s in found.steps] == ["aside"] * 4 + ["rms_norm"]
    step = found.steps[-1]
    assert step.inputs == (0,) and step.reads == (FULL,)
    assert step.facts == {"gain": 1.0, "shift": 0.0, "eps": 0.02, "elements": 10}


def test_division_by_the_root_of_a_sum_and_a_weight() -> None:
    steps = (SQUARE, ("sum", (1,), {}), EPS, ("sqrt", (3,), {}), ("mul", (0,), {"power": 0.3}))
    step = _last(_build(*steps, ("div", (5, 4), {})))
    assert step.kind == "rms_norm" and step.inputs == (0,)
    assert step.facts["gain"] == pytest.approx(0.3 * 0.1) and step.facts["eps"] == pytest.approx(0.002)
    assert _last(_build(*steps, ("div", (4, 5), {}))).kind == "div"
    assert _last(_build(*steps, ("mul", (5, 4), {}))).kind == "mul"


def test_division_by_a_norm_and_its_factor() -> None:
    step = _last(_build(("norm", (0,), {}), ("mul", (1,), {"power": 0.25}), ("div", (0, 2), {})))
    assert step.kind == "rms_norm" and step.facts["gain"] == pytest.approx(0.1 / 0.25)
    step = _last(_build(("norm", (0,), {}), ("add", (1,), {"mean": 0.5}), ("div", (0, 2), {})))
    assert step.facts["eps"] == pytest.approx((0.5 * 0.1) ** 2)
    inside = (SQUARE, MEAN, ("mul", (2,), {"power": 16.0}), ROOT, ("mul", (0, 4), {}))
    assert _last(_build(*inside)).facts["gain"] == pytest.approx(0.25)
    inverse = (("norm", (0,), {}), ("reciprocal", (1,), {}), ("mul", (2,), {"power": 4.0}))
    step = _last(_build(*inverse, ("mul", (0, 3), {})))
    assert step.kind == "rms_norm" and step.facts["gain"] == pytest.approx(0.1 * 4.0)
    power = ("pow", (3,), {"settings": {"exponent": -0.5}})
    assert _last(_build(SQUARE, MEAN, EPS, power, ("mul", (0, 4), {}))).kind == "rms_norm"


def test_a_layer_norm_in_its_forms() -> None:
    centre = (("mean", (0,), {}), ("sub", (0, 1), {}))
    own = (("square", (2,), {}), ("mean", (3,), {}), ("add", (4,), {"mean": 0.02}), ("rsqrt", (5,), {}))
    plain = recognise_norms(_build(*centre, *own, ("mul", (2, 6), {})))
    assert plain.steps[-1].kind == "layer_norm" and plain.steps[-1].inputs == (0,)
    deviation = (("std", (0,), {}), ("add", (3,), {"mean": 0.5}), ("div", (2, 4), {}))
    step = _last(_build(*centre, *deviation))
    assert step.kind == "layer_norm" and step.facts["eps"] == pytest.approx(0.25)
    variance = (("var", (0,), {}), ("sqrt", (3,), {}), ("div", (2, 4), {}))
    assert _last(_build(*centre, *variance)).kind == "layer_norm"
    with_mean = (*centre, ("std", (0,), {}), ("div", (0, 3), {}))
    assert _last(_build(*with_mean)).kind == "div"


def test_casts_and_views_do_not_hide_a_norm() -> None:
    cast = (("float", (0,), {}), ("square", (1,), {}), ("mean", (2,), {}), ("clamp", (3,), {}))
    step = _last(_build(*cast, ("rsqrt", (4,), {}), ("to", (0,), {}), ("mul", (6, 5), {})))
    assert step.kind == "rms_norm" and step.inputs == (0,)


@pytest.mark.parametrize(
    "steps",
    [
        (SQUARE, MEAN, EPS, ("sqrt", (3,), {}), ("mul", (0, 4), {})),
        (("abs", (0,), {}), MEAN, EPS, ROOT, ("mul", (0, 4), {})),
        (("pow", (0,), {"settings": {"exponent": 4}}), MEAN, EPS, ROOT, ("mul", (0, 4), {})),
        (
            ("tanh", (0,), {}),
            ("square", (1,), {}),
            ("mean", (2,), {}),
            ("rsqrt", (3,), {}),
            ("mul", (0, 4), {}),
        ),
        (SQUARE, MEAN, ("tanh", (2,), {}), ("rsqrt", (3,), {}), ("mul", (0, 4), {})),
        (SQUARE, MEAN, ("add", (2, 2), {}), ("rsqrt", (3,), {}), ("mul", (0, 4), {})),
        (("mean", (0,), {}), ("rsqrt", (1,), {}), ("mul", (0, 2), {})),
        (("mul", (0, 0), {}),),
    ],
)
def test_others_stay_as_they_are(steps: Any) -> None:
    program = _build(*steps)
    assert recognise_norms(program) is program


def test_steps_that_others_use_are_not_set_aside() -> None:
    steps = (SQUARE, MEAN, EPS, ROOT, ("mul", (0, 4), {}))
    found = recognise_norms(_build(*steps, outputs=(5, 2)))
    assert [s.kind for s in found.steps[1:]] == ["mean", "aside", "aside", "rms_norm"]
    used = recognise_norms(_build(*steps, ("tanh", (3,), {})))
    assert used.steps[2].kind == "add" and used.steps[3].kind == "aside"
