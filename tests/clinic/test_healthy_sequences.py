"""Nothing is said of sequence models: recurrences, scans, transducers, experts, spikes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.clinic.designs import Design, classes, mlp, stays_quiet
from torch import Tensor, nn
from torch.nn import functional as F

CE = nn.CrossEntropyLoss()


class Lines(nn.Module):
    """A residual stack of token mixers between an embedding and a head, one answer a token."""

    def __init__(self, *mixers: nn.Module, tied: bool = False, d: int = 32, vocabulary: int = 40) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, d)
        self.norms, self.mixers = nn.ModuleList(nn.LayerNorm(d) for _ in mixers), nn.ModuleList(mixers)
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, vocabulary, bias=False)
        if tied:
            nn.init.normal_(self.embed.weight, std=0.02)
            self.head.weight = self.embed.weight

    def forward(self, t: Tensor) -> Tensor:
        x = self.embed(t)
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            x = x + mixer(norm(x))
        y: Tensor = self.head(self.norm(x)).transpose(1, 2)
        return y


def lines(*mixers: nn.Module, tied: bool = False) -> Design:
    t = torch.randint(0, 40, (8, 13))
    return Design(Lines(*mixers, tied=tied), (t[:, :-1], t[:, 1:]), CE)


class Causal(nn.Module):
    def __init__(self, d: int = 32) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (z.unflatten(-1, (4, -1)).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        y: Tensor = self.out(
            F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        )
        return y


class Mamba(nn.Module):
    """A selective scan step by step (Gu and Dao 2023)."""

    def __init__(self, d: int = 32, n: int = 4) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(d, 2 * d, bias=False), nn.Linear(d, d, bias=False)
        self.conv = nn.Conv1d(d, d, 4, padding=3, groups=d)
        self.select, self.step = nn.Linear(d, 2 + 2 * n, bias=False), nn.Linear(2, d)
        self.log = nn.Parameter(torch.log(torch.arange(1.0, n + 1)).repeat(d, 1))
        self.skip = nn.Parameter(torch.ones(d))
        with torch.no_grad():
            dt = torch.exp(torch.rand(d) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
            self.step.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Tensor) -> Tensor:
        x, z = self.into(x).chunk(2, -1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        dt, b, c = self.select(x).split([2, 4, 4], -1)
        dt = F.softplus(self.step(dt))
        decay = torch.exp(-dt[..., None] * self.log.exp())
        h, out = x.new_zeros(len(x), x.shape[-1], 4), []
        for t in range(x.shape[1]):
            h = decay[:, t] * h + (dt[:, t] * x[:, t])[..., None] * b[:, t, None]
            out.append((h * c[:, t, None]).sum(-1))
        y: Tensor = self.out((torch.stack(out, 1) + self.skip * x) * F.silu(z))
        return y


class RWKV(nn.Module):
    """Time mixing by a decaying sum of keys' weights (Peng et al. 2023)."""

    def __init__(self, d: int = 32) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.rand(3, d))
        self.k, self.v, self.r, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.decay, self.first = (
            nn.Parameter(torch.linspace(-5, 1, d)),
            nn.Parameter(torch.full((d,), math.log(0.3))),
        )

    def forward(self, x: Tensor) -> Tensor:
        before = F.pad(x, (0, 0, 1, -1))
        k, v, r = (
            layer(m * x + (1 - m) * before)
            for m, layer in zip(self.mix, (self.k, self.v, self.r), strict=True)
        )
        w = -torch.exp(self.decay)
        top, a, b, out = torch.full_like(k[:, 0], -1e38), 0 * v[:, 0], 0 * v[:, 0], []
        for t in range(x.shape[1]):
            q = torch.maximum(top, self.first + k[:, t])
            old, new = torch.exp(top - q), torch.exp(self.first + k[:, t] - q)
            out.append((old * a + new * v[:, t]) / (old * b + new))
            q = torch.maximum(top + w, k[:, t])
            old, new = torch.exp(top + w - q), torch.exp(k[:, t] - q)
            a, b, top = old * a + new * v[:, t], old * b + new, q
        y: Tensor = self.o(torch.sigmoid(r) * torch.stack(out, 1))
        return y


