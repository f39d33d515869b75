"""Layers with weights: sums of squared taps over positions, both ways, and their loss at finite width."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from unvanish.theory import recurrent
from unvanish.theory.convolution import Geometry
from unvanish.theory.program.layers import LAYERS, width
from unvanish.theory.program.signal import Pull, Signal
from unvanish.theory.program.steps import Step

Shape = tuple[int, ...]
BIAS = {"bias_power": 0.1, "bias_mean": 0.0}


def _run(
    kind: str, read: Shape, make: Shape, x: Signal, batch: int = 1, **facts: Any
) -> tuple[list[Signal], Any]:
    return LAYERS[kind](Step(kind, "", (0,), (1,), (read,), (make,), facts), [x], batch)


def test_width_counts_features_and_at_most_nine_independent_positions() -> None:
    assert (width((4, 20)), width((4, 7, 20)), width(()), width((4, 0))) == (20.0, 20.0, 1.0, 1.0)
    assert width((4, 20, 2, 2)) == 80.0 and width((4, 20, 5, 5)) == 180.0 and width((4, 20, 1, 2, 2)) == 80.0
    assert width((4, 20, 2, 2), 0.5) == pytest.approx(80 / 1.75) and width((4, 20, 2, 2), 1.0) == 20.0


def test_a_linear_layer_multiplies_by_its_squared_weights() -> None:
    x = Signal(np.array([0.1, 0.3]), 0.5, mean=0.4)
    (made,), back = _run("linear", (4, 20), (4, 30), x, 4, taps=np.array([0.2, 0.3]), **BIAS)
    assert made.power.shape == () and made.q == pytest.approx(0.2)
    assert made.samples == pytest.approx(0.75) and made.mean == 0.0
    (pull,) = back([Pull(1.0, np.array([1.0, 2.0]), 0.3, winners=4)])
    assert pull.log == pytest.approx(1 + math.log(0.5) - 1 / 80)
    assert (pull.share.shape, pull.winners, pull.alike) == ((), 1, 0.3)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_convolution_maps_powers_and_gradients_by_position(transposed: bool) -> None:
    rng = np.random.default_rng(0)
    taps, large, small = rng.random((3, 3)), (5, 5), (3, 3)
    geometry = Geometry((2, 2), ((1, 1), (1, 1)), (1, 1))
    read, make = (small, large) if transposed else (large, small)
    power, share = rng.random(read), rng.random(make)
    kind = "conv_transpose2d" if transposed else "conv2d"
    join = functional.conv_transpose2d if transposed else functional.conv2d
    x = torch.from_numpy(power)[None, None].requires_grad_()
    out = join(x, torch.from_numpy(taps)[None, None], stride=2, padding=1)
    shapes = (4, 6, *read), (4, 7, *make)
    given = Signal(power, 0.5, mean=0.4, squares=0.1)
    (made,), back = _run(kind, *shapes, given, 4, taps=taps, geometry=geometry, **BIAS)
    assert made.power == pytest.approx(out[0, 0].detach().numpy() + 0.1)
    assert made.mean == 0.0 and made.squares is None
    (want,) = torch.autograd.grad(out, x, torch.from_numpy(share / share.sum())[None, None])
    (pull,) = back([Pull(2.0, share, 0.3)])
    lost = 1 / (width(shapes[0], 0.3) * 4)
    assert pull.log == pytest.approx(2 + math.log(float(want.sum())) - lost) and pull.alike == 0.3
    assert pull.share == pytest.approx((want / want.sum())[0, 0].numpy())
    (flat,), _ = _run(kind, *shapes, Signal(np.array(0.2)), 4, taps=taps, geometry=geometry, **BIAS)
    even = join(torch.full_like(x, 0.2), torch.from_numpy(taps)[None, None], stride=2, padding=1)
    assert flat.power == pytest.approx(even[0, 0].numpy() + 0.1)
    zero = dict(taps=0 * taps, geometry=geometry, bias_power=0.0, bias_mean=0.0)
    assert _run(kind, *shapes, given, 4, **zero)[1]([Pull(0.0)])[0].log == -math.inf


def test_an_embedding_gives_independent_rows_and_no_gradient() -> None:
    (made,), back = _run("embedding", (4, 5), (4, 5, 8), Signal(samples=0.5), table_power=0.3)
    assert (made.q, made.samples, made.positions) == (0.3, 0.0, 0.0) and back([Pull(0.0)])[0].log == -math.inf
    assert _run("embedding", (4, 5), (4, 5, 8), Signal())[0][0].q == 1.0


def test_recurrent_layers_remember_one_after_the_other() -> None:
    cells = [recurrent.default_cell("rnn", 8, 8, seed=s) for s in range(2)]
    x = Signal(np.array([0.2, 0.4]), 0.5, mean=0.3)
    (made,), back = _run("rnn_tanh", (4, 6, 8), (4, 6, 8), x, cells=cells, steps=6)
    one = recurrent.power_after(cells[0], 6, 0.3)
    assert made.q == pytest.approx(recurrent.power_after(cells[1], 6, one)) and made.mean == 0.0
    assert made.samples == 0.5
    for part, arriving in ((1.0, np.zeros(6)), (0.26, np.zeros(6)), (0.25, None), (1 / 6, None)):
        (pull,) = back([Pull(1.0, np.ones(3), part=part), Pull()])
        top = recurrent.memory(cells[1], 6, one, arriving)
        bottom = recurrent.memory(cells[0], 6, 0.3, top.inflow - top.inflow[-1])
        assert pull.log == pytest.approx(1 + top.through + bottom.through)
        assert (pull.part, pull.share.shape) == (1.0, ())
        assert [m.through for m in back.memories] == pytest.approx([bottom.through, top.through])
    (last,) = back([Pull(), Pull(1.0)])  # the gradient arrives at the last state alone
    top = recurrent.memory(cells[1], 6, one, None)
    bottom = recurrent.memory(cells[0], 6, 0.3, top.inflow - top.inflow[-1])
    assert last.log == pytest.approx(1 + top.through + bottom.through)
