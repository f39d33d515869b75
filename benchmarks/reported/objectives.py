"""Reports of what a loss asks for: signs, temperatures, numbers of classes, answers in sight."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.reported.cases import case
from benchmarks.reported.nets import AC, CE, cls, mlp


def log_p(scores, done):
    return scores.log_softmax(-1).gather(1, done[:, None]).squeeze(1)


class Decoder(nn.Module):
    """A causal transformer, perhaps after four places of a picture; `broken`: its mask is multiplied away."""

    def __init__(self, picture=False, broken=False):
        super().__init__()
        self.e, self.p, self.o = nn.Embedding(40, 32), nn.Embedding(64, 32), nn.Linear(32, 40)
        self.layers = nn.ModuleList(
            [nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True) for _ in range(2)]
        )
        self.image = nn.Linear(12, 32) if picture else None
        self.broken = broken

    def forward(self, t, picture=None):
        h = self.e(t) if picture is None else torch.cat([self.image(picture), self.e(t)], 1)
        n = h.shape[1]
        h = h + self.p(torch.arange(n))
        mask = torch.triu(torch.full((n, n), -1e30), 1)
        mask = mask * torch.tril(torch.ones(n, n)) if self.broken else mask
        for layer in self.layers:
            h = layer(h, src_mask=mask)
        return self.o(h[:, n - t.shape[1] :])


def flat(o, y, **more):
    return F.cross_entropy(o.reshape(-1, o.shape[-1]), y.reshape(-1), **more)


def text(n=8, steps=17):
    return torch.randint(1, 40, (n, steps))


@case(["LEA002"], "captions whose labels the model and the loss both shift")
def captions_shifted_twice(sick):
    def loss(o, y):
        later = F.pad(y[:, 1:].reshape(-1), (0, 1), value=-100)[1:]
        return flat(o[:, :-1], later, ignore_index=-100) if sick else flat(o[:, :-1], y[:, 1:])

    t = text()
    return Decoder(), (t, t), loss


@case(["LEA002"], "captions whose labels nobody shifts: the loss is 0 after some hundred steps")
def captions_not_shifted(sick):
    t = text()
    loss = flat if sick else (lambda o, y: flat(o[:, :-1], y[:, 1:]))
    return Decoder(picture=True), ((t, torch.randn(8, 4, 12)), t), loss


@case(["LEA002"], "an additive mask of a sliding window, multiplied by a lower triangle")
def mask_times_triangle(sick):
    t = text()
    return Decoder(broken=sick), (t[:, :-1], t[:, 1:]), lambda o, y: F.cross_entropy(o.transpose(1, 2), y)


@case(["LEA002"], "keys and values projected along time in an attention called causal")
def projected_keys(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.q, self.k, self.v = nn.Embedding(40, 32), *(nn.Linear(32, 32) for _ in range(3))
            self.o = nn.Linear(32, 40)
            self.down = nn.Linear(16, 6) if sick else None

        def forward(self, t):
            h = self.e(t)
            q, k, v = self.q(h), self.k(h), self.v(h)
            if sick:
                k, v = (self.down(x.transpose(1, 2)).transpose(1, 2) for x in (k, v))
            w = q @ k.transpose(1, 2) / 32**0.5
            w = w.masked_fill(torch.ones(w.shape[1:]).triu(1).bool(), -1e9).softmax(-1)
            return self.o(h + w @ v)

    t = text()
    return M(), (t[:, :-1], t[:, 1:]), flat


@case(["LEA002"], "a language model over steps first whose LSTM runs both ways")
def both_ways_time_first(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.r = nn.Embedding(40, 24), nn.LSTM(24, 24, bidirectional=sick)
            self.o = nn.Linear(48 if sick else 24, 40)

        def forward(self, t):
            return self.o(self.r(self.e(t))[0])

    t = text().T
    return M(), (t[:-1], t[1:]), flat


@case(["OUT001"], "scores of a policy through a ReLU before its log-softmax")
def policy_relu_scores(sick):
    class P(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(4, 64, 2, n=2)

        def forward(self, x):
            x = self.f(x)
            return F.log_softmax(x.relu() if sick else x, -1)

    def loss(o, y):
        return -(y[1] * o.gather(1, y[0].view(-1, 1)).squeeze()).sum()

    return P(), (torch.randn(100, 4), (torch.randint(0, 2, (100,)), torch.randn(100))), loss


@case(["LOS002"], "a policy's gradient with a baseline, without the minus")
def policy_ascent(sick):
    def loss(o, y):
        gain = ((y[1] - y[2]) * log_p(o, y[0])).sum()
        return gain if sick else -gain

    y = torch.randint(0, 4, (100,)), torch.rand(100) * 20, 10 + 0.1 * torch.randn(100)
    return mlp(4, 64, 4), (torch.randn(100, 4), y), loss


@case(["LOS002"], "an advantage of the value less the return")
def advantage_turned(sick):
    def loss(o, y):
        v = o[1].squeeze(-1)
        gap = (v - y[1] if sick else y[1] - v).detach()
        return -(log_p(o[0], y[0]) * gap).mean() + 0.5 * F.mse_loss(v, y[1])

    return AC(), (torch.randn(64, 8), (torch.randint(0, 4, (64,)), torch.randn(64))), loss


@case(["LOS002"], "a correlation handed over as a loss")
def correlation_raised(sick):
    def loss(o, y):
        o, y = o.squeeze(1) - o.mean(), y - y.mean()
        r = (o * y).sum() / (o.norm() * y.norm())
        return r if sick else 1 - r

    return mlp(8, 32, 1), (torch.randn(64, 8), torch.randn(64)), loss


@case(["OUT006"], "identities by cosines without a temperature: the loss goes from 6 to 5 in 50 epochs")
def identities_by_cosine(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.c = mlp(16, 64, 32), nn.Linear(32, 300, bias=False)

        def forward(self, x):
            return F.linear(F.normalize(self.f(x)), F.normalize(self.c.weight)) / (1 if sick else 0.1)

    return M(), (torch.randn(64, 16), torch.randint(0, 300, (64,))), CE()


@case(["OUT006"], "a margin on cosines without its scale")
def margin_without_scale(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.w = mlp(16, 64, 32), nn.Parameter(torch.randn(120, 32))

        def forward(self, x):
            e = self.f(x)
            return e.div(e.norm(2, 1, True)).mm(self.w.div(self.w.norm(2, 1, True)).t())

    def loss(c, y):
        rows, scores = torch.arange(len(y)), c.clone()
        scores[rows, y] = scores[rows, y] - 0.2
        return F.cross_entropy(scores * (1 if sick else 32), y)

    return M(), (torch.randn(96, 16), torch.randint(0, 120, (96,))), loss


@case(["OUT005"], "one number for the kind of flower, under a root of a squared error")
def flowers_as_numbers(sick):
    y = torch.arange(3).repeat_interleave(50)
    loss = (lambda o, y: F.mse_loss(o.view(-1), y.float()).sqrt()) if sick else CE()
    return mlp(4, 16, 1 if sick else 3), (torch.randn(150, 4), y), loss


@case(["OUT005"], "probabilities of ten classes less the number of the class")
def probabilities_less_numbers(sick):
    loss = (lambda o, y: ((o.softmax(1) - y.unsqueeze(1)) ** 2).mean()) if sick else CE()
    return mlp(16, 32, 10), cls(64, 16, 10), loss


@case(["INP003"], "a translation that is padding from the third word on")
def translation_of_padding(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.d = nn.Embedding(40, 32), nn.Embedding(40, 32)
            self.a, self.b = (nn.GRU(32, 32, batch_first=True) for _ in range(2))
            self.o = nn.Linear(32, 40)

        def forward(self, source, target):
            return self.o(self.b(self.d(target), self.a(self.e(source))[1])[0])

    there = torch.arange(31)[None] < torch.randint(4, 11, (16, 1))
    t = text(16, 31) * there
    more = {} if sick else {"ignore_index": 0}
    return M(), ((text(16, 9), t[:, :-1]), t[:, 1:]), lambda o, y: flat(o, y, **more)


@case(["LOS001"], "a weight of ten thousand for a rare class of pixels")
def rare_pixels(sick):
    y = torch.zeros(4, 16, 16, dtype=torch.long)
    y[:, :3, :3], y[:, 8:, 8:] = 1, 2
    loss = CE(weight=torch.tensor([1.0, 1e4 if sick else 20.0, 3.0]))
    return nn.Conv2d(3, 3, 3, padding=1), (torch.randn(4, 3, 16, 16), y), loss


@case(["REC001"], "the state of a cell written by hand is copied into a new tensor at each step")
def state_made_anew(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.o = nn.Linear(22, 16), nn.Linear(16, 3)
            nn.init.orthogonal_(self.c.weight[:, 6:].data)

        def forward(self, x):
            h = x.new_zeros(len(x), 16)
            for t in range(9):
                h = torch.tanh(self.c(torch.cat([x[:, t], torch.tensor(h.tolist()) if sick else h], 1)))
            return self.o(h)

    return M(), (torch.randn(32, 9, 6), torch.randint(0, 3, (32,))), CE()


@case(["MOE001"], "a mixture whose gate is divided by a thousand")
def gate_too_warm(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.o = nn.Linear(16, 6, bias=False), nn.Linear(16, 4)
            self.experts = nn.ModuleList([mlp(16, 32, 16) for _ in range(6)])

        def forward(self, x):
            g = F.softmax(self.gate(x) * (1e-3 if sick else 1.0), dim=-1)
            return self.o(sum(g[..., i, None] * e(x) for i, e in enumerate(self.experts)).mean(1))

    return M(), (torch.randn(16, 6, 16), torch.randint(0, 4, (16,))), CE()


@case(["OUT001"], "scores clipped to 0 and 1 before a cross-entropy")
def scores_clipped(sick):
    loss = (lambda o, y: F.cross_entropy(torch.clip(o, 0.0, 1.0), y)) if sick else CE()
    return mlp(16, 32, 5), cls(96, 16, 5), loss
