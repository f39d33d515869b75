"""Sequences, points, graphs, generators and plain nets, each after its paper."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures import Builder, Subject

CE = nn.CrossEntropyLoss()


def labels(count: int, classes: int = 5) -> Tensor:
    return torch.randint(0, classes, (count,))


class LastStep(nn.Module):
    """A recurrent classifier on embedded tokens that reads the mean of its states."""

    def __init__(self, core: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 32)
        self.core = core(32, 32, batch_first=True, **options)
        self.head = nn.Linear(64 if options.get("bidirectional") else 32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(self.embed(x))[0].mean(1))


class Tagger(nn.Module):
    """A recurrent language model, one prediction a step (Zaremba et al. 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.core, self.head = (
            nn.Embedding(64, 32),
            nn.LSTM(32, 32, 2, batch_first=True, dropout=0.2),
            nn.Linear(32, 64),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(self.embed(x))[0]).transpose(1, 2)


class Translator(nn.Module):
    """Encoder-decoder with additive attention (Bahdanau et al. 2015), teacher forced."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(64, 32), nn.Embedding(64, 32)
        self.encoder = nn.GRU(32, 16, batch_first=True, bidirectional=True)
        self.cell, self.head = nn.GRUCell(64, 32), nn.Linear(64, 64)
        self.wq, self.wk, self.v = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        memory = self.encoder(self.source(x))[0]
        state, found = memory.mean(1), []
        for token in self.target(x).unbind(1):
            score = self.v(torch.tanh(self.wq(state)[:, None] + self.wk(memory)))
            context = (score.softmax(1) * memory).sum(1)
            state = self.cell(torch.cat([token, context], 1), state)
            found.append(self.head(torch.cat([state, context], 1)))
        return torch.stack(found, 2)


class Causal(nn.Module):
    """A dilated causal block with weight normalisation (Bai et al. 2018, TCN)."""

    def __init__(self, c: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        conv = [
            nn.utils.parametrizations.weight_norm(nn.Conv1d(c, c, 3, dilation=dilation)) for _ in range(2)
        ]
        self.first, self.second = conv

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(F.pad(x, (self.pad, 0))))
        return F.relu(x + F.relu(self.second(F.pad(y, (self.pad, 0)))))


class Gated(nn.Module):
    """WaveNet's gated block (van den Oord et al. 2016)."""

    def __init__(self, c: int, dilation: int) -> None:
        super().__init__()
        self.both, self.out, self.dilation = (
            nn.Conv1d(c, 2 * c, 2, dilation=dilation),
            nn.Conv1d(c, 2 * c, 1),
            dilation,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.both(F.pad(x, (self.dilation, 0))).chunk(2, 1)
        residual, skip = self.out(torch.tanh(a) * torch.sigmoid(b)).chunk(2, 1)
        return x + residual, skip


class WaveNet(nn.Module):
    """Ten gated blocks whose skips are summed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(8, 32, 1)
        self.blocks = nn.ModuleList(Gated(32, 2 ** (i % 5)) for i in range(10))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(32, 32, 1), nn.ReLU(), nn.Conv1d(32, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.stem(x), 0.0
        for block in self.blocks:
            x, skip = block(x)
            total = total + skip
        return self.head(total)


class PointNet(nn.Module):
    """Qi et al. 2017, without the transforms."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 64, 64, 64, 128, 256]
        self.points = nn.Sequential(
            *[p for a, b in pairwise(widths) for p in (nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU())]
        )
        self.head = nn.Sequential(
            nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.points(x).amax(-1))


class Graph(nn.Module):
    """A graph convolutional net (Kipf and Welling 2017) on one random graph."""

    def __init__(self, nodes: int = 60) -> None:
        super().__init__()
        edges = (torch.rand(nodes, nodes) < 0.1).float()
        joined = ((edges + edges.T) > 0).float() + torch.eye(nodes)
        scale = joined.sum(1).rsqrt()
        self.register_buffer("adjacency", scale[:, None] * joined * scale)
        self.first, self.second = nn.Linear(16, 32, bias=False), nn.Linear(32, 5, bias=False)
        for layer in (self.first, self.second):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.adjacency @ self.second(F.relu(self.adjacency @ self.first(x)))


class GraphAttention(nn.Module):
    """A graph attention layer twice (Velickovic et al. 2018), dense."""

    def __init__(self, nodes: int = 60) -> None:
        super().__init__()
        self.register_buffer("mask", (torch.rand(nodes, nodes) < 0.2) | torch.eye(nodes, dtype=torch.bool))
        self.w = nn.ModuleList([nn.Linear(16, 32, bias=False), nn.Linear(32, 5, bias=False)])
        self.a = nn.ModuleList([nn.Linear(32, 2, bias=False), nn.Linear(5, 2, bias=False)])

    def forward(self, x: Tensor) -> Tensor:
        for i, (w, a) in enumerate(zip(self.w, self.a, strict=True)):
            h = w(x)
            left, right = a(h).unbind(-1)
            weights = F.leaky_relu(left[:, None] + right, 0.2).masked_fill(~self.mask, -1e9).softmax(-1)
            x = weights @ h if i else F.elu(weights @ h)
        return x


class Vae(nn.Module):
    """Kingma and Welling 2014."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32))
        self.decoder = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = self.encoder(x).chunk(2, -1)
        z = mean + torch.randn_like(mean) * (log_var / 2).exp()
        return self.decoder(z), mean, log_var


def elbo(output: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    logits, mean, log_var = output
    kl = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(-1).mean()
    return F.binary_cross_entropy_with_logits(logits, (x > 0).float(), reduction="sum") / len(x) + kl


def dcgan(generator: bool) -> nn.Module:
    """Radford et al. 2016."""
    up = [16, 64, 32, 16]
    if generator:
        parts = [
            p
            for a, b in pairwise(up)
            for p in (nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(True))
        ]
        net = nn.Sequential(*parts, nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh())
    else:
        down = [3, 16, 32, 64]
        parts = [
            p
            for i, (a, b) in enumerate(pairwise(down))
            for p in (nn.Conv2d(a, b, 4, 2, 1), *([nn.BatchNorm2d(b)] if i else []), nn.LeakyReLU(0.2, True))
        ]
        net = nn.Sequential(*parts, nn.Conv2d(64, 1, 4), nn.Flatten())
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(m.weight, 0.0, 0.02)
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1.0, 0.02)
    return net


class Mixer(nn.Module):
    """A block of MLP-Mixer (Tolstikhin et al. 2021) or, gated, of gMLP (Liu et al. 2021)."""

    def __init__(self, tokens: int, c: int, gated: bool) -> None:
        super().__init__()
        self.gated, self.norm, self.norm2 = gated, nn.LayerNorm(c), nn.LayerNorm(c)
        self.space = (
            nn.Linear(tokens, tokens)
            if gated
            else nn.Sequential(nn.Linear(tokens, 64), nn.GELU(), nn.Linear(64, tokens))
        )
        self.up, self.down = nn.Linear(c, 4 * c), nn.Linear(2 * c if gated else 4 * c, c)
        self.norm3 = nn.LayerNorm(2 * c) if gated else nn.Identity()
        if gated:
            nn.init.normal_(self.space.weight, std=1e-6)  # type: ignore[arg-type]
            nn.init.ones_(self.space.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        if self.gated:
            u, v = F.gelu(self.up(self.norm(x))).chunk(2, -1)
            return x + self.down(u * self.space(self.norm3(v).mT).mT)
        x = x + self.space(self.norm(x).mT).mT
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Patches(nn.Module):
    """Mixer blocks over image patches."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 4, 4)
        self.blocks = nn.Sequential(*[Mixer(64, 48, gated) for _ in range(8)])
        self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, 5)
        if gated:
            for block in self.blocks:
                block.norm2 = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x).flatten(2).mT)).mean(1))


