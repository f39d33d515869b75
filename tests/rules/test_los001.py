"""LOS001: sums of terms in which one drowns another, and the usual ones that balance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional

import unvanish
from unvanish.probes.terms import find_summands

N = 48
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 8, generator=GENERATOR)
CLASSES = (X @ torch.randn(8, 4, generator=GENERATOR)).argmax(1)
BOTH = torch.stack([X[:, :3].sum(1), CLASSES.float()], 1)
IMAGES = torch.rand(N, 784, generator=GENERATOR)
Loss = Callable[..., Tensor]


class Two(nn.Module):
    """A number and a class from one body."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.number, self.classes = nn.Linear(32, 1), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.number(h)[:, 0], self.classes(h)


class Variational(nn.Module):
    """A variational autoencoder without its noise."""

    def __init__(self, size: int, code: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.code = nn.Sequential(nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, 2 * code))
        self.back = nn.Sequential(nn.Linear(code, 64), nn.ReLU(), nn.Linear(64, size))

    def forward(self, x: Tensor) -> Any:
        mean, log = self.code(x).chunk(2, 1)
        return self.back(mean), 0.5 * (mean**2 + log.exp() - log - 1)


def build() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


NET = build()


def weigh(first: float = 1.0, second: float = 1.0, unit: float = 1.0) -> Loss:
    def loss(out: Any, y: Tensor) -> Tensor:
        number = functional.mse_loss(out[0], unit * y[:, 0])
        return first * number + second * functional.cross_entropy(out[1], y[:, 1].long())

    return loss


def penalise(factor: float, power: int) -> Loss:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        penalty = sum(w.abs().pow(power).sum() for w in NET.parameters())
        return functional.cross_entropy(out, y) + factor * penalty

    return loss


def elbo(reconstruct: Loss, divergence: Loss, beta: float = 1.0) -> Loss:
    return lambda out, x: reconstruct(out[0], x) + beta * divergence(out[1])


def a_sample(a: Tensor, b: Tensor) -> Tensor:
    return functional.mse_loss(a, b, reduction="sum") / len(a)


def act(out: Any, y: Tensor) -> Tensor:
    chosen = Categorical(logits=out[1])
    gain = (y[:, 0] - out[0]).detach()
    value = 0.5 * functional.mse_loss(out[0], y[:, 0])
    return -(chosen.log_prob(y[:, 1].long()) * gain).mean() + value - 0.01 * chosen.entropy().mean()


def weigh_one_class(out: Any, y: Tensor) -> Tensor:
    background = torch.zeros(N, dtype=torch.long)
    return functional.mse_loss(out[0], 1e4 * y[:, 0]) + functional.cross_entropy(out[1], background)


def stack(out: Any, y: Tensor) -> Tensor:
    return torch.stack([weigh(1, 0, 3e3)(out, y), weigh(0, 1)(out, y)]).sum()


def penalise_slope(out: Tensor, y: Tensor) -> Tensor:
    """A critic's loss with a penalty on its slope between real and fake."""
    z = (X / 2).requires_grad_()
    (slope,) = torch.autograd.grad(NET(z).sum(), z, create_graph=True)
    return NET(-X).mean() - 3 * out.mean() + 10 * (slope.norm(dim=1) - 1).square().mean()


def penalise_angles(out: Tensor, y: Tensor) -> Tensor:
    weight = NET[0].weight
    return functional.cross_entropy(out, y) + 1e-3 * (weight.T @ weight - torch.eye(8)).square().sum()


