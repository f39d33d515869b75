"""Reports of mixed kinds: shapes of agents, starts at zero, half precision, branches not taken, labels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.reported.cases import case
from benchmarks.reported.nets import AC, CE, cls, mlp, unet


@case(["OUT004"], "entropy (N,1) less the value of the action (N,)")
def entropy_square(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.pi, self.q = mlp(8, 32, 4), mlp(10, 32, 1)

        def forward(self, x):
            mean, spread = self.pi(x).chunk(2, -1)
            pi = torch.distributions.Normal(mean, spread.clamp(-3, 1).exp())
            act = pi.rsample()
            return pi.log_prob(act).sum(-1, keepdim=True), self.q(torch.cat([x, act.tanh()], -1))

    def loss(o, _):
        log_pi, q = o
        return (0.2 * log_pi - (q.view(-1) if sick else q)).mean()

    return M(), (torch.randn(64, 8), torch.zeros(64)), loss


@case(["OUT004"], "log-probabilities (N,) weighted by exp of advantages (N,1)")
def weights_square(sick):
    def loss(o, y):
        lg, v = o
        act, ret = y
        w = (ret.unsqueeze(1) - v.detach()).exp().clamp(max=20)
        lp = torch.distributions.Categorical(logits=lg).log_prob(act)
        return -(lp * (w if sick else w[:, 0])).mean() + F.mse_loss(v[:, 0], ret)

    return AC(), (torch.randn(48, 8), (torch.randint(0, 4, (48,)), torch.randn(48))), loss


@case(["OUT004"], "returns (N,1) and clipped values (N,)")
def critic_square(sick):
    def loss(v, y):
        ret, old = y
        v = v[:, 0] if sick else v
        near = old + (v - old).clamp(-0.2, 0.2)
        return 0.5 * torch.max((ret - v) ** 2, (ret - near) ** 2).mean()

    return mlp(8, 32, 1), (torch.randn(40, 8), (torch.randn(40, 1), torch.randn(40, 1))), loss


@case(["GRF004", "GRF007", "INI003", "INI001"], "both matrices of an adapter begin at zero")
def adapter_zero(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(16, 32).requires_grad_(False)
            self.a = nn.Parameter(torch.zeros(4, 16) if sick else torch.randn(4, 16) / 4)
            self.b = nn.Parameter(torch.zeros(32, 4))
            self.head = nn.Linear(32, 4)

        def forward(self, x):
            return self.head(torch.relu(self.base(x) + x @ self.a.T @ self.b.T))

    return M(), cls(), CE()


@case(["NUM001", "PRC002"], "scores divided by their range plus 1e-8 in half precision")
def range_half(sick):
    dtype = torch.float16 if sick else torch.float32

    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(16, 8, dtype=dtype)

        def forward(self, x):
            s = torch.relu(self.f(x.to(dtype)) - 100 * (x[:, :1] > 1.5).to(dtype))
            low, high = s.amin(-1, keepdim=True), s.amax(-1, keepdim=True)
            return (s - low) / (high - low + 1e-8)

    return M(), (torch.randn(64, 16), torch.rand(64, 8)), lambda o, y: F.mse_loss(o.float(), y)


@case(["NUM001", "PRC002"], "a rotation of zeros normalised in half precision")
def rotation_half(sick):
    dtype = torch.float16 if sick else torch.float32

    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Sequential(nn.Linear(16, 32, dtype=dtype), nn.ReLU())
            self.o = nn.Linear(32, 4, bias=False, dtype=dtype)

        def forward(self, x):
            h = self.o(self.f(x.to(dtype)) * (x[:, :1] < 1.5).to(dtype))
            return F.normalize(h, dim=-1)

    y = F.normalize(torch.randn(64, 4), dim=-1)
    return M(), (torch.randn(64, 16), y), lambda o, y: F.mse_loss(o.float(), y)


@case(["GRF004", "REC001"], "both directions read at the last step")
def both_read_last(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(50, 16)
            self.r = nn.LSTM(16, 32, batch_first=True, bidirectional=True)
            self.o = nn.Linear(64, 3)

        def forward(self, x):
            out, (h, _) = self.r(self.e(x))
            return self.o(out[:, -1] if sick else torch.cat([h[0], h[1]], -1))

    return M(), (torch.randint(0, 50, (32, 12)), torch.randint(0, 3, (32,))), CE()


@case(["OUT001", "OUT002", "LEA001"], "log-softmax over the batch, then the likelihood")
def points_over_batch(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Sequential(nn.Conv1d(3, 32, 1), nn.ReLU(), nn.Conv1d(32, 64, 1))
            self.o = mlp(64, 32, 5)

        def forward(self, x):
            return F.log_softmax(self.o(self.c(x).amax(-1)), 0 if sick else 1)

    return M(), (torch.randn(32, 3, 40), torch.randint(0, 5, (32,))), nn.NLLLoss()


@case(["GRF004", "GRF007"], "layer normalisation of a single feature")
def norm_of_one(sick):
    m = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    if sick:
        m.append(nn.LayerNorm(1))
    return m, (torch.randn(64, 8), torch.randn(64, 1)), nn.MSELoss()


@case(["GRF004", "GRF007", "OUT006"], "the sum of a normalised output is asked to fall")
def norm_then_sum(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.n = mlp(8, 32, 16), nn.LayerNorm(16, elementwise_affine=False)

        def forward(self, x):
            return self.n(self.f(x)) if sick else self.f(x)

    return M(), (torch.randn(32, 8), torch.randn(32)), lambda o, y: (o.sum(-1) - y).pow(2).mean()


@case(["NUM001"], "an exponential in the branch that is not taken")
def branch_exp(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(1, 16), nn.Linear(16, 1)

        def forward(self, x):
            h = self.a(x) * 100
            return self.b(torch.where(h <= 0, (h if sick else h.clamp(max=0)).exp(), 1 + h) / 100)

    return M(), (torch.randn(64, 1), torch.randn(64, 1)), nn.MSELoss()


@case(["NUM001"], "a root in the branch that is not taken")
def branch_root(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 1)

        def forward(self, x):
            h = self.a(x)
            inner = h if sick else torch.where(h > 0, h, 1.0)
            return self.b(torch.where(h > 0, inner.sqrt(), h))

    return M(), (torch.randn(64, 8), torch.randn(64, 1)), nn.MSELoss()


@case(["NUM001"], "all distances of a batch, each sample to itself too")
def self_distance(sick):
    def loss(e, y):
        d = (e[:, None] - e[None]).pow(2).sum(-1)
        d = d.sqrt() if sick else (d + 1e-12).sqrt()
        same = (y[:, None] == y[None]).float()
        return (same * d + (1 - same) * F.relu(1 - d)).mean()

    return mlp(16, 32, 8), cls(32), loss


@case(["OUT002"], "boxes of a detector squashed in the head, and by the loss again")
def objectness_twice(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = unet(9)

        def forward(self, x):
            xy, wh, rest = self.f(x).split([2, 2, 5], 1)
            return xy.sigmoid(), wh, rest.sigmoid() if sick else rest

    def loss(o, y):
        xy, wh, rest = o
        box, kind = y
        return F.mse_loss(torch.cat([xy, wh], 1), box) + F.binary_cross_entropy_with_logits(rest, kind)

    y = torch.rand(4, 4, 10, 10), (torch.rand(4, 5, 10, 10) > 0.8).float()
    return M(), (torch.randn(4, 3, 10, 10), y), loss


@case(["OUT002"], "focal loss that squashes before a loss with logits")
def focal_twice(sick):
    def loss(o, y):
        p = o.sigmoid()
        ce = F.binary_cross_entropy_with_logits(p if sick else o, y, reduction="none")
        pt = p * y + (1 - p) * (1 - y)
        return (ce * (1 - pt) ** 2).mean()

    return mlp(16, 32, 4), (torch.randn(64, 16), (torch.rand(64, 4) > 0.7).float()), loss


@case(["GRF001", "GRF006"], "the adversarial term of a generator is detached, the other is not")
def judge_detached(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.d = mlp(16, 32, 20), mlp(20, 32, 1)
            self.d.requires_grad_(False)

        def forward(self, x):
            made = self.g(x)
            return made, self.d(made.detach() if sick else made)

    def loss(o, y):
        made, judged = o
        return F.mse_loss(judged, torch.ones_like(judged)) + F.l1_loss(made, y)

    return M(), (torch.randn(32, 16), torch.randn(32, 20)), loss


@case(["NUM001"], "one sample of a batch is padding alone")
def padding_alone(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.o = nn.Embedding(30, 16, padding_idx=0), nn.Linear(16, 3)
            self.a = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x):
            h, pad = self.e(x), x == 0
            h = h + self.a(h, h, h, key_padding_mask=pad)[0]
            return self.o(h.masked_fill(pad[..., None], 0).sum(1))

    x = torch.randint(1, 30, (16, 8))
    x[3, 0 if sick else 1 :] = 0
    return M(), (x, torch.randint(0, 3, (16,))), CE()


@case(["NUM002"], "a backward by hand that forgets what arrives")
def chain_forgotten(sick):
    class Prior(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z.pow(3) / 3

        @staticmethod
        def backward(ctx, g):
            (z,) = ctx.saved_tensors
            return z.pow(2) if sick else g * z.pow(2)

    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.o = nn.Linear(16, 32), nn.Linear(32, 4)

        def forward(self, x):
            return self.o(Prior.apply(self.f(x)))

    return M(), cls(), CE()


@case(["INP001", "OUT005"], "numbers of one to four thousand, and their cubes")
def cubes(sick):
    x = torch.arange(1.0, 4000.0, 31)[:, None]
    y = x**3
    if not sick:
        x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    return mlp(1, 50, 1), (x, y), nn.MSELoss()


@case(["INI003", "GRF004", "GRF007", "INI001"], "hidden layers that begin at zero")
def hidden_zero(sick):
    m = mlp(10, 64, 1, n=3)
    for layer in m[:-1] if sick else ():
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    return m, (torch.randn(64, 10), torch.randn(64, 1)), nn.MSELoss()


@case(["OUT005", "LOS002", "OUT001"], "two classes called one and two")
def labels_from_one(sick):
    y = (torch.rand(64, 1) > 0.5).float()
    return mlp(8, 32, 1), (torch.randn(64, 8), y + 1 if sick else y), nn.BCEWithLogitsLoss()


@case(["OUT005", "OUT006", "LOS002"], "unlike pairs called 0 where -1 is meant")
def pair_labels(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(16, 32, 8)

        def forward(self, x):
            return self.f(x[:, 0]), self.f(x[:, 1])

    y = (torch.rand(64) > 0.5).float()
    y = y if sick else 2 * y - 1
    return M(), (torch.randn(64, 2, 16), y), lambda o, y: F.cosine_embedding_loss(o[0], o[1], y)


class Codes(nn.Module):
    """An autoencoder through the nearest of sixteen codes."""

    def __init__(self, straight=True):
        super().__init__()
        self.e, self.d = mlp(16, 32, 8), mlp(8, 32, 16)
        self.codes, self.straight = nn.Embedding(16, 8), straight

    def forward(self, x):
        z = self.e(x)
        q = self.codes(torch.cdist(z, self.codes.weight).argmin(-1))
        return self.d(z + (q - z).detach() if self.straight else q + (z - q).detach()), z, q


@case(["GRF001"], "straight-through the wrong way round, and no other term reaches the encoder")
def straight_reversed(sick):
    def loss(o, x):
        out, z, q = o
        return F.mse_loss(out, x) + F.mse_loss(q, z.detach())

    x = torch.randn(64, 16)
    return Codes(straight=not sick), (x, x), loss


@case(["GRF001", "GRF006"], "both sides of the commitment are detached")
def commitment_detached(sick):
    def loss(o, x):
        out, z, q = o
        held = z.detach() if sick else z
        return F.mse_loss(out, x) + F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(held, q.detach())

    x = torch.randn(64, 16)
    return Codes(), (x, x), loss


@case(["NUM001"], "the logarithm of a squashed action's slope, saturated")
def squash_log(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(8, 32, 4)

        def forward(self, x):
            mean, spread = self.f(x).chunk(2, -1)
            u = mean * (1 + 200 * (x[:, :1] > 1.8)) + spread.exp() * torch.randn_like(mean)
            slope = 1 - u.tanh() ** 2
            log_pi = -u.pow(2) / 1e4 - (slope if sick else slope + 1e-6).log()
            return u.tanh(), log_pi.sum(-1)

    return (
        M(),
        (torch.randn(64, 8), 1.6 * torch.rand(64, 2) - 0.8),
        lambda o, y: (0.1 * o[1]).mean() + F.mse_loss(o[0], y),
    )
