"""A term of the loss without a gradient is found, however it lost it; stop-gradients are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unvanish
from unvanish.core.diagnosis import Diagnosis

Loss = Callable[[Tensor, Tensor], Tensor]
ce = F.cross_entropy


def check(loss: Any, model: nn.Module | None = None, batch: Any = None) -> Diagnosis:
    torch.manual_seed(0)
    model = model or nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    batch = batch or (torch.randn(32, 16), torch.randint(0, 4, (32,)))
    return unvanish.check(model, batch, loss, confirm=False)


def how(diagnosis: Diagnosis) -> list[str]:
    return [t["how"] for t in diagnosis.trace.facts.get("dead_terms", [])]


def without(o: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        entropy = (o.softmax(1) * o.log_softmax(1)).sum()
    return ce(o, y) - 0.01 * entropy


def wrong(o: Tensor, y: Tensor) -> Tensor:
    return (o.argmax(1) != y).float().mean()


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        (lambda o, y: ce(o, y) + 0.1 * o.square().mean().detach(), "detach"),
        (lambda o, y: ce(o, y) + 0.1 * o.square().mean().item(), "item"),
        (lambda o, y: ce(o, y) + float(o.std()), "item"),
        (lambda o, y: ce(o, y) + wrong(o, y), "argmax"),
        (lambda o, y: ce(o, y) + (1 - wrong(o, y).item()), "argmax"),
        (lambda o, y: ce(o, y) + (torch.round(o.sigmoid()).mean() - 0.4).abs(), "round"),
        (lambda o, y: ce(o, y) + (torch.sign(o) - 0.5).square().mean(), "sign"),
        (lambda o, y: ce(o, y) + 0.5 * (o > 0).float().mean(), "comparison"),
        (lambda o, y: ce(o, y) + 0.1 * o.topk(2).indices.float().mean(), "indices"),
        (lambda o, y: ce(o, y) + 0.1 * (9 * o).int().float().abs().mean(), "integers"),
        (lambda o, y: torch.stack([ce(o, y), o.var().detach()]).sum(), "detach"),
        (lambda o, y: ce(o, y) + torch.tensor(o.square().mean().item()), "item"),
        (lambda o, y: ce(o, y) + float(o.detach().numpy().var()), "detach"),
        (without, "no_grad"),
    ],
)  # fmt: skip
def test_a_dead_term_is_named_by_how_it_left_the_graph(loss: Loss, named: str) -> None:
    diagnosis = check(loss)
    assert how(diagnosis)[:1] == [named]
    assert "GRF006" in diagnosis.codes("warning")


def test_a_penalty_on_the_data_of_the_weights_is_dead_too() -> None:
    model = nn.Linear(16, 4)
    assert how(check(lambda o, y: ce(o, y) + model.weight.data.square().sum(), model)) == ["data"]


def test_a_model_that_makes_its_own_loss_is_judged_too() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 4)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            out = self.layer(x)
            return {"loss": ce(out, y) + 0.1 * out.detach().square().mean()}

    torch.manual_seed(0)
    batch = {"x": torch.randn(32, 16), "y": torch.randint(0, 4, (32,))}
    assert how(check(None, Own(), batch)) == ["detach"]


def logged(o: Tensor, y: Tensor) -> Tensor:
    error = ce(o, y)
    (error + o.detach().square().mean()).item()
    return error


def swapped(o: Tensor, y: Tensor) -> Tensor:
    error = ce(o, y)
    return error + (wrong(o, y) - error).detach()


def weighted(o: Tensor, y: Tensor) -> Tensor:
    terms = torch.stack([ce(o, y), o.square().mean()])
    return (terms.detach().softmax(0) * terms).sum()


def policy(o: Tensor, y: Tensor) -> Tensor:
    chosen, value = o.log_softmax(1).gather(1, y[:, None])[:, 0], o.mean(1)
    ratio = (chosen - chosen.detach()).exp()
    return -(ratio * (y - value).detach()).mean() + (y - value).square().mean()


def shifted(o: Tensor, y: Tensor) -> Tensor:
    z = o - o.amax(1, keepdim=True).detach()
    return -(F.one_hot(y, 4) * (z - z.exp().sum(1, keepdim=True).log())).sum(1).mean()


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, y: ce(o, y) + F.mse_loss(o, (0.9 * o).detach()),
        lambda o, y: F.mse_loss(o.detach(), 1.1 * o) + 0.25 * F.mse_loss(o, (1.1 * o).detach()),
        lambda o, y: ce(o, y) / ce(o, y).detach(),
        lambda o, y: ce(o, y) / max(ce(o, y).item(), 1e-3),
        lambda o, y: (ce(o, y) - 0.1).abs() + 0.1,
        lambda o, y: ce(o, y) + 0.5 * math.log(2 * math.pi),
        lambda o, y: ce(o, y) + 0.0 * o.detach().mean(),
        lambda o, y: ce(o, y) + F.relu(o.square().mean() - 1e6),
        lambda o, y: ce(o, y) + (o + (o.round() - o).detach()).square().mean(),
        *(logged, swapped, weighted, policy, shifted),
    ],
)
def test_what_is_meant_is_silent(loss: Loss) -> None:
    assert how(check(loss)) == []


def test_what_the_inputs_alone_give_is_no_term_of_the_model() -> None:
    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), x.detach().abs().mean()

    assert how(check(lambda o, y: ce(o[0], y) + o[1], Watched(16, 4))) == []
