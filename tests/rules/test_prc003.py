"""PRC003: steps that a dtype rounds away, of several optimizers, and those that it keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import unvanish

X, Y = torch.randn(32, 16, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 4
SGD, Adam, AdamW, RMSprop = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop


def build(dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).to(
        dtype
    )


def judge(dtype: torch.dtype, make: Callable[[Any], Any], net: Any = None) -> tuple[str, ...]:
    net = build(dtype) if net is None else net
    found = unvanish.check(
        net, (X.to(dtype), Y), nn.CrossEntropyLoss(), optimizer=make(net.parameters()), select=["PRC003"]
    )
    return found.codes("note")


@pytest.mark.parametrize(
    ("dtype", "make"),
    [
        (torch.bfloat16, lambda p: AdamW(p, lr=3e-5)),
        (torch.bfloat16, lambda p: Adam(p, lr=1e-5)),
        (torch.bfloat16, lambda p: SGD(p, lr=1e-3)),
        (torch.bfloat16, lambda p: RMSprop(p, lr=1e-5)),
        (torch.float32, lambda p: Adam(p, lr=1e-10)),
        (torch.float16, lambda p: Adam(p, lr=1e-3)),
        (torch.float16, lambda p: SGD(p, lr=1e-5)),
    ],
)
def test_steps_that_are_rounded_away_are_found(dtype: torch.dtype, make: Callable[[Any], Any]) -> None:
    assert judge(dtype, make) == ("PRC003",)


@pytest.mark.parametrize(
    ("dtype", "make"),
    [
        (torch.bfloat16, lambda p: AdamW(p, lr=1e-3)),
        (torch.bfloat16, lambda p: SGD(p, lr=1.0)),
        (torch.float16, lambda p: Adam(p, lr=1e-3, eps=1e-4)),
        (torch.float32, lambda p: AdamW(p, lr=3e-5)),
        (torch.float32, lambda p: SGD(p, lr=1e-3)),
        (torch.float32, lambda p: AdamW(p, lr=1e-6)),
    ],
)
def test_steps_that_are_kept_are_left_alone(dtype: torch.dtype, make: Callable[[Any], Any]) -> None:
    assert judge(dtype, make) == ()


def test_what_is_said_comes_true() -> None:
    """The steps that it calls lost are lost, and no others."""
    for rate, wanted in ((3e-5, True), (1e-2, False)):
        net = build(torch.bfloat16)
        optimizer = AdamW(net.parameters(), lr=rate, weight_decay=0.0)
        before = [p.detach().clone() for p in net.parameters()]
        nn.CrossEntropyLoss()(net(X.bfloat16()).float(), Y).backward()
        optimizer.step()
        stayed = sum(int((p == q).sum()) for p, q in zip(net.parameters(), before, strict=True))
        share = stayed / sum(p.numel() for p in before)
        assert (share > 0.5) == wanted == (judge(torch.bfloat16, lambda p, r=rate: AdamW(p, lr=r)) != ())


def test_a_warm_up_counts_with_the_rate_that_it_leads_to() -> None:
    def make(parameters: Any) -> Any:
        optimizer = AdamW(parameters, lr=1e-3)
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 1000)
        return optimizer

    assert judge(torch.bfloat16, make) == ()


def test_other_optimizers_are_not_judged() -> None:
    class Kahan(AdamW):
        """Somebody's optimizer that keeps the rounding error."""

    assert judge(torch.bfloat16, lambda p: Kahan(p, lr=3e-5)) == ()


@pytest.mark.parametrize("factor", [1.0, 1e3, 1e-6])
def test_one_element_that_is_divided_by_zero_is_enough(factor: float) -> None:
    """A unit that is off has a gradient of 0 at any scale of the loss; the first step then makes NaN."""
    net = build(torch.float16)
    with torch.no_grad():
        net[0].bias[3] = -30.0
    optimizer = Adam(net.parameters(), lr=1e-2)
    loss = lambda out, y: factor * nn.functional.cross_entropy(out.float(), y)  # noqa: E731
    found = unvanish.check(net, (X.half(), Y), loss, optimizer=optimizer, select=["PRC003"]).findings
    assert "divides by zero" in found[0].cause
    loss(net(X.half()), Y).backward()
    optimizer.step()
    assert not all(bool(torch.isfinite(p).all()) for p in net.parameters())