class ExponentialLSTM(nn.Module):
    """sLSTM: exponential gates with a stabiliser and a normaliser (Beck et al. 2024)."""

    def __init__(self, d: int = 32) -> None:
        super().__init__()
        self.w, self.r = nn.Linear(d, 4 * d), nn.Linear(d, 4 * d, bias=False)
        with torch.no_grad():
            self.w.bias[d : 2 * d] = torch.linspace(3, 6, d)

    def forward(self, x: Tensor) -> Tensor:
        h = c = n = x.new_zeros(len(x), x.shape[-1])
        m, out = h - 10, []
        for t in range(x.shape[1]):
            i, f, z, o = (self.w(x[:, t]) + self.r(h)).chunk(4, -1)
            log = F.logsigmoid(f)
            top = torch.maximum(log + m, i)
            a, b = torch.exp(i - top), torch.exp(log + m - top)
            c, n, m = b * c + a * torch.tanh(z), b * n + a, top
            h = torch.sigmoid(o) * c / n.clamp(min=1e-6)
            out.append(h)
        return torch.stack(out, 1)


class Retention(nn.Module):
    """Linear attention with a decay, in parallel form (Sun et al. 2023)."""

    def __init__(self, d: int = 32) -> None:
        super().__init__()
        self.qkv, self.gate, self.out, self.norm = (
            nn.Linear(d, 3 * d, bias=False),
            nn.Linear(d, d),
            nn.Linear(d, d),
            nn.GroupNorm(4, d),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (z.unflatten(-1, (4, -1)).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        n = torch.arange(x.shape[1])
        gamma = 1 - 2.0 ** (-5 - torch.arange(4.0))
        decay = torch.where(n[:, None] >= n, gamma[:, None, None] ** (n[:, None] - n).clamp(min=0), 0.0)
        y = ((q @ k.transpose(-1, -2) / 8**0.5 * decay) @ v).transpose(1, 2).flatten(2)
        z: Tensor = self.out(F.silu(self.gate(x)) * self.norm(y.flatten(0, 1)).view_as(x))
        return z


class Experts(nn.Module):
    """Noisy routing with a loss on the load, kept in `aux` (Shazeer et al. 2017; Fedus et al. 2021)."""

    def __init__(self, d: int = 32, top: int = 1) -> None:
        super().__init__()
        self.top, self.aux = top, torch.zeros(())
        self.route, self.noise = nn.Linear(d, 4, bias=False), nn.Linear(d, 4, bias=False)
        self.experts = nn.ModuleList(mlp(d, 2 * d, d, activation=nn.GELU) for _ in range(4))
        nn.init.zeros_(self.noise.weight)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        s = self.route(flat)
        s = s + torch.randn_like(s) * F.softplus(self.noise(flat)) if self.training else s
        p = s.softmax(-1)
        weight, chosen = p.topk(self.top, -1)
        if self.top > 1:
            weight = weight / weight.sum(-1, keepdim=True)
        load = F.one_hot(chosen, 4).sum(1).float().mean(0)
        self.aux = 4 * (load * p.mean(0)).sum()
        y = torch.zeros_like(flat)
        for k, expert in enumerate(self.experts):
            row, place = (chosen == k).nonzero(as_tuple=True)
            y = y.index_add(0, row, weight[row, place, None] * expert(flat[row]))
        return y.view_as(x)


def experts(top: int) -> Design:
    design = lines(Causal(), Experts(top=top), Causal(), Experts(top=top))
    held: Any = design.model
    design.loss = lambda out, y: CE(out, y) + 0.01 * sum(m.aux for m in held.mixers[1::2])
    return design


class Last(nn.Module):
    """A stock recurrence read at its end."""

    def __init__(self, core: nn.RNNBase, d: int) -> None:
        super().__init__()
        self.core, self.head = core, nn.Linear(d, 3)

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.core(x)
        ends = torch.cat([*state[-2:]], -1) if self.core.bidirectional else out[:, -1]
        y: Tensor = self.head(ends)
        return y


def stock(kind: Any, steps: int, **options: Any) -> Design:
    width = 64 if options.get("bidirectional") else 32
    net = Last(kind(6, 32, batch_first=True, **options), width)
    return Design(net, (torch.randn(16, steps, 6), classes(16, 3)), CE)


def packed() -> Design:
    class Packed(nn.Module):
        """Padded texts of several lengths, packed, read at their ends."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.core, self.head = (
                nn.Embedding(40, 24, padding_idx=0),
                nn.LSTM(24, 32, batch_first=True, bidirectional=True),
                nn.Linear(64, 2),
            )

        def forward(self, t: Tensor) -> Tensor:
            lengths = (t != 0).sum(1)
            rows = nn.utils.rnn.pack_padded_sequence(
                self.embed(t), lengths, batch_first=True, enforce_sorted=False
            )
            y: Tensor = self.head(torch.cat([*self.core(rows)[1][0]], -1))
            return y

    t = torch.randint(1, 40, (16, 14))
    for k in range(16):
        t[k, 5 + k % 9 :] = 0
    return Design(Packed(), (t, classes(16, 2)), CE)


def spiking() -> Design:
    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, v: Tensor) -> Tensor:
            ctx.save_for_backward(v)
            return (v > 0).float()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (v,) = ctx.saved_tensors
            slope: Tensor = g / (1 + 5 * v.abs()).square()
            return slope

    class Spiking(nn.Module):
        """Leaky neurons with a surrogate slope (Neftci et al. 2019)."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(20, 64), nn.Linear(64, 4)
            nn.init.normal_(self.a.weight, std=0.5)

        def forward(self, x: Tensor) -> Tensor:
            v, s, u, out = x.new_zeros(len(x), 64), x.new_zeros(len(x), 64), x.new_zeros(len(x), 4), []
            for _ in range(8):
                v = 0.9 * v * (1 - s.detach()) + self.a(x)
                s = Spike.apply(v - 1)
                u = 0.9 * u + self.b(s)
                out.append(u)
            return torch.stack(out).mean(0)

    return Design(Spiking(), (torch.rand(32, 20), classes(32)), CE)


def speech(loss: str) -> Design:
    class Speech(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.core = (
                nn.Conv1d(8, 32, 3, 2, 1),
                nn.GRU(32, 24, batch_first=True, bidirectional=True),
            )
            self.head = nn.Linear(48, 10)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.core(F.relu(self.conv(x)).transpose(1, 2))[0]).log_softmax(-1)
            return y

    def temporal(log: Tensor, y: Tensor) -> Tensor:
        n, t = log.shape[:2]
        return F.ctc_loss(log.transpose(0, 1), y, torch.full((n,), t), torch.full((n,), y.shape[1]))

    return Design(Speech(), (torch.randn(6, 8, 32), torch.randint(1, 10, (6, 4))), temporal)


def transducer() -> Design:
    class Transducer(nn.Module):
        """Encoder and predictor joined at each place of a lattice (Graves 2012)."""

        def __init__(self) -> None:
            super().__init__()
            self.core, self.embed, self.after = (
                nn.GRU(8, 24, batch_first=True),
                nn.Embedding(8, 24),
                nn.GRU(24, 24, batch_first=True),
            )
            self.head = nn.Linear(24, 8)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            a, b = self.core(x)[0], self.after(self.embed(F.pad(y, (1, 0))))[0]
            joined: Tensor = self.head(torch.tanh(a[:, :, None] + b[:, None])).log_softmax(-1)
            return joined

    def lattice(log: Tensor, y: Tensor) -> Tensor:
        n, t_, u_, _ = log.shape
        blank, emit = (
            log[..., 0],
            log[:, :, :-1].gather(3, y[:, None, :, None].expand(-1, t_, -1, -1)).squeeze(3),
        )
        alpha: dict[tuple[int, int], Tensor] = {(0, 0): log.new_zeros(n)}
        for t in range(t_):
            for u in range(u_):
                ways = [alpha[t - 1, u] + blank[:, t - 1, u]] if t else []
                ways += [alpha[t, u - 1] + emit[:, t, u - 1]] if u else []
                if ways:
                    alpha[t, u] = torch.logsumexp(torch.stack(ways), 0)
        return -(alpha[t_ - 1, u_ - 1] + blank[:, -1, -1]).mean()

    y = torch.randint(1, 8, (6, 3))
    return Design(Transducer(), ((torch.randn(6, 6, 8), y), y), lattice)


def forecaster() -> Design:
    class Forecaster(nn.Module):
        """Windows scaled by their own mean and deviation, a transformer on patches (Nie et al. 2023)."""

        def __init__(self) -> None:
            super().__init__()
            self.patch, self.place = nn.Linear(4, 32), nn.Parameter(torch.randn(6, 32) * 0.02)
            self.encoder = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True), 2
            )
            self.head = nn.Linear(6 * 32, 4)

        def forward(self, x: Tensor) -> Tensor:
            mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True) + 1e-5
            h = self.encoder(self.patch(((x - mean) / std).unflatten(1, (6, 4))) + self.place)
            y: Tensor = self.head(h.flatten(1)) * std + mean
            return y

    x = torch.randn(32, 28).cumsum(1)
    return Design(Forecaster(), (x[:, :24], x[:, 24:]), nn.MSELoss())


