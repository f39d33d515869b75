"""Whether a watched training names a fault, sudden or slow, and leaves healthy ones alone.

Run it with `python -m benchmarks.vigil`. Random networks (MLP, CNN, ResNet, transformer, LSTM),
optimizers, schedules and precisions train on a random teacher; in the sick runs something happens half-way.
"Named": the fault's code is among what the watch says within 20 looks of it. A false alarm is any warning in
a healthy run. Small language models follow (`drift`): some with a number that is driven off by a little at
each step, for the lead before the loss turns, and healthy ones of many designs, for false alarms.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from benchmarks import drift, record

FAULTS = {"dies": "ACT003", "rate": "OPT001", "nan": "NUM001", "underflow": "PRC001", "logits": "ATT001"}
SPLITS = {"dev": 0, "test": 1_000_000, "fresh": 2_000_000}
LOOKS = 20  # within which a fault must be named


class Conv(nn.Module):
    """Convolution, perhaps BatchNorm, ReLU, perhaps a skip."""

    def __init__(self, width: int, norm: bool, skip: bool) -> None:
        super().__init__()
        self.layer, self.skip = nn.Conv2d(width, width, 3, padding=1), skip
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.norm(self.layer(x)))
        return x + out if self.skip else out


class Attention(nn.Module):
    """Transformer layers over eight tokens, mean, head."""

    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(8, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x.reshape(len(x), 8, 8))
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class Rows(nn.Module):
    """An LSTM over eight steps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.core, self.head = nn.LSTM(8, width, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x.reshape(len(x), 8, 8))[0][:, -1])


def he(net: nn.Module) -> nn.Module:
    """He's initialisation of layers before a ReLU."""
    for m in net.modules():
        if isinstance(m, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
    return net


@dataclass
class Plan:
    """One run: how it is made, and what happens in it."""

    seed: int
    fault: str | None
    family: str = ""
    told: list[tuple[int, str, str]] = field(default_factory=list)  # (look, code, cause)


def draw(rng: random.Random, fault: str | None) -> tuple[str, nn.Module]:
    """A family and a network of it that suits the fault."""
    families = {
        "dies": ["mlp", "cnn", "resnet"],
        "logits": ["transformer"],
        "underflow": ["mlp", "transformer"],  # convolutions in float16 take minutes on a CPU
    }.get(fault or "", ["mlp", "cnn", "resnet", "transformer", "lstm"])
    family, width = rng.choice(families), rng.choice([16, 32, 64])
    if family == "mlp":
        kinds = [nn.ReLU] if fault == "dies" else [nn.ReLU, nn.GELU, nn.Tanh, nn.LeakyReLU]
        kind, layers, fan = rng.choice(kinds), [], 64
        for _ in range(rng.randint(2, 6)):
            layers += [nn.Linear(fan, width), kind()]
            layers += [nn.Dropout(0.1)] if rng.random() < 0.3 and fault is None else []
            fan = width
        return family, he(nn.Sequential(*layers, nn.Linear(width, 10)))
    if family in ("cnn", "resnet"):
        width = min(width, 32)
        norm = family == "resnet" or rng.random() < 0.7
        blocks = [Conv(width, norm, family == "resnet") for _ in range(rng.randint(2, 5))]
        body = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), *blocks]
        return family, he(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)))
    if family == "transformer":
        return family, Attention(max(width, 16), rng.randint(1, 4), rng.choice([0.0, 0.1]))
    return family, Rows(width)


def rates(rng: random.Random, steps: int) -> Callable[[int], float]:
    """A schedule: the factor on the learning rate at each step."""
    kind = rng.choice(["constant", "cosine", "warm-up", "decay", "restarts"])
    return {
        "constant": lambda s: 1.0,
        "cosine": lambda s: 0.5 * (1 + math.cos(math.pi * s / steps)),
        "warm-up": lambda s: min(1.0, (s + 1) / 40),
        "decay": lambda s: 0.1 if s > 0.6 * steps else 1.0,
        "restarts": lambda s: 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (s % 60) / 60)),
    }[kind]


def run(job: tuple[int, str | None, int]) -> Plan:
    """Train one network under watch, on the CPU; what was said, by looks since the fault."""
    import unvanish

    seed, fault, steps = job
    rng = random.Random(seed)
    torch.manual_seed(seed)
    plan = Plan(seed, fault)
    plan.family, net = draw(rng, fault)
    teacher = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    x = torch.randn(2048, 64)
    with torch.no_grad():
        y = (4 * teacher(x) + 0.3 * torch.randn(2048, 10)).argmax(1)
    size = rng.choice([32, 64, 128])
    base = {"adam": 2e-3, "adamw": 1e-3, "sgd": 0.03}
    kind = rng.choice(list(base))
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[kind]
    more = {"momentum": 0.9} if kind == "sgd" else {}
    optimizer = make(net.parameters(), base[kind], **more)
    schedule = rates(rng, steps) if fault is None else rates(random.Random(0), 10**9)
    clip = rng.choice([None, None, 1.0, 5.0])
    half = fault == "underflow" or (
        fault is None and plan.family in ("mlp", "transformer") and rng.random() < 0.25
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12) if half else None
    at = steps // 2
    every = rng.choice([1, 2, 5])

    def said(finding: Any) -> None:
        since = (watch.steps - at) // every if fault else watch.steps
        plan.told.append((since, finding.code if finding.severity != "note" else "note", finding.cause))

    with unvanish.watch(net, optimizer, every=every, on_finding=said, scaler=scaler) as watch:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = base[kind] * schedule(step) * (10 if fault == "rate" and step >= at else 1)
            chosen = torch.randint(0, len(x), (size,))
            inputs = x[chosen]
            if fault == "nan" and step == at:
                inputs = inputs.clone()
                inputs[0, 0] = math.nan
            disturb(net, fault, step - at, rng)
            with torch.autocast("cpu", torch.float16, enabled=half):
                out = net(inputs)
            loss = nn.functional.cross_entropy(out.float(), y[chosen])
            if fault == "underflow" and step >= at:
                loss = loss * 1e-9
            optimizer.zero_grad()
            (scaler.scale(loss) if scaler else loss).backward()
            if scaler:
                scaler.unscale_(optimizer)
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
            if scaler:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
            watch.step(loss)
    return plan


