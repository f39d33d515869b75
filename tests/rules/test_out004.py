"""OUT004: how people let output and target broadcast, and the tables of pairs that are meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish
from unvanish.cures import cures
from unvanish.probes.loss_calls import find_stretches

N = 24
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 8, generator=GENERATOR)
Y = X[:, :3].sum(1)
BANK = torch.randn(N, 16, generator=GENERATOR)
ONES = torch.ones(N, 1)
Loss = Callable[..., Tensor]


class Answers(nn.Module):
    """A small net with `width` outputs, or one without its axis (0)."""

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, width or 1))
        self.flat = not width

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out.squeeze(-1) if self.flat else out


def judge(width: int, y: Tensor | None, loss: Loss, x: Tensor = X) -> list[str]:
    found = unvanish.check(Answers(width), x if y is None else (x, y), loss, confirm=False, select=["OUT004"])
    return [f.severity for f in found.findings]


SICK: dict[str, tuple[int, Tensor | None, Loss]] = {
    "squared error": (1, Y, nn.MSELoss()),
    "absolute error": (1, Y, nn.L1Loss()),
    "huber": (1, Y, nn.HuberLoss()),
    "smooth": (1, Y, functional.smooth_l1_loss),
    "the other way": (0, Y[:, None], nn.MSELoss()),
    "by hand": (1, Y, lambda o, y: ((o - y) ** 2).mean()),
    "by hand, turned": (1, Y, lambda o, y: (y - o).abs().mean()),
    "captured": (1, None, lambda o: ((o - Y) ** 2).mean()),
    "log-cosh": (1, Y, lambda o, y: torch.log(torch.cosh(o - y)).mean()),
    "root": (1, Y, lambda o, y: functional.mse_loss(o, y).sqrt()),
    "likelihood": (1, Y, lambda o, y: -torch.distributions.Normal(o, 1.0).log_prob(y).mean()),
    "gaussian": (1, Y, lambda o, y: functional.gaussian_nll_loss(o, y, torch.ones_like(o))),
    "poisson": (1, Y.abs(), nn.PoissonNLLLoss()),
    "derived targets": (1, Y, lambda o, y: functional.mse_loss(o, (y - y.mean()) / y.std())),
    "a choice": (
        1,
        Y,
        lambda o, y: torch.where(y > 0, functional.softplus(-o), functional.softplus(o)).mean(),
    ),
    "weights": (1, Y[:, None], lambda o, y: ((o - y) ** 2 * torch.linspace(0, 1, N)).mean()),
}


def advantage(o: Tensor, y: Tensor) -> Tensor:
    return y - o[:, :1].detach()


SICK |= {
    "an advantage": (2, Y, lambda o, y: -(advantage(o, y) * o[:, 1].tanh()).mean()),
    "an advantage, turned": (2, Y, lambda o, y: ((o[:, :1].detach() - y) * o[:, 1]).sum() / N**2),
    "a standard advantage": (
        2,
        Y,
        lambda o, y: (
            (o[:, 1] * (advantage(o, y) - advantage(o, y).mean()) / advantage(o, y).std()).clamp(-3, 3).mean()
        ),
    ),
    "two outputs": (2, None, lambda o: (0.2 * o[:, :1] - o[:, 1]).mean()),
    "two outputs, squared": (2, None, lambda o: ((o[:, 0] * o[:, 1:]) ** 2).mean()),
    "the lesser of two": (
        2,
        Y,
        lambda o, y: torch.min(o[:, 0] * advantage(o, y), o[:, 0].clamp(0, 1) * advantage(o, y)).mean(),
    ),
}


@pytest.mark.parametrize("name", SICK)
def test_pairs_of_all_samples_are_found(name: str) -> None:
    assert judge(*SICK[name]) == ["error"]


def test_sequences_and_masks_are_found() -> None:
    steps = torch.randn(6, 6, 8)
    assert judge(1, torch.randn(6, 6), nn.MSELoss(), steps) == ["error"]
    net, batch = nn.Conv2d(3, 1, 3, padding=1), (torch.randn(5, 3, 8, 8), torch.randn(5, 8, 8))
    found = unvanish.check(net, batch, nn.L1Loss(), select=["OUT004"], confirm=False)
    assert "(5, 1, 8, 8)" in found.findings[0].cause and "(5, 5, 8, 8)" in found.findings[0].cause


def pairwise(o: Tensor, y: Tensor) -> Tensor:
    return functional.softplus(-(o - o.T) * torch.sign(y[:, None] - y[None])).mean()


def kernel(o: Tensor) -> Tensor:
    return torch.exp(-((o[:, None] - BANK) ** 2).sum(-1)).mean()


QUANTILES = torch.tensor([0.1, 0.5, 0.9])
MEANT: dict[str, tuple[int, Tensor | None, Loss]] = {
    "one shape": (1, Y[:, None], nn.MSELoss()),
    "squeezed": (0, Y, nn.MSELoss()),
    "a constant": (1, None, lambda o: functional.mse_loss(o, torch.tensor(1.0))),
    "quantiles": (
        3,
        Y,
        lambda o, y: torch.max(QUANTILES * (y[:, None] - o), (QUANTILES - 1) * (y[:, None] - o)).mean(),
    ),
    "the best of five": (5, Y[:, None], lambda o, y: ((o - y) ** 2).min(1).values.mean()),
    "a mixture": (
        5,
        Y,
        lambda o, y: -torch.distributions.Normal(o, 1.0).log_prob(y[:, None]).logsumexp(1).mean(),
    ),
    "pairs of outputs": (1, Y, pairwise),
    "a kernel": (16, None, kernel),
    "nearest of the targets": (16, BANK, lambda o, y: ((o[:, None] - y) ** 2).sum(-1).min(1).values.mean()),
    "an energy": (0, Y, lambda o, y: (o[:, None] - y[None]).abs().mean()),
    "distances": (16, None, lambda o: torch.cdist(o, BANK).mean()),
    "weights of samples": (3, torch.randn(N, 3), lambda o, y: ((o - y) ** 2 * ONES).mean()),
    "weights of classes": (3, torch.randn(N, 3), lambda o, y: ((o - y) ** 2 * torch.rand(3)).mean()),
    "shown only": (1, Y, lambda o, y: (functional.mse_loss(o[:, 0], y), (o - y).abs().mean())[0]),
    "squared lengths": (
        4,
        None,
        lambda o: ((o**2).sum(1, keepdim=True) + ((o + 1) ** 2).sum(1) - 2 * o @ (o + 1).T).mean(),
    ),
    "the same output twice": (1, None, lambda o: (o - o.squeeze(1)).abs().mean()),
    "the same answers twice": (1, Y[:, None], lambda o, y: ((y - y[:, 0]) * (o - o.T)).mean()),
    "sums of scores": (2, None, lambda o: ((o[:, :1] * 2) + o[:, 1] * 3).logsumexp(1).mean()),
    "scores with a table": (2, BANK @ BANK.T, lambda o, y: ((o[:, :1] * 2 + o[:, 1] * 3 - y) ** 2).mean()),
    "an advantage of one shape": (2, Y, lambda o, y: ((y - o[:, 0].detach()) * o[:, 1]).mean()),
    "a ratio": (0, Y, lambda o, y: torch.min(o.exp() * y, o.exp().clamp(0.8, 1.2) * y).mean()),
}


@pytest.mark.parametrize("name", MEANT)
def test_tables_that_are_meant_are_left_alone(name: str) -> None:
    assert judge(*MEANT[name]) == []


def test_one_output_for_several_targets_is_a_warning_and_several_outputs_for_one_a_note() -> None:
    assert judge(1, torch.randn(N, 3), nn.MSELoss()) == ["warning"]
    assert judge(3, Y[:, None], nn.MSELoss()) == ["note"]


def test_the_line_is_named_if_it_is_the_users_own() -> None:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        return (o - y).pow(2).mean()

    line = loss.__code__.co_firstlineno + 1
    found = unvanish.check(Answers(), (X, Y), loss, confirm=False).findings[0]
    assert found.code == "OUT004" and f"sub at test_out004.py:{line}" in found.cause
    assert " at " not in unvanish.check(Answers(), (X, Y), nn.MSELoss(), confirm=False).findings[0].cause


def test_the_cure_makes_it_learn() -> None:
    cured = unvanish.cure(Answers(), (X, Y), nn.MSELoss())
    assert "match-target-shape" in [r.cure for r in cured.prescription.remedies]
    matched: Any = cured.loss
    assert matched(torch.zeros(N, 1), Y) == pytest.approx(float(Y.square().mean()), rel=1e-5)


def test_its_code_is_shown() -> None:
    cure = cures()["match-target-shape"]
    assert any("view_as" in line for line in cure.code(cure.case()[1]))


@pytest.mark.parametrize(
    ("a", "b", "grown", "growing"),
    [
        ((4, 1), (4,), {-1: 4}, {-2: 4}),
        ((4,), (4, 1), {-2: 4}, {-1: 4}),
        ((4, 3), (4, 1), {}, {-1: 3}),
        ((4, 3), (4, 3), {}, {}),
        ((1, 5), (4, 5), {-2: 4}, {}),
    ],
)
def test_which_axes_are_repeated(a: Any, b: Any, grown: dict[int, int], growing: dict[int, int]) -> None:
    assert find_stretches(a, b) == (grown, growing)
