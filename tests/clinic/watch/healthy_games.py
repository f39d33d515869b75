"""Loops as they should be: adversaries, and learning by reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tests.clinic.watch.loops import STEPS, Open, clip, loop
from torch import Tensor, nn


class Pair(nn.Module):
    """Both nets of an adversarial training."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        self.judge = nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))


def _play(
    watching: Open, pick: Callable[[Pair, Any, Any], tuple[nn.Module, Any]], every: int, keep: bool
) -> None:
    pair, loss = Pair(), nn.BCEWithLogitsLoss()
    maker = torch.optim.Adam(pair.make.parameters(), 2e-4, betas=(0.5, 0.999))
    judge = torch.optim.Adam(pair.judge.parameters(), 2e-4, betas=(0.5, 0.999))
    model, optimizers = pick(pair, maker, judge)
    one, zero = torch.ones(64, 1), torch.zeros(64, 1)
    with watching(model, optimizers, loss):
        for step in range(STEPS):
            real = torch.randn(64, 4) * torch.tensor([1.0, 0.5, 2.0, 1.0]) + 1
            judge.zero_grad(set_to_none=not keep)
            loss(pair.judge(real), one).backward()
            made = pair.make(torch.randn(64, 8))
            loss(pair.judge(made.detach()), zero).backward()
            judge.step()
            if step % every == every - 1:
                maker.zero_grad(set_to_none=not keep)
                loss(pair.judge(pair.make(torch.randn(64, 8))), one).backward()
                maker.step()


@loop
def adversarial_both(watching: Open) -> None:
    _play(watching, lambda pair, maker, judge: (pair, [maker, judge]), 1, keep=False)


@loop
def adversarial_in_place(watching: Open) -> None:
    _play(watching, lambda pair, maker, judge: (pair, [maker, judge]), 1, keep=True)


@loop
def adversarial_maker_alone(watching: Open) -> None:
    _play(watching, lambda pair, maker, judge: (pair.make, maker), 1, keep=False)


@loop
def adversarial_judge_alone_of_the_pair(watching: Open) -> None:
    _play(watching, lambda pair, maker, judge: (pair, judge), 1, keep=False)


@loop
def adversarial_five_to_one(watching: Open) -> None:
    _play(watching, lambda pair, maker, judge: (pair, [maker, judge]), 5, keep=False)


@loop
def gradient_penalty(watching: Open) -> None:
    critic = nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.0, 0.9))
    watch = watching(critic, optimizer, None)
    for _ in range(STEPS):
        real, made = torch.randn(64, 4) + 1, torch.randn(64, 4)
        between = torch.lerp(real, made, torch.rand(64, 1)).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        value = critic(made).mean() - critic(real).mean() + 10 * (slope.norm(dim=1) - 1).square().mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        watch.step(value)
    watch.close()


@loop
def policy_gradient(watching: Open) -> None:
    policy = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    watch = watching(policy, optimizer, None)
    for _ in range(STEPS):
        state = torch.randn(64, 4)
        chosen = torch.distributions.Categorical(logits=policy(state))
        act = chosen.sample()
        reward = (act == state[:, :3].argmax(1)).float()
        value = -(chosen.log_prob(act) * (reward - reward.mean())).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        watch.step(value)
    watch.close()


class Agent(nn.Module):
    """A trunk with rectifiers, a policy and a value."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.policy, self.value = nn.Linear(64, 3), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.policy(h), self.value(h)


@loop
def actor_and_critic(watching: Open) -> None:
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), 1e-3)
    with watching(agent, optimizer, None) as watch:
        state = torch.randn(16, 4)
        for _ in range(STEPS):
            logits, value = agent(state)
            chosen = torch.distributions.Categorical(logits=logits)
            act = chosen.sample()
            reward = (act == state[:, :3].argmax(1)).float() * 5
            advantage = reward - value[:, 0]
            total = advantage.square().mean() - (chosen.log_prob(act) * advantage.detach()).mean()
            optimizer.zero_grad()
            total.backward()
            clip(agent, 0.5)
            optimizer.step()
            state = 0.95 * state + 0.05 * torch.randn(16, 4) + 0.05
            watch.step(total)


@loop
def maximised_reward(watching: Open) -> None:
    mean = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(mean.parameters(), 1e-2, maximize=True)
    with watching(mean, optimizer, None) as watch:
        for _ in range(STEPS):
            x = torch.randn(64, 4)
            optimizer.zero_grad()
            reward = -(mean(x) - x.flip(1)).square().mean()
            reward.backward()
            optimizer.step()
            watch.step(reward)