def translator() -> Design:
    class Translator(nn.Module):
        """The encoder and decoder of 2017, with padding and teacher forcing."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(40, 32, padding_idx=0)
            self.core = nn.Transformer(32, 4, 2, 2, 64, 0.1, batch_first=True)
            self.head = nn.Linear(32, 40)
            for p in self.parameters():
                if p.ndim > 1:
                    nn.init.xavier_uniform_(p)

        def forward(self, s: Tensor, t: Tensor) -> Tensor:
            causal = torch.triu(torch.ones(t.shape[1], t.shape[1], dtype=torch.bool), 1)
            h = self.core(
                self.embed(s) * 32**0.5, self.embed(t) * 32**0.5, tgt_mask=causal,
                src_key_padding_mask=s == 0, memory_key_padding_mask=s == 0, tgt_key_padding_mask=t == 0,
            )  # fmt: skip
            y: Tensor = self.head(h).transpose(1, 2)
            return y

    s, t = torch.randint(1, 40, (8, 9)), torch.randint(1, 40, (8, 8))
    s[::2, 6:], t[::2, 5:] = 0, 0
    return Design(Translator(), ((s, t[:, :-1]), t[:, 1:]), nn.CrossEntropyLoss(ignore_index=0))


def truncated() -> Design:
    class Chunked(nn.Module):
        """A state that is carried over and cut between chunks of text."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.core, self.head = (
                nn.Embedding(40, 32),
                nn.LSTM(32, 32, batch_first=True),
                nn.Linear(32, 40),
            )

        def forward(self, t: Tensor) -> Tensor:
            state, out = None, []
            for chunk in t.split(8, 1):
                h, state = self.core(self.embed(chunk), state)
                state = tuple(s.detach() for s in state)
                out.append(self.head(h))
            return torch.cat(out, 1).transpose(1, 2)

    t = torch.randint(0, 40, (8, 25))
    return Design(Chunked(), (t[:, :-1], t[:, 1:]), CE)


