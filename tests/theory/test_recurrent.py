"""Recurrence in theory: against the replay of real layers, closed forms, and known half-lives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unvanish.theory import recurrent


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
    import torch
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
