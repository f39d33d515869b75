"""How close theory comes: the log gain of the gradient a layer, predicted without data, against the measured
one.

Run it with `python -m benchmarks.forecast --nets 60`. Random MLPs, CNNs, residual nets, transformers and
recurrent nets; each is measured by `check`'s recorder on 32 samples of Gaussian noise. "Off criticality": at
least 0.1 nats a layer, errors relative; "at criticality": less, errors in nats a layer. One net is one draw
of its weights, so its own gain scatters around the mean that theory gives.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks import record

BATCH, CRITICAL = 32, 0.1
ACTS = (
    nn.Tanh,
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.ELU,
    nn.SELU,
    nn.LeakyReLU,
    nn.Hardtanh,
    nn.Softsign,
)


@dataclass(frozen=True)
class Result:
    """One net: predicted and measured nats a layer (or a step), and the seconds the forecast took."""

    family: str
    width: int
    predicted: float
    measured: float
    seconds: float

    @property
    def error(self) -> float:
        """Nats a layer."""
        return abs(self.predicted - self.measured)


def drawn(net: nn.Module, gain: float, rng: random.Random) -> None:
    """Gaussian weights of this gain and sometimes biases; PyTorch's own where the gain is 0."""
    bias = rng.choice((0.0, 0.0, 0.05, 0.3))
    for m in net.modules() if gain else ():
        if isinstance(m, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(m.weight, 0, gain / m.weight[0].numel() ** 0.5)
            nn.init.normal_(m.bias, 0, bias) if bias else nn.init.zeros_(m.bias)


def gain_of(act: Any, rng: random.Random) -> float:
    """Near the critical gain of an activation as often as away from it, or PyTorch's default (0)."""
    from unvanish.theory.initialisers import start

    critical = start(act()).sw
    return rng.choice((0.0, critical, critical, critical * rng.uniform(0.6, 1.4)))


def mlp(rng: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    """Plain, or with a BatchNorm or LayerNorm in front of every activation."""
    act, width = rng.choice(ACTS), rng.choice((64, 256, 512, 1024))
    norm = rng.choice((None, None, None, nn.BatchNorm1d, nn.LayerNorm))
    parts: list[nn.Module] = []
    for _ in range(rng.randint(10, 30)):
        parts += [nn.Linear(width, width), *([norm(width)] if norm else []), act()]
    net = nn.Sequential(*parts, nn.Linear(width, 10))
    drawn(net, gain_of(act, rng), rng)
    return net, (width,), width


def cnn(rng: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    """Zero-padded 3 x 3 convolutions, sometimes with BatchNorm; the width is the channels."""
    act, channels, size = rng.choice(ACTS[:5]), rng.choice((32, 64, 256)), rng.choice((8, 12))
    norm = rng.choice((False, False, True))
    parts: list[nn.Module] = []
    for k in range(rng.randint(8, 16)):
        parts += [nn.Conv2d(channels if k else 3, channels, 3, padding=1)]
        parts += [*([nn.BatchNorm2d(channels)] if norm else []), act()]
    net = nn.Sequential(*parts, nn.AvgPool2d(size), nn.Flatten(), nn.Linear(channels, 10))
    drawn(net, gain_of(act, rng), rng)
    return net, (3, size, size), channels


class Residual(nn.Module):
    """x + f(x), x + f(norm(x)) or norm(x + f(x)), f of two layers."""

    def __init__(self, width: int, blocks: int, act: Any, place: str) -> None:
        super().__init__()
        self.place, self.act = place, act()
        self.first, self.head = nn.Linear(width, width), nn.Linear(width, 10)
        self.a = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
        self.b = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for a, b, norm in zip(self.a, self.b, self.norms, strict=True):
            read = norm(x) if self.place == "pre" else x
            x = x + b(self.act(a(read)))
            x = norm(x) if self.place == "post" else x
        return self.head(x)


def residual(rng: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    """Residual sums without normalisation, pre-norm and post-norm."""
    act, width = rng.choice(ACTS[:4]), rng.choice((64, 256, 512))
    net = Residual(width, rng.randint(6, 16), act, rng.choice(("none", "pre", "post")))
    drawn(net, rng.choice((0.0, 1.0, 1.4, 1.8)), rng)
    return net, (width,), width


class Transformer(nn.Module):
    """Encoder layers, each with weights of its own (`nn.TransformerEncoder` copies the first layer's)."""

    def __init__(self, width: int, blocks: int, first: bool) -> None:
        super().__init__()
        make: Callable[[], nn.Module] = lambda: nn.TransformerEncoderLayer(  # noqa: E731
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=first, activation="gelu"
        )
        self.layers, self.head = nn.ModuleList(make() for _ in range(blocks)), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def transformer(rng: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    """Pre-norm and post-norm, at PyTorch's initialisation."""
    width = rng.choice((64, 256))
    return Transformer(width, rng.randint(4, 8), rng.random() < 0.5), (rng.choice((8, 20)), width), width


class Recurrent(nn.Module):
    """A fused layer, read at the last step."""

    def __init__(self, kind: Any, width: int) -> None:
        super().__init__()
        self.core, self.head = kind(16, width, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x)[0][:, -1])


def recurrent(rng: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    """RNN, LSTM and GRU at PyTorch's initialisation, with open gates, with chrono biases, or Gaussian."""
    kind, width = rng.choice((nn.RNN, nn.LSTM, nn.GRU)), rng.choice((64, 128, 256))
    net, steps = Recurrent(kind, width), rng.choice((50, 100, 200))
    core: Any = net.core
    with torch.no_grad():
        form = rng.choice(("default", "default", "open", "chrono", "gaussian"))
        keeps = slice(width, 2 * width)
        if form == "open" and kind is not nn.RNN:
            core.bias_ih_l0[keeps] = rng.choice((1.0, 2.0, 3.0))
        elif form == "chrono" and kind is not nn.RNN:
            core.bias_ih_l0.zero_(), core.bias_hh_l0.zero_()
            core.bias_ih_l0[keeps] = torch.log(torch.rand(width) * (steps - 2) + 1)
            if kind is nn.LSTM:
                core.bias_ih_l0[:width] = -core.bias_ih_l0[keeps]
        elif form == "gaussian" or kind is nn.RNN:
            core.weight_hh_l0.normal_(0, rng.uniform(0.7, 1.5) / width**0.5)
    return net, (steps, 16), width


FAMILIES = {"mlp": mlp, "cnn": cnn, "residual": residual, "transformer": transformer, "recurrent": recurrent}


def run(family: str, seed: int) -> Result | None:
    """Forecast and measure one net; None where a profile leaves the numbers."""
    from unvanish.clinic.forecast import predict_trace
    from unvanish.core import depth
    from unvanish.probes import record

    rng = random.Random(f"{family}{seed}")
    torch.manual_seed(rng.randrange(1 << 30))
    net, size, width = FAMILIES[family](rng)
    x = torch.randn(BATCH, *size)
    started = time.perf_counter()
    theory = predict_trace(net, x)
    seconds = time.perf_counter() - started
    measured = record(net, x)
    if family == "recurrent":
        slopes = [slope(t) for t in (theory, measured)]
    else:
        read = [depth.read(t) for t in (theory, measured)]
        if any(r is None for r in read):
            return None
        slopes = [r.log_ratio / r.steps for r in read if r is not None]
    return Result(family, width, *slopes, seconds) if all(map(math.isfinite, slopes)) else None


def slope(trace: Any) -> float:
    """Nats a step over the half of the steps furthest from the loss."""
    logs = trace.column("state_log")[trace.where("step")]
    half = logs[: len(logs) // 2]
    return float(np.polyfit(np.arange(len(half)), half, 1)[0])


def table(results: list[Result]) -> Table:
    """Medians by family and width."""
    found = Table(
        "family", "width", "nets", "off criticality", "at criticality", "forecast",
        title="median error of ln gain a layer (a step for recurrent nets)",
    )  # fmt: skip
    for family in FAMILIES:
        for name, wide in (("< 256", False), (">= 256", True)):
            own = [r for r in results if r.family == family and (r.width >= 256) is wide]
            if not own:
                continue
            off = [r.error / abs(r.measured) for r in own if abs(r.measured) >= CRITICAL]
            at = [r.error for r in own if abs(r.measured) < CRITICAL]
            found.add_row(
                family,
                name,
                str(len(own)),
                f"{statistics.median(off):.1%} of {len(off)}" if off else "",
                f"{statistics.median(at):.4f} of {len(at)}" if at else "",
                f"{statistics.median([r.seconds for r in own]):.2f} s",
            )
    return found


def figures(results: list[Result]) -> dict[str, float]:
    """The median errors of the table, by family, width and criticality."""
    groups: dict[str, list[float]] = {}
    for r in results:
        off, width = abs(r.measured) >= CRITICAL, ">= 256" if r.width >= 256 else "< 256"
        name = f"{r.family}, {width}, {'off' if off else 'at'} criticality"
        groups.setdefault(name, []).append(r.error / abs(r.measured) if off else r.error)
    return {name: statistics.median(errors) for name, errors in sorted(groups.items())}


def thousand() -> str:
    """How long a net of 1,000 layers takes."""
    from unvanish.clinic.forecast import forecast

    torch.manual_seed(0)
    lines = []
    for name, act, make in (
        ("tanh MLP", nn.Tanh, nn.Linear),
        ("ReLU MLP", nn.ReLU, nn.Linear),
        ("tanh CNN", nn.Tanh, None),
    ):
        parts: list[nn.Module] = []
        for k in range(1000):
            first = nn.Conv2d(16 if k else 1, 16, 3, padding=1) if make is None else make(128, 128)
            parts += [first, act()]
        end = [nn.Flatten(), nn.Linear(16 * 64, 10)] if make is None else [nn.Linear(128, 10)]
        net = nn.Sequential(*parts, *end)
        started = time.perf_counter()
        found = forecast(net, (1, 8, 8) if make is None else (128,))
        lines.append(
            f"{name}, 1,000 layers: {time.perf_counter() - started:.2f} s, {', '.join(found.codes())}"
        )
    return "\n".join(lines)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", type=int, default=60, metavar="N", help="of each family")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--verbose", action="store_true")
    record.add_option(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    console, results = Console(), []
    for family in options.family or FAMILIES:
        for seed in range(options.nets):
            found = run(family, seed)
            if found is not None:
                results.append(found)
                if options.verbose:
                    console.print(seed, found)
    console.print(table(results))
    console.print(thousand())
    record.append("forecast", options, figures(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
