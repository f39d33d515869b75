"""Whether the last step's gradient is still there when the next backward begins."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.leftover import Leftover


def follow(between: Callable[[nn.Linear], None], *, may: bool = True, parts: int = 1) -> list[float]:
    """What is said before each of six steps; `between` clears, or not."""
    torch.manual_seed(0)
    net, leftover = nn.Linear(8, 4), Leftover(WatchGuard("a test"), lambda: may)
    parameters: list[Tensor] = list(net.parameters())
    told = []
    for _ in range(6):
        for _ in range(parts):
            net(torch.randn(3, 8)).square().sum().backward()
        told.append(leftover.begin())
        leftover.end(parameters)
        between(net)
    leftover.remove()
    assert not any(p._backward_hooks for p in parameters)
    return told


def test_a_gradient_that_nobody_clears_is_found() -> None:
    assert follow(lambda net: None)[-2:] == [1.0, 1.0]
    assert follow(lambda net: None, parts=3)[-2:] == [1.0, 1.0]


def test_cleared_gradients_are_not() -> None:
    assert follow(lambda net: net.zero_grad())[-3:] == [0.0] * 3
    assert follow(lambda net: net.zero_grad(set_to_none=False))[-3:] == [0.0] * 3
    assert follow(lambda net: net.zero_grad(set_to_none=False), parts=3)[-3:] == [0.0] * 3


def test_a_gradient_that_was_scaled_down_was_kept_on_purpose() -> None:
    def scale(net: nn.Linear) -> None:
        for p in net.parameters():
            p.grad *= 0.9

    assert follow(scale)[-2:] == [0.0, 0.0]


def test_without_leave_no_hook_is_set_and_nothing_is_known() -> None:
    assert all(math.isnan(t) for t in follow(lambda net: None, may=False))


def test_a_weight_that_was_frozen_meanwhile_gets_no_hook() -> None:
    def freeze(net: nn.Linear) -> None:
        net.weight.requires_grad_(False)

    assert all(math.isnan(t) for t in follow(freeze))
