"""Faults that grow slowly in a small language model: how long before the loss turns the watch foretells them.

Run it with `python -m benchmarks.drift`. A causal transformer (with a mixture of experts, or without) learns
a small language of its own; from a third of the run on one number is driven off by a little a step:
attention logits, the logits of the output, the stream, units of one layer, a router. "Lead": steps from the
first warning that names the fault to the look at which the number passes its limit; and to the step at which
the loss turns (its running mean is a tenth, and 0.1, above its lowest), if it does. A false alarm is any
warning in a run in which nothing is driven.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks import record
from unvanish.clinic.watch import LIVE

FAULTS = {
    "attention": "ATT001",
    "logits": "OUT003",
    "stream": "DEP002",
    "units": "ACT003",
    "router": "MOE001",
}
PASSED = {  # the number that is followed, and where its rule draws the line
    "attention": ("logit_max", 50.0),
    "logits": ("log_z", 30.0 + math.log(32)),
    "stream": ("forward_rms", 1e4),
    "units": ("dead", 0.5),
    "router": ("load_excess", 2.7),
}
VOCABULARY, LENGTH = 32, 16
SMOOTH = 0.9  # of the running mean of the loss is kept


class Experts(nn.Module):
    """Four experts; each token goes to one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 4)
        self.experts = nn.ModuleList([nn.Linear(width, width) for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).max(-1)
        every = torch.stack([torch.relu(expert(x)) for expert in self.experts], -2)  # (B, T, 4, D)
        index = chosen[..., None, None].expand(*chosen.shape, 1, x.shape[-1])
        return every.gather(-2, index).squeeze(-2) * weights[..., None]


class Block(nn.Module):
    """Pre-norm attention and a feed-forward part."""

    def __init__(self, width: int, heads: int, mixture: bool) -> None:
        super().__init__()
        self.heads, self.first, self.second = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide: nn.Module = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )
        if mixture:
            self.wide = Experts(width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(self.first(x)).chunk(3, -1))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.wide(self.second(x))


