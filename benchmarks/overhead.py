"""What watching costs: paired runs of the same training, with and without; and what others cost.

Run it with `python -m benchmarks.overhead`. Every variant and the plain loop train from equal seeds, one
step of each in turn, so that a machine whose speed drifts favours none. "wandb.watch's way" is
its published behaviour reimplemented: a histogram (64 bins) of every gradient by a tensor hook, every 100th
step, offline; "norms" is `.norm().item()` of every parameter at every step; "backward hooks" are full
backward hooks on all modules with mean, deviation and largest value at every step (they cannot stand an
in-place activation, so there is none).
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks import record

WARM = 20  # rounds that do not count


class Block(nn.Module):
    """Two 3 x 3 convolutions and a skip."""

    def __init__(self, c: int, out: int, stride: int) -> None:
        super().__init__()
        self.a, self.n = nn.Conv2d(c, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.b, self.m = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.skip = nn.Identity() if c == out else nn.Conv2d(c, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(x) + self.m(self.b(torch.relu(self.n(self.a(x))))))


class Reader(nn.Module):
    """Embedding, two LSTM layers, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.core = nn.Embedding(1000, 128), nn.LSTM(128, 256, 2, batch_first=True)
        self.head = nn.Linear(256, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(self.embed(x))[0][:, -1])


