"""Published figures of recurrent layers, one seed of ours against theirs.

H 128, T 400, the adding problem's two input channels.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unvanish.core.depth import theil_sen
from unvanish.probes.recurrent.exponents import lyapunov
from unvanish.probes.recurrent.replay import replay


def adding(steps: int, batch: int = 2) -> Tensor:
    x = torch.rand(steps, batch, 2)
    x[..., 1] = 0
    x[[steps // 40, steps // 4], :, 1] = 1
    return x


def slope(module: nn.RNNBase, x: Tensor) -> float:
    """Nats a step back of the state's gradient, the loss on the last step only; negative = vanishing."""
    grad = torch.zeros(*x.shape[:2], module.hidden_size)
    grad[-1] = torch.randn(x.shape[1], module.hidden_size)
    profile = replay(module, (x,), grad, None)[0]
    carried, whole = theil_sen(profile.carry_log), theil_sen(profile.state_log)
    assert carried == pytest.approx(whole, rel=0.1, abs=5e-3)
    return -whole


@pytest.mark.parametrize(
    ("forget", "expected", "tolerance"),
    [(None, -0.418, 0.04), ((1, 0), -0.129, 0.03), ((1, 1), -0.004, 0.02), ("chrono", -0.0037, 0.0008)],
)
def test_published_lstm_slopes(forget: Any, expected: float, tolerance: float) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(2, 128)
    with torch.no_grad():
        if forget == "chrono":  # Tallec & Ollivier 2018
            gates = torch.empty(128).uniform_(1, 399).log()
            module.bias_ih_l0.zero_()[:256] = torch.cat([-gates, gates])
            module.bias_hh_l0.zero_()
        elif forget:
            module.bias_ih_l0[128:256], module.bias_hh_l0[128:256] = forget
    assert slope(module, adding(400)) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("bias", "expected"), [(0, -0.45), (1, -0.22), (2, -0.094), (4, -0.017)])
def test_published_gru_slopes(bias: float, expected: float) -> None:
    torch.manual_seed(0)
    module = nn.GRU(2, 128)
    with torch.no_grad():
        module.bias_ih_l0[128:256], module.bias_hh_l0[128:256] = bias, 0
    assert slope(module, adding(400)) == pytest.approx(expected, rel=0.08, abs=4e-3)


def test_published_lyapunov_exponent_tells_the_sign_that_the_spectral_radius_gets_wrong() -> None:
    torch.manual_seed(0)
    module = nn.RNN(8, 256)
    nn.init.normal_(module.weight_hh_l0, std=1 / 16)
    x = torch.randn(100, 2, 8)
    radius = float(torch.linalg.eigvals(module.weight_hh_l0.detach()).abs().max())
    assert radius > 1
    assert slope(module, x) == pytest.approx(-0.049, abs=0.015)
    assert lyapunov(module, (x,)) == pytest.approx(-0.049, abs=0.015)
