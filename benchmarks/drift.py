"""Faults that grow slowly in a small language model, and healthy models of many designs; `vigil` runs both.

Notable: from step `START` on one number is driven off by a little a step: attention logits, the logits of the
output, the stream, units of one layer, a router. The run goes on until the loss turns (its running mean is a
tenth, and 0.1, above its lowest). "Lead": steps from the first warning that names the fault to the look at
which the number passes its rule's limit, and to the step at which the loss turns.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.language import (
    OPTIMIZERS,
    VOCABULARY,
    Design,
    Language,
    Text,
    draw_design,
    draw_schedule,
)
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
    "logits": ("log_z", 30.0 + math.log(VOCABULARY)),
    "stream": ("forward_rms", 1e4),
    "units": ("dead", 0.5),
    "router": ("load_excess", 2.7),
}
SMOOTH = 0.9  # of the running mean of the loss is kept
START = 100  # step from which a number is driven
LATER = 300  # steps that are made when the number is beyond its limit and named, and the loss has not turned
EVERY = 5  # steps from look to look of a run that is driven


@dataclass
class Plan:
    """One run: what is driven in it, what was said, and when the loss turned."""

    seed: int
    fault: str | None
    what: str = ""  # the design, in words
    told: list[tuple[int, str, str]] = field(default_factory=list)  # (step, code, cause)
    notes: list[str] = field(default_factory=list)  # codes
    turned: int = -1  # -1: never
    passed: int = -1  # step of the look at which the number was beyond its limit
    steps: int = 0
    losses: tuple[float, float] = (math.nan, math.nan)  # at first, at last

    @property
    def named(self) -> int:
        """The step at which the fault was named; -1 if it was not."""
        wanted = FAULTS.get(self.fault or "")
        return next((s for s, code, _ in self.told if code == wanted and s >= START), -1)


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


class Turning:
    """Whether a loss has turned: its running mean is above its lowest."""

    def __init__(self) -> None:
        self.mean = self.lowest = math.nan

    def note(self, loss: float) -> bool:
        """One more loss."""
        self.mean = loss if math.isnan(self.mean) else SMOOTH * self.mean + (1 - SMOOTH) * loss
        self.lowest = self.mean if math.isnan(self.lowest) else min(self.lowest, self.mean)
        return not self.mean <= 1.1 * self.lowest + 0.1


def run_slow(job: tuple[int, str, int]) -> Plan:
    """Train one model under watch while a number is driven off; what was said and when."""
    import unvanish

    seed, fault, steps = job
    torch.set_num_threads(1)
    rng = random.Random(seed)
    torch.manual_seed(seed)
    plan, turning = Plan(seed, fault), Turning()
    mixture = fault == "router" or (fault in ("attention", "logits") and rng.random() < 0.3)
    net = Language(Design(rng.choice([16, 32]), rng.choice([1, 2]), mixture=mixture))
    text = Text(seed)
    kind = rng.choice([torch.optim.Adam, torch.optim.AdamW])
    rate = 10 ** rng.uniform(-3.2, -2.3)
    optimizer = kind(net.parameters(), rate)
    speed = rng.choice([0.005, 0.01, 0.02])

    def said(finding: Any) -> None:
        if finding.severity != "note":
            plan.told.append((watch.steps, finding.code, finding.cause))

    with unvanish.watch(net, optimizer, every=EVERY, on_finding=said) as watch:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 20)
            if step >= START:
                drive(net, fault, rng, speed)
            words = text.draw(8)
            logits = net(words[:, :-1]).flatten(0, 1)
            if fault == "logits":  # in float32 no offset of all of them does any harm
                logits = logits.bfloat16().float()
            loss = nn.functional.cross_entropy(logits, words[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if turning.note(loss.item()):
                plan.turned = step
                break
            if plan.passed < 0:
                plan.passed = find_passing(watch.history, *PASSED[fault])
            if plan.named >= 0 and 0 <= plan.passed < step - LATER:
                break
    plan.steps = watch.steps
    plan.passed = find_passing(watch.history, *PASSED[fault]) if plan.passed < 0 else plan.passed
    return plan


def find_passing(history: Any, statistic: str, limit: float) -> int:
    """The step of the first look at which a number of any site is beyond its limit; -1 without one."""
    column = LIVE.index(statistic)
    for step, values in zip(history.look_steps, history.looks, strict=True):
        if (values[:, column] > limit).any():
            return int(step)
    return -1


def run_steady(job: tuple[int, int]) -> Plan:
    """Train one healthy model of any design, optimizer and schedule under watch; what was said."""
    import unvanish

    seed, steps = job
    torch.set_num_threads(1)
    rng = random.Random(seed)
    torch.manual_seed(seed)
    design, kind = draw_design(rng), rng.choice(list(OPTIMIZERS))
    make, low, high = OPTIMIZERS[kind]
    rate = 10 ** rng.uniform(low, high)
    schedule, clip = draw_schedule(rng, steps), rng.choice([None, None, 1.0, 0.25])
    size, every = rng.choice([4, 8, 16]), rng.choice([None, None, 3, 10])
    plan = Plan(seed, None, f"{kind} {rate:.1e}, every {every}, clip {clip}, {design}")
    net, text, losses = Language(design), Text(seed), []
    optimizer = make(net.parameters(), rate)
    with unvanish.watch(net, optimizer, every=every, on_finding="silent") as watch:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * schedule(step)
            words = text.draw(size)
            loss = nn.functional.cross_entropy(net(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())
            if design.mixture:
                loss = loss + 0.02 * sum(b.wide.balance for b in net.blocks)  # type: ignore[union-attr]
            optimizer.zero_grad()
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
            losses.append(loss.item())
    found = list(watch.diagnosis().walk())
    plan.told = [(watch.steps, f.code, f.cause) for f in found if f.severity != "note"]
    plan.notes = [f.code for f in found if f.severity == "note"]
    plan.steps, plan.losses = watch.steps, (sum(losses[:5]) / 5, sum(losses[-20:]) / 20)
    return plan


def spread(leads: list[int]) -> str:
    """The least, the quartiles and the largest."""
    places = [round(q * (len(leads) - 1)) for q in (0, 0.25, 0.5, 0.75, 1)]
    return " ".join(str(leads[place]) for place in places) if leads else "-"


def show_slow(plans: list[Plan], console: Console) -> dict[str, float]:
    """Print the leads by fault; the figures for the record."""
    table = Table("driven", "rule", "runs", "beyond", "named", "before", "lead", "turned", "before", "lead")
    for fault, code in [*FAULTS.items(), ("all", "")]:
        own = [p for p in plans if fault in (p.fault, "all")]
        passed, turned = [p for p in own if p.passed >= 0], [p for p in own if p.turned >= 0]
        early = sorted(p.passed - p.named for p in passed if p.named >= 0)
        leads = sorted(p.turned - p.named for p in turned if p.named >= 0)
        numbers = (
            len(own), len(passed), sum(p.named >= 0 for p in own), sum(e > 0 for e in early), spread(early),
            len(turned), sum(lead > 0 for lead in leads), spread(leads),
        )  # fmt: skip
        table.add_row(fault, code, *map(str, numbers))
    console.print(table)
    before = sum(any(s < START for s, _, _ in p.told) for p in plans)
    console.print(f"slow faults with a warning before the drift began: {before} of {len(plans)}")
    due = [p for p in plans if p.passed >= 0 or p.turned >= 0]
    missed = [p for p in due if p.named < 0]
    console.print(f"beyond the limit or turned, and not named: {[(p.seed, p.fault) for p in missed]}")
    named = [p for p in due if p.named >= 0]
    in_time = [p for p in named if p.turned < 0 or p.named < p.turned]
    return {
        "slow, due": len(due),
        "slow, named": len(named) / max(1, len(due)),
        "slow, named before the loss turned": len(in_time) / max(1, len(due)),
    }


def show_steady(plans: list[Plan], console: Console) -> dict[str, float]:
    """Print the false alarms of healthy models; the figures for the record."""
    alarms = [p for p in plans if p.told]
    for p in alarms:
        losses = f"{p.losses[0]:.2f} to {p.losses[1]:.2f}"
        console.print(p.seed, p.what, losses, p.told, markup=False, highlight=False)
    codes = Counter(code for p in alarms for _, code, _ in p.told)
    notes = Counter(code for p in plans for code in set(p.notes))
    console.print(
        f"healthy language models with a false alarm: {len(alarms)} of {len(plans)} {dict(codes)}; "
        f"notes {dict(notes)}"
    )
    return {"steady runs": len(plans), "steady runs with a false alarm": len(alarms)}