class Highway(nn.Module):
    """Srivastava et al. 2015: fifty layers, carry bias -2."""

    def __init__(self, c: int = 50) -> None:
        super().__init__()
        self.h, self.t = nn.Linear(c, c), nn.Linear(c, c)
        nn.init.constant_(self.t.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.sigmoid(self.t(x))
        return t * torch.relu(self.h(x)) + (1 - t) * x


class Fixup(nn.Module):
    """Zhang et al. 2019: no normalisation, the last weight zero."""

    def __init__(self, c: int, blocks: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.Conv2d(c, c, 3, 1, 1, bias=False)
        self.bias, self.scale = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.ones(()))
        nn.init.normal_(self.first.weight, std=math.sqrt(2 / (9 * c)) * blocks**-0.5)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x + self.bias[0]) + self.bias[1]) + self.bias[2])
        return F.relu(x + y * self.scale + self.bias[3])


class NormFree(nn.Module):
    """Brock et al. 2021 (NF-ResNet): alpha, beta, scaled weight standardisation."""

    def __init__(self, c: int, beta: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c, c, 3, 3))
        self.gain, self.beta = nn.Parameter(torch.ones(c, 1, 1, 1)), beta

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        fan = w[0].numel()
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) * fan**0.5) * self.gain
        return x + 0.2 * F.conv2d(F.relu(x / self.beta) * 1.7139, w, padding=1)


