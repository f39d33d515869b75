"""Where gradients end: in functions that somebody wrote."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import unvanish


class Nothing(torch.autograd.Function):
    """Passes its input on, and no gradient back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> None:
        return None


class Through(torch.autograd.Function):
    """Rounds, with a gradient as if it did not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Written(nn.Module):
    """Two layers around functions of one's own."""

    def __init__(self, *functions: Any) -> None:
        super().__init__()
        self.functions = functions
        self.first, self.last = nn.Linear(12, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = 4 * torch.relu(self.first(x))
        for function in self.functions:
            h = function.apply(h)
        return self.last(h)  # type: ignore[no-any-return]


def check(*functions: Any) -> unvanish.Diagnosis:
    torch.manual_seed(0)
    batch = torch.randn(16, 12), torch.randint(0, 5, (16,))
    return unvanish.check(Written(*functions), batch, nn.CrossEntropyLoss())


def test_a_backward_that_returns_nothing_is_named() -> None:
    found = check(Through, Nothing)
    assert found.codes() == ("GRF004",)
    finding = found.findings[0]
    assert finding.cause.startswith("Nothing in (model)") and "2 of 4 parameters" in finding.cause
    assert "return what each input" in finding.remedies[0].why
    stopping = [s for s in found.trace.sites if s.facts.get("kills")]
    assert [s.kind for s in stopping] == ["Nothing"]  # and not the other one of the same module


def test_its_parameters_have_exactly_no_gradient() -> None:
    trace = check(Nothing).trace
    logs = {trace.sites[i].path: trace.value(i, "gradient_log") for i in trace.where("parameter")}
    assert logs["first.weight"] == logs["first.bias"] == -float("inf")
    assert logs["last.weight"] > -20


def test_a_function_with_a_gradient_is_left_alone() -> None:
    found = check(Through)
    assert not found.codes()
    assert "Through" in [s.kind for s in found.trace.sites]
