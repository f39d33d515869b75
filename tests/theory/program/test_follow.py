"""Whole programs: branches, several outputs, unknown operations and memories."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from unvanish.theory import recurrent
from unvanish.theory.program.follow import predict
from unvanish.theory.program.signal import Pull
from unvanish.theory.program.steps import Program, Step

SHAPE = (4, 20)


def _build(*steps: tuple[str, tuple[int, ...], Any], outputs: Any = None, batch: int = 1) -> Program:
    made = [
        Step(kind, "", inputs, (n,), (SHAPE,) * len(inputs), (SHAPE,), facts)
        for n, (kind, inputs, facts) in enumerate(steps, 1)
    ]
    return Program(tuple(made), {0: SHAPE}, outputs or {len(steps): SHAPE}, batch)


def _linear(inputs: int, total: float) -> tuple[str, tuple[int, ...], Any]:
    return "linear", (inputs,), {"taps": np.array([total]), "bias_power": 0.0, "bias_mean": 0.0}


def test_inputs_are_white_and_independent_by_default() -> None:
    found = predict(_build(_linear(0, 0.5)))
    assert found.signals[1].q == 0.5 and found.signals[1].samples == 0.0
    assert found.memories == {} and found.unknown == ()
    given = predict(_build(_linear(0, 0.5)), 0.2, 0.3).signals
    assert given[0].q == 0.2 and given[1].q == pytest.approx(0.1)
    assert (given[0].samples, given[0].positions, given[0].apart) == (0.3, 0.0, 0.3)


def test_a_residual_branch_adds_powers_and_gradients() -> None:
    found = predict(_build(_linear(0, 0.5), ("add", (0, 1), {}), batch=3))
    assert found.signals[2].q == pytest.approx(1.5)
    assert math.exp(found.pulls[0].log) == pytest.approx(1 + 0.5 * math.exp(-1 / 60))
    assert found.pulls[2].log == 0.0


def test_a_unit_cotangent_is_spread_over_the_outputs_by_their_sizes() -> None:
    outputs = {1: (1, 10), 2: (3, 10), 7: (0, 3)}
    pulls = predict(_build(_linear(0, 0.5), _linear(0, 0.5), outputs=outputs)).pulls
    assert (math.exp(pulls[1].log), math.exp(pulls[2].log)) == pytest.approx((0.25, 0.75))
    assert math.exp(pulls[0].log) == pytest.approx(0.5 * math.exp(-1 / 20)) and 7 not in pulls
    assert predict(_build(_linear(0, 0.5), outputs={5: (0,)})).pulls == {}


def test_an_unknown_operation_is_an_identity_and_reported_once() -> None:
    found = predict(_build(("fold", (0, 0), {}), ("fold", (1,), {}), ("dropout", (2,), {})))
    assert found.unknown == ("fold",) and found.signals[3].q == 1.0
    assert math.exp(found.pulls[0].log) == pytest.approx(1.0)
    first = predict(_build(_linear(0, 0.5), ("fold", (0, 1), {}))).pulls
    assert first[0].log == 0.0 and first[1].log == -math.inf
    third = predict(_build(_linear(0, 0.5), _linear(0, 0.5), ("fold", (0, 1, 2), {}))).pulls
    assert third[0].log == 0.0 and third[2].log == -math.inf


def test_what_no_output_reads_gets_no_gradient() -> None:
    found = predict(_build(_linear(0, 0.5), _linear(0, 0.25), outputs={2: SHAPE}))
    assert 1 not in found.pulls
    assert found.pulls[0].log == pytest.approx(math.log(0.25) - 1 / 20)


def test_sources_without_inputs_are_white_and_silent() -> None:
    found = predict(_build(("randn", (), {}), ("relu", (), {}), ("embedding", (), {"table_power": 0.3})))
    assert found.unknown == () and found.signals[1].q == found.signals[2].q == 1.0
    assert found.signals[3].q == 0.3


def test_every_piece_of_a_split_has_the_same_signal() -> None:
    steps = (
        Step("chunk", "", (0,), (1, 2), (SHAPE,), ((4, 10), (4, 10))),
        Step("fold", "", (0,), (3, 4), (SHAPE,), ((4, 10), (4, 10))),
    )
    found = predict(Program(steps, {0: SHAPE}, {1: (4, 10), 2: (4, 10), 3: (4, 20)}), 0.3)
    assert [found.signals[i].q for i in (1, 2, 3, 4)] == [0.3] * 4
    assert isinstance(found.pulls[0], Pull) and found.pulls[0].log == pytest.approx(0.0)


def test_memories_are_kept_by_the_first_output() -> None:
    cell = recurrent.default_cell("rnn", 8, 8)
    step = Step("rnn_tanh", "", (0,), (1, 2), ((4, 6, 8),), ((4, 6, 8), (1, 4, 8)),
                {"cells": [cell], "steps": 6})  # fmt: skip
    found = predict(Program((step,), {0: (4, 6, 8)}, {1: (4, 6, 8)}))
    assert list(found.memories) == [1] and len(found.memories[1]) == 1
    assert found.pulls[0].log == pytest.approx(found.memories[1][0].through)
