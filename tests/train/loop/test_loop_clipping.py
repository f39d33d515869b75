"""The guard: norms that overflow, clipping as torch does it, steps that are left out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unvanish.train.loop.clipping import Guard, mend


def grads(*values: list[float]) -> list[torch.Tensor]:
    """Parameters with these gradients."""
    made = [nn.Parameter(torch.zeros(len(v))) for v in values]
    for parameter, value in zip(made, values, strict=True):
        parameter.grad = torch.tensor(value)
    return made


def guarded(limit: float | str, parameters: list[torch.Tensor], loss: float = 1.0) -> Guard:
    """A guard that has looked at a step and clipped it."""
    guard = Guard(limit, parameters)
    guard.look(torch.tensor(loss))
    guard.clip(torch.optim.SGD(parameters, 1.0))
    return guard


@pytest.mark.parametrize("limit", [0.5, 2.0, 100.0])
def test_clipping_is_torchs_where_all_is_well(limit):
    mine, theirs = grads([3.0, -4.0], [12.0]), grads([3.0, -4.0], [12.0])
    guard = guarded(limit, mine)
    torch.nn.utils.clip_grad_norm_(theirs, limit)
    assert guard.norm == pytest.approx(13)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=0)
    assert guard.clipped == (limit < 13)


def test_a_norm_beyond_float32_is_still_clipped():
    parameters = grads([3e38, 3e38], [0.0])
    guard = guarded(1.0, parameters)
    assert guard.finite and guard.norm == pytest.approx(3e38 * math.sqrt(2))
    assert parameters[0].grad is not None
    assert parameters[0].grad.tolist() == pytest.approx([math.sqrt(0.5)] * 2, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_without_a_finite_gradient_moves_nothing(bad, optimizer):
    parameters = grads([1.0, bad], [2.0])
    made = optimizer(parameters, lr=0.1, weight_decay=0.1)
    guard = guarded(1.0, parameters)
    made.register_step_pre_hook(guard.discard)
    made.step()
    assert not guard.finite and all(p.detach().abs().sum() == 0 for p in parameters)
    assert not made.state


def test_a_loss_that_is_not_finite_is_a_step_that_is_not():
    assert not guarded(1.0, grads([1.0]), math.inf).finite


def test_zclip_and_agc_count():
    for limit in ("zclip", "agc"):
        guard = guarded(limit, grads([1e3, 1e3]))
        assert guard.clipper is not None and guard.clipper.steps == 1


def test_poisoned_statistics_are_mended():
    norm = nn.BatchNorm1d(2)
    norm(torch.tensor([[1.0, math.nan], [2.0, 3.0]]))
    assert norm.running_mean is not None and norm.running_mean.isnan().any()
    assert mend(nn.Sequential(norm)) == 1 and norm.running_mean.isfinite().all()
    assert mend(nn.Sequential(norm)) == 0
