"""Clipping against PyTorch's own where that works, and where it does not: overflow, underflow, NaN."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unvanish.clinic.prescription import apply
from unvanish.core.diagnosis import Remedy
from unvanish.surgery.clipping import AdaptiveClip, NormClip, ValueClip, ZScoreClip, total_norm


def held(*grads: Tensor) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in grads]
    for p, g in zip(parameters, grads, strict=True):
        p.grad = g.clone()
    return parameters, torch.optim.SGD(parameters, 1.0)


@settings(max_examples=30, deadline=None)
@given(st.floats(-8, 8), st.floats(0.01, 100), st.integers(0, 10_000))
def test_norm_clipping_is_pytorchs_where_that_works(scale: float, limit: float, seed: int) -> None:
    torch.manual_seed(seed)
    grads = [torch.randn(5, 3) * 10**scale, torch.randn(7) * 10**scale]
    ours, optimizer = held(*grads)
    theirs, _ = held(*grads)
    NormClip(limit)(optimizer)
    norm = float(torch.nn.utils.clip_grad_norm_(theirs, limit))  # it divides by norm + 1e-6
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.allclose(a.grad, b.grad, rtol=1e-5 + 2e-6 / norm)


@pytest.mark.parametrize("size", [1e25, 1e-25, 3e38])
def test_norms_beyond_float32_are_numbers(size: float) -> None:
    """PyTorch's norm of these is inf or 0, and its clipping sets the large ones to zero."""
    torch.manual_seed(0)
    grad = torch.sign(torch.randn(1000)) * size
    (p,), optimizer = held(grad)
    clip = NormClip(1.0)
    clip(optimizer)
    assert p.grad is not None
    assert clip.norm == pytest.approx(size * math.sqrt(1000), rel=1e-6)
    wanted = min(1.0, clip.norm)
    assert total_norm([p.grad]) == pytest.approx(wanted, rel=1e-4)
    (other,), _ = held(grad)
    torch.nn.utils.clip_grad_norm_([other], 1.0)
    assert other.grad is not None
    assert size < 1 or float(other.grad.abs().max()) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "clip", [NormClip(1.0), ValueClip(1.0), AdaptiveClip(0.01), ZScoreClip(2.5, 0.97, 5)]
)
def test_a_step_with_a_non_finite_gradient_is_skipped(clip: NormClip, bad: float) -> None:
    good, spoilt = torch.ones(4), torch.tensor([1.0, bad])
    parameters, optimizer = held(good, spoilt)
    before = clip.skipped
    clip(optimizer)
    optimizer.step()
    assert clip.skipped == before + 1
    assert all(bool((p == 0).all()) for p in parameters)


def test_values_are_clamped() -> None:
    (p,), optimizer = held(torch.tensor([-3.0, 0.5, 2.0]))
    ValueClip(1.0)(optimizer)
    assert p.grad is not None
    assert p.grad.tolist() == [-1.0, 0.5, 1.0]


def test_adaptive_clipping_bounds_every_unit_by_its_weights() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 10))
    weight.grad = torch.randn(6, 10) * torch.logspace(-4, 2, 6)[:, None]
    before = weight.grad.clone()
    AdaptiveClip(0.01)(torch.optim.SGD([weight], 1.0))
    limit = 0.01 * weight.detach().norm(dim=1)
    for row, old, most in zip(weight.grad, before, limit, strict=True):
        wanted = old if old.norm() <= most else old * most / old.norm()
        assert torch.allclose(row, wanted, rtol=1e-5)


def test_zclip_lets_ordinary_steps_pass_and_brings_a_spike_back() -> None:
    generator = torch.Generator().manual_seed(0)
    clip, norms = ZScoreClip(2.5, 0.97, 25), []
    for step in range(200):
        size = 1 + 0.1 * float(torch.randn((), generator=generator))
        (p,), optimizer = held(torch.tensor([size * (1000.0 if step == 150 else 1.0)]))
        clip(optimizer)
        assert p.grad is not None
        norms.append(float(p.grad.norm()))
    assert norms[150] < 2
    assert clip.clipped < 10
    assert clip.mean == pytest.approx(1.0, abs=0.1)  # the spike did not enter the history


def test_zclip_warms_up_without_clipping() -> None:
    clip = ZScoreClip(2.5, 0.97, 5)
    for size in (1.0, 100.0, 1.0, 100.0, 1.0):
        (p,), optimizer = held(torch.tensor([size]))
        clip(optimizer)
        assert p.grad is not None
        assert float(p.grad) == size


def test_clipping_in_a_loop_is_felt_by_the_step_and_can_be_taken_off() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    receipt = apply(model, [Remedy("clip-gradient", (), "", "exact", {"limit": 0.1})], optimizer=optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    (100 * model(torch.randn(8, 4))).square().sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    moved = total_norm([p.detach() - b for p, b in zip(model.parameters(), before, strict=True)])
    assert moved == pytest.approx(0.1, rel=1e-4)
    assert receipt.handles["clip-gradient"].clipped == 1
    receipt.undo()
    assert not optimizer._optimizer_step_pre_hooks


def test_loss_scaling_returns_the_same_gradients() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 2), torch.randn(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    model(x).square().sum().backward()  # type: ignore[no-untyped-call]
    wanted = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    optimizer.zero_grad()
    apply(model, [Remedy("loss-scaling", (), "", "exact", {"log2": 12})], optimizer=optimizer)
    model(x).square().sum().backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(model.weight.grad, wanted[0] * 2**12)  # type: ignore[arg-type]
    optimizer.step()
    for p, w in zip(model.parameters(), wanted, strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, w)


def test_warm_up_scales_a_step_and_leaves_the_scheduler_alone() -> None:
    p = nn.Parameter(torch.zeros(1))
    model = nn.ParameterList([p])
    optimizer = torch.optim.SGD([p], 1.0)
    apply(model, [Remedy("warm-up", (), "", "exact", {"steps": 4})], optimizer=optimizer)
    moves = []
    for _ in range(6):
        before = float(p.detach())
        p.grad = torch.ones(1)
        optimizer.step()
        moves.append(before - float(p.detach()))
        assert optimizer.param_groups[0]["lr"] == 1.0
    assert moves == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
