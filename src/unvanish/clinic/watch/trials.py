"""The trials of a watched training: how far the loss falls along the step just made, tried on its own batch.

Notable:
- A trial is made if the rate is suspect (the first steps are long, the loss rises, OPT001 spoke), or, if
  that is asked for, at the looks; never beyond its share of the run's time.
- The first step of SGD, whose length is known when its batch has gone by, is tried on the next batch.
- The weights, buffers and random numbers are put back bit for bit after each forward (`probes.critical`).

Limits

    MOST = 6           trials that nobody asked for, in a run
    CREDIT = 1.0       seconds that trials may take beyond the budget
    COSTS = 5          steps' time that one takes, about: a backward and four to seven forwards
    LONG = 0.1         of the weights changed by a step is suspect, as in OPT001
    ROSE, ROWS = 2, 3  times its running mean, so many steps in a row: the loss rises
    KEPT = 0.95        of that mean is kept from step to step
    ALIKE = 0.02       of the loss: a replay that is further off is none of this step
    LARGEST = 2**30    bytes of parameters, of which a trial needs three copies
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.watched import Watched
from unvanish.core.run_facts import CriticalFacts
from unvanish.probes.critical import StepTaken, measure_critical_step
from unvanish.probes.live.compiled import is_compiler_strict
from unvanish.probes.live.guard import WatchGuard
from unvanish.probes.live.replay import Recipe, StepReplay
from unvanish.probes.planned import ADAPTIVE, read_plans

MOST, CREDIT, COSTS = 6, 1.0, 5
LONG = 0.1
ROSE, ROWS, KEPT = 2.0, 3, 0.95
ALIKE = 0.02
LARGEST = 2**30
FULL = 4  # bytes of a number: changes are kept in float32 at least


@dataclass
class RisingLoss:
    """Whether the loss has been far above its running mean for some steps."""

    mean: float = math.nan
    above: int = 0  # steps in a row
    most: float = math.nan  # the largest of the usual size; NaN: not known, or the last one was larger

    def settle(self, loss: float) -> bool:
        """Note one more loss if it is of the usual size; whether it was."""
        if not loss <= self.most:
            return False
        self.mean = mean = KEPT * self.mean + (1 - KEPT) * loss
        self.most = mean + (ROSE - 1) * abs(mean)
        return True

    def note(self, loss: float) -> bool:
        """One more loss; whether it rises."""
        if not math.isfinite(loss):
            return False
        if math.isnan(self.mean):
            self.mean = loss
        self.above = self.above + 1 if loss - self.mean > (ROSE - 1) * abs(self.mean) else 0
        self.mean = KEPT * self.mean + (1 - KEPT) * loss
        self.most = math.nan if self.above else self.mean + (ROSE - 1) * abs(self.mean)
        return self.above >= ROWS


class StepTrials:
    """Tries steps of a run; `asked`: at its looks, whatever happens. `found`: what came out, by step."""

    def __init__(self, watched: Watched, pace: Pace, guard: WatchGuard, asked: bool) -> None:
        self.watched, self.pace, self.guard, self.asked = watched, pace, guard, asked
        self.found: list[CriticalFacts] = []
        self.seconds = 0.0  # of all trials
        self.open = False  # whether the present step is to be tried
        self.running = False
        self.rising = RisingLoss()
        self._replay = StepReplay(watched.inner, guard)
        self._recipe: Recipe | None = None
        self._before: list[Tensor] = []
        self._barred = False
        self._early = True  # no optimizer has stepped yet
        self._first: StepTaken | None = (
            None  # the first step, if it was long and is to be tried on the next batch
        )
        self._told = 0.0  # of `seconds`
        guard.hold_weakly(self._replay)

    def begin(self) -> None:
        """The first step: it is tried if Adam or its like would change much of the weights by it."""
        self.prepare(self.asked or self._starts_long())

    @torch.no_grad()
    def _starts_long(self) -> bool:
        """Whether the rate is a large part of the weights; of SGD only the step itself shows it."""
        plans = read_plans(self.watched.optimizers[0]) if len(self.watched.references) == 1 else {}
        matrices = [p for p in self.watched.parameters.parameters if p.ndim > 1 and id(p) in plans]
        if not matrices or plans[id(matrices[0])].kind not in ADAPTIVE or not self.watched.alone:
            return False
        sizes = torch.stack(torch._foreach_norm([p.detach().float() for p in matrices])).tolist()
        rate = self.watched.rates()[0]
        shares = [rate * p.numel() ** 0.5 / n for p, n in zip(matrices, sizes, strict=True) if n > 0]
        return bool(shares) and median(shares) > LONG

    def prepare(self, wanted: bool) -> None:
        """A step begins, which is to be tried if so."""
        if not (wanted or self.open or self._before):
            return
        self._recipe, self._before = None, []
        self.open = wanted and not self._barred and self._affords() and not self._find_bar()
        if self.open:
            self._replay.open()

    def suspects(self, loss: float, long: bool, looked: bool) -> bool:
        """Whether the next step is to be tried; `long`: this one is, or OPT001 spoke."""
        rises = self.rising.note(loss)
        if self.asked and looked:
            return True
        if len(self.found) >= MOST:
            return False
        if self._first is not None:
            return True
        again = bool(self.found) and self.open and self.found[-1]["multiple"] < 1
        return rises or long or again

    def hear(self, roots: Any) -> None:
        """A backward begins at these tensors."""
        self._replay.hear(roots)

    @property
    def attentive(self) -> bool:
        """Whether `hold` has something to do."""
        return self.open or self._early

    @property
    def idle(self) -> bool:
        """Whether neither the present step nor the one before it is of any interest."""
        return not (self.open or self._early or self._before or self._first is not None)

    def hold(self, by_closure: bool) -> None:
        """The optimizer is about to step."""
        early, self._early = self._early, False
        if early and not self.open and not by_closure and self._is_long():
            self._before = [p.detach().clone() for p in self.watched.parameters.parameters]
        if not self.open or self._recipe is not None:
            return
        self._recipe = self._replay.close()
        if by_closure:
            self._recipe.obstacle = "the optimizer makes its own forwards"
        if not self._recipe.obstacle:
            self._before = [p.detach().clone() for p in self.watched.parameters.parameters]

    @torch.no_grad()
    def _is_long(self) -> bool:
        """Whether the first step is about to change much of the weights, by its rate and gradients.

        Of Adam and its like the rate alone tells; such a step is known to be long here only if nobody named
        its optimizer.
        """
        watched = self.watched
        if self._starts_long():
            return not self._find_bar()
        plans = read_plans(watched.optimizers[0]) if len(watched.references) == 1 and watched.alone else {}
        pairs = [
            (p.detach().float(), p.grad.detach().float())
            for p in watched.parameters.parameters
            if p.ndim > 1 and id(p) in plans and p.grad is not None and p.grad.layout == torch.strided
        ]
        if not pairs or next(iter(plans.values())).kind != "SGD" or self._find_bar():
            return False
        sizes, pulls = (torch.stack(torch._foreach_norm(x)).tolist() for x in zip(*pairs, strict=True))
        rate = watched.rates()[0]
        shares = [rate * pull / size for size, pull in zip(sizes, pulls, strict=True) if size > 0]
        return bool(shares) and median(shares) > LONG

    def run(self, number: int) -> bool:
        """Try the step just made, if it was to be; whether there is a result."""
        if not (self.open or self._before):
            return False
        recipe, self._recipe = self._recipe, None
        before, self._before = self._before, []
        if before and recipe is None:
            self._first = self._read_step(before)
            return False
        if not self.open or recipe is None or not before:
            self._say(recipe.obstacle if recipe is not None else "")
            return False
        started, self.running = perf_counter(), True
        try:
            self.found.append(self._try(number, recipe, before))
            return True
        except ValueError as reason:
            self._say(str(reason))
        except Exception as error:  # of the user's own forward, which ran in the step itself
            self._say(f"{type(error).__name__}: {error}".partition("\n")[0])
        finally:
            self.running = False
            self.seconds += perf_counter() - started
        return False

    def _try(self, number: int, recipe: Recipe, before: list[Tensor]) -> CriticalFacts:
        watched = self.watched
        first, self._first = self._first, None
        step = first if first is not None else self._read_step(before)
        was, scale = recipe.value(), watched.loss_scale()
        roots: tuple[Any, ...] = (watched.inner, [(c.args, dict(c.kwargs)) for c in recipe.calls])
        with torch._C._EnableTorchFunction():
            found = measure_critical_step(number, step, lambda: recipe.run(watched.inner), roots)
        again = (
            found["loss_before"] if first is None else found["loss_after"]
        )  # at the weights of its forward
        if not math.isfinite(was):
            raise ValueError(f"the loss is {was:.4g}")
        if not abs(again - was) <= ALIKE * abs(was):
            raise ValueError(f"the loss, computed again, is {again:.4g} and not {was:.4g}")
        if first is not None:
            found["step"] = number - 1
        return {
            **found,
            "loss_before": found["loss_before"] / scale,
            "loss_after": found["loss_after"] / scale,
        }

    def _read_step(self, before: list[Tensor]) -> StepTaken:
        """The step that led from these weights to those of now."""
        parameters: Sequence[Tensor] = self.watched.parameters.parameters
        change = [_subtract(p.detach(), was) for p, was in zip(parameters, before, strict=True)]
        return StepTaken(parameters, before, change, self.watched.rates()[0])

    def take_seconds(self) -> float:
        """Seconds of trials since the last call."""
        fresh, self._told = self.seconds - self._told, self.seconds
        return fresh

    def _affords(self) -> bool:
        usual = self.pace.usual
        cost = COSTS * usual if math.isfinite(usual) else 0.0
        return self.seconds + cost <= CREDIT + self.pace.budget * self.pace.elapsed

    def _find_bar(self) -> str:
        """Why no step of this run can be tried; noted once."""
        watched, reason = self.watched, ""
        if not watched.alone or watched.ranks > 1:
            reason = "several processes train together"
        elif len(watched.references) != 1:
            reason = "it takes exactly one optimizer"
        elif watched.is_compiled() or is_compiler_strict():
            reason = "the model, or a part of it, is compiled"
        elif sum(p.numel() * p.element_size() for p in watched.parameters.parameters) > LARGEST:
            reason = "the model is larger than 1 GiB"
        if reason:
            self._barred = True
            self._say(reason)
        return reason

    def _say(self, reason: str) -> None:
        if reason:
            self.guard.note(f"the critical step is not measured: {reason}")


def _subtract(now: Tensor, was: Tensor) -> Tensor:
    wide = torch.float32 if now.dtype.itemsize < FULL else now.dtype
    return now.to(wide) - was.to(wide)
