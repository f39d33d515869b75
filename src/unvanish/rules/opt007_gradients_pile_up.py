"""Gradients pile up: those of the last step are still there when the next backward adds its own, or an
accumulation is not divided.

Why it harms

A backward adds to what lies in `.grad`. Without zero_grad a step follows the sum of all gradients
so far, most of them of weights that are long gone: it grows, keeps its direction, and the loss
swings or diverges. An accumulation over k micro-batches whose losses are means makes a gradient k
times that of the whole batch, a rate k times too large.

An example

    for x, y in loader:
        criterion(net(x), y).backward()
        optimizer.step()               # and no zero_grad

How it is measured

At every step of a watched training: whether the gradient that the last step used still exists.
If it does, a hook on one parameter compares it with what lies there when the next backward
arrives: the same, bit for bit, at each backward of a step. Of an accumulation: the loss module
takes a mean, is passed by `most` backwards or more in a step, and the gradient that arrives at
it is 1 each time, and nothing divides the sum before the step.

Limits

    most = 4        backwards in a step whose losses are means, undivided: two or three are often
                    different losses, as of real and generated samples
    LEAST = 3       steps that all tell the same, or so many of NEAR steps that began with the
                    gradient of the one before: no loop that clears its gradients has one
    NEAR = 8        steps, within which those few must lie
    ONE = 0.01      from 1: an undivided loss gets exactly that
    DIVIDED = 0.1   nats: the norm at the step against the norm after the last backward; more was
                    divided or clipped

Remedies

Call zero_grad once a step (advice). Divide the loss by the number of micro-batches (advice).

When it is wrong

Accumulated means on purpose, with a rate that was chosen for their sum.

References: the PyTorch documentation of torch.optim.Optimizer.zero_grad.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unvanish.core.diagnosis import Case, Evidence, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _history
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import NO_STEP, STEPS

NEEDS = ("history",)
AT_ONCE = True
EXPLAINS = (
    "OPT001", "OPT002", "OPT003", "OPT005", "ACT001", "ACT003", "ATT001", "DEP001", "OUT001",
    "OUT003",
)  # fmt: skip
LEAST, NEAR = 3, 8
ONE, DIVIDED = 0.01, 0.1


def check(trace: Trace, *, most: int = 4) -> Iterable[Fault]:
    """One fault: the gradient of the step before is there, or a sum is not divided."""
    kept = _history.read_steps(trace, "kept")
    known = kept[np.isfinite(kept)]
    if len(known) >= LEAST and known[-LEAST:].min() == 1:
        return [_report_kept(trace)]
    if _count_near(kept == 1) >= LEAST:
        return [_report_some(trace, int((kept == 1).sum()))]
    return _judge_accumulation(trace, most)


def _report_kept(trace: Trace) -> Fault:
    norm = _history.read_steps(trace, "norm_log")
    norm = norm[np.isfinite(norm)]
    growth = math.exp(float(norm[-1] - norm[0])) if len(norm) else math.nan
    return Fault(
        severity="error",
        cause="zero_grad is missing: the gradient of each step is still there, bit for bit, when the next "
        f"backward adds its own; the norm is {growth:.3g} times the first one",
        sites=(),
        evidence=(
            Evidence("steps that began with the gradient of the last one", LEAST, limit="0"),
            Evidence("norm of the gradient over the first one", growth),
        ),
        remedies=(Remedy("zero-grad", (), "call optimizer.zero_grad() once a step", safety="advice"),),
        direction="exploding",
        tier=NO_STEP,
    )


def _count_near(there: NDArray[np.bool_]) -> int:
    """The most steps within NEAR that began with the gradient of the one before."""
    return int(np.convolve(there, np.ones(NEAR, int)).max()) if len(there) else 0


def _report_some(trace: Trace, count: int) -> Fault:
    return Fault(
        severity="error",
        cause="step() is called more often than zero_grad(): at some steps the gradient of the one before is "
        "still there, bit for bit, when the next backward adds its own, so it is taken again",
        sites=(),
        evidence=(Evidence("steps that began with the gradient of the last one", count, limit="0"),),
        remedies=(
            Remedy(
                "zero-grad", (), "one zero_grad() for each step(): both after the last micro-batch", "advice"
            ),
        ),
        direction="exploding",
        tier=NO_STEP,
    )


def _judge_accumulation(trace: Trace, most: int) -> list[Fault]:
    pull, backwards = _history.read_steps(trace, "pull"), _history.read_steps(trace, "backwards")
    before, norm = _history.read_steps(trace, "before_log"), _history.read_steps(trace, "norm_log")
    heard = np.flatnonzero(np.isfinite(pull) & np.isfinite(before))[-LEAST:]
    averaged = "plan" in trace.facts and trace.facts["plan"]["averaged"]
    if not averaged or len(heard) < LEAST or backwards[heard].min() < most:
        return []
    divided = np.abs(norm[heard] - before[heard]) > DIVIDED
    if np.abs(pull[heard] - 1).max() > ONE or divided.any():
        return []
    count = int(backwards[heard[-1]])
    return [
        Fault(
            severity="warning",
            cause=f"{count} micro-batches are added up at each step and not divided: each loss is a mean, so "
            f"the gradient is {count} times that of the whole batch",
            sites=(),
            evidence=(
                Evidence("backward passes in a step", count, limit=f"< {most}"),
                Evidence(
                    "gradient that arrives at the loss", float(pull[heard[-1]]), limit=f"{1 / count:.3g}"
                ),
            ),
            remedies=(Remedy("divide-loss", (), f"(loss / {count}).backward()", safety="advice"),),
            direction="exploding",
            tier=STEPS,
            size=math.log(count),
        )
    ]


def sick() -> Case:
    """An optimizer whose gradients nobody clears."""
    return _case(cleared=False)


def healthy() -> Case:
    """The same with zero_grad."""
    return _case(cleared=True)


def _case(cleared: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        x = torch.randn(256, 16)
        batch = x, (x @ torch.randn(16, 4)).argmax(1)

    def make(model: Any) -> Any:
        optimizer: Any = torch.optim.SGD(model.parameters(), 0.05)
        if not cleared:
            optimizer.zero_grad = lambda *_, **__: None
        return optimizer

    training = _history.rehearse_with(optimizer=make, steps=40)
    return Case(net, batch, nn.CrossEntropyLoss(), training, story="zero_grad or none")
