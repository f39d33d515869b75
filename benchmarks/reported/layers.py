"""Reports of starts, layers, recurrences, inputs and samples that leak."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.reported.cases import case
from benchmarks.reported.nets import CE, cls, mlp


@case(["LEA001"], "dot attention, softmax over the first axis which is the batch")
def dot_attention_batch(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = nn.Linear(16, 16)
            self.c = nn.Linear(16, 16)
            self.out = nn.Linear(32, 5)

        def forward(self, q, c):
            q = self.q(q)
            c = self.c(c)
            w = torch.bmm(q, c.transpose(1, 2)).view(q.shape[0], -1)
            w = F.softmax(w, 0 if sick else -1).view(q.shape[0], 1, -1)
            return self.out(torch.cat([torch.bmm(w, c), q], -1).squeeze(1))

    return M(), ((torch.randn(20, 1, 16), torch.randn(20, 7, 16)), torch.randint(0, 5, (20,))), CE()


@case(["LEA001"], "LSTM that expects time first is given batch first")
def lstm_not_batch_first(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.r = nn.LSTM(6, 24, batch_first=not sick)
            self.o = nn.Linear(24, 3)

        def forward(self, x):
            return self.o(self.r(x)[0][:, -1])

    return M(), (torch.randn(32, 12, 6), torch.randint(0, 3, (32,))), CE()


@case(["LEA001"], "time and batch swapped by view instead of transpose")
def view_for_transpose(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(40, 16)
            self.r = nn.GRU(16, 24)
            self.o = nn.Linear(24, 3)

        def forward(self, x):
            e = self.e(x)  # B T E
            e = e.view(e.shape[1], e.shape[0], -1) if sick else e.transpose(0, 1)
            return self.o(self.r(e)[1][-1])

    return M(), (torch.randint(0, 40, (24, 10)), torch.randint(0, 3, (24,))), CE()


@case(
    ["NRM003", "NRM001", "GRF004", "GRF007", "DEP001", "DEP003"], "group normalisation with a group a number"
)
def group_norm_each(sick):
    m = nn.Sequential(nn.Linear(12, 20), nn.GroupNorm(20 if sick else 4, 20), nn.ReLU(), nn.Linear(20, 3))
    return m, (torch.randn(32, 12), torch.randint(0, 3, (32,))), CE()


@case(["INI001"], "deep plain net, weights drawn at 0.01")
def small_init(sick):
    part = []
    for i in range(8):
        c = nn.Conv2d(3 if not i else 16, 16, 3, padding=1)
        if sick:
            nn.init.normal_(c.weight, 0, 0.01)
        else:
            nn.init.kaiming_normal_(c.weight, nonlinearity="relu")
        nn.init.zeros_(c.bias)
        part += [c, nn.ReLU()]
    return (
        nn.Sequential(*part, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
        (torch.randn(8, 3, 12, 12), torch.randint(0, 5, (8,))),
        CE(),
    )


@case(["INP001"], "grey values to 255 into tanh")
def pixels_tanh(sick):
    x = torch.randint(0, 256, (64, 100)).float()
    return mlp(100, 64, 10, nn.Tanh, 2), (x if sick else x / 127.5 - 1, torch.randint(0, 10, (64,))), CE()


@case(["INP002", "INP001"], "income beside age and flags")
def income(sick):
    x = torch.stack(
        [
            torch.randn(64) * 30000 + 60000,
            torch.rand(64) * 60 + 18,
            (torch.rand(64) > 0.5).float(),
            torch.rand(64),
        ],
        1,
    )
    if not sick:
        x = (x - x.mean(0)) / x.std(0)
    return mlp(4, 32, 1), (x, (torch.rand(64, 1) > 0.5).float()), nn.BCEWithLogitsLoss()


@case(["INI003", "INI001", "GRF007", "GRF004"], "all weights set to zero")
def all_zero(sick):
    m = mlp(16, 32, 4, nn.Tanh, 2)
    if sick:
        for p in m.parameters():
            nn.init.zeros_(p)
    return m, cls(), CE()


@case(["INI003"], "all weights the same constant")
def all_constant(sick):
    m = mlp(16, 32, 4, nn.Sigmoid, 1)
    if sick:
        for part in m:
            if isinstance(part, nn.Linear):
                nn.init.constant_(part.weight, 0.5)
    return m, cls(), CE()


@case(["ACT002", "ACT001"], "ten layers of sigmoid, loss at 0.693")
def deep_sigmoid(sick):
    return (
        mlp(16, 48, 1, nn.Sigmoid if sick else nn.SELU, 10),
        (torch.randn(64, 16), (torch.rand(64, 1) > 0.5).float()),
        nn.BCEWithLogitsLoss(),
    )


@case(["REC001"], "plain recurrence over 200 steps, read at its end")
def long_rnn(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.r = nn.RNN(2, 32, batch_first=True) if sick else nn.LSTM(2, 32, batch_first=True)
            self.o = nn.Linear(32, 1)

        def forward(self, x):
            return self.o(self.r(x)[0][:, -1])

    return M(), (torch.randn(16, 200 if sick else 18, 2), torch.randn(16, 1)), nn.MSELoss()


@case(["ACT004"], "dropout whose rate is the share kept")
def dropout_kept(sick):
    m = nn.Sequential(
        nn.Linear(16, 64),
        nn.ReLU(),
        nn.Dropout(0.95 if sick else 0.05),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Dropout(0.95 if sick else 0.05),
        nn.Linear(64, 4),
    )
    return m, cls(), CE()


@case(["INI001", "INI002", "DEP001", "DEP003"], "thirty plain layers with default weights")
def thirty_plain(sick):
    m = mlp(16, 64, 4, n=30)
    if not sick:
        for part in m:
            if isinstance(part, nn.Linear):
                nn.init.kaiming_normal_(part.weight)
                nn.init.zeros_(part.bias)
    return m, cls(), CE()


@case(["LEA001", "OUT001"], "softmax of the policy over the batch")
def policy_over_batch(sick):
    m = mlp(8, 32, 4)
    m.append(nn.Softmax(0 if sick else 1))

    def loss(p, y):
        a, adv = y
        return -(torch.log(p[torch.arange(len(a)), a] + 1e-8) * adv).mean()

    return m, (torch.randn(32, 8), (torch.randint(0, 4, (32,)), torch.randn(32))), loss


@case(["INI003"], "two heads copied by multiplying a list")
def same_layer_twice(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = nn.Linear(16, 32)
            if sick:
                self.q.weight.data[:] = self.q.weight.data[:1]
                self.q.bias.data[:] = 0
            self.o = nn.Linear(32, 4)
            if sick:
                self.o.weight.data[:] = self.o.weight.data[:, :1]

        def forward(self, x):
            return self.o(torch.tanh(self.q(x)))

    return M(), cls(), CE()


@case(["ACT003"], "all units dead after biases of -10")
def dead(sick):
    m = mlp(16, 32, 4, n=3)
    if sick:
        m[2].bias.data.fill_(-10)
    return m, cls(), CE()


@case(["INI002", "DEP003", "OUT003"], "normal weights of deviation 1 in ten layers")
def std_one(sick):
    m = mlp(32, 64, 4, n=10)
    for part in m:
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight) if sick else nn.init.kaiming_normal_(part.weight)
    return m, cls(64, 32), CE()


@case(["ATT001", "OUT003", "INI002"], "scores of attention not divided by the root of the width, wide heads")
def scores_unscaled(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(256, 256) for _ in range(3))
            self.o = nn.Linear(256, 4)
            [nn.init.normal_(part.weight, std=256**-0.5) for part in (self.q, self.k)]

        def forward(self, x):
            a = self.q(x) @ self.k(x).transpose(1, 2)
            a = (a if sick else a / 16).softmax(-1)
            return self.o((a @ self.v(x)).mean(1))

    return M(), (torch.randn(8, 10, 256), torch.randint(0, 4, (8,))), CE()


@case(["REC002", "INI002"], "recurrent weights too large over 60 steps")
def rnn_explodes(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.r = nn.RNN(4, 32, batch_first=True, nonlinearity="relu")
            self.o = nn.Linear(32, 2)
            nn.init.normal_(self.r.weight_hh_l0, std=2.2 / 32**0.5) if sick else nn.init.eye_(
                self.r.weight_hh_l0
            )

        def forward(self, x):
            return self.o(self.r(x)[0][:, -1])

    return M(), (torch.randn(16, 60 if sick else 10, 4), torch.randint(0, 2, (16,))), CE()


@case(["NRM003", "INI001", "DEP001", "INI002"], "evaluation mode left on, normalisation by first statistics")
def eval_left(sick):
    part = []
    for i in range(10):
        part += [nn.Conv2d(3 if not i else 16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    m = nn.Sequential(*part, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    return (m.eval() if sick else m), (torch.randn(16, 3, 12, 12), torch.randint(0, 5, (16,))), CE()


@case(["INP001"], "pictures divided by 255 twice")
def twice_255(sick):
    x = torch.rand(32, 1, 12, 12)
    m = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 10))
    return m, (x / 255 / 255 if sick else x, torch.randint(0, 10, (32,))), CE()


@case(["INP001", "INP003", "DEP001", "INP002"], "the loader gives black pictures only")
def black(sick):
    x = torch.zeros(32, 1, 12, 12) if sick else torch.rand(32, 1, 12, 12)
    m = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10)
    )
    return m, (x, torch.randint(0, 10, (32,))), CE()


@case(["LEA001"], "features normalised over the batch by dim=0")
def normalize_batch(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(16, 32, 24)
            self.o = nn.Linear(24, 4)

        def forward(self, x):
            return self.o(5 * F.normalize(self.f(x), dim=0 if sick else 1))

    return M(), cls(), CE()


@case(["LEA001"], "attention module that expects time first")
def mha_time_first(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.i = nn.Linear(6, 16)
            self.a = nn.MultiheadAttention(16, 4, batch_first=not sick)
            self.o = nn.Linear(16, 3)

        def forward(self, x):
            h = self.i(x)
            return self.o((h + self.a(h, h, h)[0]).mean(1))

    return M(), (torch.randn(24, 9, 6), torch.randint(0, 3, (24,))), CE()


@case(["LEA001"], "encoder that expects time first")
def encoder_time_first(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(40, 16)
            self.t = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(16, 4, 32, 0.1, batch_first=not sick), 2
            )
            self.o = nn.Linear(16, 3)

        def forward(self, x):
            return self.o(self.t(self.e(x)).mean(1))

    return M(), (torch.randint(0, 40, (24, 9)), torch.randint(0, 3, (24,))), CE()


@case(["ACT002", "INI001", "DEP003"], "outputs multiplied by 1e-8 to keep them small")
def tiny_scale(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)

        def forward(self, x):
            h = torch.tanh(self.a(x))
            h = torch.tanh(self.b(h * (1e-6 if sick else 1.0)))
            return self.c(h)

    return M(), cls(), CE()
