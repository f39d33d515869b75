"""Nothing is said of sets, graphs, tables, capsules, dense scores and padding."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.clinic.designs import Design, classes, mlp, stays_quiet
from torch import Tensor, nn
from torch.nn import functional as F

CE = nn.CrossEntropyLoss()


def wheel(nodes: int = 20) -> Tensor:
    """Edges of a ring, both ways, that leaves the last three nodes alone."""
    a = torch.arange(nodes - 3)
    b = a.roll(1)
    return torch.stack([torch.cat([a, b]), torch.cat([b, a])])


def convolved_graph(loops: bool) -> Design:
    class GCN(nn.Module):
        """Neighbours averaged by degree; isolated nodes get zeros, or themselves (Kipf and Welling 2017)."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 4)

        def spread(self, x: Tensor, edges: Tensor) -> Tensor:
            n = len(x)
            if loops:
                edges = torch.cat([edges, torch.arange(n).repeat(2, 1)], 1)
            degree = torch.zeros(n).index_add(0, edges[1], torch.ones(edges.shape[1]))
            root = degree.pow(-0.5)
            root = root.masked_fill(root == math.inf, 0.0)
            w = root[edges[0]] * root[edges[1]]
            return torch.zeros_like(x).index_add(0, edges[1], w[:, None] * x[edges[0]])

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            return self.spread(self.b(F.relu(self.spread(self.a(x), edges))), edges)

    return Design(GCN(), ((torch.randn(20, 8), wheel()), classes(20)), CE)


def attending_graph() -> Design:
    class GAT(nn.Module):
        """Softmax over the neighbours of each node (Velickovic et al. 2018)."""

        def __init__(self) -> None:
            super().__init__()
            self.lin, self.a = nn.Linear(8, 32), nn.Parameter(torch.randn(2, 4, 8) * 0.3)
            self.head = nn.Linear(32, 4)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            h = self.lin(x).unflatten(-1, (4, 8))
            s = F.leaky_relu((h * self.a[0]).sum(-1)[edges[0]] + (h * self.a[1]).sum(-1)[edges[1]], 0.2)
            e = (s - s.amax(0)).exp()
            total = torch.zeros(len(x), 4).index_add(0, edges[1], e)
            w = e / (total[edges[1]] + 1e-16)
            out = torch.zeros_like(h).index_add(0, edges[1], w[..., None] * h[edges[0]])
            y: Tensor = self.head(F.elu(out.flatten(1)))
            return y

    return Design(GAT(), ((torch.randn(20, 8), wheel()), classes(20)), CE)


