"""Loops without a module of their own: found by what they multiply by, told from what only looks like one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.probes import record

STEPS = 24


class Own(nn.Module):
    """Parameters of one size, and a forward that is given."""

    def __init__(self, run: Callable[[Own, Tensor], Tensor], scale: float = 0.5) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 12) * 0.4)
        self.u = nn.Parameter(scale * torch.eye(12))
        self.gates = nn.Parameter(torch.randn(15, 48) * 0.2)
        self.head, self.run = nn.Linear(12, 2), run

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run(self, x))


def plain(m: Own, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 12)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] @ m.w + h @ m.u)
    return h


def leaky(m: Own, x: Tensor) -> Tensor:
    keep, h = torch.sigmoid(m.u.diagonal()), x.new_zeros(len(x), 12)
    for step in (x @ m.w).unbind(1):
        h = keep * h + (1 - keep) * step
    return h


def contracted(m: Own, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 12)
    for t in range(x.shape[1]):
        h = torch.einsum("bi,ij->bj", h, m.u) + x[:, t] @ m.w
    return h


def gated(m: Own, x: Tensor) -> Tensor:
    h = c = x.new_zeros(len(x), 12)
    for t in range(x.shape[1]):
        i, f, g, o = (torch.cat([x[:, t], h], 1) @ m.gates).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return h


def to_a_fixed_point(m: Own, x: Tensor) -> Tensor:
    first = h = x[:, 0] @ m.w
    for _ in range(STEPS):
        h = torch.tanh(h @ m.u + first)
    return h


def examine(run: Callable[[Own, Tensor], Tensor], scale: float = 0.5) -> Any:
    torch.manual_seed(0)
    batch = torch.randn(8, STEPS, 3), torch.randint(0, 2, (8,))
    return unvanish.check(Own(run, scale), batch, nn.CrossEntropyLoss(), confirm=False, theory=False)


@pytest.mark.parametrize("run", [plain, leaky, contracted, gated])
def test_its_steps_are_rows_of_the_trace(run: Callable[[Own, Tensor], Tensor]) -> None:
    trace = examine(run).trace
    steps = [trace.value(i, "state_log") for i in trace.where("step")]
    assert len(steps) >= STEPS - 2
    assert all(map(math.isfinite, steps))


@pytest.mark.parametrize("run", [plain, contracted])
def test_it_forgets_by_its_matrix(run: Callable[[Own, Tensor], Tensor]) -> None:
    (found,) = (f for f in examine(run).findings if f.code == "REC001")
    assert found.severity == "error"
    assert found.sites == ("(model)",)


def test_it_explodes_by_its_matrix() -> None:
    assert "REC002" in {f.code for f in examine(contracted, scale=1.4).findings}


def test_a_cell_that_opens_and_shuts_is_gated() -> None:
    trace = examine(gated).trace
    assert {trace.sites[i].kind for i in trace.where("step")} == {"gated loop"}


def test_what_is_iterated_to_a_fixed_point_is_no_recurrence() -> None:
    assert not examine(to_a_fixed_point, scale=0.1).trace.where("step")


def test_layers_that_differ_are_no_loop() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ws = nn.ParameterList(torch.randn(12, 12) / 12**0.5 for _ in range(8))

        def forward(self, x: Tensor) -> Tensor:
            h = first = x
            for w in self.ws:
                h = torch.relu(h @ w) * 0.9 + 0.1 * first
            return h

    torch.manual_seed(0)
    batch = torch.randn(8, 12), torch.randint(0, 12, (8,))
    assert not record(Deep(), batch, nn.CrossEntropyLoss()).where("step")