def normalizer_free(blocks: int = 16) -> nn.Module:
    betas = [(1 + 0.04 * i) ** 0.5 for i in range(blocks)]
    stem = nn.Conv2d(3, 32, 3, padding=1)
    return nn.Sequential(
        stem, *[NormFree(32, b) for b in betas], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)
    )


class Sine(nn.Module):
    """A layer of SIREN (Sitzmann et al. 2020)."""

    def __init__(self, a: int, b: int, first: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(a, b)
        bound = 1 / a if first else math.sqrt(6 / a) / 30
        nn.init.uniform_(self.layer.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30 * self.layer(x))


class Field(nn.Module):
    """A radiance field's MLP with positional encoding and a skip (Mildenhall et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Linear(63, 128), nn.ReLU(), *[p for _ in range(3) for p in (nn.Linear(128, 128), nn.ReLU())]
        )
        self.second = nn.Sequential(
            nn.Linear(191, 128),
            nn.ReLU(),
            *[p for _ in range(2) for p in (nn.Linear(128, 128), nn.ReLU())],
            nn.Linear(128, 4),
        )
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
                nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        angles = x[..., None, :] * 2.0 ** torch.arange(10.0)[:, None] * math.pi
        e = torch.cat([x, angles.sin().flatten(-2), angles.cos().flatten(-2)], -1)
        return self.second(torch.cat([self.first(e), e], -1))


def selu_net() -> nn.Module:
    """Klambauer et al. 2017: sixteen layers with LeCun's initialisation."""
    parts: list[nn.Module] = []
    for _ in range(16):
        layer = nn.Linear(64, 64)
        nn.init.normal_(layer.weight, std=64**-0.5)
        nn.init.zeros_(layer.bias)
        parts += [layer, nn.SELU()]
    return nn.Sequential(*parts, nn.Linear(64, 5))


def dqn() -> nn.Module:
    """Mnih et al. 2015."""
    convs = (
        nn.Conv2d(4, 16, 8, 4),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.ReLU(),
    )
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Linear(128, 6))


def pinn() -> nn.Module:
    """A physics-informed net's trunk (Raissi et al. 2019): tanh, Xavier."""
    parts: list[nn.Module] = []
    for a, b in [(2, 32), *[(32, 32)] * 6]:
        layer = nn.Linear(a, b)
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
        parts += [layer, nn.Tanh()]
    return nn.Sequential(*parts, nn.Linear(32, 1))


def autoencoder() -> nn.Module:
    """Hinton and Salakhutdinov 2006, with ReLU and He's initialisation."""
    sizes = [64, 128, 64, 16, 64, 128, 64]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(*[p for layer in layers[:-1] for p in (layer, nn.ReLU())], layers[-1])


class TorchTransformer(nn.Module):
    """torch's own encoder-decoder (Vaswani et al. 2017), six layers each, post-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(64, 64), nn.Linear(64, 64)
        self.body = nn.Transformer(64, 4, 6, 6, 256, batch_first=True)
        nn.init.normal_(self.embed.weight, std=1 / 8)

    def forward(self, x: Tensor) -> Tensor:
        e = self.embed(x) * 8
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.body(e, e, tgt_mask=mask)).mT


class Siamese(nn.Module):
    """One encoder on two views (Chen et al. 2020, SimCLR)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        x, y = (F.normalize(self.encoder(v), dim=-1) for v in (a, b))
        return x @ y.T / 0.1


