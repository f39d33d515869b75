"""The critical step: the loss along a step of the optimizer, at multiples of it, on a batch.

Notable:
- For a quadratic loss (L(m) - L(0)) / m is a straight line in the multiple m, so its root, where the step
  stops lowering the loss, is found by secants; brackets and factors hold them for other losses.
- Each forward runs by itself inside `intact`, from the same random numbers: weights, buffers and
  generators are as they were, bit for bit, after each of them.

Source: Kalra et al. 2026, critical sharpness (arXiv 2601.16979): 2 / (critical rate).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unvanish.core.run_facts import CriticalFacts
from unvanish.probes.intact import intact

FORWARDS = 7  # at most, that of the weights before the step among them
FARTHEST = 4096.0  # multiples, either way
JUMP = 8.0  # times the multiple that was tried before, without two slopes that say more
TRUST = 128.0  # times it at most, with them
NEAR = 1.1  # times apart: bounds so near say where the root is
FLAT = 0.02  # of the first slope: a value so near zero is the root
DEPTH = 4.0  # a parabola that begins with slope s and has its root at m dips by s m / 4
ROUNDING = 8  # units in the last place of the loss: a smaller change is no change


@dataclass
class Bracket:
    """What is known of the slope (L(m) - L(0)) / m so far: it is negative below the critical multiple."""

    start: float  # the loss at 0
    least: float  # changes of the loss below it are rounding
    low: float = 0.0
    high: float = math.inf
    slopes: dict[float, float] = field(default_factory=dict)  # by multiple; the limit at 0, if it is known

    def add(self, multiple: float, loss: float) -> None:
        """The loss at a multiple."""
        change = loss - self.start if math.isfinite(loss) else math.inf
        steepest = max(map(abs, self.slopes.values()), default=0.0)
        seen = max(abs(change), steepest * multiple * FLAT) > self.least
        if seen and math.isfinite(change):  # else it is too short a step to say anything
            self.slopes[multiple] = change / multiple
        if change <= self.least:
            self.low = max(self.low, multiple)
        else:
            self.high = min(self.high, multiple)

    def root(self) -> float:
        """Where a straight line through the nearest known slopes is zero; NaN without two that rise."""
        below = [m for m in self.slopes if m <= self.low]
        above = [m for m in self.slopes if m > self.low]
        points = sorted(below)[-1:] + sorted(above)[:1]
        if len(points) < 2:
            points = sorted(self.slopes)[-2:] if below else sorted(self.slopes)[:2]
        if len(points) < 2:
            return math.nan
        a, b = points
        rise = (self.slopes[b] - self.slopes[a]) / (b - a)
        return a - self.slopes[a] / rise if rise > 0 else math.nan

    def trusts(self, multiple: float) -> bool:
        """Whether a parabola with its root there dips no deeper than the loss is high."""
        return abs(self.slopes.get(0.0, 0.0)) * multiple <= DEPTH * abs(self.start)

    def next(self) -> float:
        """The multiple to try next, inside the bracket."""
        guess = self.root()
        known = math.isfinite(guess) and self.trusts(guess)
        if math.isinf(self.high):
            return min(max(guess, 1.5 * self.low), TRUST * self.low) if known else JUMP * self.low
        if self.low == 0:
            return min(max(guess, self.high / TRUST), self.high / 1.5) if known else self.high / JUMP
        inside = self.low < guess < self.high
        return guess if inside and self.high < JUMP * self.low else math.sqrt(self.low * self.high)

    def flat(self) -> float:
        """The multiple at which the slope is zero, nearly; NaN if none was tried."""
        steepest = max((-slope for slope in self.slopes.values()), default=0.0)
        tried = [m for m in self.slopes if m > 0 and abs(self.slopes[m]) < FLAT * steepest and self.trusts(m)]
        return min(tried, key=lambda m: abs(self.slopes[m]), default=math.nan)

    @property
    def settled(self) -> bool:
        """Whether the root is known well enough."""
        return self.high <= NEAR * self.low or self.flat() > 0


def find_critical(start: float, slope: float, loss_at: Callable[[float], float]) -> tuple[float, float, int]:
    """(critical multiple, loss after the step, forwards made) along a step.

    `start`, `slope`: the loss before it, and its derivative by the multiple there, NaN if unknown. The
    multiple is 0 if none lowers the loss, infinite if the loss falls as far as was looked, NaN if the step
    leads up.
    """
    after = loss_at(1.0)
    if not math.isfinite(start) or slope >= 0:  # momentum may lead up
        return math.nan, after, 1
    known = Bracket(start, ROUNDING * torch.finfo(torch.float32).eps * abs(start))
    if math.isfinite(slope):
        known.slopes[0.0] = slope
    known.add(1.0, after)
    made = 1
    while made < FORWARDS and not known.settled and 1 / FARTHEST < known.next() < FARTHEST:
        multiple = known.next()
        known.add(multiple, loss_at(multiple))
        made += 1
    return _conclude(known), after, made


def _conclude(known: Bracket) -> float:
    """The root inside the bracket, or its open end."""
    if (flat := known.flat()) > 0:
        return flat
    if known.low == 0 or math.isinf(known.high):
        return 0.0 if known.low == 0 else math.inf
    guess = known.root()
    return guess if known.low <= guess <= known.high else math.sqrt(known.low * known.high)


@dataclass(frozen=True)
class StepTaken:
    """The parameters, what they were before a step, and the step: what was, or would be, added to each."""

    parameters: Sequence[Tensor]
    before: Sequence[Tensor]
    change: Sequence[Tensor]
    rate: float

    @torch.no_grad()
    def write(self, multiple: float) -> None:
        """Set the parameters to a multiple of the step."""
        for p, was, change in zip(self.parameters, self.before, self.change, strict=True):
            p.copy_(was.to(change.dtype) + multiple * change if multiple else was)

    def slope(self, loss: Tensor) -> float:
        """The derivative of a loss along the step, where the parameters are now; NaN without a gradient."""
        if not loss.requires_grad:
            return math.nan
        held = [p for p in self.parameters if p.requires_grad]
        try:  # no hook that waits for gradients to be written hears of it
            found = iter(torch.autograd.grad(loss, held, allow_unused=True))
        except RuntimeError:
            return math.nan
        grads = [next(found) if p.requires_grad else None for p in self.parameters]
        pairs = zip(grads, self.change, strict=True)
        return math.fsum(float((g.to(c.dtype) * c).sum()) for g, c in pairs if g is not None)


def measure_critical_step(
    number: int, step: StepTaken, objective: Callable[[], Tensor], roots: Sequence[Any]
) -> CriticalFacts:
    """How far the loss falls along a step: a backward, and at most `FORWARDS` calls of `objective` more.

    `roots`: what the objective reaches (the model, the batch, the loss), put back bit for bit after each.
    """

    def loss_at(multiple: float) -> float:
        with intact(*roots) as kept, kept:
            step.write(multiple)
            return float(objective().detach())

    with intact(*roots) as kept, kept:
        step.write(0.0)
        loss = objective()
        start, slope = float(loss.detach()), step.slope(loss)
    multiple, after, forwards = find_critical(start, slope, loss_at)
    return {
        "step": number,
        "rate": step.rate,
        "multiple": multiple,
        "loss_before": start,
        "loss_after": after,
        "forwards": forwards + 1,
    }