class Language(nn.Module):
    """Embeddings, blocks, a head; the last normalisation may be left out."""

    def __init__(self, width: int, depth: int, mixture: bool) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, width), nn.Parameter(torch.zeros(LENGTH, width))
        self.blocks = nn.ModuleList(Block(width, 4, mixture) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@dataclass
class Plan:
    """One run: what is driven in it, what was said, and when the loss turned."""

    seed: int
    fault: str | None
    start: int = 0
    told: list[tuple[int, str, str]] = field(default_factory=list)  # (step, code, cause)
    turned: int = -1  # -1: never
    passed: int = -1  # step of the look at which the number was beyond its limit

    @property
    def named(self) -> int:
        """The step at which the fault was named; -1 if it was not."""
        wanted = FAULTS.get(self.fault or "")
        return next((s for s, code, _ in self.told if code == wanted and s >= self.start), -1)


def draw_text(generator: torch.Generator, table: Tensor, size: int) -> Tensor:
    """Sentences in which a word depends on the last one and on the third last, (size, LENGTH + 1)."""
    words = [torch.randint(0, VOCABULARY, (size,), generator=generator) for _ in range(3)]
    for _ in range(LENGTH - 2):
        odds = (table[0][words[-1]] + table[1][words[-3]]).softmax(-1)
        words.append(torch.multinomial(odds, 1, generator=generator)[:, 0])
    return torch.stack(words, 1)


@torch.no_grad()
def drive(net: Language, fault: str, rng: random.Random, speed: float) -> None:
    """What is added at each step: `speed` in nats, or in units of a bias."""
    block: Any = net.blocks[0]
    if fault == "attention":
        block.qkv.weight[: 2 * block.qkv.weight.shape[1]] *= math.exp(speed)
    elif fault == "logits":
        net.head.bias += 60 * speed
    elif fault == "stream":
        block.wide[2].weight *= math.exp(12 * speed)
    elif fault == "units":
        layer = block.wide[0]
        if rng.random() < 20 * speed:
            layer.bias[int(rng.random() * len(layer.bias))] -= 100.0
    elif fault == "router":
        block.wide.gate.bias[0] += 6 * speed


def run(job: tuple[int, str | None, int]) -> Plan:
    """Train one model under watch; what was said and when."""
    import unvanish

    seed, fault, steps = job
    torch.set_num_threads(1)
    rng = random.Random(seed)
    torch.manual_seed(seed)
    plan = Plan(seed, fault, start=steps // 3)
    mixture = fault == "router" or (fault in (None, "attention", "logits") and rng.random() < 0.3)
    net = Language(rng.choice([16, 32]), rng.choice([1, 2]), mixture)
    generator = torch.Generator().manual_seed(seed)
    table = 2.5 * torch.randn(2, VOCABULARY, VOCABULARY, generator=generator)
    kind = rng.choice([torch.optim.Adam, torch.optim.AdamW])
    rate = 10 ** rng.uniform(-3.2, -2.3)
    optimizer = kind(net.parameters(), rate)
    speed = rng.choice([0.005, 0.01, 0.02])
    mean = lowest = math.nan

    def said(finding: Any) -> None:
        if finding.severity != "note":
            plan.told.append((watch.steps, finding.code, finding.cause))

    with unvanish.watch(net, optimizer, every=5, on_finding=said) as watch:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 20)
            if fault is not None and step >= plan.start:
                drive(net, fault, rng, speed)
            text = draw_text(generator, table, 8)
            logits = net(text[:, :-1]).flatten(0, 1)
            if fault == "logits":  # in float32 no offset of all of them does any harm
                logits = logits.bfloat16().float()
            loss = nn.functional.cross_entropy(logits, text[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
            mean = loss.item() if math.isnan(mean) else SMOOTH * mean + (1 - SMOOTH) * loss.item()
            lowest = mean if math.isnan(lowest) else min(lowest, mean)
            if plan.turned < 0 and not mean <= 1.1 * lowest + 0.1:
                plan.turned = step
    if fault is not None:
        plan.passed = find_passing(watch.history, *PASSED[fault])
    return plan


def find_passing(history: Any, statistic: str, limit: float) -> int:
    """The step of the first look at which a number of any site is beyond its limit; -1 without one."""
    column = LIVE.index(statistic)
    for step, values in zip(history.look_steps, history.looks, strict=True):
        if (values[:, column] > limit).any():
            return int(step)
    return -1


def spread(leads: list[int]) -> str:
    """The least, the middle one and the largest."""
    return f"{leads[0]}, {leads[len(leads) // 2]}, {leads[-1]}" if leads else "-"


def show(plans: list[Plan], console: Console) -> dict[str, float]:
    """Print the leads by fault and the false alarms; the figures for the record."""
    heads = (
        "fault",
        "rule",
        "runs",
        "named",
        "beyond its limit",
        "named before",
        "lead",
        "loss turned",
        "lead",
    )
    table = Table(*heads)
    sick, healthy = [p for p in plans if p.fault], [p for p in plans if not p.fault]
    for fault, code in FAULTS.items():
        own = [p for p in sick if p.fault == fault]
        named, passed = sum(p.named >= 0 for p in own), sum(p.passed >= 0 for p in own)
        leads = sorted(p.passed - p.named for p in own if 0 <= p.named < p.passed)
        turned = sorted(p.turned - p.named for p in own if p.turned >= 0 and p.named >= 0)
        numbers = (len(own), named, passed, len(leads), spread(leads))
        table.add_row(fault, code, *map(str, (*numbers, sum(p.turned >= 0 for p in own), spread(turned))))
    console.print(table)
    alarms = [p for p in healthy if p.told]
    codes = Counter(code for p in alarms for _, code, _ in p.told)
    console.print(f"healthy runs with a false alarm: {len(alarms)} of {len(healthy)} {dict(codes)}")
    before = sum(any(s < p.start for s, _, _ in p.told) for p in sick)
    console.print(f"sick runs with a warning before the drift began: {before} of {len(sick)}")
    return {
        "named": sum(p.named >= 0 for p in sick) / max(1, len(sick)),
        "false alarms": len(alarms) / max(1, len(healthy)),
        "healthy runs": len(healthy),
    }


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sick", type=int, default=50)
    parser.add_argument("--healthy", type=int, default=50)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="What was said in each run.")
    record.add_option(parser)
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1")
    kinds = list(FAULTS)
    jobs: list[tuple[int, str | None, int]] = [
        (options.seed + i, kinds[i % len(kinds)], options.steps) for i in range(options.sick)
    ]
    jobs += [(options.seed + 500_000 + i, None, options.steps) for i in range(options.healthy)]
    console = Console(width=150)
    plans: list[Plan] = []
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for plan in pool.imap(run, jobs):
            plans.append(plan)
            if options.show:
                told = (
                    plan.seed,
                    plan.fault,
                    plan.start,
                    "passed",
                    plan.passed,
                    "turned",
                    plan.turned,
                    plan.told,
                )
                console.print(*told, markup=False, highlight=False)
    record.append("drift", options, show(plans, console))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
