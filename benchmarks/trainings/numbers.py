"""Numbers instead of classes, several tasks at once, and learning by reward."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.trainings.basis import (
    Learned,
    Open,
    compare,
    fit,
    mlp,
    pick,
    pick_digits,
    read_digits,
    training,
)


def draw_curve(steps: int, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """A smooth function of eight numbers, with noise, (n, 8) and (n, 1)."""
    x = torch.randn(64 * min(steps, 40), 8)
    y = (x[:, :1] * x[:, 1:2]).tanh() + (2 * x[:, 2:3]).sin() + 0.5 * x[:, 3:4]
    return x, y + noise * torch.randn_like(y)


@training
def regression(watching: Open) -> Learned:
    net, data = mlp(8, 64, 64, 1), draw_curve(900)
    losses = fit(
        watching, net, torch.optim.Adam(net.parameters(), 2e-3), pick(*data, steps=900),
        lambda x, y: F.mse_loss(net(x), y),
    )  # fmt: skip
    return compare(losses, 0.3)


@training
def regression_with_outliers(watching: Open) -> Learned:
    net, (x, y) = mlp(8, 64, 64, 1, act=nn.SiLU), draw_curve(900)
    y = y + 20 * (torch.rand_like(y) < 0.02) * torch.randn_like(y)
    losses = fit(
        watching, net, torch.optim.AdamW(net.parameters(), 2e-3), pick(x, y, steps=900),
        lambda x, y: F.huber_loss(net(x), y),
    )  # fmt: skip
    return compare(losses, 0.7)


@training
def quantiles(watching: Open) -> Learned:
    net, data = mlp(8, 64, 64, 3), draw_curve(700, 0.3)
    levels = torch.tensor([0.1, 0.5, 0.9])

    def measure(x: Tensor, y: Tensor) -> Tensor:
        off = y - net(x)
        return torch.maximum(levels * off, (levels - 1) * off).mean()

    losses = fit(watching, net, torch.optim.Adam(net.parameters(), 2e-3), pick(*data, steps=700), measure)
    return compare(losses, 0.5)


@training
def mean_and_variance(watching: Open) -> Learned:
    net, data = mlp(8, 64, 64, 2), draw_curve(800, 0.3)

    def measure(x: Tensor, y: Tensor) -> Tensor:
        mean, wide = net(x).chunk(2, 1)
        return F.gaussian_nll_loss(mean, y, F.softplus(wide) + 1e-3)

    losses = fit(watching, net, torch.optim.Adam(net.parameters(), 1e-3), pick(*data, steps=800), measure)
    return compare(losses, 0.5)


@training
def linear_to_its_floor(watching: Open) -> Learned:
    net, x = nn.Linear(16, 1), torch.randn(512, 16)
    y = x @ torch.randn(16, 1) + 0.5 * torch.randn(512, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    losses = fit(watching, net, optimizer, ((x, y) for _ in range(1500)), lambda x, y: F.mse_loss(net(x), y))
    return compare(losses, 0.1)


@training
def picture_as_a_function(watching: Open) -> Learned:
    """Tancik et al. 2020: a place in, its grey out."""
    axis = torch.linspace(-1, 1, 16)
    place = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    grey = ((5 * place[:, :1]).sin() * (7 * place[:, 1:]).cos() + 1) / 2
    wave = 3 * torch.randn(2, 24)
    seen = torch.cat([(place @ wave).sin(), (place @ wave).cos()], 1)
    net = nn.Sequential(*mlp(48, 64, 64, 1), nn.Sigmoid())
    losses = fit(
        watching, net, torch.optim.Adam(net.parameters(), 2e-3), ((seen, grey) for _ in range(600)),
        lambda x, y: F.mse_loss(net(x), y),
    )  # fmt: skip
    return compare(losses, 0.05)


@training
def several_tasks(watching: Open) -> Learned:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.name, self.ink = (
                nn.Sequential(nn.Flatten(), *mlp(64, 64, 64)),
                nn.Linear(64, 10),
                nn.Linear(64, 1),
            )

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = F.relu(self.trunk(x))
            return self.name(h), self.ink(h)

    net = Two()

    def measure(x: Tensor, y: Tensor) -> Tensor:
        name, ink = net(x)
        return F.cross_entropy(name, y) + F.mse_loss(ink[:, 0], x.abs().mean((1, 2, 3)))

    losses = fit(watching, net, torch.optim.Adam(net.parameters(), 1e-3), pick_digits(600), measure)
    return compare(losses, 0.2)


@training
def physics_in_the_loss(watching: Open) -> Learned:
    """Raissi et al. 2019: y' = -y, y(0) = 1."""
    net = mlp(1, 32, 32, 1, act=nn.Tanh)

    def measure(t: Tensor) -> Tensor:
        t = t.clone().requires_grad_()
        y = net(t)
        (slope,) = torch.autograd.grad(y.sum(), t, create_graph=True)
        return (slope + y).square().mean() + (net(torch.zeros(1, 1)) - 1).square().mean()

    data = ((3 * torch.rand(64, 1),) for _ in range(700))
    fit(watching, net, torch.optim.Adam(net.parameters(), 3e-3), data, measure)
    with torch.no_grad():
        off = float((net(torch.ones(1, 1)) - math.exp(-1)).abs())
    return Learned("error at 1", off, 0.05, False)


