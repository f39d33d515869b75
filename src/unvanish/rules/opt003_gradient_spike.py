"""The gradient spikes, again and again, far out of the run's own history.

Why it harms

One gradient a hundred times the usual size moves the weights further than a hundred ordinary
steps, and fills the optimizer's memory,

    v <- b2 v + (1 - b2) g^2,

so that the steps after it are too short. Single spikes pass; a run of them ends in divergence.

How it is measured

The norm of every step's gradient, as the optimizer sees it, against the `window` steps before
(default 200): a spike is above the median by `deviations` (default 8) robust standard deviations
of the log and by a factor of ten. Three or more in the window are a warning; the first 25 steps
do not count.

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

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _history

NEEDS = ("history",)
AT_ONCE = True
START = 25
LEAST = 3


def check(trace: Trace, *, deviations: float = 8.0, window: int = 200) -> Iterable[Finding]:
    """One finding with the spikes' steps and sizes."""
    taken = _history.steps(trace, "step")
    norms = _history.steps(trace, "norm_log")
    usable = np.isfinite(norms) & (np.arange(len(norms)) + (taken[0] if len(taken) else 0) >= START)
    taken, norms = taken[usable][-window:], norms[usable][-window:]
    if len(norms) < 2 * START:
        raise NotApplicable(f"fewer than {2 * START} steps after the first {START}")
    centre = float(np.median(norms))
    scatter = max(1.4826 * float(np.median(np.abs(norms - centre))), 0.1)
    high = norms > centre + max(deviations * scatter, math.log(10))
    if high.sum() < LEAST:
        return []
    largest = float(norms[high].max())
    times = math.exp(largest - centre)
    cause = (
        f"{int(high.sum())} of the last {len(norms)} gradients are spikes, up to {times:.0f} "
        f"times the usual norm (the last at step {int(taken[high][-1])})"
    )
    evidence = (
        Evidence("spikes", int(high.sum()), f"of {len(norms)} steps", f"< {LEAST}"),
        Evidence("largest norm over the median", times),
        Evidence("the same in robust deviations", (largest - centre) / scatter, "", f"< {deviations:g}"),
    )
    remedies = (
        Remedy("zclip", (), "clips only what stands out of the run's own history", "exact"),
        Remedy("adaptive-clip", (), "bounds each unit's step by its weights", "exact"),
        Remedy("lower-learning-rate", (), "long steps lead to where gradients are steep", "advice"),
    )
    return [Finding("OPT003", "gradient-spike", "warning", cause, (), evidence, remedies, "exploding", 4.0)]


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

    training = _history.training_case(
        optimizer=lambda m: torch.optim.Adam(m.parameters(), 1e-3), steps=100, scale=event
    )
    return Case(net, batch, nn.MSELoss(), training, story=f"every 12th batch times {factor:g}")
