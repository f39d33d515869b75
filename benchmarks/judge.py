"""Whether a treated network trains worse than the untreated one: by trainings of the benchmark's own.

Notable:
- One training is sixty steps of AdamW on one batch at the better of two rates: another optimizer and other
  seeds than the proof of `cure` uses.
- Where gradients are huge, one training ends either way by chance. So what fell behind in a first training of
  each side is decided by the medians of several, from starts whose weights and seeds differ a little. All
  treatments are judged alike.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.published import objective

RATES = (1e-3, 1e-2)
STEPS = 60
TRIALS = 7  # of each side, where the first leaves it open
NUDGE = 0.01  # of each weight, between trials
TOLERANCE = 0.15  # of the first loss: what two trainings may differ by
OPEN = 0.03  # of the first loss: above it the first trial decides nothing
SOLVED = 1e-5  # of the loss's own scale: two losses below it are both as good as zero

Change = Callable[[list[Any]], Any]
Ends = tuple[float, float]  # the first loss and the last


@dataclass
class Side:
    """A model, its batch and loss, what is done to its gradients before a step, and its trainings so far."""

    model: nn.Module
    batch: Any
    loss: Any
    change: Change | None = None
    runs: list[Ends] = field(default_factory=list)

    @property
    def reached(self) -> float:
        """The median of the last losses so far, NaN before the first training."""
        return statistics.median(last for _, last in self.runs) if self.runs else math.nan

    @property
    def solved(self) -> float:
        """The loss that is as good as zero."""
        own = self.loss if self.loss is not None else getattr(self.model, "criterion", None)
        return SOLVED * min(1.0, getattr(own, "scale", 1.0) * getattr(self.model, "factor", 1.0))

    def trained(self, trials: int) -> Ends:
        """The medians of the first and of the last losses over several trainings."""
        while len(self.runs) < trials:
            self.runs.append(fall(self, len(self.runs)))
        firsts, lasts = zip(*self.runs[:trials], strict=True)
        return statistics.median(firsts), statistics.median(lasts)


def worse(before: Side, after: Side) -> bool:
    """Whether the treated side trains clearly worse, by the medians where one training leaves it open."""
    for trials, tolerance in ((1, OPEN), (TRIALS, TOLERANCE)):
        sides = before.trained(trials), after.trained(trials)
        if not is_worse(*sides, before.loss is after.loss, tolerance, before.solved):
            return False
    return True


def is_worse(
    before: Ends, after: Ends, comparable: bool = True, tolerance: float = TOLERANCE, solved: float = SOLVED
) -> bool:
    """Whether clearly less of the loss went away; of different losses, their shares are compared."""
    if not math.isfinite(before[1]):
        return False
    if not math.isfinite(after[1]):
        return True
    if not comparable:
        return after[1] / after[0] > before[1] / before[0] + tolerance
    return after[1] > before[1] + max(solved, tolerance * min(abs(before[0]), abs(after[0])))


def fall(side: Side, trial: int) -> Ends:
    """The first and the last loss of a training, at the better of two rates; inf where it breaks."""
    return min((_train(side, rate, trial) for rate in RATES), key=lambda ends: ends[1])


def _train(side: Side, rate: float, trial: int) -> Ends:
    model = copy.deepcopy(side.model)
    if trial:
        _nudge(model, trial)
    torch.manual_seed(12345 + trial)
    wanted = [p for p in model.parameters() if p.requires_grad]
    sparse = any(getattr(m, "sparse", False) for m in model.modules())
    fused = all(p.is_floating_point() for p in wanted)
    optimizer = torch.optim.SGD(wanted, rate) if sparse else torch.optim.AdamW(wanted, rate, fused=fused)
    first = last = math.nan
    for step in range(STEPS + 1):
        optimizer.zero_grad()
        value, _, _ = objective(model, side.batch, side.loss)
        last = float(value.detach())
        first = last if step == 0 else first
        if not math.isfinite(last) or not value.requires_grad:
            return first, math.inf if not math.isfinite(last) else last
        value.backward()
        if side.change is not None:
            side.change(wanted)
        optimizer.step()
    return first, last


@torch.no_grad()
def _nudge(model: nn.Module, trial: int) -> None:
    """Another start, each weight a little off."""
    generator = torch.Generator().manual_seed(777 + trial)
    for p in model.parameters():
        if p.is_floating_point():
            p.mul_(1 + NUDGE * torch.randn(p.shape, generator=generator).to(p.dtype))