DESIGNS: dict[str, Any] = {
    "Mamba": lambda: lines(Mamba(), Mamba()),
    "RWKV": lambda: lines(RWKV(), mlp(32, 64, 32)),
    "sLSTM": lambda: lines(ExponentialLSTM(), mlp(32, 64, 32)),
    "retention": lambda: lines(Retention(), mlp(32, 64, 32)),
    "tied weights": lambda: lines(Causal(), mlp(32, 64, 32, activation=nn.GELU), tied=True),
    "experts, one of four": lambda: experts(1),
    "experts, two of four": lambda: experts(2),
    "LSTM of 10": lambda: stock(nn.LSTM, 10),
    "LSTM of 20": lambda: stock(nn.LSTM, 20),
    "GRU of 10": lambda: stock(nn.GRU, 10),
    "GRU of 20": lambda: stock(nn.GRU, 20),
    "two LSTM layers": lambda: stock(nn.LSTM, 16, num_layers=2, dropout=0.2),
    "both ways": lambda: stock(nn.GRU, 16, bidirectional=True),
    "packed": packed,
    "spikes": spiking,
    "CTC": lambda: speech("ctc"),
    "transducer": transducer,
    "forecaster": forecaster,
    "translator": translator,
    "chunks": truncated,
}


@pytest.mark.parametrize("build", DESIGNS.values(), ids=DESIGNS)
def test_a_sequence_model_is_no_fault(build: Any) -> None:
    stays_quiet(build)
