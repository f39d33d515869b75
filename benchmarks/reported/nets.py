"""Small nets and data that several reports share."""

from __future__ import annotations

import math

import torch
from torch import nn

CE = nn.CrossEntropyLoss


class AC(nn.Module):
    """A policy and a value on one trunk."""

    def __init__(self, a=4):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(8, 64), nn.ReLU())
        self.pi = nn.Linear(64, a)
        self.v = nn.Linear(64, 1)

    def forward(self, x):
        h = self.f(x)
        return self.pi(h), self.v(h)


def crnn(v=12):
    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Sequential(
                nn.Conv1d(8, 32, 3, 2, 1), nn.ReLU(), nn.Conv1d(32, 32, 3, 2, 1), nn.ReLU()
            )
            self.r = nn.GRU(32, 32, bidirectional=True, batch_first=True)
            self.o = nn.Linear(64, v)

        def forward(self, x):
            return self.o(self.r(self.c(x).transpose(1, 2))[0])

    return M()


class GAN(nn.Module):
    """A generator judged by a discriminator."""

    def __init__(self, sigmoid=True):
        super().__init__()
        self.g = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 20), nn.Tanh())
        self.d = nn.Sequential(nn.Linear(20, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
        if sigmoid:
            self.d.append(nn.Sigmoid())

    def forward(self, z):
        return self.d(self.g(z))


def unet(c=1):
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, c, 1),
    )


def pinn(act, create=True):
    net = nn.Sequential(nn.Linear(1, 32), act(), nn.Linear(32, 32), act(), nn.Linear(32, 1))

    class M(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            x = x.clone().requires_grad_()
            u = self.net(x)
            du = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
            d2 = torch.autograd.grad(du.sum(), x, create_graph=create, retain_graph=True)[0]
            return u, d2, x

    return M()


def pde(o, y):
    u, d2, x = o
    return (d2 + math.pi**2 * torch.sin(math.pi * x.detach())).pow(2).mean() + 10 * (u[[0, -1]] ** 2).mean()


XS = torch.linspace(0, 1, 40)[:, None]


def mlp(i, h, o, act=nn.ReLU, n=1):
    part = [nn.Linear(i, h), act()]
    for _ in range(n - 1):
        part += [nn.Linear(h, h), act()]
    return nn.Sequential(*part, nn.Linear(h, o))


def cls(n=64, d=16, c=4):
    return torch.randn(n, d), torch.randint(0, c, (n,))