class Heads(nn.Module):
    """A number, and two yes-or-no answers, from one body; `split`: each answer has a head of its own."""

    def __init__(self, split: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.number = nn.Linear(32, 1)
        self.answers = nn.ModuleList(
            [nn.Linear(32, 1)] * 2 if not split else [nn.Linear(32, 1), nn.Linear(32, 1)]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = self.body(x)
        return self.number(h)[:, 0], *(answer(h)[:, 0] for answer in self.answers)


YES, NO, BOTH_WAYS = torch.ones(N), torch.zeros(N), (X[:, 0] > 0).float()


def ask(*wanted: Tensor, kind: Loss = functional.binary_cross_entropy_with_logits) -> Loss:
    """A number that drowns all beside it, and what is wanted of the answers."""

    def loss(out: tuple[Tensor, ...], y: Tensor) -> Tensor:
        total = functional.mse_loss(out[0], 1e3 * y[:, 0])
        for answer, target in zip(out[1:], wanted, strict=False):
            total = total + kind(answer, target)
        return total

    return loss


SICK: dict[str, tuple[nn.Module, Any, Loss]] = {
    "real and fake": (Heads(), (X, BOTH), ask(YES, NO)),
    "two answers of one head": (Heads(False), (X, BOTH), ask(NO, NO)),
    "an answer that differs": (Heads(), (X, BOTH), ask(BOTH_WAYS)),
    "an answer that differs beside an empty one": (Heads(), (X, BOTH), ask(NO, BOTH_WAYS)),
    "a price": (Two(), (X, BOTH), weigh(unit=1e4)),
    "stacked": (
        Two(),
        (X, BOTH),
        stack,
    ),
    "squared weights": (NET, (X, CLASSES), penalise(10.0, 2)),
    "absolute weights": (NET, (X, CLASSES), penalise(1.0, 1)),
    "a sum beside a mean": (Variational(784), (IMAGES, IMAGES), elbo(functional.mse_loss, Tensor.sum)),
}
BALANCED: dict[str, tuple[nn.Module, Any, Loss]] = {
    "one unit": (Two(), (X, BOTH), weigh()),
    "weighed": (Two(), (X, BOTH), weigh(0.5, 2)),
    "a small term that is meant": (Two(), (X, BOTH), weigh(1e-4, 1)),
    "a term that waits": (Two(), (X, BOTH), weigh(0.0, 1)),
    "usual decay": (NET, (X, CLASSES), penalise(1e-4, 2)),
    "usual sparsity": (NET, (X, CLASSES), penalise(1e-3, 1)),
    "a sample each": (Variational(784), (IMAGES, IMAGES), elbo(a_sample, lambda k: k.sum() / N)),
    "means": (Variational(8), (X, X), elbo(functional.mse_loss, Tensor.mean)),
    "four times the divergence": (Variational(8), (X, X), elbo(a_sample, lambda k: k.sum() / N, 4.0)),
    "warming up": (Variational(8), (X, X), elbo(a_sample, lambda k: k.sum() / N, 1e-3)),
    "an actor and a critic": (Two(), (X, BOTH), act),
    "a penalty on the slope": (NET, (X, CLASSES), penalise_slope),
    "a penalty on angles": (NET, (X, CLASSES), penalise_angles),
    "one term": (NET, (X, CLASSES), nn.CrossEntropyLoss()),
    "an empty level": (Heads(), (X, BOTH), ask(NO)),
    "two empty levels": (Heads(), (X, BOTH), ask(NO, NO)),
    "a head that is always at one": (Heads(), (X, BOTH), ask(YES, kind=functional.mse_loss)),
    "an empty level of classes": (Two(), (X, BOTH), weigh_one_class),
}


def judge(net: nn.Module, batch: Any, loss: Loss) -> tuple[str, ...]:
    return unvanish.check(net, batch, loss, confirm=False, select=["LOS001"]).codes("note")


@pytest.mark.parametrize("name", SICK)
def test_a_drowned_term_is_found(name: str) -> None:
    assert judge(*SICK[name]) == ("LOS001",)


@pytest.mark.parametrize("name", BALANCED)
def test_terms_that_balance_are_left_alone(name: str) -> None:
    assert judge(*BALANCED[name]) == ()


def test_both_terms_and_the_line_are_named() -> None:
    net, batch, loss = SICK["a price"]
    cause = unvanish.check(net, batch, loss, select=["LOS001"], confirm=False).findings[0].cause
    assert "mse_loss at test_los001.py:" in cause and "cross_entropy at test_los001.py:" in cause


def test_a_penalty_is_one_term_however_many_parameters_it_has() -> None:
    net, batch, loss = SICK["squared weights"]
    facts = unvanish.check(net, batch, loss, confirm=False).trace.facts
    assert [t["data"] for t in facts["terms"]] == [True, False] and len(facts["pairs"]) == 1


def test_a_term_that_drowns_by_its_factor_too_is_a_note() -> None:
    found = unvanish.check(Two(), (X, BOTH), weigh(20.0, 1, 40.0), confirm=False, select=["LOS001"])
    assert found.codes("note") == ("LOS001",) and found.codes() == ()


def test_terms_that_undo_each_other_are_a_note() -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        return functional.mse_loss(out, y) + functional.mse_loss(out, -y)

    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    nn.init.zeros_(net[2].bias)
    net[2].weight.data *= 0.01
    found = unvanish.check(net, (X, X[:, :1]), loss, confirm=False, select=["LOS001"])
    assert found.codes("note") == ("LOS001",) and found.codes() == ()


def test_summands_are_read_below_their_factors() -> None:
    a, b = (torch.ones(3, requires_grad=True) for _ in range(2))
    assert len(find_summands(2 * (a.sum() - 3 * b.mean()) / 5)) == 2
    assert len(find_summands(torch.stack([a.sum(), b.sum(), a.mean()]).mean())) == 3
    assert len(find_summands((a + b).sum())) == 1


@pytest.mark.parametrize(
    ("optimizer", "decay", "codes"),
    [
        (torch.optim.SGD, 10.0, ("LOS001",)),
        (torch.optim.Adam, 10.0, ("LOS001",)),
        (torch.optim.SGD, 5e-4, ()),
        (torch.optim.AdamW, 0.1, ()),
    ],
)
def test_a_weight_decay_is_held_against_the_loss(
    optimizer: Any, decay: float, codes: tuple[str, ...]
) -> None:
    net = build()
    held = optimizer(net.parameters(), lr=1e-3, weight_decay=decay)
    found = unvanish.check(
        net, (X, CLASSES), nn.CrossEntropyLoss(), optimizer=held, confirm=False, select=["LOS001"]
    )
    assert found.codes() == codes


def test_a_term_without_targets_that_outweighs_the_data_is_a_fault_whatever_its_factor() -> None:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(o, y) + 1e3 * o.square().sum()

    assert unvanish.check(build(), (X, CLASSES), loss, confirm=False, select=["LOS001"]).codes() == (
        "LOS001",
    )


@pytest.mark.parametrize(("factor", "severities"), [(1e6, ["warning"]), (300.0, [])])
def test_a_factor_that_leaves_nothing_of_the_other_targets(factor: float, severities: list[str]) -> None:
    torch.manual_seed(0)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        error = nn.functional.mse_loss(out[:, 0], y[:, 0])
        return factor * error + nn.functional.cross_entropy(out[:, 1:], y[:, 1].long())

    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 5))
    y = torch.cat([torch.randn(32, 1), torch.randint(0, 4, (32, 1)).float()], 1)
    found = unvanish.check(net, (torch.randn(32, 8), y), loss, confirm=False).walk()
    assert [f.severity for f in found if f.code == "LOS001"] == severities