class Transformer(nn.Module):
    """Six pre-norm layers of width 256."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, 256)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(256, 4, 1024, 0.1, "gelu", batch_first=True, norm_first=True)
            for _ in range(6)
        )
        self.head = nn.Linear(256, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x).flatten(0, 1)


def resnet() -> tuple[nn.Module, Tensor, Tensor]:
    """ResNet-20 in its CIFAR form, batch 64."""
    blocks = [
        Block(a, b, s)
        for a, b, s in [(16, 16, 1)] * 3
        + [(16, 32, 2)]
        + [(32, 32, 1)] * 2
        + [(32, 64, 2)]
        + [(64, 64, 1)] * 2
    ]
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return net, torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))


def transformer() -> tuple[nn.Module, Tensor, Tensor]:
    """A language model, batch 8 of 64 tokens."""
    return Transformer(), torch.randint(0, 1000, (8, 64)), torch.randint(0, 1000, (512,))


def lstm() -> tuple[nn.Module, Tensor, Tensor]:
    """A classifier of sequences, batch 32 of 100 steps."""
    return Reader(), torch.randint(0, 1000, (32, 100)), torch.randint(0, 4, (32,))


NETS: dict[str, Callable[[], tuple[nn.Module, Tensor, Tensor]]] = {
    "ResNet-20": resnet,
    "transformer, 6 layers": transformer,
    "LSTM 2 x 256": lstm,
}


class Loop:
    """One training, a block of steps at a time."""

    def __init__(self, net: str, variant: str, device: str) -> None:
        torch.manual_seed(0)
        model, x, y = NETS[net]()
        self.model, self.x, self.y = model.to(device), x.to(device), y.to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4)
        self.device, self.count = device, 0
        self.after: Callable[[], None] = lambda: None
        self.watch: Any = None
        VARIANTS[variant](self)

    def block(self, steps: int) -> float:
        """Seconds of `steps` steps."""
        self._wait()
        started = time.perf_counter()
        if self.watch is not None:
            self.watch.clock.last = started  # what other variants did meanwhile is no time of this run
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(self.x), self.y)
            loss.backward()
            self.after()
            self.optimizer.step()
            if self.watch is not None:
                self.watch.step(loss)
            self.count += 1
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def plain(loop: Loop) -> None:
    """Nothing."""


def watched(every: int | None) -> Callable[[Loop], None]:
    """Our watch, into a folder."""

    def start(loop: Loop) -> None:
        import unvanish

        loop.watch = unvanish.watch(
            loop.model, loop.optimizer, run=tempfile.mkdtemp(), every=every, on_finding="silent"
        )

    return start


def histograms(loop: Loop) -> None:
    """A histogram of every gradient each 100 steps, by tensor hooks that are always there."""

    def hook(gradient: Tensor) -> None:
        if loop.count % 100:
            return
        flat = gradient.detach().flatten()
        flat = flat[torch.isfinite(flat)]
        low, high = flat.min(), flat.max()
        torch.histc(flat, bins=64, min=low.item(), max=high.item()).cpu().tolist()

    for p in loop.model.parameters():
        p.register_hook(hook)


def norms(loop: Loop) -> None:
    """`.norm().item()` of every gradient at every step."""

    def after() -> None:
        for p in loop.model.parameters():
            if p.grad is not None:
                p.grad.norm().item()

    loop.after = after


def backward_hooks(loop: Loop) -> None:
    """Full backward hooks with statistics at every step."""

    def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
        for g in outputs:
            if isinstance(g, Tensor):
                g.mean().item(), g.std().item(), g.abs().max().item()

    for module in loop.model.modules():
        if not any(module.children()) and not getattr(module, "inplace", False):
            module.register_full_backward_hook(hook)


VARIANTS: dict[str, Callable[[Loop], None]] = {
    "plain": plain,
    "unvanish, budget 1 %": watched(None),
    "unvanish, every 10th step": watched(10),
    "wandb.watch's way, each 100": histograms,
    ".norm().item(), each step": norms,
    "backward hooks, each step": backward_hooks,
}


def compare(net: str, device: str, rounds: int, variants: list[str]) -> dict[str, float]:
    """Each variant's time over the plain one's, less one.

    Every round makes one step of each, in another order. Steps that took more than twice the median (the
    machine was elsewhere) count as twice the median; the mean is taken, because looks are few and long.
    Beside it stands the standard error of the paired differences.
    """
    loops = {name: Loop(net, name, device) for name in variants}
    names = list(loops)
    times: dict[str, list[float]] = {name: [] for name in names}
    for k in range(rounds + WARM):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            taken = loops[name].block(1)
            if k >= WARM:
                times[name].append(taken)
    usual = statistics.median(times["plain"])
    means = {name: statistics.fmean(min(t, 2 * usual) for t in values) for name, values in times.items()}
    found = {name: means[name] / means["plain"] - 1 for name in names}
    for name in names:
        pairs = zip(times[name], times["plain"], strict=True)
        apart = [min(a, 2 * usual) - min(b, 2 * usual) for a, b in pairs]
        found[f"{name} (error)"] = statistics.stdev(apart) / len(apart) ** 0.5 / means["plain"]
    found["step"] = usual
    for name, loop in loops.items():
        if loop.watch is not None:
            found[f"{name} (its own clock)"] = loop.watch.overhead
            found[f"{name} (looks)"] = loop.watch.pace.looks
            loop.watch.close()
    return found


def memory(net: str, variant: str) -> None:
    """Train in this process; print its peak memory and the peak of torch's own allocations, in MB.

    24 steps for the first, 12 more for the second, which the profiler's memory events tell: what was
    allocated when it began is the model, its gradients, the optimizer's state and the batch.
    """
    import unvanish

    assert unvanish.watch  # what it imports is code, not memory that a watch needs
    loop = Loop(net, variant, "cpu")
    loop.block(24)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    held = sum(4 * p.numel() for p in loop.model.parameters()) * 4 / 2**20  # and gradients, two moments
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(profile_memory=True, activities=cpu) as seen:
        loop.block(12)
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = most = 0
    for e in sorted(events, key=lambda e: e.start_ns()):
        total += e.nbytes()
        most = max(most, total)
    print(resident, held + most / 2**20)


def peak(net: str, variant: str) -> tuple[float, float]:
    """Both peaks of a fresh process, MB; the smallest of three."""
    command = [sys.executable, "-m", "benchmarks.overhead", "--memory", net, variant]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)]
    pairs = [[float(v) for v in r.split()[-2:]] for r in runs]
    return min(p[0] for p in pairs), min(p[1] for p in pairs)


def growth(before: tuple[float, float], after: tuple[float, float]) -> str:
    """Both peaks in words."""
    pairs = zip(before, after, strict=True)
    return "; ".join(f"{a:.0f} to {b:.0f} MB ({100 * (b / a - 1):+.1f} %)" for a, b in pairs)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--net", action="append", choices=list(NETS))
    parser.add_argument("--variant", action="append", choices=[v for v in VARIANTS if v != "plain"])
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--only-memory", action="store_true")
    parser.add_argument("--memory", nargs=2, metavar=("NET", "VARIANT"))
    record.add_option(parser)
    options = parser.parse_args()
    if options.memory:
        memory(*options.memory)
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    if options.only_memory:
        for net in options.net or NETS:
            print(net, growth(peak(net, "plain"), peak(net, "unvanish, every 10th step")), flush=True)
        return 0
    variants = options.variant or [n for n in VARIANTS if n != "plain"]
    table = Table("network", "step", *variants, "own clock", "peak memory: process; torch")
    figures: dict[str, record.Figure] = {}
    for net in options.net or NETS:
        found = compare(net, options.device, options.rounds, ["plain", *variants])
        figures |= {f"{net}: {name}": value for name, value in found.items()}
        cells = [f"{1000 * found['step']:.0f} ms"]
        cells += [f"{100 * found[n]:+.2f} ± {100 * found[f'{n} (error)']:.2f} %" for n in variants]
        told = [n for n in variants if f"{n} (looks)" in found]
        clocks = [(100 * found[f"{n} (its own clock)"], found[f"{n} (looks)"]) for n in told]
        cells.append("; ".join(f"{share:.2f} %, {looks:.0f} looks" for share, looks in clocks))
        more = "-"
        if not options.no_memory and options.device == "cpu":
            more = growth(peak(net, "plain"), peak(net, "unvanish, every 10th step"))
        table.add_row(net, *cells, more)
        print(net, cells, more, file=sys.stderr, flush=True)
    Console(width=170).print(table)
    record.append("overhead", options, figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
