"""Nothing is said of agents and self-supervised pairs: targets, advantages, teachers, negatives."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.clinic.designs import Design, classes, mlp, stays_quiet
from torch import Tensor, nn
from torch.nn import functional as F


class ActorCritic(nn.Module):
    def __init__(self, continuous: bool = False) -> None:
        super().__init__()
        self.trunk = mlp(8, 64, 64, activation=nn.Tanh)
        self.policy, self.value = nn.Linear(64, 4), nn.Linear(64, 1)
        self.log = nn.Parameter(torch.zeros(4)) if continuous else None
        nn.init.orthogonal_(self.policy.weight, 0.01)

    def forward(self, s: Tensor) -> Any:
        h = torch.tanh(self.trunk(s))
        found = self.policy(h), self.value(h).squeeze(-1)
        return found if self.log is None else (*found, self.log)


def clipped_policy() -> Design:
    """PPO with its value loss and its entropy."""

    def loss(out: Any, y: Any) -> Tensor:
        logits, value = out
        action, old, advantage, returns = y
        chosen = torch.distributions.Categorical(logits=logits)
        ratio = (chosen.log_prob(action) - old).exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        gain = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        return -gain + 0.5 * F.mse_loss(value, returns) - 0.01 * chosen.entropy().mean()

    net, s = ActorCritic(), torch.randn(64, 8)
    with torch.no_grad():
        chosen = torch.distributions.Categorical(logits=net(s)[0])
        action = chosen.sample()
        old = chosen.log_prob(action)
    return Design(net, (s, (action, old, torch.randn(64), torch.randn(64))), loss, 3e-4)


def advantage_actor() -> Design:
    """A2C: the advantage is a constant for the policy."""

    def loss(out: Any, y: Any) -> Tensor:
        (logits, value), (action, returns) = out, y
        chosen = torch.distributions.Categorical(logits=logits)
        advantage = returns - value.detach()
        return -(chosen.log_prob(action) * advantage).mean() + 0.5 * (returns - value).square().mean()

    return Design(ActorCritic(), (torch.randn(64, 8), (classes(64), torch.randn(64))), loss)


def reinforce() -> Design:
    def loss(logits: Tensor, y: Any) -> Tensor:
        action, returns = y
        returns = (returns - returns.mean()) / (returns.std() + 1e-9)
        return -(logits.log_softmax(-1).gather(1, action[:, None]).squeeze(1) * returns).sum()

    return Design(mlp(4, 64, 2), (torch.randn(50, 4), (classes(50, 2), torch.linspace(50, 1, 50))), loss)


def gaussian_policy() -> Design:
    def loss(out: Any, y: Any) -> Tensor:
        (mean, value, log), (action, old, advantage, returns) = out, y
        chosen = torch.distributions.Normal(mean, log.exp())
        ratio = (chosen.log_prob(action).sum(-1) - old).exp()
        gain = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        return -gain + 0.5 * F.mse_loss(value, returns) - 1e-3 * chosen.entropy().sum(-1).mean()

    net, s = ActorCritic(True), torch.randn(64, 8)
    with torch.no_grad():
        chosen = torch.distributions.Normal(net(s)[0], 1.0)
        action = chosen.sample()
        old = chosen.log_prob(action).sum(-1)
    return Design(net, (s, (action, old, torch.randn(64), torch.randn(64))), loss, 3e-4)


def q_net(double: bool) -> Design:
    class Agent(nn.Module):
        """A Q-net and its target, which follows slowly."""

        def __init__(self) -> None:
            super().__init__()
            self.q = mlp(8, 64, 64, 4)
            self.target = copy.deepcopy(self.q).requires_grad_(False)

        def forward(self, s: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                then = self.target(after)
                best = self.q(after).argmax(1) if double else then.argmax(1)
                following = then.gather(1, best[:, None]).squeeze(1)
            return self.q(s), following

        def follow(self) -> None:
            with torch.no_grad():
                for a, b in zip(self.target.parameters(), self.q.parameters(), strict=True):
                    a.lerp_(b, 0.05)

    def loss(out: Any, y: Any) -> Tensor:
        (q, following), (action, reward, done) = out, y
        return F.smooth_l1_loss(
            q.gather(1, action[:, None]).squeeze(1), reward + 0.99 * (1 - done) * following
        )

    agent = Agent()
    y = classes(64), torch.randn(64), (torch.rand(64) < 0.1).float()
    return Design(agent, ((torch.randn(64, 8), torch.randn(64, 8)), y), loss, after=agent.follow)


def soft_actor() -> Design:
    class Soft(nn.Module):
        """SAC, the actor's half: squashed samples, judged by two critics that are held fixed."""

        def __init__(self) -> None:
            super().__init__()
            self.actor = mlp(8, 64, 64, 2 * 3)
            self.critics = nn.ModuleList(mlp(11, 64, 1) for _ in range(2)).requires_grad_(False)

        def forward(self, s: Tensor) -> tuple[Tensor, Tensor]:
            mean, log = self.actor(s).chunk(2, -1)
            chosen = torch.distributions.Normal(mean, log.clamp(-20, 2).exp())
            raw = chosen.rsample()
            action = torch.tanh(raw)
            likelihood = (chosen.log_prob(raw) - torch.log(1 - action.square() + 1e-6)).sum(-1)
            both = torch.cat([s, action], -1)
            return likelihood, torch.min(*(c(both).squeeze(-1) for c in self.critics))

    return Design(Soft(), torch.randn(64, 8), lambda out: (0.2 * out[0] - out[1]).mean())


