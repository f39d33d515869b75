"""The loss of a step is known in every ordinary loop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish


def watch_losses(make_step: Any, steps: int = 4, **options: Any) -> tuple[list[float], list[float]]:
    """The losses that a watch has noted, and those that the loop made."""
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    made = []
    with unvanish.watch(model, optimizer, on_finding="silent", **options) as watch:
        for _ in range(steps):
            optimizer.zero_grad()
            made.append(make_step(model, torch.randn(12, 8), torch.randint(0, 3, (12,))))
            optimizer.step()
    assert not watch.failure
    return [row["loss"] for row in watch.history.steps.rows], made


def of_a_function(model: nn.Module, x: Tensor, y: Tensor) -> float:
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    return loss.item()


def of_an_output(model: nn.Module, x: Tensor, y: Tensor) -> float:
    output = SimpleNamespace(loss=nn.functional.cross_entropy(model(x), y))
    output.loss.backward()
    return float(output.loss.detach())


def of_the_engine(model: nn.Module, x: Tensor, y: Tensor) -> float:
    loss = nn.functional.cross_entropy(model(x), y).reshape(1)
    torch.autograd.backward([loss])
    return loss.item()


def of_parts(model: nn.Module, x: Tensor, y: Tensor) -> float:
    total = 0.0
    for px, py in zip(x.chunk(4), y.chunk(4), strict=True):
        loss = nn.functional.cross_entropy(model(px), py) / 4
        loss.backward()
        total += loss.item()
    return total


def of_a_scale(model: nn.Module, x: Tensor, y: Tensor) -> float:
    loss = nn.functional.cross_entropy(model(x), y)
    (loss * 65536.0).backward()
    return loss.item()


def beside_others(model: nn.Module, x: Tensor, y: Tensor) -> float:
    other = nn.Linear(8, 1)
    other(x).sum().backward()
    loss = of_a_function(model, x, y)
    other(model(x).detach() @ torch.randn(3, 8)).mean().backward()
    return loss


@pytest.mark.parametrize(
    "make_step", [of_a_function, of_an_output, of_the_engine, of_parts, of_a_scale, beside_others]
)
def test_the_loss_is_known_without_being_told(make_step: Any) -> None:
    noted, made = watch_losses(make_step)
    assert noted == pytest.approx(made, rel=1e-6)


def test_what_is_told_goes_first() -> None:
    noted, made = watch_losses(of_a_function, loss=nn.CrossEntropyLoss())
    assert noted == made
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with unvanish.watch(model, optimizer, on_finding="silent") as watch:
        for _ in range(3):
            of_a_function(model, torch.randn(4, 8), torch.zeros(4).long())
            optimizer.step()
            watch.step(7.0)
    assert [row["loss"] for row in watch.history.steps.rows] == [7.0, 7.0, 7.0]
