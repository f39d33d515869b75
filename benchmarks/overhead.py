"""What watching costs: paired runs of the same training, with and without; and what others cost.

Run it with `python -m benchmarks.overhead`. Every variant and the plain loop train from equal seeds, each in
a process of its own, as a watch hears of every backward of its process; a block of steps of each in turn, in
an order that turns too, so that a machine whose speed drifts favours none. On the CPU a process's own seconds
count (all of its threads), not those in which others had the machine. A figure is the median of the pairs
and, with looks, the total of all blocks; two processes differ by where their memory lies, so there are
several sets of them, and "plain, again" says what is chance. The first look (`--first`) is the first step of
fresh trainings, beside a `check`. "wandb.watch's way" is
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

WARM = 300  # steps that do not count, or those of this many seconds
WARM_SECONDS = 4.0
BLOCK = 0.05  # seconds of a block of steps, about
SETS = 3  # of processes


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


def mlp(layers: int, width: int, batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A plain net, whose linear layers have two tensors each."""
    parts = [part for _ in range(layers - 1) for part in (nn.Linear(width, width), nn.Tanh())]
    return (
        nn.Sequential(*parts, nn.Linear(width, 4)),
        torch.randn(batch, width),
        torch.randint(0, 4, (batch,)),
    )


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
    "MLP, 6 tensors": lambda: mlp(3, 32, 64),
    "MLP, 50 tensors": lambda: mlp(25, 32, 64),
    "MLP, 16 tensors, wide": lambda: mlp(8, 192, 128),
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
        started = self._read_clock()
        if self.watch is not None:
            self.watch.clock.last = time.perf_counter()  # what others did meanwhile is no time of this run
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
        return self._read_clock() - started

    def _read_clock(self) -> float:
        return time.process_time() if self.device == "cpu" else time.perf_counter()

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
    "plain, again": plain,  # what chance does
    "unvanish, budget 1 %": watched(None),
    "unvanish, every 10th step": watched(10),
    "wandb.watch's way, each 100": histograms,
    ".norm().item(), each step": norms,
    "backward hooks, each step": backward_hooks,
}


class Trainee:
    """A training in a process of its own, which makes a block of steps when it is told to."""

    def __init__(self, net: str, variant: str, device: str) -> None:
        command = [sys.executable, "-m", "benchmarks.overhead", "--device", device, "--train", net, variant]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def block(self, steps: int) -> float:
        """Seconds of so many steps."""
        return float(self._ask(str(steps)))

    def close(self) -> list[float]:
        """End it; of a watch its overhead by its own clock, and its looks."""
        told = [float(word) for word in self._ask("end").split()]
        self.process.wait()
        return told

    def _ask(self, text: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()


def train(net: str, variant: str, device: str) -> None:
    """Make blocks of steps as standard input asks for them."""
    loop = Loop(net, variant, device)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        print(loop.block(int(line)), flush=True)
    if loop.watch is None:
        print("", flush=True)
        return
    assert loop.watch.steps == loop.count and not loop.watch.failure, loop.watch.failure
    print(loop.watch.overhead, loop.watch.pace.looks, flush=True)
    loop.watch.close()


def compare(net: str, device: str, rounds: int, variants: list[str]) -> dict[str, float]:
    """Each variant's time over the plain one's, less one: the median of the pairs, and the total.

    Beside the median stands its error, from the middle half of the pairs.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    found: dict[str, float] = {}
    for _ in range(SETS):
        loops = {name: Trainee(net, name, device) for name in variants}
        loops["plain"].block(3)
        usual = loops["plain"].block(5) / 5
        steps = max(1, round(BLOCK / usual))
        for loop in loops.values():
            loop.block(max(steps, min(WARM, round(WARM_SECONDS / usual))))
        for k in range(rounds // SETS):
            for name in variants[k % len(variants) :] + variants[: k % len(variants)]:
                times[name].append(loops[name].block(steps) / steps)
        for name, loop in loops.items():
            if told := loop.close():
                found[f"{name} (its own clock)"], found[f"{name} (looks)"] = told
    found["step"] = statistics.median(times["plain"])
    for name in variants:
        pairs = list(zip(times[name], times["plain"], strict=True))
        low, found[name], high = statistics.quantiles([a / b - 1 for a, b in pairs], n=4)
        found[f"{name} (error)"] = 0.93 * (high - low) / len(pairs) ** 0.5  # of a median, if normal
        found[f"{name} (total)"] = sum(times[name]) / sum(times["plain"]) - 1
        found[f"{name} (us)"] = 1e6 * statistics.median(a - b for a, b in pairs)
    return found


def compare_first(net: str, device: str, rounds: int) -> dict[str, float]:
    """Seconds of a first step, of one under watch beyond it, and of a `check`; medians of fresh ones."""
    import unvanish

    found: dict[str, list[float]] = {"plain": [], "watch": [], "check": []}
    for _ in range(rounds + 1):  # the first one pays for imports
        loops = [Loop(net, variant, device) for variant in ("plain", "unvanish, budget 1 %")]
        took = [loop.block(1) for loop in loops]
        loops[1].watch.close()
        fresh = Loop(net, "plain", device)
        started = time.process_time() if device == "cpu" else time.perf_counter()
        unvanish.check(fresh.model, (fresh.x, fresh.y), nn.CrossEntropyLoss(), optimizer=fresh.optimizer)
        ended = time.process_time() if device == "cpu" else time.perf_counter()
        for name, value in zip(found, (took[0], took[1] - took[0], ended - started), strict=True):
            found[name].append(value)
    return {name: statistics.median(values[1:]) for name, values in found.items()}


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
    parser.add_argument("--first", action="store_true", help="only the first look, beside a check")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--only-memory", action="store_true")
    parser.add_argument("--memory", nargs=2, metavar=("NET", "VARIANT"))
    parser.add_argument("--train", nargs=2, metavar=("NET", "VARIANT"))
    record.add_option(parser)
    options = parser.parse_args()
    if options.train:
        train(*options.train, options.device)
        return 0
    if options.memory:
        memory(*options.memory)
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    if options.only_memory:
        for net in options.net or NETS:
            print(net, growth(peak(net, "plain"), peak(net, "unvanish, every 10th step")), flush=True)
        return 0
    if options.first:
        for net in options.net or NETS:
            first = compare_first(net, options.device, min(options.rounds, 15))
            cells = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in first.items())
            print(f"{net}: first step {cells}", flush=True)
        return 0
    variants = options.variant or [n for n in VARIANTS if n != "plain"]
    table = Table("network", "step", *variants, "own clock", "peak memory: process; torch")
    figures: dict[str, record.Figure] = {}
    for net in options.net or NETS:
        found = compare(net, options.device, options.rounds, ["plain", *variants])
        figures |= {f"{net}: {name}": value for name, value in found.items()}
        cells = [f"{1000 * found['step']:.2f} ms"]
        cells += [
            f"{100 * found[n]:+.2f} ± {100 * found[f'{n} (error)']:.2f} %, total "
            f"{100 * found[f'{n} (total)']:+.2f} %, {found[f'{n} (us)']:+.0f} us"
            for n in variants
        ]
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
