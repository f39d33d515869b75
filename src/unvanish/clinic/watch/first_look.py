"""The first look: one real step examined, and judged by every rule that one batch can feed.

Notable:
- A healthy step is examined once. What is found is looked at again in the next steps, and reported when it
  was there three times: a part that only some batches use, a step without its gradient, are not faults.
- A parameter that got its gradient in any of these steps has one.
- It is made again when the graph has changed: other trainable parameters, or a batch of another size by a
  factor.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from unvanish.clinic.rounds import MEASURED, RuleChoice, fold, rank, visit
from unvanish.clinic.watch.seen_gradients import SeenGradients
from unvanish.clinic.watch.watched import Watched
from unvanish.core.diagnosis import Finding
from unvanish.core.trace import Trace
from unvanish.probes.live.compiled import is_compiler_strict
from unvanish.probes.live.examination import Examination
from unvanish.probes.live.guard import WatchGuard
from unvanish.rules import rules

PATIENCE = 3  # examinations that must agree
TRIES = 8  # steps in which an examination may not succeed
SURE = frozenset({"NUM001"})  # what is not finite needs no second examination
FACTOR = 2  # by which a batch is of another size


@dataclass(frozen=True)
class FirstVerdict:
    """What the examinations agree on, consequences among it; `told`: of it, what is reported by itself."""

    findings: tuple[Finding, ...] = ()
    told: frozenset[str] = frozenset()


class FirstLook:
    """Examines the first steps until they agree; `prepare` before a step, `judge` after it."""

    def __init__(self, watched: Watched, guard: WatchGuard, choice: RuleChoice, apart: str) -> None:
        """`apart`: why this process cannot be examined by itself; empty if it can."""
        codes = [code for code, rule in rules().items() if rule.needs <= MEASURED]
        self.watched, self.guard, self.choice = watched, guard, choice.only(codes)
        self.examination = Examination(watched.inner, guard)
        self.seen = 0  # examinations that were judged
        self.spoke = False  # whether anything was reported
        self.busy = False  # whether the present step is, or was to be, examined
        self.gradients = SeenGradients(watched, adopts=not watched.references)
        self._wanted = TRIES
        self._agreed: set[str] | None = None  # codes, of all examinations so far
        self._shape: tuple[Any, ...] = ()  # what is trained
        self._sizes = (0, 0)  # of the samples that were examined, the smallest and the largest
        if apart:
            self._leave_out(apart)

    # -- when

    def prepare(self) -> None:
        """Open for the step that begins, if there is something to examine."""
        if not self._wanted:
            return
        self._wanted -= 1
        inner = self.watched.inner
        if self.watched.is_compiled() or is_compiler_strict():
            self._wanted = 0  # the look says so
        elif any(type(m).__module__.startswith("torch.jit") for m in inner.modules()):
            self._leave_out("a part of the model is scripted")
        else:
            self._shape = self._read_shape()
            self.busy = True
            self.examination.open(self.watched.references, self.watched.loss)

    def ask_again(self, size: int) -> None:
        """Examine again if the graph has changed; `size`: numbers of a sample of the last look, or 0."""
        if self._wanted or not self._shape:
            return
        low, high = self._sizes
        grown = bool(size and high) and not low / FACTOR < size < high * FACTOR
        if grown or self._shape != self._read_shape():
            self._wanted, self._agreed, self.seen = TRIES, None, 0
            self.gradients.rows.clear()

    def _read_shape(self) -> tuple[Any, ...]:
        return tuple((id(p), p.requires_grad) for p in self.watched.inner.parameters())

    def _leave_out(self, why: str) -> None:
        self._wanted = 0
        self.guard.note(f"the first step was not examined as `check` would: {why}")

    # -- what

    def judge(self, skipped: bool, stepped: Collection[int]) -> FirstVerdict:
        """What is to be reported after this step; `stepped`: ids of the optimizers that made it."""
        examination, self.busy = self.examination, False
        examination.close()
        trace, examination.trace = examination.trace, None
        if trace is None:
            if examination.trouble and (examination.final or not self._wanted) and not self.seen:
                self._leave_out(examination.trouble)
            return FirstVerdict()
        if examination.broken and (skipped or self.watched.loss_scale() != 1.0):
            return FirstVerdict()
        return self._weigh(self.gradients.complete(trace, stepped))

    def _weigh(self, trace: Trace) -> FirstVerdict:
        """Compare with the examinations before."""
        size, (low, high) = self.examination.size, self._sizes
        self._sizes = min(low or size, size), max(high, size)
        for sentence in trace.facts.get("unmeasured", []):
            self.guard.note(f"not measured in the first look: {sentence}")
        found = rank(visit(trace, self.choice).findings)
        codes = {f.code for f in found if f.severity != "note"}
        self._agreed = codes if self._agreed is None else self._agreed & codes
        self.seen += 1
        at_once = codes & SURE
        if self._agreed and self.seen < PATIENCE and not at_once:
            self._wanted = max(self._wanted, 1)
            return FirstVerdict()
        self._wanted = 0
        kept = [f for f in found if f.severity == "note" or f.code in self._agreed | at_once]
        leading = {f.code for f in fold(tuple(kept)) if f.severity != "note"}
        self.spoke |= bool(leading)
        return FirstVerdict(tuple(kept), frozenset(leading))

    def remove(self) -> None:
        """Detach everything for good."""
        self._wanted = 0
        self.examination.remove()
