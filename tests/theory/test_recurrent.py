"""Recurrence in theory: against the replay of real layers, closed forms, and known half-lives."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from unvanish.theory import closed_forms, recurrent


def test_default_lstm_forgets_in_two_steps_and_chrono_remembers() -> None:
    plain = recurrent.default_cell("lstm", 128, 16)
    assert 1.4 < recurrent.memory(plain, 100).half_life < 2.0
    kept = recurrent.memory(recurrent.chrono(plain, 400), 400)
    assert 120 < kept.half_life < 280
    assert kept.horizon > 400


def test_a_linear_layer_multiplies_by_its_matrix() -> None:
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((64, 64)))
    cell = recurrent.MeanFieldCell(
        "rnn", {"h": 0.9 * q}, {"h": np.zeros(64)}, {"h": np.full(64, 1.0)}, "relu"
    )
    found = recurrent.memory(cell, 3)
    assert found.log[-1] == 0.0
    tiny = recurrent.MeanFieldCell("rnn", {"h": 0.9 * q}, {"h": np.full(64, 1e-9)}, {"h": np.zeros(64)})
    assert recurrent.memory(tiny, 60).slope == pytest.approx(-math.log(0.9), rel=1e-4)


@pytest.mark.parametrize("gain", [0.8, 1.0, 1.4])
def test_the_closed_lyapunov_exponent_is_that_of_a_wide_layer(gain: float) -> None:
    rng, n = np.random.default_rng(1), 700
    cell = recurrent.MeanFieldCell(
        "rnn",
        {"h": rng.standard_normal((n, n)) * gain / n**0.5},
        {"h": np.full(n, 0.2)},
        {"h": np.zeros(n)},
    )
    found = recurrent.memory(cell, 80)
    assert -found.slope == pytest.approx(recurrent.lyapunov(gain, 0.2), abs=0.015)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_the_profile_is_that_of_a_real_layer(kind: str) -> None:
    from torch import nn

    from unvanish.clinic.forecast import predict_trace
    from unvanish.probes import record

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind](8, 96, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.core(x)[0][:, -1]  # type: ignore[no-any-return]

    torch.manual_seed(0)
    net, x = Last(), torch.randn(16, 40, 8)
    profiles = [t.column("state_log")[t.where("step")] for t in (predict_trace(net, x), record(net, x))]
    ours, real = (p - p[-1] for p in profiles)
    assert len(ours) == len(real) == 40
    assert ours[0] == pytest.approx(real[0], rel=0.04)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="no recurrent layer 'mgu'"):
        recurrent.MeanFieldCell("mgu", {}, {}, {})
    with pytest.raises(ValueError, match="no gate"):
        recurrent.chrono(recurrent.default_cell("rnn", 8, 4), 50)


def _scalar(kind: str, hidden: int, seed: int) -> recurrent.MeanFieldCell:
    """Units that do not mix, all alike: every gradient is a product of numbers."""
    rng = np.random.default_rng(seed)
    gates = recurrent.GATES[kind]
    weights = {g: rng.uniform(0.3, 0.9) for g in gates}
    return recurrent.MeanFieldCell(
        kind,
        {g: weights[g] * np.eye(hidden) for g in gates},
        {g: np.full(hidden, rng.uniform(0.2, 2.0)) for g in gates},
        {g: np.full(hidden, rng.uniform(-1.0, 1.0)) for g in gates},
        inner=np.full(hidden, 0.4),
    )


def _autograd(cell: recurrent.MeanFieldCell, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Logs of the gradients of the last state, by torch's equations: at each state and input; and h^2."""
    w = {g: float(m[0, 0]) for g, m in cell.recurrent.items()}
    b = {g: float(v[0]) for g, v in cell.bias.items()}
    h = torch.zeros((), dtype=torch.float64)
    c, states, probes = h, [], []
    for _ in range(steps):
        x = {g: torch.zeros((), dtype=torch.float64, requires_grad=True) for g in w}
        a = {g: b[g] + x[g] + (w[g] * h if g != "n" else 0.0) for g in w}
        if cell.kind == "rnn":
            h = torch.tanh(a["h"]) if cell.activation == "tanh" else torch.relu(a["h"])
        elif cell.kind == "lstm":
            c = torch.sigmoid(a["f"]) * c + torch.sigmoid(a["i"]) * torch.tanh(a["g"])
            h = torch.sigmoid(a["o"]) * torch.tanh(c)
        else:
            n = torch.tanh(a["n"] + torch.sigmoid(a["r"]) * (float(cell.inner[0]) + w["n"] * h))
            z = torch.sigmoid(a["z"])
            h = (1 - z) * n + z * h
        h, c = h * 1.0, c * 1.0  # separate variables: what the next step reads
        states.append((h, c))
        probes.append(x)
    last, logs, inflow = states[-1][0], [], []
    for (h, c), x in zip(states, probes, strict=True):
        pair = [s for s in (h, c) if s.requires_grad]
        found = torch.autograd.grad(last, pair, retain_graph=True, allow_unused=True)
        logs.append(0.5 * math.log(sum(float(g) ** 2 for g in found if g is not None)))
        sent = torch.autograd.grad(last, list(x.values()), retain_graph=True, allow_unused=True)
        squares = (float(cell.entering[g][0]) * float(s) ** 2 for g, s in zip(x, sent, strict=True))
        inflow.append(0.5 * math.log(sum(squares)))
    return np.array(logs), np.array(inflow), float(last.detach() ** 2)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("hidden", [1, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_without_input_the_gradient_is_autograd_s(kind: str, hidden: int, seed: int) -> None:
    cell = _scalar(kind, hidden, seed)
    found = recurrent.memory(cell, 7, power=0.0)
    log, inflow, power = _autograd(cell, 7)
    assert found.log == pytest.approx(log, abs=1e-9)
    assert found.inflow == pytest.approx(inflow, abs=1e-9)
    assert found.power == pytest.approx(power, rel=1e-9)
    assert np.array_equal(found.log, found.carry)


def test_a_relu_layer_without_input_is_autograd_s() -> None:
    cell = replace(_scalar("rnn", 2, 0), activation="relu", bias={"h": np.full(2, 0.5)})
    log, inflow, power = _autograd(cell, 5)
    found = recurrent.memory(cell, 5, power=0.0)
    assert found.log == pytest.approx(log, abs=1e-9)
    assert found.inflow == pytest.approx(inflow, abs=1e-9)
    assert found.power == pytest.approx(power)


def test_a_loss_at_every_step_adds_its_gradients() -> None:
    n, steps, w = 600, 6, 0.8
    cell = recurrent.MeanFieldCell("rnn", {"h": w * np.eye(n)}, {"h": np.full(n, 2.0)}, {"h": np.zeros(n)})
    arriving = np.array([0.2, -0.5, 0.3, 0.0, -1.0, 0.0])
    found = recurrent.memory(cell, steps, power=0.0, arriving=arriving)
    squares = [1.0]
    for a in arriving[-2::-1]:
        squares.append(w**2 * squares[-1] + math.exp(2 * a))
    expected = 0.5 * np.log(squares[::-1])
    assert found.log == pytest.approx(expected, abs=0.03)
    assert found.inflow == pytest.approx(expected + 0.5 * math.log(2.0), abs=0.03)
    assert found.carry == pytest.approx(math.log(w) * np.arange(steps - 1, -1, -1), abs=1e-9)
    assert found.through == pytest.approx(math.log(np.exp(2 * found.inflow).sum()), abs=1e-9)


def test_a_late_gradient_into_a_faded_one_stays_finite() -> None:
    cell = recurrent.MeanFieldCell("rnn", {"h": np.eye(4) * 1e-3}, {"h": np.ones(4)}, {"h": np.zeros(4)})
    arriving = np.full(200, -np.inf)
    arriving[[0, -1]] = 0.0
    found = recurrent.memory(cell, 200, power=0.0, arriving=arriving)
    assert np.all(np.isfinite(found.log))
    assert found.log[0] - found.log[1] == pytest.approx(300.0, abs=2.0)  # the most that is added
    dead = recurrent.MeanFieldCell("rnn", {"h": np.zeros((4, 4))}, {"h": np.ones(4)}, {"h": np.zeros(4)})
    assert np.all(np.isfinite(recurrent.memory(dead, 5).log))
    assert recurrent.memory(dead, 5).log[0] < -600


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_the_input_has_the_given_power(power: float) -> None:
    n = 5000
    cell = recurrent.MeanFieldCell(
        "rnn", {"h": np.zeros((n, n))}, {"h": np.full(n, 3.0)}, {"h": np.zeros(n)}, "relu"
    )
    assert recurrent.power_after(cell, 3, power) == pytest.approx(1.5 * power, rel=0.02)
    assert recurrent.power_after(replace(cell, bias={"h": np.full(n, 50.0)}), 1, power) == pytest.approx(
        2500 + 3 * power, rel=0.01
    )


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_the_power_is_that_of_the_memory(kind: str) -> None:
    cell = recurrent.default_cell(kind, 16, 4)
    assert recurrent.power_after(cell, 9, 2.0) == recurrent.memory(cell, 9, 2.0).power
    assert (
        recurrent.power_after(cell, 9)
        == recurrent.memory(cell, 9).power
        == recurrent.power_after(cell, 9, 1.0)
    )


def test_at_most_200_steps_are_run_for_a_power() -> None:
    grows = recurrent.MeanFieldCell(
        "rnn", {"h": 1.01 * np.eye(2)}, {"h": np.zeros(2)}, {"h": np.ones(2)}, "relu"
    )
    assert recurrent.power_after(grows, 199) < recurrent.power_after(grows, 200)
    assert recurrent.power_after(grows, 300) == recurrent.power_after(grows, 200)
    assert recurrent.power_after(grows, 200) == pytest.approx(((1.01**200 - 1) / 0.01) ** 2)


def _memory(log: list[float], inflow: list[float] | None = None) -> recurrent.Memory:
    return recurrent.Memory(np.array(log), np.array(log), 1.0, np.array(inflow or [0.0]))


def test_the_slope_is_that_of_the_first_half() -> None:
    fades = _memory([-6.0, -5.75, -5.5, -5.25, 3.0, 9.0, 1.0, 0.0])
    assert fades.slope == pytest.approx(0.25)
    assert fades.half_life == pytest.approx(math.log(2) / 0.25)
    assert fades.horizon == pytest.approx(12.0)
    explodes = _memory([8.0, 7.5, 7.0, 3.0, 1.0, 0.0])
    assert explodes.slope == pytest.approx(-0.5)
    assert explodes.half_life == math.inf
    assert explodes.horizon == pytest.approx(6.0)
    level = _memory([0.0, 0.0, 0.0, 0.0])
    assert level.half_life == level.horizon == math.inf


def test_the_slope_of_a_few_steps() -> None:
    assert _memory([0.0]).slope == 0.0
    assert _memory([-0.7, 0.0]).slope == pytest.approx(0.7)
    assert _memory([-1.0, -0.7, 5.0]).slope == pytest.approx(0.3)
    assert _memory([-1.0, -0.7, 0.0, 0.0]).slope == pytest.approx(0.3)


def test_the_gradient_through_a_layer_sums_over_steps() -> None:
    assert _memory([0.0], [0.0, 0.0]).through == pytest.approx(math.log(2))
    assert _memory([0.0], [-1.0, 0.5, -2.0]).through == pytest.approx(
        math.log(math.exp(-2) + math.exp(1) + math.exp(-4))
    )
    assert _memory([0.0], [1000.0, 900.0]).through == pytest.approx(2000.0)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_default_numbers_are_uniform(kind: str) -> None:
    hidden, inputs = 64, 9
    cell, bound = recurrent.default_cell(kind, hidden, inputs), 1 / 8
    assert cell.activation == "tanh"
    assert set(cell.recurrent) == set(cell.entering) == set(cell.bias) == set(recurrent.GATES[kind])
    for gate in recurrent.GATES[kind]:
        weights = cell.recurrent[gate]
        assert weights.shape == (hidden, hidden)
        assert 0.98 * bound < weights.max() <= bound
        assert -bound <= weights.min() < -0.98 * bound
        assert weights.mean() == pytest.approx(0.0, abs=0.01)
        assert cell.entering[gate].shape == (hidden,)
        assert cell.entering[gate].mean() == pytest.approx(inputs * bound**2 / 3, rel=0.15)
        single = kind == "gru" and gate == "n"  # its second bias lies inside the reset gate
        assert (np.abs(cell.bias[gate]).max() > bound) is not single
        assert np.abs(cell.bias[gate]).max() <= bound * (1 if single else 2)
    assert cell.inner.shape == (hidden,)
    assert 0.9 * bound < np.abs(cell.inner).max() <= bound


def test_default_layers_are_drawn_from_a_seed() -> None:
    first, same, other = (recurrent.default_cell("rnn", 8, 4, seed=s) for s in (0, 0, 1))
    assert np.array_equal(first.recurrent["h"], same.recurrent["h"])
    assert not np.array_equal(first.recurrent["h"], other.recurrent["h"])
    assert np.array_equal(first.recurrent["h"], recurrent.default_cell("rnn", 8, 4).recurrent["h"])


@pytest.mark.parametrize(("kind", "keeps"), [("lstm", "f"), ("gru", "z")])
def test_chrono_sets_the_gate_that_keeps(kind: str, keeps: str) -> None:
    plain = recurrent.default_cell(kind, 512, 4)
    cell = recurrent.chrono(plain, 100)
    spread = np.exp(cell.bias[keeps])
    assert 1.0 <= spread.min() < 3.0
    assert 97.0 < spread.max() <= 99.0
    assert spread.mean() == pytest.approx(50.0, rel=0.07)
    for gate, bias in cell.bias.items():
        expected = cell.bias["f"] * -1 if gate == "i" else np.zeros(512)
        assert gate == keeps or np.array_equal(bias, expected)
    assert np.array_equal(cell.inner, np.zeros(512))
    assert cell.recurrent is plain.recurrent
    short = np.exp(recurrent.chrono(plain, 1).bias[keeps])
    assert short.min() >= 1.0
    assert 1.9 < short.max() <= 2.0


def test_lyapunov_exponents_with_a_closed_form() -> None:
    assert recurrent.lyapunov(1.0, 0.3, "relu") == pytest.approx(-0.5 * math.log(2))
    assert recurrent.lyapunov(2.0, 0.3, "relu") == pytest.approx(0.5 * math.log(2))  # the length diverges
    assert recurrent.lyapunov(0.5, 0.0) == pytest.approx(math.log(0.5))  # the length fades
    assert recurrent.lyapunov(0.7, 2.0, "identity") == pytest.approx(math.log(0.7))
    q = 0.5
    for _ in range(200):
        q = 1.44 * closed_forms.erf_power(q) + 0.4
    expected = 0.5 * math.log(1.44 * closed_forms.erf_slope(q))
    assert recurrent.lyapunov(1.2, 0.4, "erf") == pytest.approx(expected)
