"""What makes things, or finds what is alike: autoencoders, adversaries, diffusion, flows, contrasts."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.trainings.basis import (
    Learned,
    Open,
    compare,
    fit,
    flat_mlp,
    mlp,
    pick,
    pick_digits,
    read_digits,
    training,
    warm_up,
)


def read_grey() -> Tensor:
    """Digits as numbers from 0 to 1, (n, 64)."""
    x = read_digits()[0].flatten(1)
    return (x - x.min()) / (x.max() - x.min())


@training
def autoencoder(watching: Open) -> Learned:
    net = mlp(64, 48, 12, 48, 64)
    data = pick(read_grey(), steps=700)
    return compare(
        fit(watching, net, torch.optim.Adam(net.parameters(), 2e-3), data, lambda x: F.mse_loss(net(x), x)),
        0.3,
    )


@training
def convolutional_denoiser(watching: Open) -> Learned:
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 16, 2, 2), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1),
    )  # fmt: skip

    def measure(x: Tensor, _: Tensor) -> Tensor:
        return F.mse_loss(net(x + 0.5 * torch.randn_like(x)), x)

    return compare(
        fit(watching, net, torch.optim.Adam(net.parameters(), 2e-3), pick_digits(700), measure), 0.4
    )


@training
def binary_autoencoder(watching: Open) -> Learned:
    net = mlp(64, 64, 16, 64, 64)
    data = pick(read_grey(), steps=700)
    return compare(
        fit(
            watching, net, torch.optim.Adam(net.parameters(), 2e-3), data,
            lambda x: F.binary_cross_entropy_with_logits(net(x), x),
        ), 0.65,
    )  # fmt: skip


@training
def variational_autoencoder(watching: Open) -> Learned:
    class Variational(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = mlp(64, 64, 16), mlp(8, 64, 64)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mean, log = self.enter(x).chunk(2, -1)
            return self.leave(mean + (log / 2).exp() * torch.randn_like(mean)), mean, log

    net = Variational()

    def measure(x: Tensor) -> Tensor:
        made, mean, log = net(x)
        kept = F.binary_cross_entropy_with_logits(made, x, reduction="sum")
        return (kept - 0.5 * (1 + log - mean.square() - log.exp()).sum()) / len(x)

    data = pick(read_grey(), steps=700)
    return compare(fit(watching, net, torch.optim.Adam(net.parameters(), 1e-3), data, measure), 0.7)


@training
def vector_quantisation(watching: Open) -> Learned:
    """Codes by a straight-through estimator, their book by a running mean."""

    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = mlp(64, 64, 32), mlp(32, 64, 64)
            self.register_buffer("book", 0.1 * torch.randn(32, 8))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.enter(x).view(-1, 4, 8)
            code = torch.cdist(z.flatten(0, 1), self.book).argmin(1)
            near = self.book[code].view_as(z)
            with torch.no_grad():
                for k in code.unique():
                    self.book[k].lerp_(z.flatten(0, 1)[code == k].mean(0), 0.1)
            return self.leave((z + (near - z).detach()).flatten(1)), F.mse_loss(z, near.detach())

    net = Quantised()

    def measure(x: Tensor) -> Tensor:
        made, apart = net(x)
        return F.mse_loss(made, x) + 0.25 * apart

    data = pick(read_grey(), steps=500)
    return compare(fit(watching, net, torch.optim.Adam(net.parameters(), 2e-3), data, measure), 0.5)


@training
def masked_autoencoder(watching: Open) -> Learned:
    net = mlp(128, 96, 96, 64, act=nn.GELU)

    def measure(x: Tensor) -> Tensor:
        hidden = (torch.rand_like(x) < 0.5).float()
        made = net(torch.cat([x * (1 - hidden), hidden], 1))
        return ((made - x).square() * hidden).sum() / hidden.sum()

    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    data = pick(read_grey(), steps=600)
    return compare(fit(watching, net, optimizer, data, measure, plan=warm_up(optimizer, 50, 600)), 0.5)


def draw_ring(size: int = 128) -> Tensor:
    """Points on eight places of a circle, (size, 2)."""
    angle = torch.randint(0, 8, (size,)) * (math.pi / 4)
    return torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(size, 2)


class Pair(nn.Module):
    """A generator and a discriminator of points."""

    def __init__(self) -> None:
        super().__init__()
        self.make, self.judge = mlp(4, 64, 64, 2), mlp(2, 64, 64, 1, act=lambda: nn.LeakyReLU(0.2))


def spread(make: nn.Module) -> Learned:
    """How far made points lie from the circle in the mean."""
    with torch.no_grad():
        made = make(torch.randn(512, 4))
    return Learned("distance from the circle", float((made.norm(dim=1) - 1).abs().mean()), 0.5, False)


@training
def adversaries(watching: Open) -> Learned:
    pair = Pair()
    maker, judge = (
        torch.optim.Adam(part.parameters(), 1e-3, betas=(0.5, 0.999)) for part in (pair.make, pair.judge)
    )
    loss, one, zero = nn.BCEWithLogitsLoss(), torch.ones(128, 1), torch.zeros(128, 1)
    with watching(pair, [maker, judge], None):
        for _ in range(600):
            made = pair.make(torch.randn(128, 4))
            judge.zero_grad()
            (loss(pair.judge(draw_ring()), one) + loss(pair.judge(made.detach()), zero)).backward()
            judge.step()
            maker.zero_grad()
            loss(pair.judge(made), one).backward()
            maker.step()
    return spread(pair.make)


@training
def discriminator_watched_alone(watching: Open) -> Learned:
    pair = Pair()
    maker, judge = (
        torch.optim.Adam(part.parameters(), 1e-3, betas=(0.5, 0.999)) for part in (pair.make, pair.judge)
    )
    both = torch.cat([torch.ones(128, 1), torch.zeros(128, 1)])
    with watching(pair.judge, judge, None):
        for _ in range(1200):
            made = pair.make(torch.randn(128, 4))
            judge.zero_grad()
            seen = pair.judge(torch.cat([draw_ring(), made.detach()]))
            F.binary_cross_entropy_with_logits(seen, both).backward()
            judge.step()
            maker.zero_grad()
            F.softplus(-pair.judge(made)).mean().backward()
            maker.step()
    return spread(pair.make)


@training
def critic_with_gradient_penalty(watching: Open) -> Learned:
    pair = Pair()
    pair.judge = mlp(2, 64, 64, 1, act=nn.SiLU)
    maker, judge = (
        torch.optim.Adam(part.parameters(), 1e-3, betas=(0.0, 0.9)) for part in (pair.make, pair.judge)
    )
    with watching(pair, [maker, judge], None):
        for step in range(1500):
            real, made = draw_ring(), pair.make(torch.randn(128, 4))
            between = torch.lerp(real, made.detach(), torch.rand(128, 1)).requires_grad_()
            (slope,) = torch.autograd.grad(pair.judge(between).sum(), between, create_graph=True)
            off = (slope.norm(dim=1) - 1).square().mean()
            judge.zero_grad()
            (pair.judge(made.detach()).mean() - pair.judge(real).mean() + off).backward()
            judge.step()
            if step % 2:
                maker.zero_grad()
                (-pair.judge(made).mean()).backward()
                maker.step()
    return spread(pair.make)


@training
def diffusion(watching: Open) -> Learned:
    """Ho et al. 2020, of points."""
    kept = torch.cumprod(1 - torch.linspace(1e-3, 0.2, 40), 0)
    net = mlp(4, 96, 96, 2, act=nn.SiLU)

    def measure(x: Tensor) -> Tensor:
        t = torch.randint(0, 40, (len(x),))
        a, noise = kept[t, None], torch.randn_like(x)
        time = t[:, None] / 40
        seen = torch.cat([a.sqrt() * x + (1 - a).sqrt() * noise, time, (6 * time).sin()], 1)
        return F.mse_loss(net(seen), noise)

    data = ((draw_ring(),) for _ in range(900))
    return compare(fit(watching, net, torch.optim.Adam(net.parameters(), 2e-3), data, measure), 0.7)


@training
def flow_of_couplings(watching: Open) -> Learned:
    """Dinh et al. 2017: steps begin as identities."""

    class Coupling(nn.Module):
        def __init__(self, first: int) -> None:
            super().__init__()
            self.net, self.first = mlp(1, 48, 48, 2), first
            nn.init.zeros_(self.net[-1].weight)
            nn.init.zeros_(self.net[-1].bias)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            keep, turn = x[:, self.first, None], x[:, 1 - self.first, None]
            log, shift = self.net(keep).chunk(2, 1)
            turn = turn * log.tanh().exp() + shift
            parts = (keep, turn) if self.first == 0 else (turn, keep)
            return torch.cat(parts, 1), log.tanh()[:, 0]

    net = nn.ModuleList(Coupling(i % 2) for i in range(6))

    def measure(x: Tensor) -> Tensor:
        total = torch.zeros(len(x))
        for step in net:
            x, log = step(x)
            total = total + log
        return (0.5 * x.square().sum(1) + math.log(2 * math.pi) - total).mean()

    data = ((draw_ring(),) for _ in range(500))
    return compare(
        fit(watching, net, torch.optim.Adam(net.parameters(), 2e-3), data, measure, clip=5.0), 0.85
    )


def disturb(x: Tensor) -> Tensor:
    """A digit, shifted and noisy."""
    dx, dy = torch.randint(-1, 2, (2,)).tolist()
    return torch.roll(x, (dx, dy), (2, 3)) + 0.2 * torch.randn_like(x)


@training
def contrast_of_views(watching: Open) -> Learned:
    """Chen et al. 2020."""
    net = flat_mlp(64, 96, 64, 32)

    def measure(x: Tensor, _: Tensor) -> Tensor:
        z = F.normalize(net(torch.cat([disturb(x), disturb(x)])), dim=1)
        alike = (z @ z.T / 0.2).masked_fill(torch.eye(len(z), dtype=torch.bool), -1e9)
        return F.cross_entropy(alike, torch.arange(len(z)).roll(len(x)))

    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    return compare(fit(watching, net, optimizer, pick_digits(800), measure), 0.6)


@training
def pictures_and_their_names(watching: Open) -> Learned:
    """Radford et al. 2021, small."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.see, self.read = flat_mlp(64, 96, 16), nn.Embedding(2000, 16)
            self.heat = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

        def forward(self, x: Tensor, word: Tensor) -> Tensor:
            a, b = F.normalize(self.see(x), dim=1), F.normalize(self.read(word), dim=1)
            return a @ b.T * self.heat.exp().clamp(max=100)

    net = Both()
    x = read_digits()[0]

    def measure(a: Tensor, word: Tensor) -> Tensor:
        scores, wanted = net(a, word), torch.arange(len(a))
        return (F.cross_entropy(scores, wanted) + F.cross_entropy(scores.T, wanted)) / 2

    data = pick(x, torch.arange(len(x)), steps=700)
    return compare(fit(watching, net, torch.optim.AdamW(net.parameters(), 5e-3), data, measure), 0.6)


