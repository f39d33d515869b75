"""The verdict stays when the loss is multiplied, summed or scaled, unless the dtype really loses it."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish

Loss = Callable[[Tensor, Tensor], Tensor]
ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.LeakyReLU)


class Drawn(nn.Module):
    """A net drawn at random, with or without a fault: its depth, weights, skips, norms, cuts and zeros."""

    def __init__(self, draw: random.Random, outputs: int) -> None:
        super().__init__()
        width, depth = draw.choice((8, 24, 48)), draw.randint(1, 12)
        self.skip, self.cut = draw.random() < 0.3, draw.randrange(depth) if draw.random() < 0.15 else -1
        self.into = nn.Linear(12, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norms = nn.ModuleList(
            nn.LayerNorm(width) if draw.random() < 0.3 else nn.Identity() for _ in range(depth)
        )
        self.activation, self.head = draw.choice(ACTIVATIONS)(), nn.Linear(width, outputs)
        gain = draw.choice((1.0, 1.0, 0.2, 4.0))
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.mul_(gain)
            if draw.random() < 0.2:
                draw.choice([*self.layers]).bias.fill_(-20.0)
            if draw.random() < 0.2:
                self.head.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        for k, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            y = self.activation(layer(norm(h)))
            h = h + y if self.skip else y
            h = h.detach() if k == self.cut else h
        out: Tensor = self.head(h)
        return out


def draw_case(seed: int) -> tuple[nn.Module, tuple[Tensor, Tensor], Loss]:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    x = torch.randn(24, 12) * draw.choice((1.0, 1.0, 40.0))
    kind = draw.randrange(4)
    if kind == 0:
        return Drawn(draw, 5), (x, torch.randint(0, 5, (24,))), F.cross_entropy
    if kind == 1:
        y = torch.randn(24, 2) * draw.choice((1.0, 1e5))
        return Drawn(draw, 2), (x, y), F.mse_loss
    if kind == 2:
        return Drawn(draw, 1), (x, torch.rand(24, 1).round()), F.binary_cross_entropy_with_logits
    weight = draw.choice((0.1, 1e5))

    def two_terms(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y) + weight * out.square().mean()

    return Drawn(draw, 5), (x, torch.randint(0, 5, (24,))), two_terms


def judge(case: tuple[nn.Module, Any, Loss], loss: Loss, **options: Any) -> tuple[str, frozenset[str]]:
    """The first code, and all that are more than a note."""
    found = unvanish.check(case[0], case[1], loss, confirm=False, theory=False, **options).codes()
    return (found or ("",))[0], frozenset(found)


@pytest.mark.parametrize("seed", range(40))
def test_a_constant_before_the_loss_changes_nothing(seed: int) -> None:
    case = draw_case(seed)
    usual = judge(case, case[2])
    draw = random.Random(-seed)
    for factor in (10.0 ** draw.uniform(-8, -3), 10.0 ** draw.uniform(3, 8)):
        assert judge(case, lambda out, y, f=factor: f * case[2](out, y)) == usual, factor


@pytest.mark.parametrize("seed", range(0, 40, 3))
def test_a_scaled_loss_changes_nothing(seed: int) -> None:
    case = draw_case(seed)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    assert judge(case, lambda out, y: scaler.scale(case[2](out, y))) == judge(case, case[2])


@pytest.mark.parametrize(
    ("outputs", "loss"),
    [(5, F.cross_entropy), (2, F.mse_loss), (2, F.l1_loss), (1, F.binary_cross_entropy_with_logits)],
)
@pytest.mark.parametrize("seed", range(4))
def test_a_sum_is_judged_as_a_mean(seed: int, outputs: int, loss: Any) -> None:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    y = torch.randint(0, 5, (24,)) if outputs == 5 else torch.rand(24, outputs).round()
    case = Drawn(draw, outputs), (torch.randn(24, 12), y), loss
    assert judge(case, lambda out, y: loss(out, y, reduction="sum")) == judge(case, loss)


LOST = {"GRF007", "PRC002", "PRC003"}  # what float16 loses at one scale, and holds at another


def step_by_hand(model: nn.Module, batch: Any, loss: Loss) -> tuple[bool, bool, bool]:
    """Whether the user's own step has no gradient, one that overflows, or weights that are no numbers."""
    own = copy.deepcopy(model)
    optimizer = torch.optim.Adam(own.parameters(), lr=1e-2)
    loss(own(batch[0]), batch[1]).backward()
    slopes = [p.grad for p in own.parameters() if p.grad is not None]
    optimizer.step()
    return (
        not any(bool(g.any()) for g in slopes),
        not all(bool(torch.isfinite(g).all()) for g in slopes),
        not all(bool(torch.isfinite(p).all()) for p in own.parameters()),
    )


@pytest.mark.parametrize("seed", range(12))
def test_in_float16_only_what_is_really_lost_differs(seed: int) -> None:
    """No gradient, an overflow, or a step of Adam that divides by zero: the user's own step shows it."""
    model, (x, y), loss = draw_case(4 * seed + 1)
    model, x = model.half(), (x / x.std()).half()
    kept, lost = [], {*LOST}
    for factor in (1.0, 1e4, 1e-6):

        def scaled(out: Tensor, y: Tensor, factor: float = factor) -> Tensor:
            return factor * loss(out.float(), y)

        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        found = unvanish.check(model, (x, y), scaled, confirm=False, theory=False, optimizer=optimizer)
        nothing, overflow, broken = step_by_hand(model, (x, y), scaled)
        said = {f.code: f.cause for f in found.findings if f.severity != "note"}
        assert said or not (nothing or overflow or broken)
        assert ("PRC002" in said) == overflow
        assert broken or "divides by zero" not in said.get("PRC003", "")
        kept.append(set(said))
        lost |= {"LOS001"} if overflow else set()  # gradients of terms that overflow are not compared
    assert kept[0] - lost == kept[1] - lost == kept[2] - lost
