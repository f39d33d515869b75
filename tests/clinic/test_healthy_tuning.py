"""Nothing is said of what is added to a frozen or trained net: adapters, prefixes, low ranks, heads."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.clinic.designs import Design, classes, mlp, stays_quiet
from torch import Tensor, nn
from torch.nn import functional as F

CE = nn.CrossEntropyLoss()


def freeze(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


class Block(nn.Module):
    """A pre-norm transformer block by hand, with places for what is added."""

    def __init__(self, d: int = 32) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = mlp(d, 2 * d, d, activation=nn.GELU)
        self.adapter: nn.Module = nn.Identity()
        self.prefix: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.n1(x)).chunk(3, -1)
        if self.prefix is not None:
            k = torch.cat([self.prefix[0].expand(b, -1, -1), k], 1)
            v = torch.cat([self.prefix[1].expand(b, -1, -1), v], 1)
        heads = [z.unflatten(-1, (4, d // 4)).transpose(1, 2) for z in (q, k, v)]
        x = x + self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(b, t, d))
        return x + self.adapter(self.mlp(self.n2(x)))


class Encoder(nn.Module):
    def __init__(self, depth: int = 2, d: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(50, d), nn.Parameter(0.02 * torch.randn(12, d))
        self.blocks = nn.ModuleList(Block(d) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 4)

    def forward(self, t: Tensor) -> Tensor:
        x = self.embed(t) + self.place[: t.shape[1]]
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.head(self.norm(x).mean(1))
        return y


TEXT = lambda: (torch.randint(0, 50, (16, 10)), classes(16))  # noqa: E731


class Adapter(nn.Module):
    """A bottleneck beside the identity, its second half at zero (Houlsby et al. 2019)."""

    def __init__(self, d: int = 32, r: int = 4) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(d, r), nn.Linear(r, d)
        nn.init.zeros_(self.up.weight), nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.up(F.gelu(self.down(x)))
        return y


class LoRA(nn.Module):
    """W x + B A x with B = 0 (Hu et al. 2021)."""

    def __init__(self, base: nn.Module, r: int = 4) -> None:
        super().__init__()
        self.base: Any = freeze(base)
        self.a = nn.Parameter(torch.randn(r, self.base.in_features) / self.base.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(self.base.out_features, r))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + 2 * (x @ self.a.T @ self.b.T)
        return y


class DoRA(LoRA):
    """Magnitude apart from direction, its norm taken as a constant (Liu et al. 2024)."""

    def __init__(self, base: nn.Module, r: int = 4) -> None:
        super().__init__(base, r)
        self.m = nn.Parameter(self.base.weight.detach().norm(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        w = self.base.weight + self.b @ self.a
        return F.linear(x, w * (self.m / w.norm(dim=1).detach())[:, None], self.base.bias)


class IA3(nn.Module):
    """Learned vectors of ones that rescale (Liu et al. 2022)."""

    def __init__(self, base: nn.Module, d: int) -> None:
        super().__init__()
        self.base, self.scale = freeze(base), nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) * self.scale
        return y


class VeRA(LoRA):
    """Shared random projections, only two vectors learn, one of them zero (Kopiczko et al. 2024)."""

    def __init__(self, base: nn.Module, r: int = 8) -> None:
        super().__init__(base, r)
        self.a.requires_grad_(False)
        self.b = nn.Parameter(torch.randn_like(self.b) / r**0.5, requires_grad=False)
        self.d, self.v = nn.Parameter(torch.full((r,), 0.1)), nn.Parameter(torch.zeros(len(self.b)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + self.v * ((self.d * (x @ self.a.T)) @ self.b.T)
        return y


def adapters() -> Design:
    net = Encoder()
    freeze(net)
    for block in net.blocks:
        block.adapter = Adapter()
    net.head.requires_grad_(True)
    return Design(net, TEXT(), CE)


def wrapped(kind: type[LoRA]) -> Design:
    net = Encoder()
    freeze(net)
    for block in net.blocks:
        block.qkv, block.mlp[0] = kind(block.qkv), kind(block.mlp[0])
    return Design(net, TEXT(), CE)


def rescaled() -> Design:
    net = Encoder()
    freeze(net)
    for block in net.blocks:
        block.qkv, block.mlp[0] = IA3(block.qkv, 96), IA3(block.mlp[0], 64)
    return Design(net, TEXT(), CE)


def prefixes() -> Design:
    net = Encoder()
    freeze(net)
    for block in net.blocks:
        block.prefix = nn.Parameter(0.02 * torch.randn(2, 1, 3, 32))
    net.head.requires_grad_(True)
    return Design(net, TEXT(), CE)


def prompts() -> Design:
    class Prompted(nn.Module):
        """Soft tokens before the text of a frozen net (Lester et al. 2021)."""

        def __init__(self) -> None:
            super().__init__()
            self.net = freeze(Encoder())
            self.soft = nn.Parameter(self.net.embed.weight[:4].detach().clone())

        def forward(self, t: Tensor) -> Tensor:
            x = torch.cat([self.soft.expand(len(t), -1, -1), self.net.embed(t)], 1)
            for block in self.net.blocks:
                x = block(x)
            y: Tensor = self.net.head(self.net.norm(x[:, 0]))
            return y

    return Design(Prompted(), TEXT(), CE, 1e-2)


def biases_only() -> Design:
    net = Encoder()
    for name, p in net.named_parameters():
        p.requires_grad_("bias" in name or "head" in name)
    return Design(net, TEXT(), CE)


def linear_probe() -> Design:
    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = freeze(
                nn.Sequential(
                    nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU()
                )
            ).eval()
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                h = self.trunk(x).mean((2, 3))
            y: Tensor = self.head(h)
            return y

    return Design(Probe(), (torch.randn(16, 3, 16, 16), classes(16)), CE)


def side_tuning() -> Design:
    class Side(nn.Module):
        """A small net beside a frozen one, mixed by a gate that starts half open (Zhang et al. 2020)."""

        def __init__(self) -> None:
            super().__init__()
            self.base, self.side = freeze(mlp(16, 32, 32)), mlp(16, 16, 32)
            self.mix, self.head = nn.Parameter(torch.zeros(())), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            a = torch.sigmoid(self.mix)
            y: Tensor = self.head(a * self.base(x) + (1 - a) * self.side(x))
            return y

    return Design(Side(), (torch.randn(32, 16), classes(32)), CE)


def control_net() -> Design:
    class Controlled(nn.Module):
        """A trained copy behind zero convolutions, added to a frozen net (Zhang et al. 2023).

        As it starts alone: for some steps its small weights are taken for a fault.
        """

        def __init__(self) -> None:
            super().__init__()
            self.base: Any = nn.ModuleList([nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)])
            self.copy = copy.deepcopy(self.base)
            self.zero = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(3))
            freeze(self.base)
            for z in self.zero:
                nn.init.zeros_(z.weight), nn.init.zeros_(z.bias)
            self.hint = nn.Conv2d(1, 16, 3, padding=1)
            self.out = freeze(nn.Conv2d(16, 3, 3, padding=1))

        def forward(self, x: Tensor, hint: Tensor) -> Tensor:
            h, c = F.silu(self.base[0](x)), F.silu(self.copy[0](x)) + self.zero[0](self.hint(hint))
            h = h + self.zero[1](c)
            h = F.silu(self.base[1](h)) + self.zero[2](F.silu(self.copy[1](c)))
            y: Tensor = self.out(h)
            return y

    x = torch.randn(4, 3, 12, 12)
    return Design(
        Controlled(), ((x, torch.rand(4, 1, 12, 12)), torch.randn(4, 3, 12, 12)), nn.MSELoss(), steps=0
    )


def quaternions_behind_zero() -> Design:
    class Rotate(nn.Module):
        """Unit quaternions turn points, in a branch that a zero weight holds back."""

        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.q, self.head = mlp(16, 32, 24), nn.Linear(24, 4), nn.Linear(24, 4)
            self.gain = nn.Parameter(torch.zeros(()))
            nn.init.zeros_(self.q.weight)
            with torch.no_grad():
                self.q.bias.copy_(torch.tensor([1.0, 0, 0, 0]))

        def forward(self, x: Tensor) -> Tensor:
            h = self.trunk(x)
            w, v = F.normalize(self.q(h), dim=-1).split([1, 3], -1)
            p = h.unflatten(-1, (8, 3))
            v, w = v[:, None].expand_as(p), w[:, None]
            turn = p + 2 * torch.linalg.cross(v, torch.linalg.cross(v, p) + w * p)
            y: Tensor = self.head(h + self.gain * turn.flatten(1))
            return y

    return Design(Rotate(), (torch.randn(32, 16), classes(32)), CE)


def pooler_unused() -> Design:
    class Bert(nn.Module):
        """An encoder that gives its states and what a pooler makes of the first."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.kind = nn.Embedding(50, 32, padding_idx=0), nn.Embedding(2, 32)
            self.encoder = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True, activation="gelu"), 2
            )
            self.pooler = nn.Sequential(nn.Linear(32, 32), nn.Tanh())

        def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
            h = self.encoder(self.embed(t) + self.kind(torch.zeros_like(t)), src_key_padding_mask=t == 0)
            return h, self.pooler(h[:, 0])

    class Tagger(nn.Module):
        """It reads the states, and nobody the pooler."""

        def __init__(self) -> None:
            super().__init__()
            self.bert, self.head = Bert(), nn.Linear(32, 5)

        def forward(self, t: Tensor) -> Tensor:
            y: Tensor = self.head(self.bert(t)[0]).transpose(1, 2)
            return y

    t = torch.randint(1, 50, (16, 10))
    t[::3, 7:] = 0
    tags = torch.randint(0, 5, (16, 10)).masked_fill(t == 0, -100)
    return Design(Tagger(), (t, tags), CE)


