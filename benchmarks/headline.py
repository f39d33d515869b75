"""The hard cases, each before and after its cure: very deep, very long, and the functions that vanish.

Run one with `python -m benchmarks.headline tanh-cnn-10000`, or all of them with `python -m
benchmarks.headline`. Nets are trained on scikit-learn's 1,797 digits (1,400 to learn from, 397 unseen);
"ratio" is ||dL/dz|| at the first layer over the last, at the start.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import record


@dataclass(frozen=True)
class Outcome:
    """One row of the table."""

    what: str
    cure: str
    before: str
    after: str
    seconds: float


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and unseen images (N, 1, 8, 8) and their classes."""
    from unvanish.cli.story import load_digits as load

    (x, y), (u, v) = load()
    return x, y, u, v


def treated(
    model: nn.Module, name: str, batch: Any, loss: Any, targets: tuple[str, ...] = (), **parameters: Any
) -> nn.Module:
    """A copy with one cure planned from a check and applied."""
    from unvanish.clinic.prescription import operate
    from unvanish.core.diagnosis import Remedy
    from unvanish.cures import cure
    from unvanish.probes import record
    from unvanish.surgery.surgery import Surgery

    model = copy.deepcopy(model)
    planned = list(
        cure(name).plan(record(model, batch, loss), Remedy(name, targets, "", "retrain", parameters))
    )
    surgery = Surgery(model, batch=batch, loss=loss)
    for remedy in planned:
        operate(surgery, remedy)
    surgery.finish()
    return model


def fit(model: nn.Module, epochs: int, rate: float, size: int = 64) -> float:
    """Train with Adam, gradients clipped to norm 1; the share of unseen digits read right."""
    x, y, u, v = digits()
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(0, len(x), size):
            chosen = order[i : i + size]
            optimizer.zero_grad()
            functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return float((model(u).argmax(1) == v).float().mean())


def ratio(model: nn.Module, first: nn.Module, last: nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    """||dL/dz|| behind one layer over another."""
    norms: dict[str, float] = {}

    def watch(name: str) -> Callable[..., None]:
        def look(module: nn.Module, args: Any, output: Tensor) -> None:
            output.register_hook(lambda g: norms.__setitem__(name, float(g.double().norm())))

        return look

    handles = [first.register_forward_hook(watch("first")), last.register_forward_hook(watch("last"))]
    functional.cross_entropy(model(batch[0]), batch[1]).backward()
    for handle in handles:
        handle.remove()
    model.zero_grad(set_to_none=True)
    return norms["first"] / norms["last"] if norms["last"] else math.nan


def tanh_cnn(layers: int) -> nn.Module:
    """Convolutions of 16 channels with tanh, nothing else."""
    net = nn.Sequential()
    for k in range(layers):
        net.add_module(f"conv{k}", nn.Conv2d(16 if k else 1, 16, 3, padding=1))
        net.add_module(f"tanh{k}", nn.Tanh())
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(16 * 64, 10))
    return net


def delta_orthogonal(net: nn.Module, layers: int) -> None:
    """The cure `reinitialise` as it is planned for a narrow deep tanh net, without the measurement."""
    from unvanish.cures.reinitialise import apply
    from unvanish.surgery.surgery import Surgery
    from unvanish.theory.initialisers import start

    point = start("tanh", layers)
    names = tuple(f"conv{k}.weight" for k in range(1, layers))
    apply(Surgery(net), ("conv0.weight",), gain=point.q**0.5)
    apply(Surgery(net), names, gain=point.sw, bias=point.sb, method="delta-orthogonal")
    apply(Surgery(net), ("head.weight",), gain=1.0)


def tanh_cnn_10000() -> Outcome:
    """The gradient through 10,000 layers at the start."""
    started = time.perf_counter()
    x, y, *_ = digits()
    ratios = []
    for cured in (False, True):
        torch.manual_seed(0)
        net = tanh_cnn(10_000)
        if cured:
            delta_orthogonal(net, 10_000)
        ratios.append(ratio(net, net.conv0, net.conv9999, (x[:8], y[:8])))
    told = [f"ratio {r:.2g}" for r in ratios]
    return Outcome(
        "tanh CNN, 10,000 layers", "reinitialise (delta-orthogonal)", *told, time.perf_counter() - started
    )


def tanh_cnn_1000() -> Outcome:
    """1,000 layers, trained."""
    started = time.perf_counter()
    x, y, *_ = digits()
    torch.manual_seed(0)
    net = tanh_cnn(1000)
    before = ratio(net, net.conv0, net.conv999, (x[:8], y[:8]))
    sick = fit(net, 1, 1e-3)
    torch.manual_seed(0)
    net = tanh_cnn(1000)
    delta_orthogonal(net, 1000)
    after = ratio(net, net.conv0, net.conv999, (x[:8], y[:8]))
    cured = fit(net, 8, 1e-4)
    told = [f"ratio {before:.2g}, {sick:.1%}", f"ratio {after:.2g}, {cured:.1%}"]
    return Outcome(
        "tanh CNN, 1,000 layers", "reinitialise (delta-orthogonal)", *told, time.perf_counter() - started
    )


