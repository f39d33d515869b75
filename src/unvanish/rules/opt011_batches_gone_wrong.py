"""The batches of a training go wrong: one of them comes again and again, or labels no longer belong to
their samples.

Why it harms

A loop that has run well for an epoch may be given something else in the next one. If samples and
labels are shuffled apart, the loss returns to that of guessing and stays there; if a loader has
ended and its last batch is used again, the network learns this batch by heart.

An example

    y = y[torch.randperm(len(y))]              # and x stays as it was
    try: x, y = next(it)
    except StopIteration: pass                 # the last batch, from here on

How it is measured

At the looks of a watched training, a few numbers of each sample stand for it. Three faults. Samples
that are met again, in a small data set, had the labels that they had before, and now have those of
others, about as often as by chance. Or the loss, a cross-entropy, was far below the best constant
answer, jumped at one step to it or above, and has stayed there, though neither rate nor gradient
were out of the ordinary. Or all looks since some step met one and the same batch, after others
had been met; if it was one from the start it is a note, as one may mean it. Looks come at powers
of two, as a loader's turns may: only if two of them are an odd number of steps apart is it said.

Limits

    MET = 32         samples met again, before and after, at two looks at least
    KNOWN = 0.9      of them had their label before: less is noise, or labels that are made anew
    LENT = 0.3       of them have the label of another sample now: what a network makes up itself
                     is new
    CHANCE = 0.7     share of equal labels by chance, above which nothing can be told
    SURE = 3         standard errors above chance: as many equal labels as that are chance
    HIGH = 0.95      of the entropy of the labels: the loss is that of guessing, or above it
    LOW = 0.8        of it: the loss was below it before
    AROUND = 20      steps before and after a jump, of which the median is taken
    NEAR = 3         steps on both sides of the jump: it lies between two of them
    WILD = 10        times the loss that stays: a jump beyond it is a step out of all bounds
    BEFORE = 80      steps before the jump, whose rates and norms are the usual ones
    STAYS = 100      steps since, at least; and no PART of them is below HIGH. Harder samples, or
                     new classes, are learned in fewer, or the loss falls meanwhile
    PART = 50        steps of which the mean is taken
    USUAL = 3        times the median norm and rate of the steps before: a longer step is OPT001's
    ONE = 100        steps with one batch, and half of the run, for a warning: a policy's rollout is
                     used for tens of steps
    NOTED = 32       steps with one batch from the start, for a note

Remedies

Shuffle samples and labels by one permutation; begin the iterator anew when it ends (advice).

When it is wrong

Data that are replaced in the middle of a run by others from which nothing can be learned, on
purpose.

References: Karpathy 2019 (a recipe: look at what the network is given).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy, Severity
from unvanish.core.run_facts import BatchFacts
from unvanish.core.trace import Trace
from unvanish.rules import _guess, _history
from unvanish.rules._fault import Fault
from unvanish.rules._history import Floats
from unvanish.rules._tiers import REMARK, STEPS

NEEDS = ("history",)
AT_ONCE = True
EXPLAINS = ("LOS004", "OPT001", "OPT003", "OPT008", "ACT003", "OUT003", "DEP001")
MET, KNOWN, LENT, CHANCE, SURE = 32, 0.9, 0.3, 0.7, 3
HIGH, LOW, AROUND, STAYS, PART, USUAL = 0.95, 0.8, 20, 100, 50, 3
NEAR, WILD, BEFORE = 3, 10, 80
ONE, NOTED = 100, 32
PAIRS = "shuffle samples and labels by one permutation; look at some pairs as the loss sees them"
TURNS = "begin the iterator anew when it ends; make it once, before the loop"


def check(trace: Trace) -> Iterable[Fault]:
    """One fault: labels that changed, a loss that is back at guessing, or one batch."""
    taken = _history.read_steps(trace, "step")
    batches, labels = trace.facts.get("batches"), trace.facts.get("labels")
    if batches is None and labels is None:
        raise NotApplicable("neither samples nor labels were seen")
    fault = None
    if batches is not None:
        fault = _find_parted(batches)
    if fault is None:
        fault = _find_lost(trace, taken)
    if fault is None and batches is not None:
        fault = _find_one(batches, int(taken[-1]) if len(taken) else 0)
    return [] if fault is None else [fault]


def _find_parted(batches: BatchFacts) -> Fault | None:
    """Samples whose labels were theirs, and are those of others now."""
    met, same, lent = (
        np.asarray(counts, np.float64) for counts in (batches["met"], batches["same"], batches["lent"])
    )
    chance = 0.0 if math.isnan(batches["chance"]) else batches["chance"]
    kept = np.flatnonzero((met > 0) & (same > KNOWN * met))
    if not len(kept) or chance > CHANCE:
        return None
    last = int(kept[-1]) + 1
    before, after = met[:last].sum(), met[last:].sum()
    if min(before, after) < MET or (met[last:] > 0).sum() < 2 or same[:last].sum() < KNOWN * before:
        return None
    share, error = same[last:].sum() / after, math.sqrt(chance * (1 - chance) / after)
    if share > chance + SURE * error + 1 / after or lent[last:].sum() < LENT * after:
        return None
    low, high = batches["steps"][last - 1], batches["steps"][last]
    cause = (
        f"labels no longer belong to their samples: of {int(after)} met again, {share:.0%} have the "
        f"label that they had, though all had until step {low}; it changed by step {high}"
    )
    return _tell("warning", cause, Evidence("samples with their first label", share, limit="1"), PAIRS)


def _find_lost(trace: Trace, taken: Floats) -> Fault | None:
    """A loss that was far below that of guessing, jumped there, and stays."""
    labels, loss = trace.facts.get("labels"), _history.read_steps(trace, "loss")
    if labels is None or _guess.find_obstacle(labels, taken, loss):
        return None
    known, guess = np.isfinite(loss), labels["guess"]
    values, at = loss[known], np.flatnonzero(known)
    if len(values) < STAYS + 2 * AROUND:
        return None
    place = _find_jump(values)
    before, after = np.median(values[place - AROUND : place]), np.median(values[place : place + AROUND])
    rest = values[place:]
    means = np.convolve(rest, np.ones(PART) / PART, "valid") if len(rest) >= STAYS else np.zeros(1)
    if not (before < LOW * guess and after > HIGH * guess and means.min() > HIGH * guess):
        return None
    if not (_is_sudden(values, place, (before + after) / 2) and _is_usual(trace, int(at[place]))):
        return None
    step = int(taken[at[place]])
    cause = (
        f"the loss jumped at step {step} from {before:.3g} to {after:.3g} and has stayed at that of guessing "
        f"by frequency ({guess:.3g} nats), though rate and gradient were as usual: from there on the labels "
        "say nothing of their samples"
    )
    return _tell("warning", cause, Evidence("loss", float(values[-PART:].mean()), unit="nats"), PAIRS)


def _find_jump(values: Floats) -> int:
    """Where the median of the next values is highest above that of the last ones."""
    windows = np.median(np.lib.stride_tricks.sliding_window_view(values, AROUND), axis=1)
    return int(np.argmax(windows[AROUND:] - windows[:-AROUND])) + AROUND


def _is_sudden(values: Floats, place: int, middle: float) -> bool:
    """Whether one step parts low values from high ones, and was none that went out of all bounds."""
    near = values[place - NEAR : place + NEAR + 1]
    risen = np.flatnonzero(near > middle)
    if not len(risen) or near.max() > WILD * np.median(values[place : place + AROUND]):
        return False
    first = place - NEAR + int(risen[0])
    return bool(np.median(values[first : first + NEAR]) > middle)


def _is_usual(trace: Trace, row: int) -> bool:
    """Whether the steps before a row were as long, by rate and gradient, as those before them."""
    for name in ("lr", "norm_log"):
        values = _history.read_steps(trace, name)
        before, last = values[max(0, row - BEFORE) : row - NEAR], values[max(0, row - NEAR) : row]
        before, last = before[np.isfinite(before)], last[np.isfinite(last)]
        if not len(before) or not len(last):
            continue
        usual, most = np.median(before), last.max()
        if most - usual > math.log(USUAL) if name == "norm_log" else most > USUAL * usual:
            return False
    return True


def _find_one(batches: BatchFacts, now: int) -> Fault | None:
    """One batch at all the last looks."""
    steps, alike = batches["steps"], batches["alike"]
    first = len(steps) - 1
    while first > 0 and alike[first]:
        first -= 1
    gaps = np.diff(steps[first:])
    if len(gaps) < 2 or math.gcd(*gaps.tolist()) > 1:
        return None
    lasted = steps[-1] - steps[first]
    evidence = Evidence("steps with one batch", lasted, unit=f"of {now + 1}")
    if first == 0 and lasted >= NOTED:
        return _tell("note", f"each of {len(steps)} looks met one and the same batch", evidence, TURNS)
    if first == 0 or lasted < ONE or 2 * lasted < now:
        return None
    cause = f"one and the same batch at every look since step {steps[first]}; before, they differed"
    return _tell("warning", cause, evidence, TURNS)


def _tell(severity: Severity, cause: str, number: Evidence, why: str) -> Fault:
    return Fault(
        severity=severity,
        cause=cause,
        sites=("loss",) if why is PAIRS else (),
        evidence=(number,),
        remedies=(Remedy("look-at-the-batches", (), why, safety="advice"),),
        direction="none",
        tier=REMARK if severity == "note" else STEPS,
    )


def sick() -> Case:
    """The labels move on by one sample after a third of the run."""
    return _case(move=True)


def healthy() -> Case:
    """They do not."""
    return _case(move=False)


def _case(move: bool) -> Case:
    import torch
    from torch import nn

    class Moved(nn.CrossEntropyLoss):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            wrong = move and self.calls > 60
            return super().forward(scores, target.roll(self.calls) if wrong else target)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        x = torch.randn(128, 16)
        batch = x, (x @ torch.randn(16, 4)).argmax(1)
    training = _history.rehearse_with(
        optimizer=lambda m: torch.optim.Adam(m.parameters(), 1e-2), steps=160, every=20
    )
    story = "labels of other samples after 60 steps" if move else "every label with its sample"
    return Case(net, batch, Moved(), training, story=story)