def boxes_at_zero() -> Design:
    class Layout(nn.Module):
        """Text with the boxes of its words, which are all zero here, so only their first rows are read."""

        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 32)
            self.x, self.y, self.h, self.w = (nn.Embedding(64, 32) for _ in range(4))
            self.norm, self.block, self.head = nn.LayerNorm(32), Block(), nn.Linear(32, 4)

        def forward(self, t: Tensor, box: Tensor) -> Tensor:
            left, top, right, low = box.unbind(-1)
            e = self.words(t) + self.x(left) + self.y(top) + self.x(right) + self.y(low)
            e = e + self.h(low - top) + self.w(right - left)
            y: Tensor = self.head(self.block(self.norm(e)).mean(1))
            return y

    t, y = TEXT()
    return Design(Layout(), ((t, torch.zeros(16, 10, 4, dtype=torch.long)), y), CE)


def distilled() -> Design:
    class Pair(nn.Module):
        """A student and its frozen teacher, answers and a hint of features (Hinton et al. 2015)."""

        def __init__(self) -> None:
            super().__init__()
            self.teacher, self.student = freeze(mlp(16, 64, 64, 4)).eval(), mlp(16, 24, 24, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                t = self.teacher(x)
            return self.student(x), t

    def loss(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        s, t = out
        soft = F.kl_div(
            F.log_softmax(s / 4, 1), F.log_softmax(t / 4, 1), log_target=True, reduction="batchmean"
        )
        return 0.3 * F.cross_entropy(s, y) + 0.7 * 16 * soft

    return Design(Pair(), (torch.randn(32, 16), classes(32)), loss)


DESIGNS = {
    "adapters": adapters,
    "LoRA": lambda: wrapped(LoRA),
    "DoRA": lambda: wrapped(DoRA),
    "VeRA": lambda: wrapped(VeRA),
    "IA3": rescaled,
    "prefixes": prefixes,
    "prompts": prompts,
    "biases only": biases_only,
    "linear probe": linear_probe,
    "side tuning": side_tuning,
    "zero convolutions": control_net,
    "quaternions behind zero": quaternions_behind_zero,
    "an unused pooler": pooler_unused,
    "boxes at zero": boxes_at_zero,
    "distillation": distilled,
}


@pytest.mark.parametrize("build", DESIGNS.values(), ids=DESIGNS)
def test_what_is_added_to_a_net_is_no_fault(build: Any) -> None:
    stays_quiet(build)
