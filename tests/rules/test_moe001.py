"""MOE001 on routers: which choices are a router's, when it has collapsed, and when nothing can be said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Diagnosis

Choose = Callable[[Tensor], tuple[Tensor, Tensor]]


class Mixture(nn.Module):
    """Experts in a list, or as one weight (experts, in, out); `choose` gives gates and indices (N, k)."""

    def __init__(self, choose: Choose, bias: float, experts: int = 4, stacked: bool = False) -> None:
        super().__init__()
        self.gate, self.last, self.choose = nn.Linear(16, experts), nn.Linear(16, 4), choose
        self.gate.bias.data.zero_()[: 1 if experts < 8 else 2] = bias
        if stacked:
            self.weight = nn.Parameter(torch.randn(experts, 16, 16) / 4)
        else:
            self.experts = nn.ModuleList([nn.Linear(16, 16) for _ in range(experts)])
        self.stacked = stacked

    def forward(self, x: Tensor) -> Tensor:
        gates, chosen = self.choose(self.gate(x))
        every = (
            torch.einsum("ni,eio->neo", x, self.weight)
            if self.stacked
            else torch.stack([expert(x) for expert in self.experts], 1)
        )
        picked = every.gather(1, chosen[..., None].expand(-1, -1, 16))
        out: Tensor = self.last(x + torch.relu((picked * gates[..., None]).sum(1)))
        return out


def one(logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits.softmax(-1).max(-1, keepdim=True)


def two(logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits.softmax(-1).topk(2, -1)


def by_logits(logits: Tensor) -> tuple[Tensor, Tensor]:
    chosen = logits.topk(2, -1)
    return chosen.values.softmax(-1), chosen.indices


def by_sigmoid(logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits.sigmoid().topk(1, -1)


def by_argmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    chosen = logits.argmax(-1, keepdim=True)
    return logits.softmax(-1).gather(-1, chosen), chosen


def check(model: nn.Module, count: int = 128) -> Diagnosis:
    torch.manual_seed(0)
    batch = torch.randn(count, 16), torch.randint(0, 4, (count,))
    return unvanish.check(model, batch, F.cross_entropy, confirm=False)


@pytest.mark.parametrize(
    ("choose", "experts", "stacked"),
    [(one, 4, False), (two, 8, False), (by_logits, 8, True), (by_argmax, 4, True), (by_argmax, 2, False)],
)
def test_a_router_that_sends_all_to_the_same_experts_is_named(
    choose: Choose, experts: int, stacked: bool
) -> None:
    torch.manual_seed(0)
    (found,) = [f for f in check(Mixture(choose, 30.0, experts, stacked)).walk() if f.code == "MOE001"]
    assert found.severity == "warning" and f"of {experts} experts" in found.cause


@pytest.mark.parametrize("choose", [one, two, by_logits, by_sigmoid, by_argmax])
def test_a_router_at_its_start_is_silent(choose: Choose) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        assert "MOE001" not in check(Mixture(choose, 0.0, 8)).codes("note")


def test_tokens_that_are_alike_are_sent_alike_by_an_undecided_router() -> None:
    torch.manual_seed(0)
    x = (torch.randn(1, 16) + 0.01 * torch.randn(128, 16)), torch.randint(0, 4, (128,))
    diagnosis = unvanish.check(Mixture(one, 0.0), x, F.cross_entropy, confirm=False)
    assert max(diagnosis.trace.facts["routers"][0]["load"]) > 0.95
    assert "MOE001" not in diagnosis.codes("note")


def test_few_tokens_say_nothing() -> None:
    reasons: Any = {v.code: v.reason for v in check(Mixture(one, 30.0), 16).not_applicable}
    assert "tokens enough" in reasons["MOE001"]


def test_choices_that_are_no_routers_are_left_alone() -> None:
    class Sparse(nn.Module):
        """Attends to the most similar of 16 tokens, and pools the largest values."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(1, 8), nn.Linear(8, 8), nn.Linear(8, 4)])

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.layers[0](x[..., None]))
            scores = self.layers[1](h) @ h.transpose(1, 2)
            kept = scores.topk(4, -1)
            h = h + torch.zeros_like(scores).scatter(-1, kept.indices, kept.values.softmax(-1)) @ h
            out: Tensor = self.layers[2](h.topk(3, 1).values.mean(1))
            return out

    assert check(Sparse()).trace.facts.get("routers", []) == []
