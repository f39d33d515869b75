"""Nearly every step is clipped: the clipping has become the learning rate.

Why it harms

Clipping is meant for the rare step. Where every gradient is scaled to the limit,

    g <- g * limit / ||g||,

plain SGD takes steps of constant length whatever the loss does and never settles; adaptive
optimizers lose the size that tells a flat region from a steep one.

How it is measured

The share of clipped steps among the last hundred of a watched training, `limit` (default 0.9),
and the norm before clipping. The watch sees both norms where it looks, and knows a clipped step
from its norm elsewhere. It is a note; a warning where the norm before clipping is more than `far`
(default 10) times the limit.

Remedies

Raise the limit to about the usual norm, or clip by the run's own history (ZClip) (exact). If the
norm itself is wrong, `unvanish check` says why.

When it is wrong

Large language models are often clipped at every step early in training, with Adam, at little
harm.

References: Pascanu et al. 2013; Zhang et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _history

NEEDS = ("history",)
AT_ONCE = True
STEPS = 100


def check(trace: Trace, *, limit: float = 0.9, far: float = 10.0) -> Iterable[Finding]:
    """One finding with the share of clipped steps and the norm before clipping."""
    clipped = _history.steps(trace, "clipped")
    known = clipped[np.isfinite(clipped)][-STEPS:]
    if len(known) < STEPS:
        raise NotApplicable(f"fewer than {STEPS} steps of which it is known whether they were clipped")
    share = float(known.mean())
    if not share > limit:
        return []
    before, after = _history.steps(trace, "before_log"), _history.steps(trace, "norm_log")
    seen = np.flatnonzero(np.isfinite(before) & np.isfinite(after))[-STEPS:]
    excess = math.exp(float(np.median(before[seen] - after[seen])))
    norm, ceiling = math.exp(float(np.median(before[seen]))), math.exp(float(np.median(after[seen])))
    cause = (
        f"{share:.0%} of the last {STEPS} steps are clipped to {ceiling:.3g}; the norm before is {norm:.3g}"
    )
    evidence = (
        Evidence("clipped steps", share, "", f"< {limit:g}"),
        Evidence("norm before clipping, median", norm),
        Evidence("the same over the limit", excess, "times", f"< {far:g}"),
    )
    remedies = (
        Remedy("raise-clipping-limit", (), f"to about {norm:.2g}, the usual norm", "advice"),
        Remedy("zclip", (), "clips only what stands out of the run's own history", "exact"),
    )
    severity: Severity = "warning" if excess > far else "note"
    return [Finding("OPT005", "always-clipped", severity, cause, (), evidence, remedies, "none", 1.0)]


def sick() -> Case:
    """A limit a hundred times below the gradient."""
    return _case(0.01)


def healthy() -> Case:
    """A limit far above it."""
    return _case(100.0)


def _case(limit: float) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        x = torch.randn(128, 16)
        batch = x, x @ torch.randn(16, 4)

    training = _history.training_case(
        optimizer=lambda m: torch.optim.SGD(m.parameters(), 1e-2), steps=120, clip=limit
    )
    return Case(net, batch, nn.MSELoss(), training, story=f"gradients clipped to {limit:g}")