class Agent(nn.Module):
    """A policy and a value on one trunk."""

    def __init__(self, inputs: int = 4, acts: int = 3) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.policy, self.value = nn.Linear(64, acts), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.policy(h), self.value(h)[:, 0]


def reward(state: Tensor, act: Tensor) -> Tensor:
    """One for the largest of the first three numbers."""
    return (act == state[:, :3].argmax(1)).float()


@training
def policy_gradient(watching: Open) -> Learned:
    net = mlp(4, 32, 3, act=nn.Tanh)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    got = []
    with watching(net, optimizer, None):
        for _ in range(700):
            state = torch.randn(64, 4)
            odds = torch.distributions.Categorical(logits=net(state))
            act = odds.sample()
            r = reward(state, act)
            optimizer.zero_grad()
            (-(odds.log_prob(act) * (r - r.mean())).mean()).backward()
            optimizer.step()
            got.append(float(r.mean()))
    return Learned("reward", sum(got[-50:]) / 50, 0.75)


@training
def actor_and_critic(watching: Open) -> Learned:
    net = Agent()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    got = []
    with watching(net, optimizer, None):
        for _ in range(700):
            state = torch.randn(64, 4)
            logits, value = net(state)
            odds = torch.distributions.Categorical(logits=logits)
            act = odds.sample()
            r = reward(state, act)
            gain = (r - value).detach()
            loss = (
                F.mse_loss(value, r) * 0.5 - (odds.log_prob(act) * gain).mean() - 0.01 * odds.entropy().mean()
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
            got.append(float(r.mean()))
    return Learned("reward", sum(got[-50:]) / 50, 0.75)


@training
def proximal_policy(watching: Open) -> Learned:
    net = Agent()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    got = []
    with watching(net, optimizer, None):
        for _ in range(120):
            state = torch.randn(256, 4)
            with torch.no_grad():
                logits, value = net(state)
                odds = torch.distributions.Categorical(logits=logits)
                act = odds.sample()
                r, before = reward(state, act), odds.log_prob(act)
                gain = F.normalize(r - value, dim=0) * len(r) ** 0.5
            for chosen in torch.randperm(256).split(64) * 2:
                logits, now = net(state[chosen])
                ratio = (
                    torch.distributions.Categorical(logits=logits).log_prob(act[chosen]) - before[chosen]
                ).exp()
                g = gain[chosen]
                loss = -torch.minimum(ratio * g, ratio.clamp(0.8, 1.2) * g).mean() + 0.5 * F.mse_loss(
                    now, r[chosen]
                )
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                optimizer.step()
            got.append(float(r.mean()))
    return Learned("reward", sum(got[-10:]) / 10, 0.75)


@training
def values_of_acts(watching: Open) -> Learned:
    """Mnih et al. 2015, in a corridor of eight places whose end is worth one."""
    net = mlp(8, 48, 48, 2)
    aim = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    place = torch.randint(0, 7, (2000,))
    act = torch.randint(0, 2, (2000,))
    then = (place + 2 * act - 1).clamp(min=0)
    r, go_on = (then == 7).float(), (then < 7).float()
    seen = torch.eye(8)
    with watching(net, optimizer, None):
        for step, (i,) in enumerate(pick(torch.arange(2000), steps=900)):
            if step % 50 == 0:
                aim.load_state_dict(net.state_dict())
            with torch.no_grad():
                wanted = r[i] + 0.9 * go_on[i] * aim(seen[then[i]]).amax(1)
            value = net(seen[place[i]]).gather(1, act[i][:, None])[:, 0]
            optimizer.zero_grad()
            F.smooth_l1_loss(value, wanted).backward()
            optimizer.step()
    return Learned("places left for the end", float((net(seen[:7]).argmax(1) == 1).float().mean()), 1.0)


@training
def digits_by_imitation(watching: Open) -> Learned:
    """A small network learns what a nearest neighbour says."""
    x, y, _, _ = read_digits()
    net = nn.Sequential(nn.Flatten(), *mlp(64, 48, 10))
    losses = fit(watching, net, torch.optim.Adam(net.parameters(), 1e-3), pick(x, y, steps=1500, size=32))
    return compare(losses, 0.1)
