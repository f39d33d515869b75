"""Nothing is said of generative designs: autoencoders, codebooks, adversaries, flows, diffusion, energies."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.clinic.designs import Design, mlp, stays_quiet
from torch import Tensor, nn
from torch.nn import functional as F


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = mlp(64, 48, 2 * 8), mlp(8, 48, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log = self.encode(x).chunk(2, -1)
        return self.decode(mean + torch.randn_like(mean) * (0.5 * log).exp()), mean, log


def elbo(weight: float) -> Any:
    def loss(out: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
        r, mean, log = out
        divergence = -0.5 * (1 + log - mean.square() - log.exp()).sum(1).mean()
        return F.binary_cross_entropy_with_logits(r, x, reduction="none").sum(1).mean() + weight * divergence

    return loss


def vae(weight: float) -> Design:
    x = (torch.rand(32, 64) > 0.5).float()
    return Design(VAE(), (x, x), elbo(weight))


def codebook(average: bool) -> Design:
    class VQ(nn.Module):
        """Straight-through codes, learned by gradient or by averages (van den Oord et al. 2017)."""

        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = mlp(32, 48, 8), mlp(8, 48, 32)
            codes = torch.randn(16, 8) * 0.5
            if average:
                self.register_buffer("codes", codes)
            else:
                self.codes = nn.Parameter(codes)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            e = self.encode(x)
            k = torch.cdist(e, self.codes).argmin(1)
            if average and self.training:
                with torch.no_grad():
                    hot = F.one_hot(k, 16).to(e)
                    count = hot.sum(0)[:, None]
                    self.codes.copy_(
                        torch.where(
                            count > 0, 0.9 * self.codes + 0.1 * (hot.T @ e) / count.clamp(min=1), self.codes
                        )
                    )
            z = self.codes[k]
            return self.decode(e + (z - e).detach()), e, z

    def loss(out: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
        r, e, z = out
        commitment = 0.25 * F.mse_loss(e, z.detach())
        return F.mse_loss(r, x) + commitment + (0 if average else F.mse_loss(z, e.detach()))

    x = torch.randn(64, 32)
    return Design(VQ(), (x, x), loss)


def finite_scalar() -> Design:
    class FSQ(nn.Module):
        """Bounded numbers, rounded straight through (Mentzer et al. 2023)."""

        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = mlp(32, 48, 6), mlp(6, 48, 32)

        def forward(self, x: Tensor) -> Tensor:
            z = 2 * torch.tanh(self.encode(x))
            y: Tensor = self.decode((z + (z.round() - z).detach()) / 2)
            return y

    x = torch.randn(64, 32)
    return Design(FSQ(), (x, x), nn.MSELoss())


class Critic(nn.Module):
    """A discriminator, real and made samples at once; the generator is held fixed."""

    def __init__(self, normed: bool = False) -> None:
        super().__init__()
        wrap = nn.utils.parametrizations.spectral_norm if normed else lambda layer: layer
        self.net = nn.Sequential(
            wrap(nn.Linear(16, 48)),
            nn.LeakyReLU(0.2),
            wrap(nn.Linear(48, 48)),
            nn.LeakyReLU(0.2),
            wrap(nn.Linear(48, 1)),
        )

    def forward(self, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(real), self.net(made)


def generator(judge: str) -> Design:
    critic, made = Critic(), mlp(8, 48, 16)
    critic.requires_grad_(False)

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.made, self.critic = made, critic

        def forward(self, z: Tensor) -> Tensor:
            y: Tensor = self.critic.net(self.made(z))
            return y

    losses = {
        "softplus": lambda s: F.softplus(-s).mean(),
        "wasserstein": lambda s: -s.mean(),
        "hinge": lambda s: -s.mean(),
    }
    return Design(Generator(), torch.randn(32, 8), losses[judge])


def discriminator(judge: str) -> Design:
    data = torch.randn(32, 16) + 1, torch.randn(32, 16)
    critic = Critic(normed=judge == "hinge")

    def loss(out: tuple[Tensor, Tensor]) -> Tensor:
        real, made = out
        if judge == "hinge":
            return F.relu(1 - real).mean() + F.relu(1 + made).mean()
        if judge == "logistic":
            return F.binary_cross_entropy_with_logits(
                real, torch.ones_like(real)
            ) + F.binary_cross_entropy_with_logits(made, torch.zeros_like(made))
        between = (0.3 * data[0] + 0.7 * data[1]).requires_grad_()
        slope = torch.autograd.grad(critic.net(between).sum(), between, create_graph=True)[0]
        return made.mean() - real.mean() + 10 * (slope.norm(dim=1) - 1).square().mean()

    return Design(Both(critic), (data, torch.zeros(32)), lambda out, _: loss(out))


class Both(nn.Module):
    def __init__(self, critic: Critic) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.critic(real, made)
        return found


def least_squares_r1() -> Design:
    critic, data = Critic(), (torch.randn(32, 16) + 1, torch.randn(32, 16))

    class Regularised(nn.Module):
        """R1: the slope at real samples, inside the forward (Mescheder et al. 2018)."""

        def __init__(self) -> None:
            super().__init__()
            self.critic = critic

        def forward(self, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            real = real.detach().requires_grad_()
            r, m = self.critic(real, made)
            return r, m, torch.autograd.grad(r.sum(), real, create_graph=True)[0].square().sum(1).mean()

    def loss(out: tuple[Tensor, Tensor, Tensor], _: Tensor) -> Tensor:
        return (out[0] - 1).square().mean() + out[1].square().mean() + 5 * out[2]

    return Design(Regularised(), (data, torch.zeros(32)), loss)


class Coupling(nn.Module):
    def __init__(self, flip: bool) -> None:
        super().__init__()
        self.flip, self.net = flip, mlp(4, 32, 8)
        nn.init.zeros_(self.net[-1].weight), nn.init.zeros_(self.net[-1].bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.flip(1).chunk(2, 1) if self.flip else x.chunk(2, 1)
        s, t = self.net(a).chunk(2, 1)
        s = torch.tanh(s)
        return torch.cat([a, b * s.exp() + t], 1), s.sum(1)


def coupling_flow() -> Design:
    class Flow(nn.Module):
        """RealNVP: couplings that begin as the identity, with their log-determinants (Dinh et al. 2017)."""

        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(Coupling(k % 2 == 1) for k in range(6))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            total = x.new_zeros(len(x))
            for part in self.parts:
                x, log = part(x)
                total = total + log
            return x, total

    def loss(out: tuple[Tensor, Tensor], _: Tensor) -> Tensor:
        z, log = out
        return (0.5 * z.square().sum(1) + 4 * math.log(2 * math.pi) - log).mean()

    return Design(Flow(), (torch.randn(64, 8) * 1.5 + 0.3, torch.zeros(64)), loss)


def angles(t: Tensor, d: int = 32) -> Tensor:
    f = torch.exp(-math.log(1e4) * torch.arange(d // 2) / (d // 2))
    a = t[:, None] * f
    return torch.cat([a.sin(), a.cos()], 1)


def diffusion(mark: str) -> Design:
    class Res(nn.Module):
        def __init__(self, a: int, b: int) -> None:
            super().__init__()
            self.n1, self.c1, self.t = nn.GroupNorm(4, a), nn.Conv2d(a, b, 3, padding=1), nn.Linear(32, b)
            self.n2, self.c2 = nn.GroupNorm(4, b), nn.Conv2d(b, b, 3, padding=1)
            self.skip = nn.Conv2d(a, b, 1) if a != b else nn.Identity()
            nn.init.zeros_(self.c2.weight)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            h = self.c1(F.silu(self.n1(x))) + self.t(F.silu(t))[:, :, None, None]
            y: Tensor = self.skip(x) + self.c2(F.silu(self.n2(h)))
            return y

    class UNet(nn.Module):
        """Noise from a noisy image and its time; the last convolution begins at zero (Ho et al. 2020)."""

        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Sequential(nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 32))
            self.first, self.down, self.mid = nn.Conv2d(1, 16, 3, padding=1), Res(16, 16), Res(16, 32)
            self.up, self.norm, self.last = Res(48, 16), nn.GroupNorm(4, 16), nn.Conv2d(16, 1, 3, padding=1)
            nn.init.zeros_(self.last.weight), nn.init.zeros_(self.last.bias)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            e = self.time(angles(t.float()))
            a = self.down(self.first(x), e)
            b = self.mid(F.avg_pool2d(a, 2), e)
            u = self.up(torch.cat([F.interpolate(b, scale_factor=2.0), a], 1), e)
            y: Tensor = self.last(F.silu(self.norm(u)))
            return y

    x, noise, t = torch.rand(8, 1, 12, 12) * 2 - 1, torch.randn(8, 1, 12, 12), torch.randint(0, 1000, (8,))
    keep = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t][:, None, None, None]
    noisy = keep.sqrt() * x + (1 - keep).sqrt() * noise
    target = noise if mark == "noise" else keep.sqrt() * noise - (1 - keep).sqrt() * x
    return Design(UNet(), ((noisy, t), target), nn.MSELoss())


def flow_matching() -> Design:
    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(16 + 32, 64, 64, 16, activation=nn.SiLU)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            y: Tensor = self.net(torch.cat([x, angles(1000 * t)], 1))
            return y

    a, b, t = torch.randn(64, 16), torch.randn(64, 16) * 0.3 + 1, torch.rand(64)
    return Design(Field(), (((1 - t[:, None]) * a + t[:, None] * b, t), b - a), nn.MSELoss())


def score_matching(sliced: bool) -> Design:
    class Score(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(8, 64, 64, 8, activation=nn.Softplus)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = x.detach().requires_grad_()
            s = self.net(x)
            v = torch.randn_like(x)
            return s, (torch.autograd.grad((s * v).sum(), x, create_graph=True)[0] * v).sum(1)

    def loss(out: tuple[Tensor, Tensor], noise: Tensor) -> Tensor:
        s, trace = out
        return (trace + 0.5 * s.square().sum(1)).mean() if sliced else (s + noise / 0.5).square().mean()

    noise = torch.randn(64, 8)
    return (
        Design(Score(), (torch.randn(64, 8) + 0.5 * noise, noise), loss)
        if sliced
        else Design(
            mlp(8, 64, 64, 8, activation=nn.Softplus),
            (torch.randn(64, 8) + 0.5 * noise, -2 * noise),
            nn.MSELoss(),
        )
    )


def energy() -> Design:
    class Energy(nn.Module):
        """Contrastive divergence with a few Langevin steps outside of the graph."""

        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(8, 48, 48, 1, activation=nn.SiLU)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                y = torch.randn_like(x)
                for _ in range(3):
                    y = y.detach().requires_grad_()
                    y = y - 0.1 * torch.autograd.grad(self.net(y).sum(), y)[0] + 0.05 * torch.randn_like(y)
            return self.net(x), self.net(y.detach())

    def loss(out: tuple[Tensor, Tensor], _: Tensor) -> Tensor:
        real, made = out
        return real.mean() - made.mean() + 0.1 * (real.square() + made.square()).mean()

    return Design(Energy(), (torch.randn(32, 8), torch.zeros(32)), loss)


def hopfield() -> Design:
    class Modern(nn.Module):
        """Stored patterns recalled by a softmax, some updates (Ramsauer et al. 2020)."""

        def __init__(self) -> None:
            super().__init__()
            self.stored, self.query, self.head = (
                nn.Parameter(torch.randn(20, 16)),
                nn.Linear(12, 16),
                nn.Linear(16, 12),
            )

        def forward(self, x: Tensor) -> Tensor:
            q = self.query(x)
            for _ in range(3):
                q = (q @ self.stored.T / 4).softmax(-1) @ self.stored
            y: Tensor = self.head(q)
            return y

    x = torch.randn(32, 12)
    return Design(Modern(), (x, x), nn.MSELoss())


def masked_autoencoder() -> Design:
    class MAE(nn.Module):
        """A quarter of the patches is encoded, the loss is on the others (He et al. 2022)."""

        def __init__(self) -> None:
            super().__init__()
            layer = lambda: nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True)  # noqa: E731
            self.patch, self.place = (
                nn.Linear(12, 32),
                nn.Parameter(torch.randn(16, 32) * 0.02, requires_grad=False),
            )
            self.encoder, self.decoder = layer(), layer()
            self.token, self.norm, self.out = (
                nn.Parameter(torch.zeros(32)),
                nn.LayerNorm(32),
                nn.Linear(32, 12),
            )

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            b = len(x)
            order = torch.rand(b, 16).argsort(1)
            kept = order[:, :4, None].expand(-1, -1, 32)
            h = self.encoder((self.patch(x) + self.place).gather(1, kept))
            full = self.token.expand(b, 16, -1).scatter(1, kept, h) + self.place
            mask = torch.ones(b, 16).scatter(1, order[:, :4], 0.0)
            return self.out(self.norm(self.decoder(full))), mask

    def loss(out: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        r, mask = out
        return ((r - x).square().mean(-1) * mask).sum() / mask.sum()

    x = torch.randn(16, 16, 12)
    return Design(MAE(), (x, x), loss)


DESIGNS: dict[str, Any] = {
    "VAE": lambda: vae(1.0),
    "VAE, divergence annealed from 0": lambda: vae(0.0),
    "codes by gradient": lambda: codebook(False),
    "codes by averages": lambda: codebook(True),
    "finite scalars": finite_scalar,
    "MAE": masked_autoencoder,
    "generator": lambda: generator("softplus"),
    "generator, Wasserstein": lambda: generator("wasserstein"),
    "discriminator": lambda: discriminator("logistic"),
    "hinge, spectral norm": lambda: discriminator("hinge"),
    "critic with a penalty": lambda: discriminator("penalty"),
    "least squares with R1": least_squares_r1,
    "couplings": coupling_flow,
    "diffusion": lambda: diffusion("noise"),
    "diffusion, velocity": lambda: diffusion("velocity"),
    "flow matching": flow_matching,
    "denoising scores": lambda: score_matching(False),
    "sliced scores": lambda: score_matching(True),
    "energy": energy,
    "Hopfield": hopfield,
}


@pytest.mark.parametrize("build", DESIGNS.values(), ids=DESIGNS)
def test_what_generates_is_no_fault(build: Any) -> None:
    stays_quiet(build)
