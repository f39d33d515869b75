"""How recurrences begin, the scan against its loop, and gradients that reach the first step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unvanish.lab.models.blocks.gates import chrono, open_gates
from unvanish.lab.models.blocks.mingru import MinGRU, scan, step
from unvanish.lab.models.blocks.recurrent import Recurrent
from unvanish.lab.models.initialise import Begin

STEPS, SIZE = 200, 32


def test_chrono_biases_span_one_to_the_length():
    biases = chrono(20_000, STEPS)
    reach = biases.exp()
    assert reach.min() >= 1 and reach.max() <= STEPS - 1
    assert reach.mean() == pytest.approx(STEPS / 2, rel=0.03)
    assert chrono(4, None).tolist() == [1.0] * 4


@pytest.mark.parametrize("two_way", [False, True])
def test_an_lstm_s_gates_are_set_once(two_way):
    net = Recurrent(5, SIZE, "lstm", layers=2, bidirectional=two_way)
    net.initialise(Begin(length=STEPS))
    for name, p in net.core.named_parameters():
        if name.startswith("bias_hh"):
            assert p.eq(0).all()
        elif name.startswith("bias_ih"):
            i, f, g, o = p.split(SIZE)
            assert f.ge(0).all() and f.std() > 0.3 and i.eq(-f).all() and g.eq(0).all() and o.eq(0).all()


def test_a_gru_s_update_gate_keeps_and_without_safety_is_one():
    net = Recurrent(5, SIZE, "gru", length=STEPS)
    net.initialise(Begin())
    r, z, n = net.core.bias_ih_l0.split(SIZE)
    assert z.mean() > 3 and r.eq(0).all() and n.eq(0).all() and net.core.bias_hh_l0.eq(0).all()
    net.initialise(Begin("xavier"))
    assert net.core.bias_ih_l0.split(SIZE)[1].eq(1).all()


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru", "relu-rnn"])
def test_recurrent_matrices_keep_the_norm(cell):
    net = Recurrent(5, SIZE, cell)
    net.initialise(Begin())
    for block in net.core.weight_hh_l0.split(SIZE):
        torch.testing.assert_close(block @ block.T, torch.eye(SIZE), rtol=0, atol=1e-5)
        assert (cell == "relu-rnn") == bool(block.eq(torch.eye(SIZE)).all())


def test_a_loop_s_cell_starts_like_the_layer():
    cell = nn.GRUCell(5, SIZE)
    open_gates(cell, Begin(), STEPS)
    z = cell.bias_ih.split(SIZE)[1]
    assert z.mean() > 3 and cell.bias_hh.eq(0).all()


def nats_lost(net: nn.Module, steps: int = STEPS) -> float:
    """Ln of the first step's input gradient over the last one's, of a loss on the last state."""
    torch.manual_seed(1)
    x = torch.randn(8, steps, 5, requires_grad=True, dtype=torch.float64)
    out = net.double()(x)[:, -1]
    (out * torch.randn_like(out)).sum().backward()
    norms = x.grad.norm(dim=(0, 2))
    return math.log(norms[:20].mean() / norms[-20:].mean())


@pytest.mark.parametrize("cell", ["rnn", "relu-rnn", "lstm", "gru"])
def test_the_gradient_reaches_the_first_step(cell):
    torch.manual_seed(0)
    net = Recurrent(5, SIZE, cell, length=STEPS)
    lost = nats_lost(net)
    net.initialise(Begin())
    assert lost < -20 and nats_lost(net) > -3


def test_a_mingru_s_gradient_reaches_the_first_step():
    torch.manual_seed(0)
    net = MinGRU(5, SIZE, STEPS)
    lost = nats_lost(net)
    net.initialise(Begin())
    assert lost < -20 and nats_lost(net) > -3


@pytest.mark.parametrize("size", [1.0, 30.0])
@pytest.mark.parametrize("steps", [1, 7, 784])
def test_the_scan_is_the_loop(steps, size):
    torch.manual_seed(0)
    gate, candidate = (size * torch.randn(3, steps, 8, dtype=torch.float64) for _ in range(2))
    gate.requires_grad_(), candidate.requires_grad_()
    state, states = torch.zeros(3, 8, dtype=torch.float64), []
    for t in range(steps):
        state = step(gate[:, t], candidate[:, t], state)
        states.append(state)
    wanted, found = torch.stack(states, 1), scan(gate, candidate)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
    weight = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), (gate, candidate)),
        torch.autograd.grad((wanted * weight).sum(), (gate, candidate)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(scan(gate.float(), candidate.float()), wanted.float(), rtol=2e-3, atol=1e-4)