def mlp(act: Callable[[], nn.Module], layers: int, width: int = 128) -> nn.Module:
    """Flattened images through layers of equal width."""
    parts: list[nn.Module] = [nn.Flatten(), nn.Linear(64, width), act()]
    for _ in range(layers - 1):
        parts += [nn.Linear(width, width), act()]
    return nn.Sequential(*parts, nn.Linear(width, 10))


def deep(what: str, act: Callable[[], nn.Module], cure: str, rate: float) -> Outcome:
    """Fifty layers, before and after a cure."""
    started = time.perf_counter()
    x, y, *_ = digits()
    torch.manual_seed(0)
    net = mlp(act, 50)
    cured = treated(net, cure, (x[:64], y[:64]), nn.CrossEntropyLoss())
    told = []
    for model in (net, cured):
        layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
        told.append(
            f"ratio {ratio(model, layers[0], layers[-2], (x[:64], y[:64])):.2g}, {fit(model, 12, rate):.1%}"
        )
    return Outcome(what, cure, *told, time.perf_counter() - started)


class Encoder(nn.Module):
    """Rows of an image as eight tokens, through post-norm layers, each with weights of its own."""

    def __init__(self, layers: int, width: int = 32) -> None:
        super().__init__()
        self.enter, self.place = nn.Linear(8, width), nn.Parameter(0.5 * torch.randn(8, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
            for _ in range(layers)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x[:, 0]) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def post_norm() -> Outcome:
    """A post-norm transformer of 48 layers."""
    started = time.perf_counter()
    x, y, *_ = digits()
    torch.manual_seed(0)
    net = Encoder(48)
    cured = treated(net, "pre-normalisation", (x[:64], y[:64]), nn.CrossEntropyLoss())
    told = [f"{fit(model, 8, 1e-3):.1%}" for model in (net, cured)]
    return Outcome(
        "post-norm transformer, 48 layers", "pre-normalisation", *told, time.perf_counter() - started
    )


class Reader(nn.Module):
    """A recurrent layer that must name, after the last step, the symbol of the first."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.core, self.head = kind(4, 64, batch_first=True), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x)[0][:, -1])


def symbols(size: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One of four symbols at the first step, then nothing; the symbol is the answer."""
    y = torch.randint(0, 4, (size,), generator=generator)
    x = torch.zeros(size, steps, 4)
    x[torch.arange(size), 0, y] = 1.0
    return x, y


def remember(model: nn.Module, steps: int = 1000, updates: int = 1200, rate: float = 3e-3) -> float:
    """Train on symbols shown at the first of `steps` steps; the share named right on fresh ones."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    known = 0  # batches in a row that it was sure of
    for _ in range(updates):
        x, y = symbols(32, steps, generator)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        known = known + 1 if loss.item() < 0.05 else 0
        if known == 20:
            break
    x, y = symbols(200, steps, generator)
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def through_time(
    what: str, kind: type[nn.RNNBase], cure: str, rate: float = 3e-3, updates: int = 1200, **parameters: Any
) -> Outcome:
    """A thousand steps, before and after a cure."""
    from unvanish.probes import record

    started = time.perf_counter()
    torch.manual_seed(0)
    net = Reader(kind)
    batch = symbols(8, 1000, torch.Generator().manual_seed(1))
    cured = treated(net, cure, batch, nn.CrossEntropyLoss(), ("core",), **parameters)
    told = []
    for model in (net, cured):
        trace = record(model, batch, nn.CrossEntropyLoss())
        logs = trace.column("state_log")[trace.where("step")]
        decades = (logs[0] - logs[-1]) / math.log(10)
        right = remember(model, 1000, updates, rate)
        told.append(f"{decades:+.1f} decades over 1,000 steps, {right:.0%} right")
    return Outcome(what, cure, *told, time.perf_counter() - started)


CASES: dict[str, Callable[[], Outcome]] = {
    "tanh-cnn-10000": tanh_cnn_10000,
    "tanh-cnn-1000": tanh_cnn_1000,
    "relu-50": lambda: deep("ReLU net, 50 layers, no skips, no norm", nn.ReLU, "tat", 5e-4),
    "sigmoid-50": lambda: deep("sigmoid net, 50 layers", nn.Sigmoid, "centre-sigmoid", 1e-4),
    "post-norm-48": post_norm,
    "lstm-1000": lambda: through_time("LSTM, 1,000 steps", nn.LSTM, "chrono-bias", steps=1000),
    "rnn-1000": lambda: through_time("tanh RNN, 1,000 steps", nn.RNN, "orthogonal-recurrence", 1e-4, 2000),
}


def main() -> int:
    """Run the cases asked for and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", nargs="*", help=f"of {', '.join(CASES)}; all of them by default")
    record.add_option(parser)
    options = parser.parse_args()
    unknown = [name for name in options.case if name not in CASES]
    if unknown:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    warnings.simplefilter("ignore")
    table, figures = Table("net", "cure", "before", "after", "seconds"), {}
    for name in options.case or CASES:
        found = CASES[name]()
        table.add_row(found.what, found.cure, found.before, found.after, f"{found.seconds:.0f}")
        figures |= {f"{name}: before": found.before, f"{name}: after": found.after}
        figures[f"{name}: seconds"] = found.seconds
        print(found, file=sys.stderr, flush=True)
    Console().print(table)
    record.append("headline", options, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