def soft_critics() -> Design:
    class Critics(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.critics = nn.ModuleList(mlp(11, 64, 64, 1) for _ in range(2))
            self.targets = copy.deepcopy(self.critics).requires_grad_(False)

        def forward(self, both: Tensor, then: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            with torch.no_grad():
                value = torch.min(*(c(then) for c in self.targets)).squeeze(-1)
            one, two = (c(both).squeeze(-1) for c in self.critics)
            return one, two, value

    def loss(out: Any, reward: Tensor) -> Tensor:
        one, two, value = out
        target = reward + 0.99 * value
        return F.mse_loss(one, target) + F.mse_loss(two, target)

    return Design(Critics(), ((torch.randn(64, 11), torch.randn(64, 11)), torch.randn(64)), loss)


def normed_mlp(*widths: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(widths[0], widths[1]), nn.BatchNorm1d(widths[1]), nn.ReLU(), nn.Linear(widths[1], widths[2])
    )


class Pair(nn.Module):
    """Two views through an encoder and a predictor; a teacher, if any, is a slow copy."""

    def __init__(self, teacher: bool) -> None:
        super().__init__()
        self.encoder, self.predictor = normed_mlp(24, 64, 32), normed_mlp(32, 16, 32)
        self.teacher = copy.deepcopy(self.encoder) if teacher else None

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        z = self.encoder(a), self.encoder(b)
        p = tuple(self.predictor(one) for one in z)
        if self.teacher is None:
            return (*p, z[0].detach(), z[1].detach())
        with torch.no_grad():
            return (*p, self.teacher(a), self.teacher(b))

    def follow(self) -> None:
        if self.teacher is not None:
            with torch.no_grad():
                for a, b in zip(self.teacher.parameters(), self.encoder.parameters(), strict=True):
                    a.lerp_(b, 0.01)


def two_views(d: int = 24, n: int = 64) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, d)
    return x + 0.2 * torch.randn(n, d), x + 0.2 * torch.randn(n, d)


def siamese(teacher: bool) -> Design:
    """BYOL with a teacher, SimSiam without."""

    def loss(out: tuple[Tensor, ...], _: Tensor) -> Tensor:
        p, q, y, z = out
        return 2 - F.cosine_similarity(p, z, dim=-1).mean() - F.cosine_similarity(q, y, dim=-1).mean()

    pair = Pair(teacher)
    return Design(pair, (two_views(), torch.zeros(64)), loss, after=pair.follow)


def self_distilled() -> Design:
    class Dino(nn.Module):
        """A centred, sharpened teacher, which is an average of the student (Caron et al. 2021)."""

        def __init__(self) -> None:
            super().__init__()
            self.student = nn.Sequential(
                mlp(24, 64, 32, activation=nn.GELU), Unit(), nn.Linear(32, 48, bias=False)
            )
            self.teacher = copy.deepcopy(self.student).requires_grad_(False)
            self.register_buffer("centre", torch.zeros(48))

        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                t = self.teacher(a), self.teacher(b)
                if self.training:
                    self.centre.lerp_(torch.cat(t).mean(0), 0.1)
            return (*((z - self.centre).div(0.04).softmax(-1) for z in t), self.student(a), self.student(b))

        def follow(self) -> None:
            with torch.no_grad():
                for a, b in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                    a.lerp_(b, 0.01)

    def loss(out: tuple[Tensor, ...], _: Tensor) -> Tensor:
        ta, tb, sa, sb = out
        return (
            -0.5
            * ((ta * (sb / 0.1).log_softmax(-1)).sum(-1) + (tb * (sa / 0.1).log_softmax(-1)).sum(-1)).mean()
        )

    net = Dino()
    return Design(net, (two_views(), torch.zeros(64)), loss, after=net.follow)


class Unit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


def views_in_a_batch() -> Design:
    """SimCLR: all other samples are negatives, which is a leak that is meant."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.project = mlp(24, 64, 64), mlp(64, 64, 32)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            z = F.normalize(self.project(F.relu(self.trunk(torch.cat([a, b])))), dim=-1)
            return (z @ z.T / 0.5).masked_fill(torch.eye(len(z), dtype=torch.bool), float("-inf"))

    n = 32
    labels = torch.arange(2 * n).roll(n)
    return Design(Encoder(), (two_views(n=n), labels), nn.CrossEntropyLoss())


def two_towers() -> Design:
    class Towers(nn.Module):
        """Texts and images scored against each other in the batch (Radford et al. 2021)."""

        def __init__(self) -> None:
            super().__init__()
            self.text, self.image = nn.Sequential(nn.EmbeddingBag(60, 32), nn.Linear(32, 24)), mlp(20, 48, 24)
            self.scale = nn.Parameter(torch.tensor(2.66))

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return self.scale.exp() * F.normalize(self.image(x), dim=-1) @ F.normalize(self.text(t), dim=-1).T

    def loss(s: Tensor, y: Tensor) -> Tensor:
        return (F.cross_entropy(s, y) + F.cross_entropy(s.T, y)) / 2

    return Design(Towers(), ((torch.randint(0, 60, (32, 7)), torch.randn(32, 20)), torch.arange(32)), loss)


def sigmoid_towers() -> Design:
    class Towers(nn.Module):
        """Every pair is a question of its own, with a bias of -10 (Zhai et al. 2023)."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = mlp(16, 48, 24), mlp(20, 48, 24)
            self.scale, self.bias = nn.Parameter(torch.tensor(2.3)), nn.Parameter(torch.tensor(-10.0))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (
                self.scale.exp() * F.normalize(self.a(x), dim=-1) @ F.normalize(self.b(y), dim=-1).T
                + self.bias
            )

    def loss(s: Tensor, _: Tensor) -> Tensor:
        return -F.logsigmoid(s * (2 * torch.eye(len(s)) - 1)).sum() / len(s)

    return Design(Towers(), ((torch.randn(32, 16), torch.randn(32, 20)), torch.zeros(32)), loss)


def triplets() -> Design:
    class Embed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(24, 64, 16)

        def forward(self, *three: Tensor) -> tuple[Tensor, ...]:
            return tuple(F.normalize(self.net(x), dim=-1) for x in three)

    a, p = two_views()
    return Design(
        Embed(),
        ((a, p, torch.randn(64, 24)), torch.zeros(64)),
        lambda out, _: F.triplet_margin_loss(*out, margin=0.5),
    )


def redundancy() -> Design:
    """Barlow Twins: the correlation of features over the batch, which is a leak that is meant."""

    def loss(out: tuple[Tensor, ...], _: Tensor) -> Tensor:
        a, b = ((z - z.mean(0)) / z.std(0) for z in out)
        c = a.T @ b / len(a)
        on = (c.diagonal() - 1).square().sum()
        return on + 5e-3 * (c.square().sum() - c.diagonal().square().sum())

    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = normed_mlp(24, 64, 32)

        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return self.net(a), self.net(b)

    return Design(Twins(), (two_views(), torch.zeros(64)), loss)


def variance_covariance() -> Design:
    """VICReg: three terms of different size, on purpose."""

    def loss(out: tuple[Tensor, ...], _: Tensor) -> Tensor:
        total = 25 * F.mse_loss(*out)
        for z in out:
            total = total + 25 * F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2
            c = (z - z.mean(0)).T @ (z - z.mean(0)) / (len(z) - 1)
            total = total + (c.square().sum() - c.diagonal().square().sum()) / z.shape[1]
        return total

    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = normed_mlp(24, 64, 32)

        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return self.net(a), self.net(b)

    return Design(Twins(), (two_views(), torch.zeros(64)), loss)


def queue() -> Design:
    class MoCo(nn.Module):
        """A queue of old keys and a slow encoder of keys (He et al. 2020)."""

        def __init__(self) -> None:
            super().__init__()
            self.query = mlp(24, 64, 16)
            self.key = copy.deepcopy(self.query).requires_grad_(False)
            self.register_buffer("old", F.normalize(torch.randn(128, 16), dim=-1))

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            q = F.normalize(self.query(a), dim=-1)
            with torch.no_grad():
                k = F.normalize(self.key(b), dim=-1)
            return torch.cat([(q * k).sum(1, keepdim=True), q @ self.old.clone().T], 1) / 0.2

        def follow(self) -> None:
            with torch.no_grad():
                for a, b in zip(self.key.parameters(), self.query.parameters(), strict=True):
                    a.lerp_(b, 0.01)

    net = MoCo()
    return Design(
        net, (two_views(), torch.zeros(64, dtype=torch.long)), nn.CrossEntropyLoss(), after=net.follow
    )


DESIGNS: dict[str, Any] = {
    "PPO": clipped_policy,
    "A2C": advantage_actor,
    "REINFORCE": reinforce,
    "PPO of continuous actions": gaussian_policy,
    "DQN": lambda: q_net(False),
    "double DQN": lambda: q_net(True),
    "SAC, actor": soft_actor,
    "SAC, critics": soft_critics,
    "BYOL": lambda: siamese(True),
    "SimSiam": lambda: siamese(False),
    "DINO": self_distilled,
    "SimCLR": views_in_a_batch,
    "two towers": two_towers,
    "two towers of sigmoids": sigmoid_towers,
    "triplets": triplets,
    "Barlow Twins": redundancy,
    "VICReg": variance_covariance,
    "MoCo": queue,
}


@pytest.mark.parametrize("build", DESIGNS.values(), ids=DESIGNS)
def test_what_teaches_itself_is_no_fault(build: Any) -> None:
    stays_quiet(build)
