"""Gradients are there and the weights do not move: the step is skipped, thrown away, has a rate of
zero, or goes to other tensors.

Why it harms

Training is `w <- w - step`. If the step never reaches the weights, the loss wanders with its
batches, and nothing is learned, however long it runs.

An example

    loss.backward()
    optimizer.zero_grad()          # throws away what the backward has just made
    optimizer.step()

How it is measured

At every step of a watched training: the rates of all groups, the norm of the gradient, whether
the loss scaler left the step out, and of a few weights whether they moved. At looks also the
gradient when its backward has ended, and which parameters the optimizers hold. Judged in this
order: steps skipped in a row; a rate of zero, or one that died early while the loss had not
fallen; a gradient that is gone at the step, or never came; a parameter of the model in whose
place the optimizer holds another tensor; an optimizer that has made no step in 64 of the others',
though gradients reach what it holds; parameters that stop to require a gradient in the middle;
steps below the last digit.

Limits

    LEAST = 8         first steps that all tell the same: certain from facts, and a warm-up from 0
                      has one such step
    LASTING = 20      steps that tell the same in the middle of a run
    SHARE = 0.1       of the run so far at least: the tail of a schedule is shorter
    SKIPS = 12        skipped steps in a row: a scaler that starts at 65536 has halved to 16
    SEEN = 2          looks at which the gradient was there after its backward and gone at the step
    DEAD = 0.001      of its highest: such a rate moves nothing. A cosine spends 2 % of its steps
                      below it
    EARLY = 3         times as many steps since then as before: no schedule anneals in the first
                      quarter of a run
    DOWN = 0.5        of the first loss: a run that has come so far was annealed on purpose
    EDGE = 10         steps at each end whose median is the loss there
    FROZEN = 0.1      of the trained numbers, for a warning: less is a note, as one freezes
                      an embedding or norms in the middle of a run on purpose
    READ = 16         readings of weights, none of which moved

Remedies

It depends on the reason: the order zero_grad, backward, step; the schedule stepped once an
epoch, or its length in batches; an optimizer made after the model is complete (advice).

When it is wrong

A part that is frozen in the middle of a run on purpose.

References: the PyTorch documentation of torch.optim and torch.amp.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _converged, _history, _places
from unvanish.rules._fault import Fault
from unvanish.rules._history import Floats
from unvanish.rules._tiers import NO_STEP, STEPS

NEEDS = ("history",)
AT_ONCE = True
EXPLAINS = ("OPT002", "OPT004", "OPT005", "OPT009", "ACT003")
LEAST, LASTING, SHARE, SKIPS, SEEN = 8, 20, 0.1, 12, 2
DEAD, EARLY, DOWN, EDGE = 1e-3, 3, 0.5, 10
FROZEN, READ = 0.1, 16


def check(trace: Trace) -> Iterable[Fault]:
    """One fault with the first reason that holds."""
    taken = _history.read_steps(trace, "step")
    if len(taken) < LEAST // 2:
        raise NotApplicable(f"fewer than {LEAST // 2} steps")
    for reason in (
        _skipped,
        _zero_rate,
        _dead_rate,
        _thrown_away,
        _nothing_arrives,
        _stale,
        _never_steps,
        _frozen,
        _below_resolution,
        _zero_group,
    ):
        fault = reason(trace, taken)
        if fault is not None:
            return [fault]
    return []


def _skipped(trace: Trace, taken: Floats) -> Fault | None:
    count = _count_last(_history.read_steps(trace, "skipped") == 1)
    if count < SKIPS:
        return None
    cause = (
        f"the loss scaler left out the last {count} steps, from step {int(taken[-count])} on: the gradients "
        "are not finite at any scale it tried"
    )
    why = "a NaN or an infinity does not come from the scale: `unvanish check` names the operation"
    return _tell(cause, Remedy("find-non-finite", (), why, safety="advice"), count)


def _zero_rate(trace: Trace, taken: Floats) -> Fault | None:
    count = _count_last(_history.read_steps(trace, "lr") == 0)
    if not _lasts(count, len(taken)) or _moves(trace, count):
        return None
    cause = f"the learning rate is 0 since step {int(taken[-count])}, for {count} steps: no weight moves"
    why = "set the rate, or the schedule's length and unit (batches or epochs)"
    return _tell(cause, Remedy("set-learning-rate", (), why, safety="advice"), count)


def _dead_rate(trace: Trace, taken: Floats) -> Fault | None:
    """A rate that fell to nothing in the first part of the run, before the loss had fallen."""
    rate = _history.read_steps(trace, "lr")
    held = np.minimum(rate[1:], rate[:-1])  # one long step is no peak
    peak = float(np.nanmax(held)) if np.isfinite(held).any() else 0.0
    alive = np.flatnonzero(rate >= DEAD * peak)
    if peak <= 0 or not len(alive) or not rate[-1] < DEAD * peak:
        return None
    before, since = int(alive[-1]) + 1 + int(taken[0]), len(rate) - 1 - int(alive[-1])
    if since < max(LASTING, EARLY * before) or _converged.has_converged(trace) or _came_down(trace):
        return None
    cause = (
        f"the learning rate fell from {peak:.2g} to {rate[-1]:.1e} by step {int(taken[alive[-1]]) + 1}, and "
        f"{since} steps were made since: the schedule ends too early, as if it were stepped at each batch "
        "instead of each epoch"
    )
    why = "step the schedule once an epoch, or count its length in batches"
    return _tell(cause, Remedy("slower-schedule", (), why, safety="advice"), since)


def _thrown_away(trace: Trace, taken: Floats) -> Fault | None:
    """The gradient was there when its backward had ended, and is gone at the step."""
    norm, before = _history.read_steps(trace, "norm_log"), _history.read_steps(trace, "before_log")
    count = _count_last(norm == -np.inf)
    seen = np.isfinite(before[len(before) - count :]).sum() if count else 0
    if seen < SEEN or "plan" not in trace.facts or not (count == len(taken) or _lasts(count, len(taken))):
        return None
    cause = (
        f"the gradient is gone at the last {count} steps though its backward had made one: zero_grad stands "
        "between backward and step, so nothing is learned"
    )
    return _tell(
        cause, Remedy("move-zero-grad", (), "zero_grad, backward, step, in this order", "advice"), count
    )


def _nothing_arrives(trace: Trace, taken: Floats) -> Fault | None:
    """No parameter had a gradient at any step so far."""
    count = _count_last(_history.read_steps(trace, "norm_log") == -np.inf)
    holding = trace.facts.get("holding")
    if not (count == len(taken) >= LEAST) or taken[0] > 0 or holding is None or holding["given"]:
        return None
    cause = (
        f"no parameter of the model had a gradient at any of the {count} steps: the backward does not reach "
        "it, as of a loss rebuilt from numbers (.item(), torch.tensor), or zero_grad stands before the step"
    )
    why = "backward from the loss that the model's output gave; zero_grad, backward, step, in this order"
    return _tell(cause, Remedy("reconnect-loss", (), why, safety="advice"), count)


def _never_steps(trace: Trace, taken: Floats) -> Fault | None:
    """One of several optimizers has made no step, though its parameters get gradients."""
    names = trace.facts["holding"]["idle"] if "holding" in trace.facts else []
    if not names:
        return None
    cause = (
        f"the optimizer of {_places.list_first(names)} has made no step in the {len(taken)} that others "
        "made, though gradients reach what it holds: its step() is missing"
    )
    why = "call step() of each optimizer whose part shall learn"
    return _tell(
        cause, Remedy("step-optimizer", tuple(names), why, "advice"), len(taken), tuple(names), "warning"
    )


def _stale(trace: Trace, taken: Floats) -> Fault | None:
    names = trace.facts["holding"]["stale"] if "holding" in trace.facts else []
    if not names:
        return None
    cause = (
        f"the optimizer holds other tensors than the model's in the place of {_places.list_first(names)}: "
        "the model was replaced, loaded or copied after the optimizer was made, and these never move"
    )
    why = "make the optimizer after the model is complete"
    return _tell(
        cause, Remedy("remake-optimizer", tuple(names), why, safety="advice"), len(taken), tuple(names)
    )


def _frozen(trace: Trace, taken: Floats) -> Fault | None:
    names = trace.facts["holding"]["frozen"] if "holding" in trace.facts else []
    if not names:
        return None
    share = trace.facts["holding"]["frozen_share"]
    cause = (
        f"{_places.list_first(names)}, {share:.0%} of the numbers, were trained and no longer are: their "
        f"requires_grad was set to False before step {int(taken[-1])}"
    )
    severity: Severity = "warning" if share >= FROZEN else "note"
    why = "if they shall go on learning; the optimizer still holds them"
    remedy = Remedy("unfreeze", tuple(names), why, safety="advice")
    return _tell(cause, remedy, len(taken), tuple(names), severity)


def _below_resolution(trace: Trace, taken: Floats) -> Fault | None:
    """No weight that was read changed in any digit, though gradients reached them."""
    still, rate = _history.read_steps(trace, "still"), _history.read_steps(trace, "lr")
    known = still[np.isfinite(still)][-READ:]
    half = "plan" in trace.facts and trace.facts["plan"]["dtype"] in ("bfloat16", "float16")
    if len(known) < READ or known.min() < 1 or half or not rate[-1] > 0:
        return None
    if _converged.has_converged(trace) or _converged.is_quiet(trace) or _converged.is_flat(trace):
        return None
    cause = (
        f"no weight has moved by its last digit, though gradients reach all: a rate of {rate[-1]:.1e} is "
        "below what the weights resolve"
    )
    why = "steps of about a thousandth of the weights are usual"
    return _tell(cause, Remedy("raise-learning-rate", (), why, safety="advice"), len(taken))


def _zero_group(trace: Trace, taken: Floats) -> Fault | None:
    """One group of several has a rate of zero, as one does on purpose."""
    low, rate = _history.read_steps(trace, "low"), _history.read_steps(trace, "lr")
    count = _count_last((low == 0) & (rate > 0))
    if not _lasts(count, len(taken)):
        return None
    cause = (
        f"a group of the optimizer has a rate of 0 since step {int(taken[-count])}: its weights do not move"
    )
    why = "if they shall learn"
    return _tell(cause, Remedy("set-learning-rate", (), why, safety="advice"), count, (), "note")


def _tell(
    cause: str, remedy: Remedy, count: int, sites: tuple[str, ...] = (), severity: Severity = "error"
) -> Fault:
    return Fault(
        severity=severity,
        cause=cause,
        sites=sites,
        evidence=(Evidence("steps that moved nothing", count, limit="0"),),
        remedies=(remedy,),
        direction="blocked",
        tier=NO_STEP if severity == "error" else STEPS,
    )


def _lasts(count: int, steps: int) -> bool:
    """Whether so many last steps of a run are enough."""
    return (count == steps >= LEAST) or count >= max(LASTING, SHARE * steps)


def _count_last(flags: Any) -> int:
    """How many of the last entries are true in a row."""
    wrong = np.flatnonzero(~flags)
    return len(flags) - 1 - int(wrong[-1]) if len(wrong) else len(flags)


def _moves(trace: Trace, count: int) -> bool:
    """Whether weights moved in the last steps all the same."""
    change = _history.read_steps(trace, "update_log")[-count:]
    return bool(np.isfinite(change).any())


def _came_down(trace: Trace) -> bool:
    loss = _history.read_steps(trace, "loss")
    known = loss[np.isfinite(loss)]
    start = np.asarray(trace.facts.get("start", ()), np.float64)
    first = start[:EDGE] if len(start) else known[:EDGE]
    return len(known) > 0 and bool(np.median(known[-EDGE:]) < DOWN * np.median(first))


def sick() -> Case:
    """A rate of zero."""
    return _case(0.0)


def healthy() -> Case:
    """A rate of 0.05."""
    return _case(0.05)


def _case(rate: float) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        x = torch.randn(256, 16)
        batch = x, (x @ torch.randn(16, 4)).argmax(1)
    training = _history.rehearse_with(optimizer=lambda m: torch.optim.SGD(m.parameters(), rate), steps=40)
    return Case(net, batch, nn.CrossEntropyLoss(), training, story=f"SGD with a rate of {rate:g}")
