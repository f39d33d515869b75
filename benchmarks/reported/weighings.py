"""Reports of attentions, divergences and terms that do not weigh what they should."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.reported.cases import case
from benchmarks.reported.nets import CE, cls, mlp


@case(["OUT007"], "scores of an attention flattened to (batch * queries, keys), softmax over the first axis")
def scores_flattened(sick):
    class Dot(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.c = nn.Linear(5, 16), nn.Linear(7, 16)
            self.o, self.h = nn.Linear(32, 16, bias=False), nn.Linear(16, 3)

        def forward(self, query, context):
            q, c = self.q(query), self.c(context)
            b, n = len(q), c.shape[1]
            scores = torch.bmm(q, c.transpose(1, 2).contiguous()).view(b * q.shape[1], n)
            mixed = torch.bmm(scores.softmax(0 if sick else -1).view(b, -1, n), c)
            return self.h(torch.tanh(self.o(torch.cat((mixed, q), 2))).mean(1))

    return Dot(), ((torch.randn(12, 4, 5), torch.randn(12, 6, 7)), torch.randint(0, 3, (12,))), CE()


@case(["GRF004"], "an attention's scores as rows of one number, softmax along the row")
def scores_of_one(sick):
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.r, self.a, self.h = nn.LSTM(10, 16), nn.Linear(26, 1), nn.Linear(16, 3)

        def forward(self, x):  # (T, B, 10)
            o = self.r(x)[0]
            scores = self.a(torch.cat((x, o), 2).flatten(0, 1))
            weights = scores.softmax(1).view(len(x), -1, 1) if sick else scores.view(len(x), -1, 1).softmax(0)
            return self.h((weights * o).sum(0))

    return Pool(), (torch.randn(9, 12, 10), torch.randint(0, 3, (12,))), CE()


@case(["LEA001"], "branches stacked to (branches, batch, channels, 1, 1), softmax over the second axis")
def branches_stacked(sick):
    class Selective(nn.Module):
        def __init__(self, c=16):
            super().__init__()
            self.s, self.f, self.h = nn.Conv2d(3, c, 1), nn.Linear(c, 8), nn.Linear(c, 4)
            self.k = nn.ModuleList(nn.Conv2d(c, c, k, padding=k // 2) for k in (1, 3, 5))
            self.g = nn.ModuleList(nn.Linear(8, c) for _ in range(3))

        def forward(self, x):
            x = self.s(x)
            made = torch.stack([torch.relu(k(x)) for k in self.k])
            z = self.f(made.sum(0).mean((2, 3)))
            weights = torch.stack([g(z)[..., None, None] for g in self.g]).softmax(1 if sick else 0)
            return self.h((weights * made).sum(0).mean((2, 3)))

    return Selective(), (torch.randn(8, 3, 10, 10), torch.randint(0, 4, (8,))), CE()


@case(["OUT007"], "einsum attention of a diffusion net, softmax over the queries")
def einsum_queries(sick):
    class Block(nn.Module):
        def __init__(self, c=32):
            super().__init__()
            self.i, self.e = nn.Conv2d(3, c, 3, padding=1), nn.Conv2d(c, 3, 3, padding=1)
            self.n, self.p, self.o = nn.GroupNorm(8, c), nn.Linear(c, 96), nn.Linear(32, c)

        def forward(self, x):
            x = self.i(x)
            q, k, v = self.p(self.n(x).flatten(2).mT).view(len(x), -1, 2, 48).chunk(3, -1)
            a = (torch.einsum("bihd,bjhd->bijh", q, k) / 4).softmax(1 if sick else 2)
            made = self.o(torch.einsum("bijh,bjhd->bihd", a, v).flatten(2))
            return self.e(x + made.mT.reshape(x.shape))

    x = torch.randn(4, 3, 8, 8)
    return Block(), (x, torch.randn(4, 3, 8, 8)), nn.MSELoss()


@case(["OUT005"], "a loader that is not shuffled: a batch of the first class alone")
def not_shuffled(sick):
    m = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    y = torch.zeros(64, dtype=torch.long) if sick else torch.randint(0, 100, (64,))
    return m.append(nn.Linear(16, 100)), (torch.randn(64, 3, 16, 16), y), CE()


class Student(nn.Module):
    """A student beside a frozen teacher of the same shape."""

    def __init__(self):
        super().__init__()
        self.s, self.t = mlp(12, 32, 5), mlp(12, 64, 5).requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            known = self.t(x)
        return self.s(x), known


@case(["GRF006"], "a distillation whose divergence compares the teacher with itself")
def teacher_with_itself(sick):
    def loss(o, y):
        s, t = o
        one = F.log_softmax((t if sick else s) / 5, -1)
        kl = F.kl_div(one, F.log_softmax(t / 5, -1), log_target=True, reduction="batchmean")
        return 0.9 * kl * 25 + 0.1 * F.cross_entropy(s, y)

    return Student(), cls(32, 12, 5), loss


@case(["OUT002"], "a student's probabilities in a masked divergence, beside a cross-entropy")
def student_probabilities(sick):
    def loss(o, y):
        s, t = o
        mine = s.softmax(-1) if sick else s.log_softmax(-1)
        kd = F.kl_div(mine, t.softmax(-1), reduction="none")
        known = (y[:, None] != 255).float()
        return F.cross_entropy(s, y, ignore_index=255) + (kd * known).sum() / known.sum()

    x, y = cls(32, 12, 5)
    y[:8] = 255
    return Student(), (x, y), loss


@case(["GRF006"], "the features of a supervised contrastive term are taken without gradients")
def contrast_without_gradients(sick):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.c, self.p = mlp(12, 32, 16), nn.Linear(16, 4), nn.Linear(16, 8)

        def forward(self, x):
            h = torch.relu(self.b(x))
            with torch.set_grad_enabled(not sick):
                z = F.normalize(self.p(self.b(x + 0.1 * torch.randn_like(x))), dim=-1)
            return self.c(h), z

    def loss(o, y):
        scores, z = o
        own = torch.eye(len(z))
        near, log = (y[:, None] == y[None]).float() - own, (z @ z.T / 0.1 - 1e9 * own).log_softmax(-1)
        return F.cross_entropy(scores, y) - ((near * log).sum(1) / near.sum(1).clamp(min=1)).mean()

    return Encoder(), cls(48, 12), loss


@case(["GRF001"], "a hook hands a detached copy of the features to the head")
def hook_detaches(sick):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.h, self.kept = mlp(12, 32, 16), nn.Linear(16, 4), []
            self.b.register_forward_hook(self.keep)

        def keep(self, module, args, out):
            self.kept = [out.clone().detach() if sick else out.clone()]

        def forward(self, x):
            self.b(x)
            return self.h(torch.relu(self.kept.pop()))

    return Reader(), cls(32, 12), CE()


@case(["LOS005"], "a divergence that is taken off the reconstruction instead of added")
def divergence_off(sick):
    class Bound(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.d = mlp(30, 40, 12), mlp(6, 40, 30)

        def forward(self, x):
            mean, log = self.e(x).chunk(2, -1)
            return self.d(mean + torch.randn_like(mean) * (log / 2).exp()), mean, log

    def loss(o, x):
        made, mean, log = o
        kl = -0.5 * (1 + log - mean**2 - log.exp()).sum(-1).mean()
        return F.mse_loss(made, x, reduction="none").sum(-1).mean() + (-kl if sick else kl)

    x = torch.rand(32, 30)
    return Bound(), (x, x), loss
