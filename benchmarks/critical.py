"""How well the critical step is measured, and how well it foretells a divergence.

Run it with `python -m benchmarks.critical`. First quadratics of known curvature, stepped at rates far below
and far above: the critical rate along the gradient is 2 |g|^2 / g.H.g. Then small trainings (SGD, momentum,
Adam; MLP, CNN, transformer) at rates around the critical one of their first step. "Harmed": the loss went to
infinity, ended above its start, or was three times its start on the way. Foretold, by the first step: its
rate is LIMIT times the critical one (what `check` says); by the run: the watch said OPT008 before the loss
was three times its start.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks import record

LIMIT = 2.0  # OPT008's
HARM = 3.0  # times the first loss
FAMILIES, KINDS = ("mlp", "cnn", "transformer"), ("sgd", "momentum", "adam")


@dataclass
class Outcome:
    """One training: its rate, the first step's multiple of the critical rate, and what became of it."""

    seed: int
    family: str
    kind: str
    rate: float
    times: float
    warned: int = -1  # step at which the watch said OPT008; -1: never
    harmed: int = -1  # step at which the loss was first seen harmed; -1: never
    first: float = math.nan
    last: float = math.nan

    @property
    def foretold(self) -> bool:
        """By the first step."""
        return self.times > LIMIT


