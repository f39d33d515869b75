"""Likelihoods that a loss lowers though no target of the batch enters, and games in which one is lowered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unvanish


class Chain(nn.Module):
    """The log-probability of a labelled sequence (B, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.step = nn.Linear(6, 4), nn.Parameter(0.1 * torch.randn(4, 4))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        u, rows = self.score(x), torch.arange(len(x))
        own, all_ways = u[rows, 0, y[:, 0]], u[:, 0]
        for t in range(1, x.shape[1]):
            own = own + u[rows, t, y[:, t]] + self.step[y[:, t - 1], y[:, t]]
            all_ways = torch.logsumexp(all_ways[:, :, None] + self.step[None], 1) + u[:, t]
        return own - torch.logsumexp(all_ways, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_log_probability_that_a_model_returns(sign: int) -> None:
    torch.manual_seed(0)
    batch = ((torch.randn(16, 5, 6), torch.randint(0, 4, (16, 5))),)
    found = unvanish.check(Chain(), batch, lambda log_p: sign * log_p.mean(), confirm=False)
    assert ("LOS002" in found.codes()) == (sign > 0)


class Choice(nn.Module):
    """The log-probability of an action."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 4)

    def forward(self, x: Tensor, action: Tensor) -> Tensor:
        return torch.distributions.Categorical(logits=self.net(x)).log_prob(action)


@pytest.mark.parametrize("sign", [1, -1])
def test_rewards_that_weigh_what_a_model_returns(sign: int) -> None:
    torch.manual_seed(0)

    def loss(log_p: Tensor, table: Tensor) -> Tensor:  # columns: old log-probability, advantage
        ratio, gain = (log_p - table[:, 0]).exp(), table[:, 1]
        total: Tensor = sign * torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
        return total

    net, x, action = Choice(), torch.randn(64, 6), torch.randint(0, 4, (64,))
    old = net(x, action).detach() + 0.02 * torch.randn(64)
    batch = (x, action), torch.stack([old, torch.randn(64)], 1)
    assert ("LOS002" in unvanish.check(net, batch, loss, confirm=False).codes()) == (sign > 0)


def judged(sign: int, both: bool) -> Any:
    def loss(out: Tensor) -> Tensor:
        real, fake = out[:, 0], out[:, 1]
        no = functional.logsigmoid(-fake).mean()
        total: Tensor = sign * (functional.logsigmoid(real).mean() + no if both else no)
        return total

    return loss


@pytest.mark.parametrize(("sign", "both", "wrong"), [(1, True, True), (-1, True, False), (1, False, False)])
def test_yes_and_no_are_both_lowered(sign: int, both: bool, wrong: bool) -> None:
    """One alone is a generator's loss in the first form of the game."""
    torch.manual_seed(0)
    found = unvanish.check(nn.Linear(6, 2), torch.randn(32, 6), judged(sign, both), confirm=False)
    assert ("LOS002" in found.codes()) == wrong


@pytest.mark.parametrize("sign", [1, -1])
def test_an_error_against_a_teacher_that_is_all_of_the_loss(sign: int) -> None:
    torch.manual_seed(0)

    class Pair(nn.Module):
        """A student's scores and a frozen teacher's."""

        def __init__(self) -> None:
            super().__init__()
            self.own, self.teacher = nn.Linear(6, 4), nn.Linear(6, 4).requires_grad_(False)

        def forward(self, x: Tensor) -> Any:
            return self.own(x), self.teacher(x)

    def loss(out: Any) -> Tensor:
        return sign * functional.kl_div(out[0].log_softmax(1), out[1].softmax(1), reduction="batchmean")

    found = unvanish.check(Pair(), torch.randn(32, 6), loss, confirm=False)
    assert ("LOS002" in found.codes()) == (sign < 0)
