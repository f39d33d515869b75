"""What the optimizer does is undone before the next step: something else writes the weights.

Why it harms

A training is a walk; each step begins where the last one ended. If the weights are put back each
time, by a checkpoint that is loaded within the loop or by a mean of the weights that is written
into the model itself,

    w <- w - step;    w <- w_0

then every step is right, and nothing is learned.

An example

    for x, y in loader:
        model.load_state_dict(best)            # meant for the end of the training

How it is measured

At steps of a watched training a few elements of one weight in turn are read before and after the
step, and again when the next reading begins. An element is back if it is then nearer to where it
was before the step than BACK of what the step changed of it. A fault: at LEAST readings in a row,
of whatever weights, nearly all that had moved was back. Also a fault: at RETURNS readings a weight
was bit for bit what it had been at an earlier one, though most of it had moved in between; so it is
if each epoch begins from one checkpoint.

Limits

    limit = 0.9      of the elements that moved: all of them are back. Masks and projections, as of
                     pruned weights, a critic whose weights are clamped, or rows of norm 1, put a
                     part back and leave the rest
    LEAST = 12       readings in a row. A mean that is taken every few steps (lookahead, Reptile)
                     leaves the steps between alone
    RETURNS = 3      readings of an earlier state; a search for the best rate puts weights back once

Remedies

Load weights before the loop; keep the mean of the weights in a copy of the model (advice).

When it is wrong

A search that tries steps and takes them back, one of which is watched as if it were the training;
a run that goes back to its best weights many times, on purpose.

References: Zhang et al. 2019 (Lookahead); Nichol et al. 2018 (Reptile), which put back in part.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _history
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import NO_STEP

NEEDS = ("history",)
AT_ONCE = True
EXPLAINS = ("OPT001", "OPT002", "OPT003", "OPT009", "OPT011", "ACT003", "DEP001", "LOS004")
LEAST, RETURNS = 12, 3


def check(trace: Trace, *, limit: float = 0.9) -> Iterable[Fault]:
    """One fault with the share of a step that was gone."""
    taken, undone = _history.read_steps(trace, "step"), _history.read_steps(trace, "undone")
    known = undone[~np.isnan(undone)]
    if len(known) < LEAST:
        raise NotApplicable(f"fewer than {LEAST} readings of weights at a step and after it")
    if known[-LEAST:].min() >= limit:
        kept = np.flatnonzero(known < limit)
        since = f", since step {int(taken[~np.isnan(undone)][kept[-1] + 1])}" if len(kept) else ""
        share = float(known[-LEAST:].mean())
        cause = f"what each step changes is gone when the next one begins{since}: "
        return [_report(cause + "something else puts the weights back", share, limit)]
    again = np.flatnonzero(_history.read_steps(trace, "again") == 1)
    if len(again) < RETURNS:
        return []
    steps = ", ".join(str(int(taken[i])) for i in again[-RETURNS:])
    cause = f"at steps {steps} the weights were, bit for bit, what they had been before: "
    return [_report(cause + "they are loaded again and again", len(again), RETURNS)]


def _report(cause: str, number: float, limit: float) -> Fault:
    why = (
        "load a checkpoint once, before the loop; write a mean of the weights into a copy of the model, and "
        "not into the one that is trained"
    )
    what = "readings of an earlier state" if number > 1 else "share of a step that was gone"
    return Fault(
        severity="error",
        cause=cause,
        sites=(),
        evidence=(Evidence(what, number, limit=f"< {limit:g}"),),
        remedies=(Remedy("keep-the-steps", (), why, safety="advice"),),
        direction="blocked",
        tier=NO_STEP,
    )


def sick() -> Case:
    """The weights are loaded after each step."""
    return _case(load=True)


def healthy() -> Case:
    """They are not."""
    return _case(load=False)


def _case(load: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        x = torch.randn(256, 16)
        batch = x, (x @ torch.randn(16, 4)).argmax(1)

    def make(model: Any) -> Any:
        start = {name: value.clone() for name, value in model.state_dict().items()}

        def begin(module: Any, _: Any) -> None:
            module.load_state_dict(start)

        if load:
            model.register_forward_pre_hook(begin)
        return torch.optim.SGD(model.parameters(), 0.05)

    training = _history.rehearse_with(optimizer=make, steps=40, every=20)
    story = "weights are loaded at each step" if load else "weights are left alone"
    return Case(net, batch, nn.CrossEntropyLoss(), training, story=story)
