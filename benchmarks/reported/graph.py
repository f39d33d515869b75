"""Reports of a graph that is cut, of parameters that nobody trains, and of operations without a slope."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.reported.cases import case
from benchmarks.reported.nets import CE, GAN, XS, cls, mlp, pde, pinn, unet


@case(["GRF007", "GRF004"], "pooling scores flattened, softmax over an axis of one")
def pool_softmax_one(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(50, 16)
            self.gru = nn.GRU(16, 16, bidirectional=True)
            self.attn = nn.Linear(48, 1)
            self.out = nn.Linear(32, 8)

        def forward(self, t):
            x = self.emb(t)
            o, _ = self.gru(x)  # T B
            score = self.attn(torch.cat((x, o), -1))  # T B 1
            w = F.softmax(score.reshape(-1, 1), 1).view(*score.shape) if sick else F.softmax(score, 0)
            return self.out((w * o).sum(0))

    return M(), (torch.randint(0, 50, (9, 24)), torch.randint(0, 8, (24,))), CE()


@case(["GRF005"], "recurrent cells in a plain list")
def cells_in_list(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.i = nn.Linear(5, 16)
            cells = [nn.LSTMCell(16, 16) for _ in range(2)]
            self.cells = cells if sick else nn.ModuleList(cells)
            self.o = nn.Linear(16, 1)

        def forward(self, x):
            st = [(x.new_zeros(len(x), 16),) * 2 for _ in self.cells]
            for t in range(x.shape[1]):
                h = torch.tanh(self.i(x[:, t]))
                for k, c in enumerate(self.cells):
                    st[k] = c(h, st[k])
                    h = st[k][0]
            return self.o(h)

    return M(), (torch.randn(16, 6, 5), torch.randn(16, 1)), nn.MSELoss()


@case(["GRF005"], "layers made anew in every forward")
def made_in_forward(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(12, 32)
            self.b = nn.Linear(32, 32)
            self.o = nn.Linear(32, 1)

        def forward(self, x):
            h = F.relu(self.a(x))
            h = F.relu((nn.Linear(32, 32) if sick else self.b)(h))
            return self.o(h)

    return M(), (torch.randn(32, 12), torch.randn(32, 1)), nn.MSELoss()


@case(["OPT004", "GRF005", "OPT006"], "head replaced after the optimizer was made")
def head_replaced(sick):
    m = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 10))
    opt = torch.optim.Adam(m.parameters(), 1e-3)
    m[2] = nn.Linear(32, 3)
    if not sick:
        opt = torch.optim.Adam(m.parameters(), 1e-3)
    return m, (torch.randn(32, 12), torch.randint(0, 3, (32,))), CE(), {"optimizer": opt}


@case(["GRF001"], "the generator's loss on a detached prediction")
def gan_detached(sick):
    class G(GAN):
        def forward(self, z):
            f = self.g(z)
            return self.d(f.detach() if sick else f), f

    m = G()

    def loss(o, y):
        return F.binary_cross_entropy(o[0], torch.ones_like(o[0]))

    return m, (torch.randn(32, 8), torch.randn(32, 20)), loss


@case(["GRF001"], "overlap of the classes that argmax picks")
def dice_argmax(sick):
    def loss(o, y):
        p = F.one_hot(o.argmax(1), 2).permute(0, 3, 1, 2).float() if sick else o.softmax(1)
        t = F.one_hot(y, 2).permute(0, 3, 1, 2).float()
        if sick:
            p = p.requires_grad_() if not p.requires_grad else p
        i = (p * t).sum((2, 3))
        return 1 - ((2 * i + 1) / (p.sum((2, 3)) + t.sum((2, 3)) + 1)).mean()

    return unet(2), (torch.randn(4, 3, 12, 12), torch.randint(0, 2, (4, 12, 12))), loss


@case(["GRF001"], "mask by a threshold, made a leaf that asks for a gradient")
def dice_threshold(sick):
    def loss(o, y):
        p = torch.sigmoid(o)
        if sick:
            p = torch.tensor((p > 0.5).type(p.dtype), requires_grad=True)
        return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)

    return unet(1), (torch.randn(4, 3, 12, 12), (torch.rand(4, 1, 12, 12) > 0.6).float()), loss


@case(["GRF009", "GRF006"], "second derivative of a ReLU net in an equation's residual")
def pinn_relu(sick):
    return pinn(nn.ReLU if sick else nn.Tanh), (XS, XS), pde


@case(["GRF006", "GRF001"], "residual made without create_graph")
def pinn_no_create(sick):
    return pinn(nn.Tanh, not sick), (XS, XS), pde


@case(["GRF004", "OUT001", "OUT006"], "probabilities clamped at 1e-4 where the head says less")
def clamp_focal(sick):
    m = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1), nn.Sigmoid())
    nn.init.constant_(m[2].bias, -14.0 if sick else -math.log(99))

    def loss(p, y):
        p = p.clamp(1e-4, 1 - 1e-4)
        pt = torch.where(y == 1, p, 1 - p)
        a = torch.where(y == 1, 0.25, 0.75)
        return (a * (1 - pt) ** 2 * -pt.log()).sum() / y.sum().clamp(min=1)

    return m, (torch.randn(4, 3, 10, 10), (torch.rand(4, 4, 10, 10) > 0.95).float()), loss


@case(["GRF001"], "hard Gumbel choice without the soft part")
def gumbel_hard(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8))
            self.c = nn.Parameter(torch.randn(8, 16))
            self.d = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 20))

        def forward(self, x):
            part = self.e(x)
            g = -torch.log(-torch.log(torch.rand_like(part).clamp(1e-6, 1 - 1e-6)))
            soft = ((part + g) / 0.9).softmax(-1)
            hard = F.one_hot(soft.argmax(-1), 8).to(soft)
            return self.d((hard if sick else hard - soft.detach() + soft) @ self.c)

    x = torch.randn(64, 20)
    return M(), (x, x), nn.MSELoss()


@case(["GRF001"], "backbone under no_grad, meant to be tuned, in the optimizer")
def backbone_no_grad(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.back = nn.Sequential(
                nn.Conv2d(3, 8, 3, 2),
                nn.ReLU(),
                nn.Conv2d(8, 16, 3, 2),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
            self.head = nn.Linear(16, 4)

        def forward(self, x):
            with torch.set_grad_enabled(not sick):
                f = self.back(x)
            return self.head(f)

    m = M()
    return (
        m,
        (torch.randn(8, 3, 16, 16), torch.randint(0, 4, (8,))),
        CE(),
        {"optimizer": torch.optim.AdamW(m.parameters(), 1e-3)},
    )


@case(["GRF001"], "encoder given detached features of a trainable front end")
def front_detached(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.front = nn.Conv1d(1, 16, 16, 8)
            self.norm = nn.BatchNorm1d(16)
            self.enc = nn.GRU(16, 32, batch_first=True)
            self.o = nn.Linear(32, 5)

        def forward(self, w):
            f = self.norm(torch.log1p(self.front(w).square()))
            return self.o(self.enc((f.detach() if sick else f).transpose(1, 2))[0].mean(1))

    return M(), (torch.randn(8, 1, 160), torch.randint(0, 5, (8,))), CE()


@case(["GRF001", "REC001"], "state detached at every step, loss at the end")
def state_detached(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.GRUCell(4, 24)
            self.o = nn.Linear(24, 2)

        def forward(self, x):
            h = x.new_zeros(len(x), 24)
            for t in range(x.shape[1]):
                h = self.c(x[:, t], h.detach() if sick else h)
            return self.o(h)

    return M(), (torch.randn(32, 15, 4), torch.randint(0, 2, (32,))), CE()


@case(["MOE001", "GRF001", "GRF007"], "router whose choice is taken without its weight")
def router_unweighted(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.r = nn.Linear(16, 4)
            self.e = nn.ModuleList(
                nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)) for _ in range(4)
            )
            self.o = nn.Linear(16, 4)

        def forward(self, x):
            p = self.r(x).softmax(-1)
            w, k = p.max(-1)
            y = torch.zeros_like(x)
            for i, e in enumerate(self.e):
                m = k == i
                if m.any():
                    y[m] = e(x[m]) * (1 if sick else w[m, None])
            return self.o(x + y)

    return M(), cls(), CE()


@case(["GRF001"], "the share of right answers as a loss")
def accuracy_loss(sick):
    def loss(o, y):
        if not sick:
            return F.cross_entropy(o, y)
        return torch.tensor(1 - (torch.max(o, 1)[1] == y).float().mean().item(), requires_grad=True)

    return mlp(16, 32, 4), cls(), loss


@case(["GRF001"], "losses collected as numbers and added up")
def losses_as_numbers(sick):
    def loss(o, y):
        parts = [F.cross_entropy(o[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)]
        if sick:
            return torch.tensor([p.item() for p in parts], requires_grad=True).mean()
        return torch.stack(parts).mean()

    return mlp(16, 32, 4), cls(), loss


@case(["GRF001"], "a spectrum by NumPy in the middle of a model")
def numpy_fft(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(16, 32)
            self.o = nn.Linear(17, 4)

        def forward(self, x):
            h = torch.tanh(self.a(x))
            f = (
                torch.from_numpy(np.abs(np.fft.rfft(h.detach().numpy()))).float()
                if sick
                else torch.fft.rfft(h).abs()
            )
            return self.o(f)

    return M(), cls(), CE()


@case(["OPT004"], "the optimizer holds the head alone, the rest is trainable")
def optimizer_of_head(sick):
    m = mlp(16, 32, 4, n=2)
    return m, cls(), CE(), {"optimizer": torch.optim.SGD((m[-1] if sick else m).parameters(), 0.1)}


@case(["GRF001"], "parameters rewrapped through .data in forward")
def rewrapped(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.w1 = nn.Parameter(torch.randn(16, 32) / 4)
            self.b1 = nn.Parameter(torch.zeros(32))
            self.o = nn.Linear(32, 4)

        def forward(self, x):
            w = self.w1.data if sick else self.w1
            w = w / w.norm(dim=0, keepdim=True)
            return self.o(torch.relu(x @ w + self.b1))

    return M(), cls(), CE()


@case(["GRF001", "GRF004"], "pixel rounding inside a learned codec")
def rounding(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = mlp(16, 32, 8)
            self.d = mlp(8, 32, 16)

        def forward(self, x):
            z = 8 * self.e(x)
            q = torch.round(z)
            return self.d((q if sick else z + (q - z).detach()) / 8)

    x = torch.randn(64, 16)
    return M(), (x, x), nn.MSELoss()


@case(["GRF001"], "a learned threshold in a comparison")
def learned_threshold(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.t = nn.Parameter(torch.zeros(16))
            self.f = mlp(16, 32, 4)

        def forward(self, x):
            m = (x > self.t).float() if sick else torch.sigmoid((x - self.t) * 5)
            return self.f(x * m)

    return M(), cls(), CE()


@case(["GRF001", "GRF004", "GRF007"], "sampled without reparametrisation")
def sample_no_rsample(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = mlp(16, 32, 8)
            self.d = mlp(4, 32, 16)

        def forward(self, x):
            m, part = self.e(x).chunk(2, -1)
            q = torch.distributions.Normal(m, F.softplus(part) + 1e-3)
            return self.d(q.sample() if sick else q.rsample())

    x = torch.randn(64, 16)
    return M(), (x, x), nn.MSELoss()


@case(["GRF001"], "targets of a Q-net: the net's own value detached on the wrong side")
def q_wrong_side(sick):
    class Q(nn.Module):
        def __init__(self):
            super().__init__()
            self.q = mlp(8, 32, 4)
            self.t = mlp(8, 32, 4)
            [p.requires_grad_(False) for p in self.t.parameters()]

        def forward(self, x, x2):
            return self.q(x), self.t(x2)

    def loss(o, y):
        a, r = y
        q = o[0].gather(1, a[:, None]).squeeze(1)
        t = r + 0.9 * o[1].max(1).values
        return F.mse_loss(q.detach() if sick else q, t) if not sick else F.mse_loss(q.detach(), t)

    return (
        Q(),
        ((torch.randn(32, 8), torch.randn(32, 8)), (torch.randint(0, 4, (32,)), torch.randn(32))),
        loss,
    )


@case(["GRF002", "GRF001"], "second branch computed and never joined")
def branch_dropped(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = mlp(16, 32, 8), mlp(16, 32, 8)
            self.o = nn.Linear(16, 4)

        def forward(self, x):
            u, v = self.a(x), self.b(x)
            return self.o(torch.cat([u, u if sick else v], -1))

    return M(), cls(), CE()


@case(["GRF006", "GRF001"], "auxiliary loss of a detached embedding")
def aux_detached(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(16, 32, 8)
            self.o = nn.Linear(8, 4)

        def forward(self, x):
            h = self.f(x)
            return self.o(h), h

    def loss(o, y):
        z = F.normalize(o[1].detach() if sick else o[1], dim=-1)
        return F.cross_entropy(o[0], y) + 0.1 * (z @ z.T).square().mean()

    return M(), cls(), loss


@case(["GRF001"], "scheduled sampling by argmax of a decoder trained through its samples")
def decode_argmax(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.gen = mlp(16, 32, 12)
            self.emb = nn.Embedding(12, 16)
            self.disc = nn.Linear(16, 1)

        def forward(self, x):
            part = self.gen(x)
            e = self.emb(part.argmax(-1)) if sick else F.gumbel_softmax(part, hard=True) @ self.emb.weight
            return self.disc(torch.tanh(e))

    m = M()
    return m, (torch.randn(32, 16), torch.ones(32, 1)), nn.BCEWithLogitsLoss()


@case(["GRF001", "GRF006"], "the second loss takes the place of the first")
def loss_replaced(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(16, 32, 32)
            self.a = nn.Linear(32, 4)
            self.b = nn.Linear(32, 3)

        def forward(self, x):
            h = torch.relu(self.f(x))
            return self.a(h), self.b(h)

    def loss(o, y):
        part = F.cross_entropy(o[0], y[0])
        second = F.mse_loss(o[1], y[1])
        return second if sick else part + second

    return M(), (torch.randn(32, 16), (torch.randint(0, 4, (32,)), torch.randn(32, 3))), loss


@case(["GRF001"], "a learned temperature read as a number")
def temperature_item(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(16, 32, 4)
            self.t = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.f(x) / (self.t.item() if sick else self.t)

    return M(), cls(), CE()


@case(["GRF001", "GRF005"], "mixing weights put into a new tensor")
def mix_tensor(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = mlp(16, 32, 4), mlp(16, 32, 4)
            self.u, self.v = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(0.7))

        def forward(self, x):
            w = (torch.tensor([self.u, self.v]) if sick else torch.stack([self.u, self.v])).softmax(0)
            return w[0] * self.a(x) + w[1] * self.b(x)

    return M(), cls(), CE()


@case(["GRF005", "GRF001"], "a masked weight wrapped into a new Parameter in forward")
def param_in_forward(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(32, 16) / 4)
            self.register_buffer("mask", (torch.rand(32, 16) > 0.3).float())
            self.o = nn.Linear(32, 4)

        def forward(self, x):
            w = self.w * self.mask
            w = nn.Parameter(w) if sick else w
            return self.o(torch.relu(F.linear(x, w)))

    return M(), cls(), CE()


@case(["GRF004"], "a learned number clamped where it stands beyond")
def clamped_param(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(16, 32, 32)
            self.g = nn.Parameter(torch.full((32,), 1.5 if sick else 0.5))
            self.o = nn.Linear(32, 4)

        def forward(self, x):
            return self.o(self.f(x) * self.g.clamp(0, 1))

    return M(), cls(), CE()


@case(["GRF004", "ACT003"], "a threshold of a learned mask that nothing passes")
def relu_mask(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(16, 32, 32)
            self.m = nn.Linear(16, 32)
            self.o = nn.Linear(32, 4)

        def forward(self, x):
            return self.o(self.f(x) * (1 + F.relu(self.m(x) - (5 if sick else 0))))

    return M(), cls(), CE()


@case(["GRF004", "GRF001"], "binary activations by sign, nothing straight through")
def sign_net(sick):
    class S(nn.Module):
        def forward(self, x):
            return torch.sign(x) if sick else x + (torch.sign(x) - x).detach()

    return nn.Sequential(nn.Linear(16, 32), S(), nn.Linear(32, 32), S(), nn.Linear(32, 4)), cls(), CE()


@case(["GRF001"], "ranks by sorting twice")
def ranks(sick):
    def loss(o, y):
        o = o.squeeze(1)
        r = o.argsort().argsort().float() if sick else torch.sigmoid((o[:, None] - o[None]) * 5).sum(1)
        t = y.squeeze(1).argsort().argsort().float()
        return F.mse_loss(r / 64, t / 64)

    return mlp(8, 32, 1), (torch.randn(64, 8), torch.randn(64, 1)), loss


@case(
    ["GRF004", "GRF007", "OUT003", "DEP003", "ACT001", "ATT001"],
    "a soft argmax so cold that it is a hard one",
)
def soft_argmax(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))

        def forward(self, x):
            p = (self.f(x).flatten(1) * (1e5 if sick else 10)).softmax(-1).view(-1, 12, 12)
            g = torch.linspace(0, 1, 12)
            return torch.stack([(p.sum(1) * g).sum(1), (p.sum(2) * g).sum(1)], 1)

    return M(), (torch.randn(16, 1, 12, 12), torch.rand(16, 2)), nn.MSELoss()


@case(["GRF005"], "a first state that is a bare tensor")
def bare_state(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.r = nn.GRU(6, 16, batch_first=True)
            self.h = (
                torch.zeros(1, 1, 16, requires_grad=True) if sick else nn.Parameter(torch.zeros(1, 1, 16))
            )
            self.o = nn.Linear(16, 3)

        def forward(self, x):
            return self.o(self.r(x, self.h.expand(-1, len(x), -1).contiguous())[0].mean(1))

    return M(), (torch.randn(16, 8, 6), torch.randint(0, 3, (16,))), CE()


@case(["GRF006", "GRF001"], "a penalty on the slope of detached outputs")
def penalty_detached(sick):
    d = mlp(8, 32, 1)

    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.d = d

        def forward(self, r, f):
            return self.d(r), self.d(f)

    x, y = torch.randn(32, 8), torch.randn(32, 8) + 1

    def loss(o, _):
        m = ((x + y) / 2).requires_grad_()
        g = torch.autograd.grad(d(m).sum(), m, create_graph=not sick)[0]
        return o[1].mean() - o[0].mean() + 10 * (g.norm(dim=1) - 1).square().mean()

    return M(), ((x, y), torch.zeros(32)), loss
