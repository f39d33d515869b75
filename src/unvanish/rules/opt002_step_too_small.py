"""The optimizer's steps are too short: the weights do not move, and the loss does not fall.

Why it harms

A training whose steps change the weights by a millionth,

    ||dW|| / ||W|| < 1e-6,

needs a million steps to get anywhere. It looks like a vanished gradient, and may be one; or the
rate is zero, decayed away, or in the wrong unit.

How it is measured

The ratio of what a step changed to what was there, for each weight matrix, at the looks of a
watched training: all layers below `limit` (default 1e-6) at the last five looks or more, while
the loss did not fall. A run that has converged is no fault: its gradient is a hundredth of what
it was, or its loss a thousandth.

Remedies

A larger learning rate (advice). If the gradient itself is tiny, `unvanish check` says why.

When it is wrong

Fine-tuning with a rate that small on purpose.

References: Karpathy 2019 (a recipe: about 1e-3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _history

NEEDS = ("history",)
LEAST = 5  # looks
SPAN = 20  # steps


def check(trace: Trace, *, limit: float = 1e-6) -> Iterable[Finding]:
    """One finding with the largest ratio of all layers."""
    taken = _history.steps(trace, "step")
    places = _history.weights(trace)
    logs = _history.looks(trace, places, "update_log")
    rows = np.flatnonzero(~np.isnan(logs).all(axis=1))[-LEAST:]
    if len(rows) < LEAST or len(taken) < SPAN:
        raise NotApplicable(f"fewer than {LEAST} looks at a step, or {SPAN} steps")
    largest = math.exp(float(np.nanmax(logs[rows])))
    if not largest < limit or _history.falls(_history.steps(trace, "loss")) or _converged(trace):
        return []
    rate = _history.steps(trace, "lr")
    cause = f"no step changes any weight by more than {largest:.1e} of it, and the loss does not fall"
    if largest == 0:
        cause = "no weight changes at all: the steps are below the last digit of the weights"
    if rate[-1] == 0:
        cause = "the learning rate is 0: no weight moves"
    evidence = (
        Evidence("update / weight, largest over layers", largest, "", f"> {limit:g}"),
        Evidence("learning rate", float(rate[-1])),
        Evidence("gradient norm", float(_history.steps(trace, "norm_log")[-1]), "ln"),
    )
    remedies = (
        Remedy("raise-learning-rate", (), "steps of about a thousandth of the weights are usual", "advice"),
    )  # fmt: skip
    sites = tuple(trace.sites[i].label for i in places[:5])
    return [
        Finding("OPT002", "step-too-small", "warning", cause, sites, evidence, remedies, "vanishing", 3.0)
    ]


def _converged(trace: Trace) -> bool:
    norms, loss = _history.steps(trace, "norm_log"), _history.steps(trace, "loss")
    known = norms[np.isfinite(norms)]
    small = len(known) > 0 and known[-1] < known[:5].max() - math.log(100)
    finite = loss[np.isfinite(loss)]
    return small or (len(finite) > 0 and abs(finite[-1]) < 1e-3 * abs(finite[0]))


def sick() -> Case:
    """SGD with a rate of 1e-9."""
    return _case(1e-9)


def healthy() -> Case:
    """The same with a rate of 0.05."""
    return _case(0.05)


def _case(rate: float) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        x = torch.randn(256, 16)
        batch = x, (x @ torch.randn(16, 4)).argmax(1)
    training = _history.training_case(optimizer=lambda m: torch.optim.SGD(m.parameters(), rate), steps=40)
    return Case(net, batch, nn.CrossEntropyLoss(), training, story=f"SGD with a rate of {rate:g}")
