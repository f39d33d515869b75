"""The critical step: exact on quadratics, all of it put back; the planned step is the optimizer's own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.probes.critical import FORWARDS, find_critical, measure_critical_step
from unvanish.probes.errors import CheckError
from unvanish.probes.planned_change import plan_step

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.3, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01),
}


def quadratic(seed: int, size: int, factor: float) -> tuple[float, float, Callable[[float], float], float]:
    """(start, slope, loss along the step, exact critical multiple) of a step, `factor` times the critical."""
    torch.manual_seed(seed)
    root, x = torch.randn(size, size), torch.randn(size)
    hessian = root @ root.T / size + 1e-3 * torch.eye(size)
    gradient = hessian @ x
    critical = float(2 * gradient.dot(gradient) / gradient.dot(hessian @ gradient))
    rate = factor * critical

    def loss(multiple: float) -> float:
        w = x - multiple * rate * gradient
        return float(0.5 * w.dot(hessian @ w)) + 1

    return loss(0), float(-rate * gradient.dot(gradient)), loss, 1 / factor


@pytest.mark.parametrize("factor", [0.003, 0.1, 0.9, 1.0, 1.1, 4.0, 100.0])
@pytest.mark.parametrize("size", [2, 30])
def test_the_critical_multiple_of_a_quadratic_is_its_closed_form(factor: float, size: int) -> None:
    start, slope, loss, exact = quadratic(7, size, factor)
    multiple, after, forwards = find_critical(start, slope, loss)
    assert multiple == pytest.approx(exact, rel=0.03) and after == loss(1.0) and forwards <= 3
    without, _, forwards = find_critical(start, math.nan, loss)
    assert without == pytest.approx(exact, rel=0.5) and forwards <= FORWARDS


@pytest.mark.parametrize("rate", [0.03, 0.5, 3.0, 40.0])
def test_a_loss_that_is_no_quadratic_is_bracketed(rate: float) -> None:
    def loss(multiple: float) -> float:  # its slope at 1 is tanh(1); it is the same again at -1
        return math.log(math.cosh(min(1 - multiple * rate * math.tanh(1), 700)))

    found, _, forwards = find_critical(loss(0), -rate * math.tanh(1) ** 2, loss)
    assert found * rate == pytest.approx(2 / math.tanh(1), rel=0.1) and forwards <= FORWARDS


def test_a_steep_start_does_not_make_a_rise_look_flat() -> None:
    def loss(multiple: float) -> float:  # a narrow dip by 3, then a slope up; it is the same again at 3 / 45
        return 38 - 3 * math.tanh(1000 * multiple) + 45 * multiple

    found, after, forwards = find_critical(38, -2955, loss)
    assert found == pytest.approx(3 / 45, rel=0.5) and after > 70 and forwards <= FORWARDS


def test_what_has_no_critical_multiple_says_so() -> None:
    assert find_critical(1.0, -1e-3, lambda m: 1 - m / 1e3)[0] == math.inf  # it falls on
    assert math.isnan(find_critical(1.0, 0.5, lambda m: 1 + m)[0])  # the step leads up
    assert math.isnan(find_critical(math.nan, -1.0, lambda m: 1.0)[0])
    assert find_critical(1.0, math.nan, lambda m: math.inf if m else 1.0)[0] == 0


def noisy_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 3))


def test_everything_is_put_back_bit_for_bit_and_every_forward_has_the_same_numbers() -> None:
    net, x, y = noisy_net(), torch.randn(8, 6), torch.randint(3, (8,))
    net[0].weight.grad = torch.ones(16, 6)
    before = copy.deepcopy(net.state_dict())
    seen: list[Tensor] = []

    def objective() -> Tensor:
        seen.append(torch.get_rng_state())
        return nn.functional.cross_entropy(net(x), y)

    parameters = list(net.parameters())
    step = plan_step(parameters, [torch.randn_like(p) for p in parameters], None, 0.5)
    random = torch.get_rng_state()
    found = measure_critical_step(3, step, objective, (net,))
    assert found["step"] == 3 and found["rate"] == 0.5 and found["forwards"] == len(seen)
    assert all(torch.equal(a, random) for a in [*seen, torch.get_rng_state()])
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(net[0].weight.grad, torch.ones(16, 6)) and net[4].weight.grad is None


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_planned_step_is_the_one_that_the_optimizer_makes(kind: str) -> None:
    net, x = noisy_net(), torch.randn(8, 6)
    optimizer = OPTIMIZERS[kind](net.parameters())
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    heard: list[Any] = []
    for _ in range(3):
        net(x).square().mean().backward()
        if _ == 2:
            break
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    optimizer.register_step_pre_hook(lambda *args: heard.append(args))
    parameters = list(net.parameters())
    state = copy.deepcopy(optimizer.state_dict())
    planned = plan_step(parameters, [p.grad for p in parameters], optimizer, None)
    assert not heard and str(optimizer.state_dict()) == str(state)
    was = [p.detach().clone() for p in parameters]
    optimizer.step()
    assert planned.rate == pytest.approx(optimizer.param_groups[0]["lr"])
    for p, before, change in zip(parameters, was, planned.change, strict=True):
        torch.testing.assert_close(p.detach(), before + change)


def test_a_rate_replaces_the_optimizers_and_groups_keep_their_proportions() -> None:
    a, b = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [a], "lr": 0.1}, {"params": [b], "lr": 0.2}], 0.1)
    step = plan_step([a, b], [torch.ones(2), torch.ones(2)], optimizer, 0.5)
    assert [c.tolist() for c in step.change] == [[-0.5, -0.5], [-1.0, -1.0]] and step.rate == 0.5


def test_an_optimizer_that_cannot_step_without_a_closure_is_refused_with_its_reason() -> None:
    p = nn.Parameter(torch.zeros(2))
    with pytest.raises(CheckError, match="a copy of the LBFGS cannot step"):
        plan_step([p], [torch.ones(2)], torch.optim.LBFGS([p]), None)


def test_check_says_how_far_a_rate_is_from_the_critical_one() -> None:
    net, batch = noisy_net(), (torch.randn(8, 6), torch.randint(3, (8,)))
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    found = unvanish.check(net, batch, nn.CrossEntropyLoss(), lr=1e-4)
    assert [f.severity for f in found.findings if f.code == "OPT008"] == ["note"]
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    wild = unvanish.check(net, batch, nn.CrossEntropyLoss(), lr=1e4)
    assert "OPT008" in wild.codes("warning")


def test_a_rate_needs_a_loss_and_is_a_number() -> None:
    with pytest.raises(CheckError, match="give loss="):
        unvanish.check(noisy_net(), torch.randn(8, 6), lr=0.1)
    with pytest.raises(CheckError, match="lr is nan; it is a learning rate"):
        unvanish.check(noisy_net(), torch.randn(8, 6), lr=math.nan)


def test_an_ordinary_step_is_not_tried_unasked() -> None:
    net, batch = noisy_net(), (torch.randn(8, 6), torch.randint(3, (8,)))
    found = unvanish.check(net, batch, nn.CrossEntropyLoss(), optimizer=torch.optim.Adam(net.parameters()))
    assert "critical" not in found.trace.facts
    long = torch.optim.Adam(net.parameters(), 3.0)
    assert "critical" in unvanish.check(net, batch, nn.CrossEntropyLoss(), optimizer=long).trace.facts
