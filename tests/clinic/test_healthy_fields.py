"""Nothing is said of fields, equations, fixed points, splines, nets that make nets, and several tasks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.clinic.designs import Design, classes, mlp, stays_quiet
from torch import Tensor, nn
from torch.nn import functional as F

CE = nn.CrossEntropyLoss()


def splines() -> Design:
    class KAN(nn.Module):
        """Learned functions on edges: a sum of bumps and a SiLU (Liu et al. 2024)."""

        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            self.register_buffer("grid", torch.linspace(-2, 2, 8))
            self.base, self.bumps = nn.Linear(a, b), nn.Parameter(torch.randn(b, a, 8) * 0.1 / a**0.5)

        def forward(self, x: Tensor) -> Tensor:
            near = torch.exp(-((x[..., None] - self.grid) / 0.57).square())
            y: Tensor = self.base(F.silu(x)) + torch.einsum("nag,bag->nb", near, self.bumps)
            return y

    x = torch.randn(64, 4)
    return Design(
        nn.Sequential(KAN(4, 16), KAN(16, 16), KAN(16, 1)),
        (x, torch.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3]),
        nn.MSELoss(),
    )


def field() -> Design:
    class NeRF(nn.Module):
        """Positions in sines, a density and a colour, summed along rays (Mildenhall et al. 2020)."""

        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.density, self.colour = mlp(39, 64, 64, 64), nn.Linear(64, 1), mlp(64 + 3, 32, 3)
            for p in self.parameters():
                if p.ndim > 1:
                    nn.init.xavier_uniform_(p)

        def forward(self, origin: Tensor, way: Tensor) -> Tensor:
            t = torch.linspace(2, 6, 16)
            p = (origin[:, None] + way[:, None] * t[:, None]) / 4
            f = 2.0 ** torch.arange(6) * math.pi
            e = torch.cat([p, (p[..., None] * f).sin().flatten(-2), (p[..., None] * f).cos().flatten(-2)], -1)
            h = F.relu(self.trunk(e))
            a = 1 - torch.exp(-F.softplus(self.density(h)).squeeze(-1) * 0.25)
            through = torch.cumprod(torch.cat([torch.ones(len(a), 1), 1 - a + 1e-10], 1), 1)[:, :-1]
            c = torch.sigmoid(self.colour(torch.cat([h, way[:, None].expand(-1, 16, -1)], -1)))
            return ((a * through)[..., None] * c).sum(1)

    way = F.normalize(torch.randn(32, 3), dim=-1)
    return Design(NeRF(), ((-4 * way + 0.1 * torch.randn(32, 3), way), torch.rand(32, 3)), nn.MSELoss())


class Sine(nn.Module):
    """A sine layer with the weights that its authors draw (Sitzmann et al. 2020)."""

    def __init__(self, a: int, b: int, first: bool = False) -> None:
        super().__init__()
        self.lin = nn.Linear(a, b)
        nn.init.uniform_(self.lin.weight, -(end := 1 / a if first else (6 / a) ** 0.5 / 30), end)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30 * self.lin(x))


def sines() -> Design:
    net = nn.Sequential(Sine(2, 64, True), Sine(64, 64), Sine(64, 64), nn.Linear(64, 3))
    nn.init.uniform_(net[-1].weight, -((6 / 64) ** 0.5) / 30, (6 / 64) ** 0.5 / 30)
    return Design(net, (torch.rand(128, 2) * 2 - 1, torch.rand(128, 3) * 2 - 1), nn.MSELoss(), 1e-4)


def distance_field() -> Design:
    class Field(nn.Module):
        """A signed distance whose slope is one (Gropp et al. 2020)."""

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(3, 64), nn.Softplus(100), nn.Linear(64, 64), nn.Softplus(100), nn.Linear(64, 1)
            )
            (
                nn.init.normal_(self.net[4].weight, (math.pi / 64) ** 0.5, 1e-4),
                nn.init.constant_(self.net[4].bias, -0.6),
            )
            for k in (0, 2):
                nn.init.normal_(self.net[k].weight, 0.0, (2 / 64) ** 0.5), nn.init.zeros_(self.net[k].bias)

        def forward(self, surface: Tensor, space: Tensor) -> tuple[Tensor, Tensor]:
            space = space.detach().requires_grad_()
            slope = torch.autograd.grad(self.net(space).sum(), space, create_graph=True)[0]
            return self.net(surface), slope

    def loss(out: tuple[Tensor, Tensor], _: Tensor) -> Tensor:
        return out[0].abs().mean() + 0.1 * (out[1].norm(dim=-1) - 1).square().mean()

    return Design(
        Field(), ((F.normalize(torch.randn(64, 3), dim=-1), torch.rand(64, 3) * 2 - 1), torch.zeros(64)), loss
    )


def equation() -> Design:
    class Solution(nn.Module):
        """u'' = -pi^2 sin(pi x), u(0) = u(1) = 0, by a tanh net (Raissi et al. 2019)."""

        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(1, 32, 32, 1, activation=nn.Tanh)

        def forward(self, x: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
            x = x.detach().requires_grad_()
            du = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]
            return torch.autograd.grad(du.sum(), x, create_graph=True)[0], self.net(ends)

    x = torch.rand(64, 1)
    ends = torch.tensor([[0.0], [1.0]])
    return Design(
        Solution(),
        ((x, ends), -(math.pi**2) * torch.sin(math.pi * x)),
        lambda o, f: F.mse_loss(o[0], f) + 10 * o[1].square().mean(),
    )


def implicit() -> Design:
    class Equilibrium(nn.Module):
        """A fixed point found without a graph, its backward by iteration (Bai et al. 2019)."""

        def __init__(self) -> None:
            super().__init__()
            self.x, self.z, self.norm, self.head = (
                nn.Linear(12, 32),
                nn.Linear(32, 32),
                nn.LayerNorm(32),
                nn.Linear(32, 4),
            )
            with torch.no_grad():
                self.z.weight.mul_(0.5)

        def step(self, z: Tensor, x: Tensor) -> Tensor:
            return torch.tanh(self.z(z) + x)

        def forward(self, x: Tensor) -> Tensor:
            x = self.x(x)
            with torch.no_grad():
                z = torch.zeros_like(x)
                for _ in range(20):
                    z = self.step(z, x)
            z = self.step(z, x)
            if z.requires_grad:
                start = z.detach().requires_grad_()
                again = self.step(start, x.detach())

                def solve(g: Tensor) -> Tensor:
                    u = g
                    for _ in range(12):
                        u = g + torch.autograd.grad(again, start, u, retain_graph=True)[0]
                    return u

                z.register_hook(solve)
            y: Tensor = self.head(self.norm(z))
            return y

    return Design(Equilibrium(), (torch.randn(32, 12), classes(32)), CE)


def ordinary() -> Design:
    class ODE(nn.Module):
        """Ten Euler steps of a learned field (Chen et al. 2018)."""

        def __init__(self) -> None:
            super().__init__()
            self.into, self.field, self.head = (
                nn.Linear(8, 24),
                mlp(25, 48, 24, activation=nn.Tanh),
                nn.Linear(24, 4),
            )

        def forward(self, x: Tensor) -> Tensor:
            h = self.into(x)
            for k in range(10):
                h = h + 0.1 * self.field(torch.cat([h, torch.full((len(h), 1), k / 10)], 1))
            y: Tensor = self.head(h)
            return y

    return Design(ODE(), (torch.randn(32, 8), classes(32)), CE)


def hypernetwork() -> Design:
    class Hyper(nn.Module):
        """A net that makes the weights of another from a code of the task (Ha et al. 2017)."""

        def __init__(self) -> None:
            super().__init__()
            self.code, self.make = nn.Embedding(6, 8), mlp(8, 32, 16 * 10 + 16 + 16 + 1)
            with torch.no_grad():
                self.make[-1].weight.mul_(0.5)

        def forward(self, x: Tensor, task: Tensor) -> Tensor:
            w1, b1, w2, b2 = self.make(self.code(task)).split([160, 16, 16, 1], -1)
            h = F.relu(torch.einsum("bi,bhi->bh", x, w1.view(-1, 16, 10)) + b1)
            return (h * w2).sum(-1, keepdim=True) + b2

    return Design(
        Hyper(), ((torch.randn(32, 10), torch.randint(0, 6, (32,))), torch.randn(32, 1)), nn.MSELoss()
    )


def meta() -> Design:
    class MAML(nn.Module):
        """One inner step on the support, the loss on the query (Finn et al. 2017)."""

        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(1, 40, 40, 1)

        def forward(self, x: Tensor, y: Tensor, query: Tensor) -> Tensor:
            own = dict(self.net.named_parameters())
            with torch.enable_grad():
                inner = F.mse_loss(torch.func.functional_call(self.net, own, (x,)), y)
                slopes = torch.autograd.grad(inner, list(own.values()), create_graph=True)
            fast = {n: p - 0.01 * g for (n, p), g in zip(own.items(), slopes, strict=True)}
            out: Tensor = torch.func.functional_call(self.net, fast, (query,))
            return out

    x, q = torch.rand(10, 1) * 4 - 2, torch.rand(16, 1) * 4 - 2
    return Design(MAML(), ((x, torch.sin(x), q), torch.sin(q)), nn.MSELoss())


def uncertain_tasks() -> Design:
    class Tasks(nn.Module):
        """Two tasks weighed by learned variances (Kendall et al. 2018)."""

        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.a, self.b = mlp(16, 48, 32), nn.Linear(32, 4), nn.Linear(32, 1)
            self.log = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            h = F.relu(self.trunk(x))
            return self.a(h), self.b(h), self.log

    def loss(out: Any, y: Any) -> Tensor:
        a, b, log = out
        both = torch.stack([F.cross_entropy(a, y[0]), F.mse_loss(b, y[1])])
        return ((-log).exp() * both + log).sum()

    return Design(Tasks(), (torch.randn(32, 16), (classes(32), torch.randn(32, 1))), loss)


def gated_residual(kind: str) -> Design:
    class Net(nn.Module):
        """Branches behind a scalar at zero (Bachlechner et al. 2020; De and Smith 2020)."""

        def __init__(self) -> None:
            super().__init__()
            self.into, self.head = nn.Linear(16, 48), nn.Linear(48, 4)
            self.parts = nn.ModuleList(mlp(48, 48, 48) for _ in range(12))
            self.gains = nn.Parameter(torch.zeros(12) if kind == "ReZero" else torch.full((12,), 1e-4))

        def forward(self, x: Tensor) -> Tensor:
            h = self.into(x)
            for gain, part in zip(self.gains, self.parts, strict=True):
                h = h + gain * part(F.relu(h))
            y: Tensor = self.head(F.relu(h))
            return y

    return Design(Net(), (torch.randn(32, 16), classes(32)), CE)


DESIGNS: dict[str, Any] = {
    "KAN": splines,
    "NeRF": field,
    "SIREN": sines,
    "distances": distance_field,
    "PINN": equation,
    "DEQ": implicit,
    "ODE": ordinary,
    "hypernetwork": hypernetwork,
    "MAML": meta,
    "uncertain tasks": uncertain_tasks,
    "ReZero": lambda: gated_residual("ReZero"),
    "SkipInit": lambda: gated_residual("SkipInit"),
}


@pytest.mark.parametrize("build", DESIGNS.values(), ids=DESIGNS)
def test_a_field_is_no_fault(build: Any) -> None:
    stays_quiet(build)