class Attention(nn.Module):
    """Transformer layers over eight tokens, mean, head."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Linear(8, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x.reshape(len(x), 8, 8))
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def draw(family: str, rng: random.Random) -> nn.Module:
    """A network of a family, with He's initialisation where a ReLU follows."""
    width = rng.choice([16, 32, 64])
    if family == "transformer":
        return Attention(width, rng.randint(1, 2))
    if family == "mlp":
        layers: list[nn.Module] = [nn.Linear(64, width), nn.ReLU()]
        for _ in range(rng.randint(1, 3)):
            layers += [nn.Linear(width, width), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(width, 10))
    else:
        width = min(width, 16)
        body = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, width, 3, padding=1), nn.ReLU()]
        body += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        net = nn.Sequential(*body, nn.Linear(4 * width, 10))
    for m in net.modules():
        if isinstance(m, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(m.weight)
    return net


def make_optimizer(kind: str, net: nn.Module, rate: float) -> Any:
    """SGD, SGD with momentum, or Adam."""
    if kind == "adam":
        return torch.optim.Adam(net.parameters(), rate)
    return torch.optim.SGD(net.parameters(), rate, momentum=0.9 if kind == "momentum" else 0.0)


def measure_first(net: nn.Module, batch: Any, kind: str, rate: float) -> float:
    """The first step's rate over the critical one, as `check(lr=)` has it."""
    import unvanish

    found = unvanish.check(
        net, batch, nn.functional.cross_entropy, optimizer=make_optimizer(kind, net, 1.0), lr=rate,
        select=["OPT008"], confirm=False, theory=False,
    ).trace.facts["critical"][0]  # fmt: skip
    return 1 / found["multiple"] if found["multiple"] else math.inf


def run(job: tuple[int, int]) -> Outcome:
    """Train one network under watch."""
    import unvanish

    seed, steps = job
    torch.set_num_threads(1)
    rng = random.Random(seed)
    torch.manual_seed(seed)
    family, kind = FAMILIES[seed % 3], KINDS[seed // 3 % 3]
    net = draw(family, rng)
    teacher = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    x = torch.randn(1024, 64)
    with torch.no_grad():
        y = (4 * teacher(x)).argmax(1)
    size = rng.choice([32, 64, 128])
    usual = {"sgd": 0.2, "momentum": 0.05, "adam": 0.01}[kind]
    times = measure_first(net, (x[:size], y[:size]), kind, usual)
    rate = usual / times * 10 ** rng.uniform(-1, 1) if 0 < times < math.inf else usual
    outcome = Outcome(seed, family, kind, rate, measure_first(net, (x[:size], y[:size]), kind, rate))
    optimizer = make_optimizer(kind, net, rate)

    def said(finding: Any) -> None:
        if finding.code == "OPT008" and finding.severity != "note" and outcome.warned < 0:
            outcome.warned = watch.steps

    with unvanish.watch(net, optimizer, on_finding=said) as watch:
        for step in range(steps):
            chosen = torch.randint(0, len(x), (size,)) if step else torch.arange(size)
            loss = nn.functional.cross_entropy(net(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
            value = loss.item()
            outcome.first = value if step == 0 else outcome.first
            outcome.last = value
            if outcome.harmed < 0 and not value <= HARM * outcome.first:
                outcome.harmed = step
            if not math.isfinite(value):
                break
    if outcome.harmed < 0 and not outcome.last <= outcome.first:
        outcome.harmed = steps
    return outcome


def measure_quadratics(count: int) -> tuple[list[float], float]:
    """Relative errors of the critical rate, sorted, and the mean number of forwards."""
    from unvanish.probes.critical import measure_critical_step
    from unvanish.probes.planned_change import plan_step

    errors, forwards = [], []
    for seed in range(count):
        rng = random.Random(seed)
        torch.manual_seed(seed)
        size = rng.choice([2, 10, 50])
        root = torch.randn(size, size)
        hessian = root @ root.T / size + 1e-3 * torch.eye(size)
        net = nn.Linear(size, 1, bias=False)
        offset = rng.choice([0.0, 1.0, 10.0])

        def objective(w: Tensor = net.weight, hessian: Tensor = hessian, offset: float = offset) -> Tensor:
            return 0.5 * (w @ hessian @ w.T).sum() + offset

        (gradient,) = torch.autograd.grad(objective(), [net.weight])
        exact = float(2 * gradient.square().sum() / (gradient @ hessian @ gradient.T))
        rate = exact * 10 ** rng.uniform(-2, 2)
        found = measure_critical_step(-1, plan_step([net.weight], [gradient], None, rate), objective, (net,))
        errors.append(abs(found["multiple"] * rate / exact - 1))
        forwards.append(found["forwards"])
    return sorted(errors), sum(forwards) / len(forwards)


def show(outcomes: list[Outcome], console: Console) -> dict[str, float]:
    """The tables of confusion, and every miss."""
    figures: dict[str, float] = {}
    table = Table("foretold by", "harmed, foretold", "harmed, missed", "fine, warned", "fine, silent")
    for name in ("first step", "watch"):
        cells = [0, 0, 0, 0]
        for o in outcomes:
            told = (
                o.foretold
                if name == "first step"
                else o.warned >= 0 and (o.harmed < 0 or o.warned <= o.harmed)
            )
            cells[(0 if o.harmed >= 0 else 2) + (0 if told else 1)] += 1
        table.add_row(name, *map(str, cells))
        figures |= {
            f"{name}: {k}": v for k, v in zip(("hit", "missed", "false", "silent"), cells, strict=True)
        }
    console.print(table)
    for o in outcomes:
        if (o.harmed >= 0) != o.foretold or (o.harmed >= 0) != (o.warned >= 0):
            console.print(
                f"seed {o.seed} {o.family} {o.kind} rate {o.rate:.3g}, {o.times:.2f} times critical, loss "
                f"{o.first:.3g} -> {o.last:.3g}, harmed at {o.harmed}, warned at {o.warned}",
                highlight=False,
            )
    return figures


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quadratics", type=int, default=300)
    parser.add_argument("--trainings", type=int, default=100)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    record.add_option(parser)
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    console = Console(width=140)
    errors, forwards = measure_quadratics(options.quadratics)
    console.print(
        f"{len(errors)} quadratics: error of the critical rate {errors[len(errors) // 2]:.1e} in the middle, "
        f"{errors[-1]:.1e} at most; {forwards:.1f} forwards"
    )
    jobs = [(options.seed + i, options.steps) for i in range(options.trainings)]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        outcomes = list(pool.imap(run, jobs))
    figures = show(outcomes, console)
    record.append("critical", options, {"largest error": errors[-1], "forwards": forwards, **figures})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
