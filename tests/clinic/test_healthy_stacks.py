"""Nothing is said of stacks with two streams, sets and slots, levels without objects, margins on cosines."""

from __future__ import annotations

import math

import pytest
import torch
from tests.clinic.designs import Build, Design, classes, mlp, stays_quiet
from torch import Tensor, nn
from torch.nn import functional as F


def equivariant_graph() -> Design:
    """EGNN: features and places; the last layer's places are read by nobody (Satorras et al. 2021)."""

    class Layer(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.edge = mlp(2 * width + 1, width, width, activation=nn.SiLU)
            self.move = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1, bias=False))
            nn.init.xavier_uniform_(self.move[-1].weight, 0.001)
            self.node = mlp(2 * width, width, width, activation=nn.SiLU)

        def forward(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            n, between = h.shape[1], x[:, :, None] - x[:, None]
            pairs = h[:, :, None].expand(-1, -1, n, -1), h[:, None].expand(-1, n, -1, -1)
            m = F.silu(self.edge(torch.cat([*pairs, between.square().sum(-1, keepdim=True)], -1)))
            x = x + (between * self.move(m)).mean(2)
            return h + self.node(torch.cat([h, m.sum(2)], -1)), x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.layers = nn.Linear(4, 24), nn.ModuleList(Layer(24) for _ in range(3))
            self.head = mlp(24, 24, 1, activation=nn.SiLU)

        def forward(self, h: Tensor, x: Tensor) -> Tensor:
            h = self.enter(h)
            for layer in self.layers:
                h, x = layer(h, x)
            out: Tensor = self.head(h).sum(1)
            return out

    return Design(Net(), ((torch.randn(16, 6, 4), torch.randn(16, 6, 3)), torch.randn(16, 1)), nn.MSELoss())


def forecast_and_backcast() -> Design:
    """N-BEATS: each block takes away what it explains; after the last nobody asks (Oreshkin et al. 2020)."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(mlp(24, 48, 48), nn.ReLU())
            self.back, self.ahead = nn.Linear(48, 24), nn.Linear(48, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.body(x)
            return self.back(h), self.ahead(h)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            total = x.new_zeros(len(x), 6)
            for block in self.blocks:
                back, ahead = block(x)
                x, total = x - back, total + ahead
            return total

    walk = torch.randn(64, 30).cumsum(1) / 5
    return Design(Net(), (walk[:, :24], walk[:, 24:]), nn.L1Loss())


def empty_level() -> Design:
    """A detector at three scales; no object is of the size of the first."""

    class Levels(nn.Module):
        def __init__(self, width: int = 12) -> None:
            super().__init__()
            self.down = nn.ModuleList(
                nn.Sequential(nn.Conv2d(c, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
                for c in (3, width, width)
            )
            self.score = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in range(3))
            self.box = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in range(3))

        def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
            found = []
            for down, score, box in zip(self.down, self.score, self.box, strict=True):
                x = down(x)
                found.append((score(x), box(x)))
            return found

    def loss(out: list[tuple[Tensor, Tensor]], y: Tensor) -> Tensor:
        total = y.new_zeros(())
        for level, (score, box) in enumerate(out):
            hit = (
                torch.zeros_like(score)
                if level == 0
                else (y[:, :1, None, None] > 0).to(score) * torch.ones_like(score)
            )
            total = total + F.binary_cross_entropy_with_logits(score, hit)
            far = ((box - y[..., None, None]) ** 2).sum(1, keepdim=True)
            total = total + (far * hit).sum() / hit.sum().clamp_min(1)
        return total

    return Design(Levels(), (torch.randn(6, 3, 32, 32), 2 * torch.randn(6, 4)), loss)


def faces() -> Design:
    """A margin on the angle, and a factor of 64 (Deng et al. 2019)."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(mlp(24, 64, 32), nn.BatchNorm1d(32))
            self.centres = nn.Parameter(0.01 * torch.randn(20, 32))

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(self.body(x), dim=1) @ F.normalize(self.centres, dim=1).T

    def loss(cosine: Tensor, y: Tensor) -> Tensor:
        angle = torch.acos(cosine.clamp(-1 + 1e-7, 1 - 1e-7))
        own = F.one_hot(y, 20).bool()
        return F.cross_entropy(64 * torch.where(own, torch.cos(angle + 0.5), cosine), y)

    y = classes(64, 20)
    return Design(Net(), (torch.randn(20, 24)[y] + 0.3 * torch.randn(64, 24), y), loss)


def hashed_grid() -> Design:
    """Tables of tiny numbers in front of a small net without biases (Müller et al. 2022)."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = nn.ModuleList(nn.Embedding(256, 2) for _ in range(6))
            for table in self.tables:
                nn.init.uniform_(table.weight, -1e-4, 1e-4)
            layers = [nn.Linear(a, b, bias=False) for a, b in ((12, 48), (48, 48), (48, 1))]
            self.net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

        def forward(self, x: Tensor) -> Tensor:
            levels = []
            for k, table in enumerate(self.tables):
                place = x * 4 * 1.5**k
                corner, level = place.floor().long(), torch.zeros(len(x), 2)
                inside = place - corner
                for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    number = ((corner[:, 0] + a) ^ ((corner[:, 1] + b) * 2654435761)) % 256
                    near = (inside - torch.tensor([1 - a, 1 - b])).abs().prod(1, keepdim=True)
                    level = level + near * table(number)
                levels.append(level)
            out: Tensor = self.net(torch.cat(levels, 1))
            return out

    x = torch.rand(256, 2)
    return Design(Net(), (x, torch.sin(9 * x[:, :1])), nn.MSELoss(), 1e-2)


def set_of_points() -> Design:
    """Induced attention and a learned query that pools (Lee et al. 2019)."""

    class Attend(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.attend, self.feed = (
                nn.MultiheadAttention(width, 4, batch_first=True),
                nn.Linear(width, width),
            )
            self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            h = self.one(x + self.attend(x, y, y)[0])
            out: Tensor = self.two(h + torch.relu(self.feed(h)))
            return out

    class Net(nn.Module):
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.enter, self.head = nn.Linear(3, width), nn.Linear(width, 4)
            self.points = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 8, width)))
            self.seed = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, width)))
            self.gather, self.spread, self.pool = (Attend(width) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            h = self.enter(x)
            h = self.spread(h, self.gather(self.points.expand(len(x), -1, -1), h))
            out: Tensor = self.head(self.pool(self.seed.expand(len(x), -1, -1), h)[:, 0])
            return out

    return Design(Net(), (torch.randn(16, 20, 3), classes(16)), nn.CrossEntropyLoss())


def slots() -> Design:
    """Slots that compete for the inputs, three times over one cell (Locatello et al. 2020)."""

    class Net(nn.Module):
        def __init__(self, width: int = 24) -> None:
            super().__init__()
            self.encode, self.decode = mlp(6, width, width), mlp(width + 2, 48, 5)
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
            self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
            self.cell, self.feed = nn.GRUCell(width, width), mlp(width, 48, width)
            self.mean, self.log = nn.Parameter(0.3 * torch.randn(width)), nn.Parameter(torch.zeros(width))

        def forward(self, x: Tensor) -> Tensor:
            h = self.norms[0](self.encode(x))
            k, v, width = self.k(h), self.v(h), len(self.mean)
            z = self.mean + self.log.exp() * torch.randn(len(x), 4, width)
            for _ in range(3):
                share = (k @ self.q(self.norms[1](z)).mT / math.sqrt(width)).softmax(-1) + 1e-8
                read = (share / share.sum(1, keepdim=True)).mT @ v
                z = self.cell(read.flatten(0, 1), z.flatten(0, 1)).view_as(z)
                z = z + self.feed(self.norms[2](z))
            places = x[:, None, :, :2].expand(-1, 4, -1, -1)
            shown = self.decode(torch.cat([z[:, :, None].expand(-1, -1, x.shape[1], -1), places], -1))
            return (shown[..., 4:].softmax(1) * shown[..., :4]).sum(1)

    x = torch.randn(16, 25, 6)
    return Design(Net(), (x, x[..., 2:]), nn.MSELoss(), 4e-4)


def noisy_experts() -> Design:
    """Two of six experts, chosen with noise, the router at zero (Shazeer et al. 2017)."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.route, self.noise = (nn.Linear(24, 6, bias=False) for _ in range(2))
            nn.init.zeros_(self.route.weight)
            nn.init.zeros_(self.noise.weight)
            self.experts = nn.ModuleList(mlp(24, 32, 4) for _ in range(6))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            clean = self.route(x)
            noisy = clean + torch.randn_like(clean) * (F.softplus(self.noise(x)) + 1e-2)
            best, chosen = noisy.topk(2, -1)
            gates = torch.zeros_like(noisy).scatter(1, chosen, best.softmax(-1))
            load = gates.sum(0)
            answers = torch.stack([expert(x) for expert in self.experts], 1)
            return (gates[..., None] * answers).sum(1), load.var() / (load.mean() ** 2 + 1e-10)

    return Design(
        Net(), (torch.randn(128, 24), classes(128)), lambda o, y: F.cross_entropy(o[0], y) + 0.01 * o[1]
    )


def bag_of_parts() -> Design:
    """A gated attention that averages the parts of a bag (Ilse et al. 2018)."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.head = mlp(16, 32, 32), nn.Linear(32, 1)
            self.value, self.gate, self.weigh = nn.Linear(32, 16), nn.Linear(32, 16), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.read(x))
            share = self.weigh(torch.tanh(self.value(h)) * torch.sigmoid(self.gate(h))).softmax(1)
            out: Tensor = self.head((share * h).sum(1))
            return out

    labels = (torch.rand(16, 1) < 0.5).float()
    return Design(Net(), (torch.randn(16, 20, 16), labels), nn.BCEWithLogitsLoss())


BUILDS = (
    bag_of_parts,
    equivariant_graph,
    forecast_and_backcast,
    empty_level,
    faces,
    hashed_grid,
    set_of_points,
    slots,
    noisy_experts,
)


@pytest.mark.parametrize("build", BUILDS)
def test_a_stack_of_blocks_is_no_fault(build: Build) -> None:
    stays_quiet(build)