def bits(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(0, 2, shape).float()


def tokens(length: int = 20) -> Tensor:
    return torch.randint(0, 64, (8, length))


BUILDERS: dict[str, Builder] = {
    "LSTM classifier": lambda: Subject(LastStep(nn.LSTM), (tokens(), labels(8)), CE),
    "bi-LSTM, two layers": lambda: Subject(
        LastStep(nn.LSTM, num_layers=2, bidirectional=True), (tokens(), labels(8)), CE
    ),
    "GRU classifier": lambda: Subject(LastStep(nn.GRU), (tokens(), labels(8)), CE),
    "LSTM language model": lambda: Subject(Tagger(), (tokens(), tokens()), CE),
    "seq2seq with attention": lambda: Subject(Translator(), (tokens(12), tokens(12)), CE),
    "TCN": lambda: Subject(
        nn.Sequential(nn.Conv1d(8, 32, 1), *[Causal(32, 2**i) for i in range(6)], nn.Conv1d(32, 5, 1)),
        (torch.randn(8, 8, 64), torch.randint(0, 5, (8, 64))),
        CE,
    ),
    "WaveNet": lambda: Subject(WaveNet(), (torch.randn(8, 8, 64), torch.randint(0, 5, (8, 64))), CE),
    "PointNet": lambda: Subject(PointNet(), (torch.randn(16, 3, 100), labels(16)), CE),
    "GCN": lambda: Subject(Graph(), (torch.randn(60, 16), labels(60)), CE),
    "GAT": lambda: Subject(GraphAttention(), (torch.randn(60, 16), labels(60)), CE),
    "VAE": lambda: Subject(Vae(), (x := torch.randn(32, 64), x), elbo),
    "DCGAN generator": lambda: Subject(
        dcgan(True), (torch.randn(16, 16, 2, 2), torch.rand(16, 3, 32, 32) * 2 - 1), nn.MSELoss()
    ),
    "DCGAN discriminator": lambda: Subject(
        dcgan(False), (torch.randn(16, 3, 32, 32), bits((16, 1))), nn.BCEWithLogitsLoss()
    ),
    "MLP-Mixer": lambda: Subject(Patches(False), (torch.randn(8, 3, 32, 32), labels(8)), CE),
    "gMLP": lambda: Subject(Patches(True), (torch.randn(8, 3, 32, 32), labels(8)), CE),
    "Highway-50": lambda: Subject(
        nn.Sequential(*[Highway() for _ in range(50)], nn.Linear(50, 5)),
        (torch.randn(32, 50), labels(32)),
        CE,
    ),
    "Fixup ResNet": lambda: Subject(
        nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            *[Fixup(32, 12) for _ in range(12)],
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 5),
        ),
        (torch.randn(8, 3, 16, 16), labels(8)),
        CE,
    ),
    "NF-ResNet": lambda: Subject(normalizer_free(), (torch.randn(8, 3, 16, 16), labels(8)), CE),
    "SIREN": lambda: Subject(
        nn.Sequential(Sine(2, 64, True), *[Sine(64, 64) for _ in range(4)], nn.Linear(64, 1)),
        (torch.rand(256, 2) * 2 - 1, torch.randn(256, 1)),
        nn.MSELoss(),
    ),
    "NeRF": lambda: Subject(Field(), (torch.rand(256, 3) * 2 - 1, torch.rand(256, 4)), nn.MSELoss()),
    "SELU net": lambda: Subject(selu_net(), (torch.randn(64, 64), labels(64)), CE),
    "DQN": lambda: Subject(dqn(), (torch.randn(16, 4, 84, 84), torch.randn(16, 6)), nn.SmoothL1Loss()),
    "PINN": lambda: Subject(pinn(), (torch.rand(128, 2) * 2 - 1, torch.randn(128, 1)), nn.MSELoss()),
    "autoencoder": lambda: Subject(autoencoder(), (x := torch.randn(64, 64), x), nn.MSELoss()),
    "Transformer (torch)": lambda: Subject(TorchTransformer(), (tokens(12), tokens(12)), CE),
    "SimCLR": lambda: Subject(Siamese(), ((torch.randn(32, 64), torch.randn(32, 64)), torch.arange(32)), CE),
}
