"""The loss stays where the best constant answer is: nothing of the input reaches the answers.

Why it harms

Who answers each sample with the frequencies of the labels has a cross-entropy of their entropy,

    H = -sum p ln p,    2.30 nats for ten classes that are equally frequent

and has learned nothing but these. A network whose loss arrives there and stays does the same,
however long it runs; the loss looks as if it had converged.

An example

    order = torch.randperm(len(x))
    loader = zip(x[order].split(64), y.split(64))      # each sample with the label of another one

How it is measured

At the looks of a watched training the labels that a cross-entropy or a binary one is about are
counted, and the entropy of all of them is taken. A fault: in no stretch of the run was the loss
below it by more than chance, and in the last half it does not fall so that it will be, at a rate
that no longer grows. It says what is, not why: any other finding is taken for its cause.

Limits

    least = 300      steps, for a note. Networks leave the plateau of frequencies within some
                     tens of steps as a rule
    most = 1000      steps, for a warning: recurrent networks over hundreds of steps, and those
                     that learn a parity, stay there for hundreds before they start, and learn
                     after all
    WINDOW = 50      steps whose mean is the loss of a stretch
    NEAR = 0.01      of the entropy: a loss that was not lower by more is no better. Of ten
                     classes it is 0.023 nats a sample
    SURE = 3         standard errors of the mean of a stretch: nor is a loss that was lower by
                     less
    FALLS = 2        standard errors of the difference between the last two quarters: the loss falls
    AHEAD = 4        times that difference, so another run as long as this one: if the loss is below
                     the entropy then, it is on its way
    FEW = 5          losses whose labels were counted, at least
    GROWS = 1.1      times the rate in the middle of the run: above it the rate is warming up
    FULL = 0.5       of the highest rate: steps at a lower one do not count for `least` and `most`

Remedies

Look at a few samples with their labels as the loss sees them; train on one batch until its loss
is near zero (advice). `unvanish check` examines one batch.

When it is wrong

Where the labels do not depend on the input, guessing is the best there is. A discriminator that a
generator has caught up with guesses too: of two classes, half and half in each batch, it stays a
note.

References: Karpathy 2019 (a recipe: verify the loss at the start, overfit one batch); Miller 1955
(the bias of an entropy).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _guess, _history
from unvanish.rules._fault import Fault
from unvanish.rules._history import Floats
from unvanish.rules._tiers import REMARK, SLOW

NEEDS = ("history",)
AT_ONCE = True
YIELDS = True
WINDOW, NEAR, SURE, FALLS, AHEAD = 50, 0.01, 3, 2, 4
FEW, GROWS, FULL = 5, 1.1, 0.5


def check(trace: Trace, *, least: float = 300, most: float = 1000) -> Iterable[Fault]:
    """One fault with both losses."""
    taken, loss = _history.read_steps(trace, "step"), _history.read_steps(trace, "loss")
    labels = trace.facts.get("labels")
    if labels is None or len(labels["read"]) < FEW:
        raise NotApplicable("the loss is no cross-entropy whose labels were seen")
    if reason := _guess.find_obstacle(labels, taken, loss):
        raise NotApplicable(reason)
    known, guess = loss[np.isfinite(loss)], labels["guess"]
    count = _count_full(_history.read_steps(trace, "lr"), len(known))
    if count < least or len(known) < WINDOW:
        return []
    if _is_better(known, guess) or _falls(known, guess) or _warms_up(trace):
        return []
    steps, now = int(taken[-1]) + 1, float(np.mean(known[-WINDOW:]))
    game = labels["same"] and labels["answers"] == 2
    loud = count >= most and not game
    why = "a sample must reach the loss with its own label; one batch alone should be learned to nearly zero"
    return [
        Fault(
            severity="warning" if loud else "note",
            cause=f"no better than guessing by frequency: the loss is {now:.3g} against {guess:.3g} nats "
            f"after {steps} steps" + ("" if loud else "; some networks start as slowly as this"),
            sites=("loss",),
            evidence=(
                Evidence("loss", now, unit="nats", limit=f"< {guess * (1 - NEAR):.3g}", site="loss"),
                Evidence("entropy of the labels", guess, unit="nats"),
            ),
            remedies=(Remedy("compare-samples-with-labels", ("loss",), why, safety="advice"),),
            direction="blocked",
            tier=SLOW if loud else REMARK,
        )
    ]


def _is_better(loss: Floats, guess: float) -> bool:
    """Whether some stretch of the run was below the guess by more than chance."""
    count = len(loss) // WINDOW
    parts = loss[len(loss) - count * WINDOW :].reshape(count, WINDOW)
    margin = max(NEAR * guess, SURE * float(np.median(parts.std(axis=1))) / WINDOW**0.5)
    return bool(parts.mean(axis=1).min() < guess - margin)


def _falls(loss: Floats, guess: float) -> bool:
    """Whether the loss still falls in the last half of the run, and will be below the guess."""
    late = loss[len(loss) // 2 :]
    before, after = late[: len(late) // 2], late[len(late) // 2 :]
    error, fall = (before.var() / len(before) + after.var() / len(after)) ** 0.5, before.mean() - after.mean()
    return bool(fall > FALLS * error and after.mean() - AHEAD * fall < (1 - NEAR) * guess)


def _warms_up(trace: Trace) -> bool:
    """Whether the rate still grows."""
    rate = _history.read_steps(trace, "lr")
    known = rate[np.isfinite(rate)]
    return len(known) > 0 and bool(known[-1] > GROWS * known[len(known) // 2])


def _count_full(rate: Floats, steps: int) -> int:
    """How many steps were made at about the full rate; all of them if it is not known."""
    known = rate[np.isfinite(rate)]
    return int((known >= FULL * known.max()).sum()) if len(known) else steps


def sick() -> Case:
    """A linear model of what no line divides."""
    return _case(deep=False)


def healthy() -> Case:
    """A hidden layer in front of it."""
    return _case(deep=True)


def _case(deep: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hidden = [nn.Linear(8, 32), nn.ReLU()] if deep else []
        net: Any = nn.Sequential(nn.Dropout(0.1), *hidden, nn.Linear(32 if deep else 8, 3))
        x = 1.0 - 2.0 * ((torch.arange(256)[:, None] >> torch.arange(8)) & 1)
        y = torch.where(x[:, 0] == x[:, 1], 0, torch.where(x[:, 2] == x[:, 3], 1, 2))
    training = _history.rehearse_with(
        optimizer=lambda m: torch.optim.SGD(m.parameters(), 0.1), steps=1010, every=50
    )
    return Case(net, (x, y), nn.CrossEntropyLoss(), training, story="an exclusive or of two bits, and of two")
