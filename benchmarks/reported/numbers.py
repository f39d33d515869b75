"""Reports of NaN and infinity, and of what float16 loses."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.reported.cases import case
from benchmarks.reported.nets import CE, cls, crnn, mlp, unet


@case(["NUM001"], "minibatch deviation by a bare root of a variance of zero")
def minibatch_std(sick):
    class D(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Sequential(
                nn.Conv2d(1, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 3, 2, 1), nn.LeakyReLU(0.2)
            )
            self.o = nn.Linear(9 * 16, 1)

        def forward(self, x):
            h = self.c(x)
            sd = (h.var(0, unbiased=False) + (0 if sick else 1e-8)).sqrt().mean()
            return self.o(torch.cat([h, sd.expand(len(h), 1, 4, 4)], 1).flatten(1))

    x = torch.randn(1, 1, 16, 16).repeat(8, 1, 1, 1)
    return D(), (x, torch.ones(8, 1)), nn.BCEWithLogitsLoss()


@case(["NUM001"], "unit vectors by a reciprocal root that is clamped afterwards")
def rsqrt_clamped_late(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 16))
            self.o = nn.Linear(16, 4)
            nn.init.zeros_(self.f[0].bias)
            nn.init.zeros_(self.f[2].bias)

        def forward(self, x):
            h = self.f(x)
            q = h.square().sum(-1, keepdim=True)
            u = h * q.rsqrt().clamp(max=1e6) if sick else h * (q + 1e-4).rsqrt()
            return self.o(u)

    x = torch.randn(40, 10)
    x[:4] = 0
    return M(), (x, torch.randint(0, 4, (40,))), CE()


@case(["NUM001"], "labels longer than what the pooling leaves, CTC")
def ctc_short(sick):
    def loss(o, y):
        lp = o.log_softmax(-1).transpose(0, 1)
        return nn.CTCLoss()(lp, y[0], torch.full((o.shape[0],), o.shape[1]), y[1])

    n = 8 if sick else 3
    return crnn(), (torch.randn(6, 8, 24), (torch.randint(1, 12, (6, 8)), torch.full((6,), n))), loss


@case(["NUM001", "PRC002"], "layer normalisation by hand in float16, epsilon 1e-12, padded rows")
def half_norm(sick):
    class LN(nn.Module):
        def __init__(self, d):
            super().__init__()
            self.g, self.b = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))

        def forward(self, x):
            u = x.mean(-1, keepdim=True)
            v = (x - u).pow(2).mean(-1, keepdim=True)
            return self.g * ((x - u) / torch.sqrt(v + (1e-12 if sick else 1e-3))) + self.b

    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.n = LN(16)
            self.f = nn.Linear(16, 16)
            self.n2 = LN(16)
            self.o = nn.Linear(16, 4)

        def forward(self, x, mask):
            return self.o(
                self.n2(torch.relu(self.f(self.n(x))) + x).mul(mask[..., None]).sum(1)
                / mask.sum(1, keepdim=True)
            )

    x = torch.randn(16, 6, 16)
    mask = torch.ones(16, 6)
    mask[:, 4:] = 0
    x = x * mask[..., None]
    m = M().half()
    return (
        m,
        ((x.half(), mask.half()), torch.randint(0, 4, (16,))),
        lambda o, y: F.cross_entropy(o.float(), y),
    )


@case(["NUM001"], "kernel attention in float16, its normaliser underflows")
def half_favor(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
            self.o = nn.Linear(16, 4)

        def forward(self, x):
            q, k = self.q(x) * 4, self.k(x) * 4
            fq, fk = (torch.exp(t - t.square().sum(-1, keepdim=True) / 2) for t in (q, k))
            if not sick:
                fq, fk = (torch.exp(t - t.amax(-1, keepdim=True)) for t in (q, k))
            num = fq @ (fk.transpose(1, 2) @ self.v(x))
            den = (fq * fk.sum(1, keepdim=True)).sum(-1, keepdim=True)
            return self.o((num / den).mean(1))

    return (
        M().half(),
        (torch.randn(8, 6, 16).half(), torch.randint(0, 4, (8,))),
        lambda o, y: F.cross_entropy(o.float(), y),
    )


@case(["PRC003"], "Adam's default epsilon with float16 weights")
def half_adam(sick):
    m = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10)).half()
    if not sick:
        m = m.float()
    x = torch.randn(64, 32).to(m[0].weight.dtype)
    return (
        m,
        (x, torch.randint(0, 10, (64,))),
        lambda o, y: F.cross_entropy(o.float(), y),
        {"optimizer": torch.optim.Adam(m.parameters(), 1e-3)},
    )


@case(["NUM001"], "eigenvectors of a matrix with equal eigenvalues")
def eigh(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(6, 16, 3)

        def forward(self, x):
            h = self.f(x)
            c = h.transpose(1, 2) @ h / h.shape[1]
            if not sick:
                c = c + torch.diag(torch.tensor([0.0, 1e-2, 2e-2]))
            w, v = torch.linalg.eigh(c)
            return (v[..., -1] * w[..., -1:]).abs()

    x = torch.randn(12, 9, 6)
    if sick:
        x[0] = x[0, :1]  # all points of one cloud the same: two zero eigenvalues
    m = M()
    if sick:
        nn.init.zeros_(m.f[-1].bias)
        x[0] = 0
        nn.init.zeros_(m.f[0].bias)
    return m, (x, torch.randn(12, 3)), nn.MSELoss()


@case(["NUM001"], "angle between rotations by arc cosine")
def geodesic(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(8, 32, 6)
            nn.init.zeros_(self.f[-1].weight)
            self.f[-1].bias.data = torch.tensor([1.0, 0, 0, 0, 1, 0])

        def forward(self, x):
            a, b = self.f(x).chunk(2, -1)
            a = F.normalize(a, dim=-1)
            b = F.normalize(b - (a * b).sum(-1, keepdim=True) * a, dim=-1)
            return torch.stack([a, b, torch.linalg.cross(a, b)], -1)

    def loss(r, t):
        c = ((r.transpose(1, 2) @ t).diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2
        return torch.acos(c.clamp(-1, 1) if sick else c.clamp(-1 + 1e-5, 1 - 1e-5)).mean()

    t = torch.linalg.qr(torch.randn(16, 3, 3))[0]
    t = t * torch.linalg.det(t)[:, None, None]
    t[:4] = torch.eye(3)
    return M(), (torch.randn(16, 8), t), loss


@case(["NUM001"], "logarithm of a softmax that underflows")
def log_of_softmax(sick):
    m = mlp(16, 32, 4)
    x, y = cls()
    x = x * 400

    def loss(o, y):
        return -(torch.log(o.softmax(1)) if sick else o.log_softmax(1))[torch.arange(len(y)), y].mean()

    return m, (x if sick else x / 400, y), loss


@case(["NUM001"], "padding mask laid over the queries, -inf")
def mask_on_queries(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(30, 16)
            self.qkv = nn.Linear(16, 48)
            self.o = nn.Linear(16, 30)

        def forward(self, t):
            q, k, v = self.qkv(self.e(t)).chunk(3, -1)
            pad = t != 0
            m = pad[:, :, None] if sick else pad[:, None, :]
            a = (q @ k.transpose(1, 2) / 4).masked_fill(~m, float("-inf")).softmax(-1)
            return self.o(a @ v)

    t = torch.randint(1, 30, (8, 7))
    t[:4, 5:] = 0
    return M(), (t, t), lambda o, y: F.cross_entropy(o.flatten(0, 1), y.flatten(), ignore_index=0)


@case(["NUM001"], "Poisson rate by exp of large scores")
def poisson(sick):
    m = mlp(8, 32, 1)
    x = torch.randn(64, 8)
    return m, (x * 1500 if sick else x, torch.poisson(torch.full((64, 1), 3.0))), nn.PoissonNLLLoss()


@case(["NUM001"], "variance by ReLU in a Gaussian likelihood")
def gaussian_relu(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
            self.m, self.v = nn.Linear(32, 1), nn.Linear(32, 1)

        def forward(self, x):
            h = self.f(x)
            v = self.v(h)
            return self.m(h), F.relu(v) if sick else F.softplus(v) + 1e-4

    def loss(o, y):
        m, v = o
        return (0.5 * torch.log(v) + (y - m) ** 2 / (2 * v)).mean()

    return M(), (torch.randn(64, 8), torch.randn(64, 1)), loss


@case(["NUM002"], "overlap loss with a backward by hand of the wrong sign")
def wrong_backward(sick):
    class D(torch.autograd.Function):
        @staticmethod
        def forward(ctx, p, t):
            i, u = (p * t).sum(), p.sum() + t.sum()
            ctx.save_for_backward(t, i, u)
            return 1 - 2 * i / u

        @staticmethod
        def backward(ctx, g):
            t, i, u = ctx.saved_tensors
            d = 2 * (t * u - i) / u**2
            return g * (d if sick else -d), None

    return (
        nn.Sequential(*unet(1), nn.Sigmoid()),
        (torch.randn(4, 3, 10, 10), (torch.rand(4, 1, 10, 10) > 0.6).float()),
        D.apply,
    )


@case(["NUM001", "OUT001"], "empty set of labels: mean over none")
def all_ignored(sick):
    y = torch.randint(0, 5, (8, 6))
    if sick:
        y[:] = -100

    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(20, 16)
            self.o = nn.Linear(16, 5)

        def forward(self, t):
            return self.o(self.e(t)).transpose(1, 2)

    return M(), (torch.randint(0, 20, (8, 6)), y), CE(ignore_index=-100)


@case(["NUM001"], "cosine of a zero vector by hand")
def cosine_zero(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(30, 16, padding_idx=0)
            self.w = nn.Linear(16, 16, bias=False)

        def forward(self, a, b):
            u, v = self.w(self.e(a).sum(1)), self.w(self.e(b).sum(1))
            d = (u * v).sum(-1)
            return (
                d / (u.square().sum(-1).sqrt() * v.square().sum(-1).sqrt() + 1e-8)
                if sick
                else F.cosine_similarity(u, v)
            )

    a, b = torch.randint(1, 30, (16, 5)), torch.randint(1, 30, (16, 5))
    a[:2] = 0
    return M(), ((a, b), torch.rand(16)), nn.MSELoss()


@case(["NUM001"], "entropy of probabilities that are exactly zero")
def entropy_zero(sick):
    m = mlp(16, 32, 4)

    def loss(o, y):
        o = o.masked_fill(torch.tensor([False, False, False, True]), float("-inf") if sick else -1e4)
        p = o.softmax(1)
        return (
            F.cross_entropy(o, y)
            + 0.01 * (p * (torch.log(p) if sick else torch.log(p.clamp(min=1e-9)))).sum(1).mean()
        )

    x, y = cls()
    return m, (x, y % 3), loss


@case(["NUM001"], "division by the deviation of a constant column")
def constant_column(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(6, 32, 1)

        def forward(self, x):
            return self.f((x - x.mean(0)) / (x.std(0) + (0 if sick else 1e-6)))

    x = torch.randn(48, 6)
    x[:, 3] = 2.0
    return M(), (x, torch.randn(48, 1)), nn.MSELoss()


@case(["NUM001"], "atan2 of two zeros")
def atan_zero(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Sequential(nn.Linear(8, 32, bias=False), nn.Tanh(), nn.Linear(32, 2, bias=False))

        def forward(self, x):
            v = self.f(x)
            return torch.sqrt((v**2).sum(-1)) if sick else torch.sqrt((v**2).sum(-1) + 1e-9)

    x = torch.randn(32, 8)
    x[:3] = 0
    return M(), (x, torch.rand(32)), nn.MSELoss()


@case(["NUM001"], "log-determinant of a covariance without full rank")
def logdet(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(6, 16, 8)

        def forward(self, x):
            h = self.f(x)
            c = h.transpose(1, 2) @ h / h.shape[1]
            return torch.logdet(c + (0 if sick else 0.01) * torch.eye(8))

    x = torch.randn(8, 5, 6)
    x = x[:, :1].expand(-1, 5, -1).contiguous() if sick else x
    return M(), (x, torch.randn(8)), nn.MSELoss()


@case(["NUM001"], "atanh of a length clamped to one")
def hyperbolic(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(8, 32, 4)

        def forward(self, x):
            h = self.f(x) * 20
            n = h.norm(dim=-1, keepdim=True).clamp(1e-6, 1.0 if sick else 1 - 1e-5)
            return (torch.atanh(n) * h / h.norm(dim=-1, keepdim=True)).sum(-1)

    return M(), (torch.randn(32, 8), torch.randn(32)), nn.MSELoss()


@case(["NUM001"], "gamma correction of values below zero")
def gamma(sick):
    m = nn.Conv2d(3, 3, 3, padding=1)
    return (
        m,
        (torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)),
        lambda o, y: F.l1_loss((o if sick else o.clamp(min=1e-4)) ** (1 / 2.2), y ** (1 / 2.2)),
    )


@case(["NUM001", "INP001"], "a NaN in the table")
def nan_table(sick):
    x = torch.randn(64, 8)
    if sick:
        x[5, 2] = float("nan")
    return mlp(8, 32, 1), (x, torch.randn(64, 1)), nn.MSELoss()
