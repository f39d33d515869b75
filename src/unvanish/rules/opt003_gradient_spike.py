"""The gradient spikes, again and again, far out of the run's own history.

Why it harms

One gradient a hundred times the usual size moves the weights further than a hundred ordinary
steps, and fills the optimizer's memory,

    v <- b2 v + (1 - b2) g^2,

so that the steps after it are too short. Single spikes pass; a run of them ends in divergence.

An example

    loss = criterion(net(x), y) * (100 if step % 12 == 11 else 1)    # some batches are out of scale

How it is measured

The norm of every step's gradient, as the optimizer sees it, among the last `window` steps. A
spike is above the median by `deviations` robust standard deviations of the log, and by the
factor TIMES, and as far above the median of the steps just before it: in a run that converges
the first steps are large. LEAST of them are a warning.

Limits

    deviations = 8   of ln ||g||: chance does this once in 1e15 steps of a normal distribution,
                     and heavy tails of small batches seldom (ZClip, Kumar et al. 2025, clips at
                     2.5)
    window = 200     steps: long enough for a median, short enough to follow the run
    TIMES = 10       times the median at least: a smaller spike does no harm, however quiet the
                     run
    NEAR = 25        steps just before one, above whose median it must stand out as well
    LEAST = 3        spikes in the window: single ones pass
    SKIPPED = 25     first steps that do not count, as in ZClip; twice as many must follow
    QUIET = 0.1      nats of scatter at least: a run without noise has no outliers

Remedies

Clip by the run's own history, ZClip or AGC (exact). A smaller learning rate, or a larger second
beta of Adam (advice). Look at the batches of those steps.

When it is wrong

Very small batches of very unequal samples.

References: Kumar et al. 2025 (ZClip); Brock et al. 2021 (AGC); Molybog et al. 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _history
from unvanish.rules._fault import Fault
from unvanish.rules._scatter import measure_scatter
from unvanish.rules._tiers import START

NEEDS = ("history",)
AT_ONCE = True
SKIPPED = 25
LEAST = 3
TIMES = 10
QUIET = 0.1
NEAR = 25


def check(trace: Trace, *, deviations: float = 8.0, window: int = 200) -> Iterable[Fault]:
    """One fault with the spikes' steps and sizes."""
    taken, norms = _known_norms(trace)
    taken, norms = taken[-window:], norms[-window:]
    if len(norms) < 2 * SKIPPED:
        raise NotApplicable(f"fewer than {2 * SKIPPED} steps after the first {SKIPPED}")
    centre = float(np.median(norms))
    scatter = max(measure_scatter(norms, centre), QUIET)
    high = norms > centre + max(deviations * scatter, math.log(TIMES))
    for k in np.flatnonzero(high):
        near = norms[max(0, k - NEAR) : k] if k else norms
        high[k] = norms[k] - np.median(near) > math.log(TIMES)
    count = int(high.sum())
    if count < LEAST:
        return []
    excess = float(norms[high].max()) - centre
    return [
        Fault(
            severity="warning",
            cause=f"{count} of the last {len(norms)} gradients are spikes, up to {math.exp(excess):.0f} "
            f"times the usual norm (the last at step {int(taken[high][-1])})",
            sites=(),
            evidence=(
                Evidence("spikes", count, unit=f"of {len(norms)} steps", limit=f"< {LEAST}"),
                Evidence("largest norm over the median", math.exp(excess)),
                Evidence("the same in robust deviations", excess / scatter, limit=f"< {deviations:g}"),
            ),
            remedies=(
                Remedy("zclip", (), "clips only the outliers in the run's own history", safety="exact"),
                Remedy("adaptive-clip", (), "bounds each unit's step by its weights", safety="exact"),
                Remedy(
                    "lower-learning-rate", (), "long steps lead to where gradients are steep", safety="advice"
                ),
            ),
            direction="exploding",
            tier=START,
        )
    ]


def _known_norms(trace: Trace) -> tuple[_history.Floats, _history.Floats]:
    """The steps after the first ones whose norm is known, and ln of these norms."""
    taken, norms = _history.read_steps(trace, "step"), _history.read_steps(trace, "norm_log")
    step = np.arange(len(norms)) + (taken[0] if len(taken) else 0)
    usable = np.isfinite(norms) & (step >= SKIPPED)
    return taken[usable], norms[usable]


def sick() -> Case:
    """Every 12th batch is a hundred times too large."""
    return _case(100.0)


def healthy() -> Case:
    """The same training with batches that are alike."""
    return _case(1.0)


def _case(factor: float) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        x = torch.randn(128, 16)
        batch = x, x @ torch.randn(16, 4) + torch.randn(128, 4)

    def event(step: int, model: Any, optimizer: Any) -> float:
        return factor if step % 12 == 11 else 1.0

    training = _history.rehearse_with(
        optimizer=lambda m: torch.optim.Adam(m.parameters(), 1e-3), steps=100, scale=event
    )
    return Case(net, batch, nn.MSELoss(), training, story=f"every 12th batch times {factor:g}")
