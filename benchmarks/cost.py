"""What `unvanish.check` costs: seconds and peak memory against one forward and backward in float32, and
start-up.

Run it with `python -m benchmarks.cost`. Each measurement has its own process; memory is the growth of the
peak resident set over what it was when model and batch were ready. A small model is timed in five processes,
for where its tensors come to lie moves a step of a millisecond by half: the median counts, the worst is
shown. Limits: time 8x, memory 3x; `import unvanish` 0.15 s without torch, `unvanish --help` 0.4 s.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import record
from benchmarks.architectures import Subject
from benchmarks.architectures.convolutional import UNet, resnet

TIME, MEMORY, IMPORT, HELP = 8.0, 3.0, 0.15, 0.4
CE = nn.CrossEntropyLoss()


class Gpt2(nn.Module):
    """GPT-2 small (Radford et al. 2019): 12 pre-norm layers of width 768, tied head, 124 M parameters."""

    def __init__(
        self, layers: int = 12, width: int = 768, vocabulary: int = 50257, context: int = 1024
    ) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        layer = partial(
            nn.TransformerEncoderLayer, width, width // 64, 4 * width, 0.1, F.gelu, norm_first=True
        )
        self.blocks = nn.ModuleList(layer(batch_first=True) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for p in self.parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        for block in self.blocks:
            h = block(h, src_mask=mask, is_causal=True)
        return self.head(self.norm(h)).mT


class Reader(nn.Module):
    """An LSTM read out at every step."""

    def __init__(self, inputs: int = 64, width: int = 256, layers: int = 2) -> None:
        super().__init__()
        self.core, self.head = nn.LSTM(inputs, width, layers, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x)[0].mean(1))


def mlp() -> nn.Module:
    parts = [p for _ in range(12) for p in (nn.Linear(1024, 1024), nn.LayerNorm(1024), nn.ReLU())]
    return nn.Sequential(*parts, nn.Linear(1024, 10))


def narrow() -> nn.Module:
    """Twenty layers of width 64 with He's initialisation."""
    parts = [p for _ in range(20) for p in (nn.Linear(64, 64), nn.ReLU())]
    net = nn.Sequential(*parts, nn.Linear(64, 10))
    for p in net.parameters():
        nn.init.kaiming_normal_(p) if p.ndim > 1 else nn.init.zeros_(p)
    return net


def resnet20() -> nn.Module:
    """Three stages of three basic blocks, 16 to 64 channels (He et al. 2016)."""
    return resnet((3, 3, 3), False, 16)


class Small(nn.Module):
    """Two pre-norm transformer layers of width 64."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 256, 0.1, F.gelu, batch_first=True, norm_first=True)
        self.tokens, self.head = nn.Embedding(100, 64), nn.Linear(64, 100)
        self.core = nn.TransformerEncoder(layer, 2, nn.LayerNorm(64), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(self.tokens(x))).mT


def resnet50() -> nn.Module:
    """The full width, with the stem for 224 x 224."""
    net = resnet((3, 4, 6, 3), True, 64)
    stem = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)
    )
    return nn.Sequential(stem, *list(net)[1:-1], nn.Linear(2048, 1000))  # type: ignore[call-overload]


def labels(*shape: int, classes: int = 10) -> Tensor:
    return torch.randint(0, classes, shape)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "MLP 12 x 1024, batch 256": lambda: Subject(mlp(), (torch.randn(256, 1024), labels(256)), CE),
    "ResNet-50, batch 8, 224 x 224": lambda: Subject(
        resnet50(), (torch.randn(8, 3, 224, 224), labels(8)), CE
    ),
    "GPT-2 small, batch 2, 256 tokens": lambda: Subject(
        Gpt2(), (labels(2, 256, classes=50257), labels(2, 256, classes=50257)), CE
    ),
    "LSTM 2 x 256, batch 32, 100 steps": lambda: Subject(
        Reader(), (torch.randn(32, 100, 64), labels(32)), CE
    ),
    "U-Net, batch 4, 128 x 128": lambda: Subject(
        UNet(width=32), (torch.randn(4, 3, 128, 128), labels(4, 128, 128)), CE
    ),
    "MLP 20 x 64, batch 32": lambda: Subject(narrow(), (torch.randn(32, 64), labels(32)), CE),
    "ResNet-20, batch 8, 16 x 16": lambda: Subject(resnet20(), (torch.randn(8, 3, 16, 16), labels(8)), CE),
    "transformer 2 x 64, batch 8, 32 tokens": lambda: Subject(
        Small(), (labels(8, 32, classes=100), labels(8, 32, classes=100)), CE
    ),
    "LSTM 1 x 64, batch 32, 20 steps": lambda: Subject(
        Reader(32, 64, 1), (torch.randn(32, 20, 32), labels(32)), CE
    ),
}
SLIGHT = 64.0  # MiB: less is the interpreter's, not the model's
BRIEF = 1.0  # seconds: a faster check is timed forty times, in turn with steps
TINY, PROCESSES = 0.05, 5  # seconds; a check that is faster still is timed so in this many processes


def peak() -> float:
    """The largest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def worker(name: str, what: str, repeats: int) -> None:
    """Measure one thing and print it as JSON."""
    warnings.filterwarnings("ignore")
    import unvanish

    examine = unvanish.check  # loads the rules and probes, which are not the model's memory
    torch.manual_seed(0)
    subject = SUBJECTS[name]()
    ready = peak()

    def step() -> Any:
        x, y = subject.batch
        subject.loss(subject.model(x), y).backward()  # type: ignore[misc]
        subject.model.zero_grad(set_to_none=True)

    def check() -> Any:
        return examine(subject.model, subject.batch, subject.loss, confirm=True)

    if what == "both":
        print(json.dumps(by_turns(step, check)))
        return
    act = {"step": step, "check": check}[what]
    found = act()
    grown = peak() - ready
    times = [timed(act) for _ in range(repeats)]
    codes = list(found.codes()) if what == "check" else []
    print(json.dumps({"seconds": statistics.median(times), "mebibytes": grown, "codes": codes}))