@training
def triplets(watching: Open) -> Learned:
    net = flat_mlp(64, 64, 16)
    loss = nn.TripletMarginLoss(0.5)

    def measure(x: Tensor, y: Tensor) -> Tensor:
        z = F.normalize(net(x), dim=1)
        same = (y[:, None] == y).float()
        like = torch.multinomial(same, 1)[:, 0]
        other = torch.multinomial(1 - same, 1)[:, 0]
        return loss(z, z[like], z[other])

    return compare(
        fit(watching, net, torch.optim.Adam(net.parameters(), 1e-3), pick_digits(500), measure), 0.3
    )


@training
def own_latent(watching: Open) -> Learned:
    """Grill et al. 2020: a target that follows by a running mean, and gets no gradient."""
    net, guess = flat_mlp(64, 96, 32, norm=nn.BatchNorm1d), mlp(32, 64, 32, norm=nn.BatchNorm1d)
    aim = copy.deepcopy(net).requires_grad_(False)
    whole = nn.ModuleDict({"net": net, "guess": guess})

    @torch.no_grad()
    def follow(_: int) -> None:
        for a, p in zip(aim.parameters(), net.parameters(), strict=True):
            a.lerp_(p, 0.02)

    def measure(x: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = F.normalize(aim(disturb(x)), dim=1)
        return 2 - 2 * (F.normalize(guess(net(disturb(x))), dim=1) * wanted).sum(1).mean()

    optimizer = torch.optim.AdamW(whole.parameters(), 2e-3)
    return compare(fit(watching, whole, optimizer, pick_digits(400), measure, after=follow), 0.5)
