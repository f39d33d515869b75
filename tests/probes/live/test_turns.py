"""What a step did to a few weights, read before and after it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from unvanish.probes.live.turns import COLUMNS, States, Turn, Turns


def step(turns: Turns, optimizer: torch.optim.Optimizer, everything: bool = False) -> Turn | None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    turns.begin(id(optimizer), held, everything)
    optimizer.step()
    return turns.end()


def build(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8)).to(dtype)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    return net


def test_matrices_are_read_in_turn_and_all_at_a_look() -> None:
    net = build()
    turns, optimizer = Turns(list(net.parameters())), torch.optim.SGD(net.parameters(), 0.1)
    seen = [step(turns, optimizer) for _ in range(3)]
    assert [t.places for t in seen if t is not None] == [[0], [1], [0]]
    assert step(turns, optimizer, everything=True).places == [0, 1]  # type: ignore[union-attr]


def test_only_what_the_optimizer_holds_is_read() -> None:
    net = build()
    turns, optimizer = Turns(list(net.parameters())), torch.optim.SGD(net[2].parameters(), 0.1)
    assert step(turns, optimizer).places == [1]  # type: ignore[union-attr]
    net[2].weight.grad = None
    assert step(turns, optimizer) is None


def test_the_columns_of_plain_descent() -> None:
    net = build()
    turns, optimizer = Turns(list(net.parameters())), torch.optim.SGD(net.parameters(), 0.1)
    readings = [t for _ in range(4) if (t := step(turns, optimizer)) is not None]
    weight = readings[0].before[0].double()
    found = dict(zip(COLUMNS, turns.measure(readings).T, strict=True))
    expected = math.log(0.1 * float(readings[0].gradients[0].double().norm()) / float(weight.norm()))
    assert found["update_log"][0] == pytest.approx(expected, abs=1e-5)
    assert found["along"] == pytest.approx(np.ones(4), abs=1e-6) and found["still"].tolist() == [0.0] * 4
    assert np.isnan(found["agree"][:2]).all() and found["agree"][2:] == pytest.approx(np.ones(2))


def test_what_the_dtype_rounds_away_stands_still() -> None:
    net = build(torch.bfloat16)
    turns, optimizer = Turns(list(net.parameters())), torch.optim.SGD(net.parameters(), 1e-7)
    reading = step(turns, optimizer, everything=True)
    assert reading is not None and turns.measure([reading])[0, 0] > 0.9
    assert 1e-5 < turns.find_resolution() < 1e-2


def test_decay_alone_shrinks() -> None:
    net = build()
    for p in net.parameters():
        p.grad = 1e-9 * torch.ones_like(p)
    turns = Turns(list(net.parameters()))
    reading = step(turns, torch.optim.SGD(net.parameters(), 0.1, weight_decay=0.5))
    assert reading is not None
    assert turns.measure([reading])[0, COLUMNS.index("shrink")] == pytest.approx(1.0, abs=1e-5)


def test_a_weight_that_was_replaced_by_a_smaller_one_is_not_measured() -> None:
    net = build()
    turns, optimizer = Turns(list(net.parameters())), torch.optim.SGD(net.parameters(), 0.1)
    turns.begin(1, {id(p) for p in net.parameters()}, everything=False)
    net[0].weight.grad = None
    net[0].weight.data = torch.randn(2, 2)
    optimizer.step()
    reading = turns.end()
    assert reading is not None and np.isnan(turns.measure([reading])).all()


def test_what_is_put_back_before_the_next_reading_was_undone() -> None:
    net = build()
    turns, optimizer = Turns(list(net.parameters())), torch.optim.SGD(net.parameters(), 0.1)
    kept = [p.detach().clone() for p in net.parameters()]
    readings = []
    for put_back in (True, False, True):
        readings.append(step(turns, optimizer))
        if put_back:
            for p, k in zip(net.parameters(), kept, strict=True):
                p.data.copy_(k)
        else:
            kept = [p.detach().clone() for p in net.parameters()]
    step(turns, optimizer)
    found = dict(zip(COLUMNS, turns.measure([t for t in readings if t is not None]).T, strict=True))
    assert found["undone"].tolist() == [1.0, 0.0, 1.0]


def test_a_state_is_known_again_if_the_weight_had_moved() -> None:
    states, first, other = States(), np.ones(8), np.arange(8.0)
    seen = [states.find_again([0], values[None]).item() for values in (first, first, other, first, other)]
    assert seen == [0.0, 0.0, 0.0, 1.0, 1.0]
    broken = np.full(8, np.nan)
    assert [states.find_again([1], v[None]).item() for v in (first, broken, broken, broken)] == [0.0] * 4


def test_a_gradient_of_zeros_is_counted() -> None:
    net = build()
    net[0].weight.grad[:8] = 0  # type: ignore[index]
    turns, optimizer = Turns(list(net.parameters())), torch.optim.SGD(net.parameters(), 0.1)
    found = dict(zip(COLUMNS, turns.measure([step(turns, optimizer)]).T, strict=True))  # type: ignore[list-item]
    assert found["nil"].tolist() == [0.5]
