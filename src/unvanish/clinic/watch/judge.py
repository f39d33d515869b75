"""Judging what a watch has seen: each look, the rows of steps, the first step, a step that was tried.

Notable: what is new waits in `fresh` until the program is told, which happens outside of all hooks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from unvanish.clinic.rounds import RuleChoice
from unvanish.clinic.watch.alertness import Alertness
from unvanish.clinic.watch.chronicle import Chronicle
from unvanish.clinic.watch.concert import Concert, News
from unvanish.clinic.watch.deeds import Deeds
from unvanish.clinic.watch.finiteness import Finiteness, is_broken
from unvanish.clinic.watch.first_look import FirstLook
from unvanish.clinic.watch.looks import Look
from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.rows import StepRow
from unvanish.clinic.watch.steps import CurrentStep
from unvanish.clinic.watch.trials import LONG, StepTrials
from unvanish.clinic.watch.verdicts import Verdicts
from unvanish.core.diagnosis import Finding
from unvanish.core.facts import TraceFacts
from unvanish.core.trace import Trace


class Judge:
    """Judges by rules, and hands on what is new.

    `fresh`: findings that nobody has been told of yet.
    """

    def __init__(
        self,
        chronicle: Chronicle,
        concert: Concert,
        pace: Pace,
        choice: RuleChoice,
        look: Look,
        first: FirstLook,
        deeds: Deeds,
        trials: StepTrials,
        step: CurrentStep,
    ) -> None:
        self.chronicle, self.concert, self.pace, self.step = chronicle, concert, pace, step
        self.look, self.first, self.deeds, self.trials = look, first, deeds, trials
        self.verdicts = Verdicts(choice, step.first)
        self.finiteness, self.alertness = Finiteness(), Alertness()
        self.fresh: list[News] = []
        self._stood = False  # no weight moved, or units had died, when rows were judged last

    def judge_finite(self, *numbers: Any, step: CurrentStep | None = None) -> None:
        """Name what is not finite while it is there; numbers on a device are judged when they have come."""
        about = step or self.step
        if any(map(is_broken, numbers)) and self.finiteness.record_break(about, self.look.watched.parameters):
            self.chronicle.settle(due=True)
            self.judge_rows()  # what led to it
            self._judge_at_once("NUM001", about.number)

    def judge_late(self, rows: Iterable[StepRow]) -> None:
        """Judge the numbers of these steps, which have arrived from the device."""
        for row in rows:
            if math.isfinite(row.norm):
                self.finiteness.last = max(self.finiteness.last, row.step)
            else:
                late = CurrentStep(self.step.first, row.step, norm=row.norm, loss=row.loss)
                self.judge_finite(row.norm, step=late)

    def note_step(self) -> None:
        """A step has been made: if its norm, its rate or its loss has jumped, the rows are judged soon."""
        self.finiteness.note(self.step)
        row, usual = self.chronicle.row, self.alertness
        if row is None or not isinstance(row.norm, float):
            return
        jumped = not usual.settle(row.norm, row.lr) and usual.reset(row.norm, row.lr)
        if (jumped or self.trials.rising.above) and self.verdicts.hasten(self.step.made):
            self._look_soon()

    def judge_first(self, skipped: bool, stepped: Collection[int]) -> None:
        """Report what the examinations of the first steps agree on."""
        verdict = self.first.judge(skipped, stepped)
        number, store = self.step.number, self.chronicle.writer
        fresh = [f for f in verdict.findings if self.verdicts.report(f, number, store)]
        self._respond([f for f in fresh if f.code in verdict.told], self._lead())

    def judge_look(self) -> None:
        """Judge the look that the history has just taken in."""
        lead, number = self._lead(), self.step.number
        fresh = self.verdicts.judge(self.trace(), number, self.chronicle.writer)
        if self.first.spoke:  # consequences of what was said are not said again
            leading = {f.code for f in self.verdicts.findings}
            fresh = [f for f in fresh if f.code in leading]
        self._respond(fresh, lead)

    def judge_rows(self) -> None:
        """Judge what the steps alone tell."""
        self._judge_rows(self.step.number)
        steps = self.chronicle.history.steps
        stands = steps.stands or steps.dies
        if stands and not self._stood:
            self._look_soon()
        self._stood = stands

    def _look_soon(self) -> None:
        """What happened is looked at, unless ranks look together."""
        soon = self.pace.hasten(self.step.made)
        if soon is not None and self.concert.company.exchange is None:
            self.look.next = min(self.look.next, self.step.number + soon)

    def judge_end(self) -> None:
        """Judge what the steps of the whole run tell; none is being made any more."""
        self._judge_rows(max(self.step.first, self.step.number - 1))

    def _judge_rows(self, number: int) -> None:
        lead = self._lead()
        fresh = self.verdicts.judge_steps(self.trace(), number, self.chronicle.writer)
        self._respond(fresh, lead, number)

    def try_step(self, skipped: bool, looked: bool) -> None:
        """Try the step just made, if it was chosen, and choose whether the next one is tried."""
        trials = self.trials
        if not skipped and trials.run(self.step.number):
            self._judge_at_once("OPT008", self.step.number)
        long = looked and (self.chronicle.history.is_long(LONG) or "OPT001" in self.verdicts.reported)
        trials.prepare(trials.suspects(self.chronicle.last_loss, long, looked))

    def hear_others(self) -> None:
        """Take in what other ranks have found."""
        self.fresh += self.concert.hear(self.verdicts, self.chronicle.writer)

    def close(self) -> None:
        """Take in what other ranks found until the end."""
        self.fresh += self.concert.close(self.verdicts, self.chronicle.writer)

    def trace(self) -> Trace:
        """What was seen so far, as rules read it."""
        facts: TraceFacts = {"precision_live": self.look.low}
        if self.finiteness.broken is not None:
            facts["broken"] = self.finiteness.broken
        if self.deeds.holding is not None:
            facts["holding"] = self.deeds.holding
        if self.deeds.plan is not None:
            facts["plan"] = self.deeds.plan
        if self.look.ways:
            facts["ways"] = list(self.look.ways)
        if self.deeds.modes.facts is not None:
            facts["modes"] = self.deeds.modes.facts
        if (labels := self.look.labels.facts) is not None:
            facts["labels"] = labels
        if (batches := self.look.labels.batches.facts) is not None:
            facts["batches"] = batches
        if self.trials.found:
            facts["critical"], facts["asked"] = list(self.trials.found), self.trials.asked
        return self.chronicle.history.trace(facts)

    def _judge_at_once(self, code: str, number: int) -> None:
        found = self.verdicts.judge_at_once(code, self.trace(), number, self.chronicle.writer)
        self._respond(found, lead=0)

    def _lead(self) -> int:
        return self.concert.choose_lead(self.pace.usual)

    def _respond(self, fresh: Sequence[Finding], lead: int, number: int | None = None) -> None:
        """Hand new findings on, raising ones last; `lead`: steps until all ranks act; `number`: the step."""
        ordered = sorted(fresh, key=lambda f: f.severity != "note")
        step = self.step.number if number is None else number
        self.fresh += [self.concert.tell(finding, step, lead) for finding in ordered]
