"""Reports of losses and targets that do not fit the output."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.reported.cases import case
from benchmarks.reported.nets import AC, CE, GAN, cls, crnn, mlp, unet


@case(["OUT004"], "advantage of returns (N,) less values (N,1)")
def a2c_square(sick):
    def loss(out, y):
        lg, v = out
        act, ret = y
        adv = ret - (v if sick else v.squeeze(-1)).detach()
        lp = F.log_softmax(lg, 1)[range(len(act)), act]
        p = F.softmax(lg, 1)
        return (
            F.mse_loss(v.squeeze(-1), ret)
            - (adv * lp).mean()
            + 0.01 * (p * F.log_softmax(lg, 1)).sum(1).mean()
        )

    return AC(), (torch.randn(32, 8), (torch.randint(0, 4, (32,)), torch.randn(32))), loss


@case(["OUT004"], "ratio (N,) times advantage (N,1) in a clipped surrogate")
def ppo_square(sick):
    def loss(out, y):
        lg, v = out
        act, old, adv, ret = y
        ratio = (torch.distributions.Categorical(logits=lg).log_prob(act) - old).exp()
        if not sick:
            adv = adv.reshape(-1)
        s1, s2 = ratio * adv, ratio.clamp(0.8, 1.2) * adv
        return -torch.min(s1, s2).mean() + 0.5 * (v - ret).pow(2).mean()

    return (
        AC(),
        (
            torch.randn(32, 8),
            (torch.randint(0, 4, (32,)), -torch.rand(32) - 1, torch.randn(32, 1), torch.randn(32, 1)),
        ),
        loss,
    )


@case(["OUT002"], "CTC given scores instead of logarithms")
def ctc_scores(sick):
    def loss(o, y):
        lp = (o if sick else o.log_softmax(-1)).transpose(0, 1)
        return F.ctc_loss(lp, y[0], torch.full((o.shape[0],), o.shape[1]), y[1], zero_infinity=True)

    return crnn(), (torch.randn(6, 8, 64), (torch.randint(1, 12, (6, 5)), torch.full((6,), 5))), loss


@case(["LOS001"], "all pictures look alike: divergence summed, reconstruction averaged")
def vae_kl_sum(sick):
    class V(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Sequential(nn.Linear(196, 64), nn.ReLU())
            self.m, self.part = nn.Linear(64, 16), nn.Linear(64, 16)
            self.d = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 196))

        def forward(self, x):
            h = self.e(x)
            m, part = self.m(h), self.part(h)
            return self.d(m + torch.randn_like(m) * (part / 2).exp()), m, part

    def loss(o, x):
        r, m, part = o
        kl = -0.5 * (1 + part - m**2 - part.exp())
        if sick:
            return F.mse_loss(r, x) + kl.sum()
        return F.mse_loss(r, x, reduction="sum") / len(x) + kl.sum(1).mean()

    x = torch.rand(64, 196)
    return V(), (x, x), loss


@case(["OUT006", "GRF004", "OUT001"], "saturating generator loss against a sure discriminator")
def gan_saturating(sick):
    m = GAN(False)
    m.d[2].bias.data.fill_(-12.0)
    m.d.requires_grad_(False)

    def loss(o):
        p = torch.sigmoid(o)
        return torch.log(1 - p).mean() if sick else F.softplus(-o).mean()

    return m, torch.randn(32, 8), loss


@case(["OUT005"], "prices of houses as they are")
def prices(sick):
    x = torch.randn(64, 8)
    y = 250_000 + 90_000 * (x @ torch.randn(8, 1))
    return (
        nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1)),
        (x, y if sick else (y - y.mean()) / y.std()),
        nn.MSELoss(),
    )


@case(["OUT002"], "softmax before cross-entropy")
def softmax_ce(sick):
    m = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 10),
        *([nn.Softmax(1)] if sick else []),
    )
    return m, (torch.randn(32, 1, 14, 14), torch.randint(0, 10, (32,))), CE()


@case(["OUT001", "OUT002", "GRF004", "GRF007", "OUT007"], "softmax over the only unit of a binary classifier")
def softmax_one_unit(sick):
    m = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1), nn.Softmax(1) if sick else nn.Sigmoid())
    return m, (torch.randn(64, 10), (torch.rand(64, 1) > 0.5).float()), nn.BCELoss()


@case(
    ["OUT001", "OUT002", "GRF004", "GRF007", "OUT007"],
    "cross-entropy over one class: the loss is 0 from the start",
)
def ce_one_class(sick):
    m = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1 if sick else 2))
    return (
        m,
        (torch.randn(64, 10), torch.zeros(64, dtype=torch.long) if sick else torch.randint(0, 2, (64,))),
        CE(),
    )


@case(["OUT001", "OUT005"], "tanh at the end, targets up to 100")
def tanh_hundred(sick):
    m = mlp(8, 32, 1, nn.ReLU, 2)
    x = torch.randn(64, 8)
    y = torch.rand(64, 1) * 100
    if sick:
        m.append(nn.Tanh())
    return m, (x, y if sick else (y - 50) / 29), nn.MSELoss()


@case(["OUT002"], "softmax into nll_loss without the logarithm")
def nll_softmax(sick):
    m = mlp(16, 32, 4)
    m.append(nn.Softmax(1) if sick else nn.LogSoftmax(1))
    return m, cls(), nn.NLLLoss()


@case(["OUT003"], "a contrastive temperature of 0.001")
def cold_infonce(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = mlp(16, 32, 24), mlp(20, 32, 24)

        def forward(self, x, y):
            return (
                F.normalize(self.a(x), dim=-1) @ F.normalize(self.b(y), dim=-1).T / (1e-3 if sick else 0.07)
            )

    return M(), ((torch.randn(32, 16), torch.randn(32, 20)), torch.arange(32)), CE()


@case(["LOS001"], "a weight penalty by hand that outweighs the loss")
def penalty(sick):
    m = mlp(16, 64, 4, n=2)

    def loss(o, y):
        return F.cross_entropy(o, y) + (10.0 if sick else 1e-4) * sum(
            p.square().sum() for p in m.parameters()
        )

    return m, cls(), loss


@case(["LOS002"], "log-likelihood handed over as a loss")
def likelihood(sick):
    def loss(o, y):
        part = o.log_softmax(1)[torch.arange(len(y)), y].mean()
        return part if sick else -part

    return mlp(16, 32, 4), cls(), loss


@case(["OUT005", "OUT004", "OUT001", "OUT002"], "one-hot float targets of 255 in masks")
def masks255(sick):
    y = (torch.rand(4, 1, 12, 12) > 0.6).float()
    return unet(1), (torch.randn(4, 3, 12, 12), y * 255 if sick else y), nn.BCEWithLogitsLoss()


@case(["OUT002", "LEA001", "OUT001"], "log-softmax over time instead of classes in a tagger")
def softmax_over_time(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(40, 16)
            self.r = nn.LSTM(16, 16, batch_first=True, bidirectional=True)
            self.o = nn.Linear(32, 6)

        def forward(self, t):
            return F.log_softmax(self.o(self.r(self.e(t))[0]), 1 if sick else -1)

    return (
        M(),
        (torch.randint(0, 40, (12, 9)), torch.randint(0, 6, (12, 9))),
        lambda o, y: F.nll_loss(o.flatten(0, 1), y.flatten()),
    )


@case(["OUT002", "OUT001"], "log of a sigmoid for one class of several, categorical loss")
def sigmoid_then_ce(sick):
    m = mlp(16, 32, 4)
    m.append(nn.Sigmoid()) if sick else None
    return m, cls(), CE()


@case(["OUT001"], "ReLU on the logits of a classifier")
def relu_on_logits(sick):
    m = mlp(16, 32, 4, n=2)
    if sick:
        m.append(nn.ReLU())
        m[-2].bias.data.fill_(-1.0)
    return m, cls(), CE()


@case(["OUT001", "OUT005"], "sigmoid for standardised targets")
def sigmoid_regression(sick):
    m = mlp(8, 32, 2)
    m.append(nn.Sigmoid()) if sick else None
    return m, (torch.randn(64, 8), torch.randn(64, 2)), nn.MSELoss()


@case(["OUT004"], "targets of (N,) against (N,1) in an L1 loss by hand")
def l1_by_hand(sick):
    return (
        mlp(8, 32, 1),
        (torch.randn(40, 8), torch.randn(40) if sick else torch.randn(40, 1)),
        lambda o, y: (o - y).abs().mean(),
    )


@case(["OUT003", "INI002", "INP001"], "scores of 400 because embeddings are summed over a long text")
def summed_text(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.e = nn.Embedding(500, 64)
            self.o = nn.Linear(64, 2)

        def forward(self, t):
            h = self.e(t)
            return self.o(h.sum(1) * 8 if sick else h.mean(1))

    return M(), (torch.randint(0, 500, (32, 200)), torch.randint(0, 2, (32,))), CE()


@case(["OUT002"], "divergence given probabilities instead of their logarithms")
def kl_probs(sick):
    m = mlp(16, 32, 5)
    m.append(nn.Softmax(1) if sick else nn.LogSoftmax(1))
    return m, (torch.randn(32, 16), torch.randn(32, 5).softmax(1)), nn.KLDivLoss(reduction="batchmean")


@case(
    ["OUT001", "OUT002", "OUT003", "OUT006"],
    "cosines as logits without a temperature, 100 classes: stuck near ln 100",
)
def cosine_logits(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(16, 64, 32)
            self.w = nn.Parameter(torch.randn(100, 32))

        def forward(self, x):
            return F.normalize(self.f(x), dim=-1) @ F.normalize(self.w, dim=-1).T * (1 if sick else 20)

    return M(), (torch.randn(128, 16), torch.randint(0, 100, (128,))), CE()


@case(["OUT001", "OUT002"], "tanh on the logits of a classifier")
def tanh_logits(sick):
    m = mlp(16, 32, 6)
    m.append(nn.Tanh()) if sick else None
    return m, cls(64, 16, 6), CE()


@case(
    ["LOS002", "OUT006"],
    "label smoothing of 0.9 for two classes: the wrong class is asked for",
)
def smoothing(sick):
    return mlp(16, 32, 2), cls(64, 16, 2), CE(label_smoothing=1.0 if sick else 0.1)


@case(["LOS001", "OUT005"], "boxes in pixels beside a class loss")
def pixels_boxes(sick):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = mlp(16, 64, 64)
            self.c = nn.Linear(64, 4)
            self.b = nn.Linear(64, 4)

        def forward(self, x):
            h = torch.relu(self.f(x))
            return self.c(h), self.b(h)

    y = torch.rand(32, 4)
    return (
        M(),
        (torch.randn(32, 16), (torch.randint(0, 4, (32,)), y * 1024 if sick else y)),
        lambda o, t: F.cross_entropy(o[0], t[0]) + F.mse_loss(o[1], t[1]),
    )


@case(["OUT001", "OUT005"], "sigmoid pictures against 0 to 255")
def pictures255(sick):
    m = nn.Sequential(*unet(3), nn.Sigmoid())
    y = torch.rand(4, 3, 12, 12)
    return m, (torch.rand(4, 3, 12, 12), y * 255 if sick else y), nn.MSELoss()


@case(["OUT004"], "weights of samples (N,) times losses (N,1)")
def sample_weights(sick):
    w = torch.rand(40)

    def loss(o, y):
        part = F.mse_loss(o, y, reduction="none")
        return (part * (w if sick else w[:, None])).mean()

    return mlp(8, 32, 1), (torch.randn(40, 8), torch.randn(40, 1)), loss