def timed(act: Callable[[], Any]) -> float:
    """Seconds it takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def by_turns(step: Callable[[], Any], check: Callable[[], Any]) -> dict[str, float]:
    """Median seconds of both, five steps and a check in turn: a machine's speed drifts."""
    for _ in range(3):
        step(), check()
    rounds = [([timed(step) for _ in range(5)], timed(check)) for _ in range(40)]
    steps = [t for some, _ in rounds for t in some]
    return {"step": statistics.median(steps), "check": statistics.median(t for _, t in rounds)}


def measured(name: str, what: str, repeats: int) -> dict[str, Any]:
    """The worker's answer, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cost", "--worker", name, what, "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def startup(arguments: list[str]) -> float:
    """Median seconds of ten runs of Python with these arguments, less those of an empty run."""

    def once(extra: list[str]) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *extra], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    return statistics.median(once(arguments) for _ in range(10))


def main() -> int:
    """Measure, print, and say whether all limits hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAME", default="")
    parser.add_argument("--repeats", type=int, default=3)
    record.add_option(parser)
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "WHAT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker, options.repeats)
        return 0
    shown = Table(
        "model and batch",
        "step s",
        "check s",
        "time",
        "step MiB",
        "check MiB",
        "memory",
        "found",
        title="Cost of check",
    )
    good, figures = True, {}
    for name in (n for n in SUBJECTS if options.only.lower() in n.lower()):
        a, b = measured(name, "step", options.repeats), measured(name, "check", options.repeats)
        worst = ""
        if b["seconds"] < BRIEF:
            count = PROCESSES if b["seconds"] < TINY else 1
            found = [measured(name, "both", options.repeats) for _ in range(count)]
            found.sort(key=lambda one: one["check"] / one["step"])
            a["seconds"], b["seconds"] = found[count // 2]["step"], found[count // 2]["check"]
            worst = f" (to {found[-1]['check'] / found[-1]['step']:.1f}x)" if count > 1 else ""
        times, memory = b["seconds"] / a["seconds"], b["mebibytes"] / max(a["mebibytes"], 1)
        figures |= {f"{name}: time": times, f"{name}: memory": memory}
        good &= times <= TIME and (memory <= MEMORY or b["mebibytes"] < SLIGHT)
        sizes = (f"{a['mebibytes']:.0f}", f"{b['mebibytes']:.0f}", f"{memory:.1f}x")
        shown.add_row(
            name,
            f"{a['seconds']:.4f}",
            f"{b['seconds']:.4f}",
            f"{times:.1f}x{worst}",
            *sizes,
            ", ".join(b["codes"]) or "healthy",
        )
    console = Console(width=130)
    console.print(shown)
    bare, imported = (
        startup(["-c", ""]),
        startup(["-c", "import unvanish, sys; assert 'torch' not in sys.modules"]),
    )
    helped = startup(["-m", "unvanish", "--help"])
    console.print(
        f"python alone {bare:.3f} s; with import unvanish {imported:.3f} s (limit {IMPORT}); "
        f"unvanish --help {helped:.3f} s (limit {HELP})"
    )
    figures |= {"import unvanish, s": imported - bare, "--help, s": helped - bare}
    record.append("cost", options, figures)
    return not (good and imported < IMPORT and helped < HELP)


if __name__ == "__main__":
    sys.exit(main())