@torch.no_grad()
def disturb(net: nn.Module, fault: str | None, since: int, rng: random.Random) -> None:
    """What happens to the weights at, or from, the fault's step."""
    if fault == "dies" and since == 0:
        layers = [m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][:-1]
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        chosen = rng.choice(norms or layers)
        assert chosen.bias is not None
        chosen.bias -= 100.0
    if fault == "logits" and since >= 0:
        for m in net.modules():
            if isinstance(m, nn.MultiheadAttention):
                assert m.in_proj_weight is not None
                m.in_proj_weight[: 2 * m.embed_dim] *= 1.15


def named(plan: Plan) -> bool:
    """Whether the fault was named in time."""
    return any(code == FAULTS[plan.fault or ""] and 0 <= since <= LOOKS for since, code, _ in plan.told)


def show_sudden(plans: list[Plan], show_failures: bool, console: Console) -> dict[str, float]:
    """Print what was named in time, and the false alarms; the figures for the record."""
    sick, healthy = [p for p in plans if p.fault], [p for p in plans if not p.fault]
    table = Table(
        "fault", "rule", "runs", "named in 20 looks", "median looks", title=f"{len(sick)} sick runs"
    )
    for kind in FAULTS:
        own = [p for p in sick if p.fault == kind]
        hits = [p for p in own if named(p)]
        after = sorted(s for p in hits for s, c, _ in p.told[:99] if c == FAULTS[kind])
        middle = str(after[len(after) // 2]) if after else "-"
        table.add_row(kind, FAULTS[kind], str(len(own)), f"{len(hits)}", middle)
    good = sum(map(named, sick))
    early = sum(any(c != "note" and s < 0 for s, c, _ in p.told) for p in sick)
    alarms = [p for p in healthy if any(c != "note" for _, c, _ in p.told)]
    if sick:
        console.print(table)
        console.print(
            f"named: {good} of {len(sick)} ({100 * good / len(sick):.1f} %); before the fault: {early}"
        )
    codes = Counter(c for p in alarms for _, c, _ in p.told if c != "note")
    console.print(f"healthy runs with a false alarm: {len(alarms)} of {len(healthy)} {dict(codes)}")
    for p in plans if show_failures else ():
        if (p.fault and (not named(p) or any(s < 0 for s, _, _ in p.told))) or p in alarms:
            console.print(p.seed, p.fault or "healthy", p.family, p.told, markup=False, highlight=False)
    figures = {"named": good / max(1, len(sick)), "false alarms": len(alarms) / max(1, len(healthy))}
    return {**figures, "sick runs": len(sick), "healthy runs": len(healthy)}


def read_options() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", choices=SPLITS, default="dev")
    parser.add_argument("--sick", type=int, default=100, help="Runs with a sudden fault.")
    parser.add_argument("--healthy", type=int, default=100, help="Their healthy twins.")
    parser.add_argument("--slow", type=int, default=25, help="Language models with a fault that grows.")
    parser.add_argument("--steady", type=int, default=50, help="Healthy language models.")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--slow-steps", type=int, default=900, help="At most.")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--show-failures", action="store_true")
    record.add_option(parser)
    return parser.parse_args()


def main() -> int:
    """Run and print."""
    options = read_options()
    os.environ.update(OMP_NUM_THREADS="1")
    base, kinds, slow = SPLITS[options.split], list(FAULTS), list(drift.FAULTS)
    jobs: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (run, (base + i, kinds[i % len(kinds)], options.steps)) for i in range(options.sick)
    ]
    jobs += [(run, (base + 500_000 + i, None, options.steps)) for i in range(options.healthy)]
    jobs += [
        (drift.run_slow, (base + i, slow[i % len(slow)], options.slow_steps)) for i in range(options.slow)
    ]
    jobs += [(drift.run_steady, (base + 700_000 + i, options.steps)) for i in range(options.steady)]
    jobs = [j for j in jobs if not options.seed or j[1][0] in options.seed]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        show = Console(stderr=True)
        plans = list(track(pool.imap(call, jobs), "training", total=len(jobs), console=show))
    console, figures = Console(width=150), dict[str, float]()
    parts = {work: [p for p, (made_by, _) in zip(plans, jobs, strict=True) if made_by is work]
             for work in (run, drift.run_slow, drift.run_steady)}  # fmt: skip
    if parts[run]:
        figures |= show_sudden(parts[run], options.show_failures, console)
    if parts[drift.run_slow]:
        figures |= drift.show_slow(parts[drift.run_slow], console)
        for p in parts[drift.run_slow] if options.show_failures else ():
            console.print(p.seed, p.fault, p.steps, p.passed, p.turned, p.told, markup=False, highlight=False)
    if parts[drift.run_steady]:
        figures |= drift.show_steady(parts[drift.run_steady], console)
    record.append("vigil", options, figures)
    return 0


def call(job: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
    """One run."""
    return job[0](job[1])


if __name__ == "__main__":
    raise SystemExit(main())
