"""The weight decay outweighs the loss: the steps shrink the weights, and the loss does not fall.

Why it harms

Decay pulls each weight to zero by a share of itself at each step. If that pull is longer than the
step of the loss, the weights shrink until nothing is left that the loss could use:

    dW = -lr * (g + decay * W),   |decay * W| >> |g|

An example

    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=50)

How it is measured

At the steps of a watched training whose weights were read, a few elements of a matrix in turn: the
cosine of what the step changed with the negative weights. It is 1 if the step only shrinks them.
Judged if a decay is set and the loss has not fallen.

Limits

    limit = 0.8       cosine, median of LEAST readings in a row: most of the change is shrinking.
                      Healthy runs with usual decays lie between -0.3 and 0.3 while they learn
    LEAST = 16        readings in a row, of which the median is taken; when little is left to
                      shrink, the cosine falls again
    FELL = 0.9        of the first loss: below it the run learns, whatever the decay does
    EDGE = 10         steps at each end whose median is the loss there

Remedies

A decay ten to a hundred times smaller (advice); 0.01 to 0.1 is usual for AdamW, 1e-4 to 5e-4
for SGD.

When it is wrong

Weights that shall be forgotten on purpose.

References: Loshchilov & Hutter 2019 (AdamW).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _history
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import STEPS

NEEDS = ("history",)
AT_ONCE = True
EXPLAINS = ("DEP001", "ACT003", "OPT002")
LEAST, FELL, EDGE = 16, 0.9, 10


def check(trace: Trace, *, limit: float = 0.8) -> Iterable[Fault]:
    """One fault with the cosine and the decay."""
    shrink, loss = _history.read_steps(trace, "shrink"), _history.read_steps(trace, "loss")
    known, seen = shrink[np.isfinite(shrink)], loss[np.isfinite(loss)]
    if len(known) < LEAST or not len(seen) or "plan" not in trace.facts:
        raise NotApplicable(f"fewer than {LEAST} readings of weights, or no loss")
    start = np.asarray(trace.facts.get("start", seen), np.float64)
    decay, cosine = trace.facts["plan"]["decay"], _find_highest(known)
    first = float(np.median(start[:EDGE]))
    if not (decay > 0 and cosine > limit) or np.median(seen[-EDGE:]) < first - (1 - FELL) * abs(first):
        return []
    return [
        Fault(
            severity="error",
            cause=f"the weight decay of {decay:g} outweighs the loss: the steps only shrink the weights, and "
            "the loss does not fall",
            sites=(),
            evidence=(
                Evidence("cosine of the steps with the negative weights", cosine, limit=f"< {limit:g}"),
                Evidence("weight decay", decay),
            ),
            remedies=(
                Remedy("lower-weight-decay", (), "0.01 to 0.1 is usual for AdamW, 1e-4 for SGD", "advice"),
            ),
            direction="vanishing",
            tier=STEPS,
            size=cosine,
        )
    ]


def _find_highest(cosines: Any) -> float:
    """The highest median of LEAST readings in a row."""
    windows = np.lib.stride_tricks.sliding_window_view(cosines, LEAST)
    return float(np.median(windows, axis=1).max())


def sick() -> Case:
    """AdamW with a decay of 50."""
    return _case(50.0)


def healthy() -> Case:
    """AdamW with a decay of 0.01."""
    return _case(0.01)


def _case(decay: float) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        x = torch.randn(256, 16)
        batch = x, (x @ torch.randn(16, 4)).argmax(1)
    training = _history.rehearse_with(
        optimizer=lambda m: torch.optim.AdamW(m.parameters(), 1e-3, weight_decay=decay), steps=60
    )
    return Case(net, batch, nn.CrossEntropyLoss(), training, story=f"AdamW with a decay of {decay:g}")
