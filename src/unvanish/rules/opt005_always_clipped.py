"""Nearly every step is clipped: the clipping has become the learning rate.

Why it harms

Clipping is meant for the rare step. If every gradient is scaled to the limit,

    g <- g * limit / ||g||,

plain SGD takes steps of constant length whatever the loss does and never settles; adaptive
optimizers lose the size that tells a flat region from a steep one.

An example

    nn.utils.clip_grad_norm_(net.parameters(), 0.01)     # where the usual norm is 1

How it is measured

The share of clipped steps among the last ones of a watched training, and the norm before clipping.
The watch reads both norms at its looks, and infers a clipped step from its norm in between. A share
above `limit` is a note; it is a warning if the norm before clipping is more than `far` times the
limit.

Limits

    limit = 0.9   of the steps: clipping that bounds outliers acts on few of them; a tenth that is
                  not clipped still tells small gradients from large ones
    far = 10      times the limit: the steps are a tenth of what the rate says, or less
    STEPS = 100   last steps of which it must be known whether they were clipped
    LOOKS = 8     or looks over half as many steps, which read both norms, all clipped: what
                  clips each element leaves no norm by which the steps between are known
    UNEVEN = 0.02  ln, by which the norms that such a clip leaves differ; a clip of the norm
                  leaves one

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

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _history
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import REMARK

NEEDS = ("history",)
AT_ONCE = True
EXPLAINS = ("OPT002",)
STEPS, LOOKS, UNEVEN = 100, 8, 0.02


def check(trace: Trace, *, limit: float = 0.9, far: float = 10.0) -> Iterable[Fault]:
    """One fault with the share of clipped steps and the norm before clipping."""
    clipped = _history.read_steps(trace, "clipped")
    known = clipped[np.isfinite(clipped)][-STEPS:]
    before, after = _history.read_steps(trace, "before_log"), _history.read_steps(trace, "norm_log")
    sure = np.flatnonzero(np.isfinite(before) & np.isfinite(after))[-LOOKS:]
    spread = len(sure) == LOOKS and sure[-1] - sure[0] >= STEPS // 2
    uneven = spread and float(np.ptp(after[sure])) > UNEVEN  # what clips a norm leaves one norm
    always = uneven and len(clipped) >= STEPS and clipped[sure].min() == 1
    if len(known) < STEPS and not always:
        raise NotApplicable(f"fewer than {STEPS} steps of which it is known whether they were clipped")
    share = 1.0 if always else float(known.mean())
    if not share > limit:
        return []
    both = np.flatnonzero((clipped == 1) & np.isfinite(before) & np.isfinite(after))[-STEPS:]
    if not len(both):
        return []
    excess = math.exp(float(np.median(before[both] - after[both])))
    norm, ceiling = math.exp(float(np.median(before[both]))), math.exp(float(np.median(after[both])))
    return [
        Fault(
            severity="warning" if excess > far else "note",
            cause=f"{_describe(share, always)} clipped to {ceiling:.3g}; the norm before is {norm:.3g}",
            sites=(),
            evidence=(
                Evidence("clipped steps", share, limit=f"< {limit:g}"),
                Evidence("norm before clipping, median", norm),
                Evidence("the same over the limit", excess, unit="times", limit=f"< {far:g}"),
            ),
            remedies=(
                Remedy("raise-clipping-limit", (), f"to about {norm:.2g}, the usual norm", safety="advice"),
                Remedy("zclip", (), "clips only the outliers in the run's own history", safety="exact"),
            ),
            direction="none",
            tier=REMARK,
        )
    ]


def _describe(share: float, always: bool) -> str:
    if always:
        return f"the gradients of all of the last {LOOKS} looks are"
    return f"{share:.0%} of the last {STEPS} steps are"


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

    training = _history.rehearse_with(
        optimizer=lambda m: torch.optim.SGD(m.parameters(), 1e-2), steps=120, clip=limit
    )
    return Case(net, batch, nn.MSELoss(), training, story=f"gradients clipped to {limit:g}")
