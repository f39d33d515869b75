"""A loss that falls for ever is told from those that only look like it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unvanish


def mlp(enter: int, leave: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Linear(enter, 24), act(), nn.Linear(24, leave))


class Flow(nn.Module):
    """Four affine couplings; gives the log-likelihood of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(mlp(1, 2, nn.Tanh) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        total = x.new_zeros(len(x))
        for net in self.nets:
            a, b = x.chunk(2, 1)
            s, t = net(a).chunk(2, 1)
            s = torch.tanh(s)
            x, total = torch.cat([(b - t) * torch.exp(-s), a], 1), total - s.sum(1)
        return torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1) + total


class Bound(nn.Module):
    """A variational autoencoder; with `mixed` its deviation is one parameter, and its code is given too."""

    def __init__(self, mixed: bool = False) -> None:
        super().__init__()
        self.e, self.d = mlp(20, 6 if mixed else 12), mlp(6, 20)
        self.log = nn.Parameter(torch.zeros(6)) if mixed else None

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        mean, log = (self.e(x), self.log) if self.log is not None else self.e(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * log.exp()
        return self.d(z), mean, log, z


class Two(nn.Module):
    """One net on two views; `act` bounds what it gives."""

    def __init__(self, act: Any = None) -> None:
        super().__init__()
        self.f, self.act = mlp(10, 8), act or (lambda z: z)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.act(self.f(x)), self.act(self.f(x + 0.1))


class Policy(nn.Module):
    """A Gaussian policy of a fixed deviation, and what a frozen critic says of its actions."""

    def __init__(self) -> None:
        super().__init__()
        self.p, self.q = mlp(10, 2), mlp(12, 1).requires_grad_(False)
        self.log = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        law = torch.distributions.Normal(self.p(x), self.log.exp())
        done = law.rsample()
        return law.log_prob(done).sum(1), self.q(torch.cat([x, done], 1)).squeeze(1)


def bound(sign: float) -> Any:
    def loss(o: Any, x: Tensor) -> Tensor:
        made, mean, log, _ = o
        kl = -0.5 * (1 + log - mean**2 - log.exp()).sum(1).mean()
        return (made - x).pow(2).sum(1).mean() + sign * kl

    return loss


def sampled(o: Any, x: Tensor) -> Tensor:
    made, mean, log, z = o
    code = (-0.5 * ((z - mean) / log.exp()) ** 2 - log).sum(1) + (0.5 * z**2).sum(1)
    return (made - x).pow(2).sum(1).mean() + code.mean()


def spread(o: Any) -> Tensor:
    a, b = o
    return F.mse_loss(a, b) - (a - a.mean(0)).pow(2).mean() - (b - b.mean(0)).pow(2).mean()


def codes(model: nn.Module, batch: Any, loss: Any) -> list[str]:
    return [f.code for f in unvanish.check(model, batch, loss).at_least("warning")]


def pairs(margin: bool) -> Any:
    def loss(o: Any, y: Tensor) -> Tensor:
        far = (o[0] - o[1].roll(1, 0)).pow(2).sum(1)
        pushed = -far if not margin else F.relu(1 - (far + 1e-9).sqrt()) ** 2
        return (y * far + (1 - y) * pushed).mean()

    return loss


torch.manual_seed(0)
X = torch.rand(32, 20)
HALF = (torch.arange(32) % 2).float()
WIDE = torch.randn(32, 10)
SICK: dict[str, Any] = {
    "a likelihood that is lowered": (Flow, torch.randn(48, 2), lambda p: p.mean()),
    "a divergence that is subtracted": (Bound, (X, X), bound(-1.0)),
    "a variance without a hinge": (Two, WIDE, spread),
    "pairs that are driven apart": (Two, WIDE, lambda o: -(o[0] - o[1].roll(1, 0)).pow(2).mean()),
    "pairs that labels part, without a margin": (Two, (WIDE, HALF), pairs(False)),
    "an error by hand with a minus": (lambda: mlp(10, 1), WIDE, lambda o: -(torch.norm(o) ** 2)),
}
SOUND: dict[str, Any] = {
    "a likelihood that is raised": (Flow, torch.randn(48, 2), lambda p: -p.mean()),
    "a divergence that is added": (Bound, (X, X), bound(1.0)),
    "a divergence by its samples": (lambda: Bound(mixed=True), (X, X), sampled),
    "a double well": (lambda: mlp(10, 1), WIDE, lambda u: (u**4 / 4 - u**2 / 2).mean()),
    "an entropy that is kept": (Policy, (WIDE,), lambda o: (0.2 * o[0] - o[1]).mean()),
    "pairs that labels part, with a margin": (Two, (WIDE, HALF), pairs(True)),
    "a critic": (lambda: mlp(10, 1), WIDE, lambda v: v[:16].mean() - v[16:].mean()),
    "a variance on a sphere": (lambda: Two(lambda z: F.normalize(z, dim=1)), WIDE, spread),
    "parts of a tanh": (lambda: Two(torch.tanh), WIDE, lambda o: -(o[0].chunk(2, 1)[0] ** 2).mean()),
}


@pytest.mark.parametrize("name", SICK)
def test_it_falls_for_ever(name: str) -> None:
    torch.manual_seed(0)
    build, batch, loss = SICK[name]
    assert codes(build(), batch, loss)[:1] == ["LOS005"]


@pytest.mark.parametrize("name", SOUND)
def test_it_has_a_least_value(name: str) -> None:
    torch.manual_seed(0)
    build, batch, loss = SOUND[name]
    assert "LOS005" not in codes(build(), batch, loss)


def test_it_names_the_line_and_changes_nothing() -> None:
    torch.manual_seed(0)
    model = Flow()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch, state = torch.randn(48, 2), torch.get_rng_state()
    found = unvanish.check(model, batch, lambda p: p.mean()).findings[0]
    assert "test_bottom.py:" in found.cause
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
