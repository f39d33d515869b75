"""What is read of operations off the graph, in float16, over a memory, and inside torch's own attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unvanish

CLASSES = 3


def first(model: nn.Module, batch: Any, loss: Any = None) -> Any:
    found = unvanish.check(model, batch, loss or nn.CrossEntropyLoss(), theory=False).findings
    return found[0] if found else None


def small() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def test_a_target_that_the_loss_itself_makes_infinite() -> None:
    batch = torch.randn(16, 6), torch.cat([torch.rand(15, 1), torch.ones(1, 1)])
    found = first(small(), batch, lambda out, y: (out - torch.atanh(y)).abs().mean())
    assert found.code == "NUM001"
    assert found.cause.startswith("atanh makes the first infinity in the loss (")
    assert "test_readings.py:" in found.cause


class Masked(nn.Module):
    """Attention under the logarithm of a mask; one row may see nothing."""

    def __init__(self, empty: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.v, self.o, self.empty = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES), empty

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.ones(5, 5).tril()
        seen[0, 0] = 0.0 if self.empty else 1.0
        weights = (self.q(x) @ x.mT + seen.log()).softmax(-1)
        out: Tensor = self.o((weights @ self.v(x)).mean(1))
        return out


@pytest.mark.parametrize("empty", [False, True])
def test_the_logarithm_of_a_mask_has_made_none(empty: bool) -> None:
    found = first(Masked(empty), (torch.randn(8, 5, 6), torch.arange(8) % CLASSES))
    assert found is None if not empty else found.cause.startswith("softmax makes the first NaN")


class Squares(nn.Module):
    """A mean square in the input's own precision, or in float32."""

    def __init__(self, wide: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.o, self.wide = nn.Linear(16, CLASSES), wide

    def forward(self, x: Tensor) -> Tensor:
        y = x.float() if self.wide else x
        out: Tensor = self.o((y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype))
        return out


@pytest.mark.parametrize("wide", [False, True])
def test_float16_overflows_in_a_few_rows(wide: bool) -> None:
    x = torch.randn(12, 16)
    x[3] *= 500
    batch = x.half(), torch.arange(12) % CLASSES
    found = first(Squares(wide).half(), batch, lambda o, y: nn.functional.cross_entropy(o.float(), y))
    assert found is None if wide else (found.code == "NUM001" and "square makes the first" in found.cause)


def test_the_lowest_number_as_a_mask_may_overflow() -> None:
    class Half(Masked):
        def forward(self, x: Tensor) -> Tensor:
            hidden = (1 - torch.ones(5, 5).tril()).half() * torch.finfo(torch.float16).min
            weights = (self.q(x) @ x.mT - 20 + hidden).softmax(-1)
            out: Tensor = self.o((weights @ self.v(x)).mean(1))
            return out

    batch = torch.randn(8, 5, 6).half(), torch.arange(8) % CLASSES
    net = Half(False).half()
    found = unvanish.check(net, batch, lambda o, y: nn.functional.cross_entropy(o.float(), y))
    assert "NUM001" not in found.codes("note")


class Memory(nn.Module):
    """Queries over a memory that all samples share."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k = nn.Linear(32, 32), nn.Linear(32, 32)
        self.v, self.o, self.temperature = nn.Linear(32, 8), nn.Linear(8, CLASSES), temperature

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(memory).T / self.temperature
        out: Tensor = self.o(scores.softmax(-1) @ self.v(memory))
        return out


@pytest.mark.parametrize("temperature", [0.02, 6.0])
def test_attention_over_a_memory(temperature: float) -> None:
    batch = (torch.randn(16, 32), torch.randn(20, 32)), torch.arange(16) % CLASSES
    found = first(Memory(temperature), batch)
    assert found is None if temperature > 1 else found.code == "ATT001"


def test_tokens_inside_torchs_attention_are_told_from_samples() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.o = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.o(self.a(x, x, x, need_weights=False)[0].mean(1))
            return out

    torch.manual_seed(0)
    x = torch.randn(6, 1, 8).repeat(1, 5, 1)  # equal tokens, other samples
    trace = unvanish.check(Own(), (x, torch.arange(6) % CLASSES), nn.CrossEntropyLoss()).trace
    shapes = {i: trace.sites[i].facts.get("shape", ()) for i in trace.where("node", family="layer")}
    (inner,) = (i for i, shape in shapes.items() if len(shape) == 3)
    assert trace.value(inner, "token_cosine") == pytest.approx(1)


def by_sort(scores: Tensor) -> Tensor:
    return scores.sort(-1, descending=True).indices[:, 0]


def by_argmax(scores: Tensor) -> Tensor:
    return scores.argmax(-1)


@pytest.mark.parametrize("choose", [by_sort, by_argmax])
@pytest.mark.parametrize("bias", [0.0, 15.0])
def test_routers_by_sorting_and_experts_in_a_dict(choose: Callable[[Tensor], Tensor], bias: float) -> None:
    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.o = nn.Linear(8, 4), nn.Linear(8, CLASSES)
            self.experts = nn.ModuleDict({str(k): nn.Linear(8, 8) for k in range(4)})
            self.gate.bias.data[1] += bias

        def forward(self, x: Tensor) -> Tensor:
            share = self.gate(x).softmax(-1)
            chosen, out = choose(share), torch.zeros_like(x)
            for k, expert in enumerate(self.experts.values()):
                own = chosen == k
                if own.any():
                    out[own] = expert(x[own]) * share[own, k : k + 1]
            given: Tensor = self.o(x + out)
            return given

    torch.manual_seed(0)
    found = first(Mixture(), (torch.randn(64, 8), torch.arange(64) % CLASSES))
    assert found is None if not bias else found.code == "MOE001"