def isomorphism() -> Design:
    class GIN(nn.Module):
        """Sums of neighbours through small nets, graphs read by a sum (Xu et al. 2019)."""

        def __init__(self) -> None:
            super().__init__()
            self.eps = nn.Parameter(torch.zeros(2))
            self.nets = nn.ModuleList([mlp(8, 32, 32), mlp(32, 32, 32)])
            self.norms = nn.ModuleList(nn.BatchNorm1d(32) for _ in range(2))
            self.head = nn.Linear(32, 3)

        def forward(self, x: Tensor, edges: Tensor, graph: Tensor) -> Tensor:
            for e, net, norm in zip(self.eps, self.nets, self.norms, strict=True):
                near = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])
                x = F.relu(norm(net((1 + e) * x + near)))
            y: Tensor = self.head(torch.zeros(4, 32).index_add(0, graph, x) / 5)
            return y

    return Design(GIN(), ((torch.randn(20, 8), wheel(), torch.arange(20) // 5), classes(4, 3)), CE)


def deep_set(how: str) -> Design:
    class Sets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.phi, self.rho = mlp(3, 32, 32), mlp(32, 32, 4)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            h = self.phi(x) * mask[..., None]
            pooled = (
                h.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
                if how == "mean"
                else h.masked_fill(mask[..., None] == 0, -1e9).amax(1)
            )
            y: Tensor = self.rho(pooled)
            return y

    mask = (torch.rand(32, 9) > 0.3).float()
    mask[:, 0] = 1
    return Design(Sets(), ((torch.randn(32, 9, 3), mask), classes(32)), CE)


class Reads(nn.Module):
    """One set reads another: a block of a set transformer, or of a perceiver."""

    def __init__(self, d: int = 32) -> None:
        super().__init__()
        self.attend, self.net = (
            nn.MultiheadAttention(d, 4, batch_first=True),
            mlp(d, 2 * d, d, activation=nn.GELU),
        )
        self.a, self.b = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, q: Tensor, kv: Tensor) -> Tensor:
        x = q + self.attend(self.a(q), kv, kv, need_weights=False)[0]
        return x + self.net(self.b(x))


def perceiver(induced: bool) -> Design:
    class Latents(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.few = nn.Linear(6, 32), nn.Parameter(torch.randn(5, 32) * 0.02)
            self.first, self.second, self.head = Reads(), Reads(), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.into(x)
            z = self.first(self.few.expand(len(x), -1, -1), h)
            z = self.second(h, z) if induced else self.second(z, z)
            y: Tensor = self.head(z.mean(1))
            return y

    return Design(Latents(), (torch.randn(16, 12, 6), classes(16)), CE)


def cloud() -> Design:
    class PointNet(nn.Module):
        """Points turned by a matrix that begins as the identity, read by a maximum (Qi et al. 2017)."""

        def __init__(self) -> None:
            super().__init__()
            self.turn, self.point, self.head = mlp(3, 32, 9), mlp(3, 32, 64), mlp(64, 32, 4)
            nn.init.zeros_(self.turn[-1].weight), nn.init.zeros_(self.turn[-1].bias)

        def forward(self, x: Tensor) -> Tensor:
            m = self.turn(x).amax(1).view(-1, 3, 3) + torch.eye(3)
            y: Tensor = self.head(self.point(x @ m).amax(1))
            return y

    return Design(PointNet(), (torch.randn(16, 24, 3), classes(16)), CE)


def capsules() -> Design:
    class Capsules(nn.Module):
        """Votes routed by agreement, lengths as answers (Sabour et al. 2017)."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.first = nn.Conv2d(1, 16, 5), nn.Conv2d(16, 32, 5, 2)
            self.votes = nn.Parameter(torch.randn(64, 4, 8, 8) * 0.1)

        def squash(self, s: Tensor) -> Tensor:
            q = s.square().sum(-1, keepdim=True)
            return q / (1 + q) * s / (q + 1e-8).sqrt()

        def forward(self, x: Tensor) -> Tensor:
            u = self.squash(
                self.first(F.relu(self.conv(x))).unflatten(1, (4, 8)).movedim(2, -1).flatten(1, 3)
            )
            votes = torch.einsum("ncd,ckde->ncke", u, self.votes)
            b = torch.zeros(votes.shape[:3])
            for k in range(3):
                v = self.squash((b.softmax(-1)[..., None] * votes).sum(1))
                if k < 2:
                    b = b + (votes.detach() * v.detach()[:, None]).sum(-1)
            return (v.square().sum(-1) + 1e-8).sqrt()

    def margin(lengths: Tensor, y: Tensor) -> Tensor:
        t = F.one_hot(y, 4).float()
        return (
            (t * F.relu(0.9 - lengths).square() + 0.5 * (1 - t) * F.relu(lengths - 0.1).square())
            .sum(1)
            .mean()
        )

    return Design(Capsules(), (torch.rand(16, 1, 16, 16), classes(16)), margin)


def table() -> Design:
    class Table(nn.Module):
        """Numbers standardised, one-hot columns of which some are rare."""

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(26, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
            )

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(x).squeeze(-1)
            return y

    kinds = torch.cat(
        [F.one_hot(torch.randint(0, 12, (64,)), 12), F.one_hot((torch.rand(64) ** 3 * 8).long(), 8)], 1
    )
    return Design(
        Table(),
        (torch.cat([torch.randn(64, 6), kinds.float()], 1), (torch.rand(64) > 0.6).float()),
        nn.BCEWithLogitsLoss(),
    )


def categories() -> Design:
    class Deep(nn.Module):
        """Wide, deep and factorised over categories, with a row for the missing (Guo et al. 2017)."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.ModuleList(nn.Embedding(10, 8, padding_idx=0) for _ in range(4))
            self.wide = nn.ModuleList(nn.Embedding(10, 1, padding_idx=0) for _ in range(4))
            self.deep, self.bias = mlp(32, 48, 1), nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            e = torch.stack([m(c) for m, c in zip(self.embed, x.T, strict=True)], 1)
            pairs = 0.5 * (e.sum(1).square() - e.square().sum(1)).sum(1, keepdim=True)
            wide = sum(m(c) for m, c in zip(self.wide, x.T, strict=True))
            y: Tensor = (self.deep(e.flatten(1)) + pairs + wide + self.bias).squeeze(1)
            return y

    return Design(
        Deep(), (torch.randint(0, 10, (64, 4)), (torch.rand(64) > 0.5).float()), nn.BCEWithLogitsLoss()
    )


def zero_rows(how: str) -> Design:
    class Rows(nn.Module):
        """Rows of zeros, of padding, are normalised with the rest."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.net, self.head = (
                nn.Embedding(30, 16, padding_idx=0),
                mlp(16, 32, 16),
                nn.Linear(16, 4),
            )

        def forward(self, t: Tensor) -> Tensor:
            e = self.embed(t)
            e = (
                F.normalize(e, dim=-1)
                if how == "normalize"
                else e / e.norm(dim=-1, keepdim=True).clamp(min=1e-6)
            )
            mask = (t != 0).float()[..., None]
            y: Tensor = self.head((self.net(e) * mask).sum(1) / mask.sum(1).clamp(min=1))
            return y

    t = torch.randint(1, 30, (16, 8))
    t[::2, 5:] = 0
    return Design(Rows(), (t, classes(16)), CE)


def detector() -> Design:
    class Head(nn.Module):
        """Dense scores that begin rare, by a bias, under a focal loss by hand (Lin et al. 2017)."""

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1))
            nn.init.normal_(self.net[2].weight, std=0.01), nn.init.constant_(self.net[2].bias, -math.log(99))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.net(x))

    def focal(p: Tensor, y: Tensor) -> Tensor:
        p = p.clamp(1e-4, 1 - 1e-4)
        pt, a = torch.where(y == 1, p, 1 - p), torch.where(y == 1, 0.25, 0.75)
        return (a * (1 - pt).square() * -pt.log()).sum() / y.sum().clamp(min=1)

    return Design(Head(), (torch.randn(4, 3, 10, 10), (torch.rand(4, 4, 10, 10) > 0.95).float()), focal)


def heat_maps() -> Design:
    class Maps(nn.Module):
        """Centres as maps of probabilities, penalty-reduced (Zhou et al. 2019)."""

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 2, 1)
            )
            nn.init.constant_(self.net[3].bias, -2.19)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).sigmoid().clamp(1e-4, 1 - 1e-4)

    def loss(p: Tensor, y: Tensor) -> Tensor:
        here = y == 1
        good = (torch.log(p) * (1 - p).square() * here).sum()
        bad = (torch.log(1 - p) * p.square() * (1 - y).pow(4) * ~here).sum()
        return -(good + bad) / here.sum().clamp(min=1)

    y = torch.rand(4, 2, 10, 10).pow(6)
    y[:, :, 4, 4] = 1
    return Design(Maps(), (torch.randn(4, 3, 10, 10), y), loss)


def masked_actions() -> Design:
    """Classes that cannot be are taken out by a large negative number before the cross-entropy."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(16, 48, 6)

        def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
            return self.net(x).masked_fill(~allowed, -1e9)

    allowed = torch.rand(32, 6) > 0.4
    y = torch.randint(0, 6, (32,))
    allowed[torch.arange(32), y] = True
    allowed[:, 0] = True
    return Design(Masked(), ((torch.randn(32, 16), allowed), y), CE)


DESIGNS: dict[str, Any] = {
    "GCN": lambda: convolved_graph(True),
    "GCN without loops": lambda: convolved_graph(False),
    "GAT": attending_graph,
    "GIN": isomorphism,
    "set, mean": lambda: deep_set("mean"),
    "set, maximum": lambda: deep_set("max"),
    "set transformer": lambda: perceiver(True),
    "perceiver": lambda: perceiver(False),
    "PointNet": cloud,
    "capsules": capsules,
    "table": table,
    "categories": categories,
    "zero rows": lambda: zero_rows("normalize"),
    "zero rows, clamped": lambda: zero_rows("clamp"),
    "focal": detector,
    "heat maps": heat_maps,
    "masked classes": masked_actions,
}


@pytest.mark.parametrize("build", DESIGNS.values(), ids=DESIGNS)
def test_a_shape_of_net_is_no_fault(build: Any) -> None:
    stays_quiet(build)
