"""What a watch does in the life of a step; it times itself.

Notable:
- A loop needs no change; every step pays for the norm of its gradients (`steps`).
- Steps are looked at as often as the budget allows (`pace`, `looks`); between looks the model carries no
  hook, and on a device nothing is waited for.
- Gradients are read after the backward and before clipping, a loss scale taken out.
- Of several ranks each watches itself, and nothing here waits for another one (`ranks`, `exchange`).
- A fault is reported once, after three looks in a row (a NaN at once); then only its last step is kept up to
  date (`verdicts`).
"""

from __future__ import annotations

import math
import weakref
from typing import Any

from unvanish.clinic.rounds import RuleChoice
from unvanish.clinic.watch.about import describe_run, describe_unseen, find_company
from unvanish.clinic.watch.chronicle import Chronicle
from unvanish.clinic.watch.clock import StepClock
from unvanish.clinic.watch.concert import Concert
from unvanish.clinic.watch.deeds import Deeds
from unvanish.clinic.watch.first_look import FirstLook
from unvanish.clinic.watch.hearing import Hearing
from unvanish.clinic.watch.history import History
from unvanish.clinic.watch.judge import Judge
from unvanish.clinic.watch.looks import Look
from unvanish.clinic.watch.losses import StepLosses
from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.quiet import QuietSteps
from unvanish.clinic.watch.ranks import Company, plan_look
from unvanish.clinic.watch.response import Response
from unvanish.clinic.watch.steps import REFIT, CurrentStep, NormReader
from unvanish.clinic.watch.trials import StepTrials
from unvanish.clinic.watch.watched import Watched
from unvanish.core.diagnosis import Diagnosis, Finding
from unvanish.probes.live.guard import WatchEntry, WatchGuard
from unvanish.probes.live.latecomers import Latecomers
from unvanish.probes.live.readable import is_number, read_number
from unvanish.store import Store
from unvanish.store.records import Records


class Observer:
    """What a watch does; nothing here is called by the program itself, all of it through the watch's guard.

    `judge`: judges what was seen; `judge.fresh`: findings that nobody has been told of yet.
    """

    def __init__(
        self,
        guard: WatchGuard,
        watched: Watched,
        pace: Pace,
        response: Response,
        company: Company,
        choice: RuleChoice,
        critical: bool = False,
    ) -> None:
        first = company.first
        self.guard, self.watched, self.pace, self.response = guard, watched, pace, response
        self.chronicle = Chronicle(company, watched.parameters.sharded)
        concert = Concert(company, "raise" in response.ways)
        self.clock = StepClock()
        self.ended = False
        self.made = 0  # steps of all optimizers
        self._norms = NormReader(watched, pace, whole=response.clipper is not None or watched.ranks > 1)
        self._look = Look(watched, first, guard, WatchEntry(guard, self._after_backward))
        self._trials = StepTrials(watched, pace, guard, critical)
        self._step = CurrentStep(first, first)
        self._losses = StepLosses(watched, guard)
        self._first = FirstLook(watched, guard, choice, find_company(watched, company))
        self._deeds = Deeds(watched, guard)
        self._arrivals = Latecomers()
        self.judge = Judge(
            self.chronicle, concert, pace, choice,
            self._look, self._first, self._deeds, self._trials, self._step,
        )  # fmt: skip
        self.hearing = Hearing(guard, watched, self.clock, self._losses, self._norms, self.judge, response)
        self.quiet = QuietSteps(
            watched, pace, self.clock, self._losses, self._norms, self.chronicle, self.judge,
            whole=bool({"raise", "snapshot"} & set(response.ways)),
        )  # fmt: skip
        self.chronicle.measure = self._deeds.turns.measure
        guard.hold_weakly(self._look)
        guard.hold_weakly(self._first)
        self._prepare()
        self._trials.begin()

    def _prepare(self) -> None:
        """The next step begins."""
        self._look.prepare(self._step.number, self.pace.looks)
        self._first.prepare()
        self.quiet.plan()

    def finish(self) -> None:
        """Write what is left and close the record; harmless when repeated."""
        if self.ended:
            return
        self.quiet.open = False
        self.quiet.settle()
        self._write_rest()
        self.chronicle.company.close()
        for text in self.chronicle.company.list_troubles():
            self.guard.note(text)
        self.end()

    def give_up(self) -> None:
        """Close the record without what could not be written, which is counted as lost."""
        if not self.ended:
            self.chronicle.give_up()
            self.chronicle.company.close()
            self.end()

    def end(self) -> None:
        """Take nothing any more."""
        self.ended = self.hearing.ended = True
        self.quiet.open = False

    def _write_rest(self) -> None:
        self.chronicle.bring_rest()
        self._say_unseen()
        if self.steps:
            self.judge.judge_end()
            self._note_sight()
        self.judge.close()
        self.chronicle.take_joined()
        if self.chronicle.writer is not None:
            self._describe(self.chronicle.writer)

    def _say_unseen(self) -> None:
        """Say aloud that nothing, or no forward, was seen, though the watch did not fail."""
        if self.guard.failure:
            return
        said = any(note.startswith(("activations", "the first step")) for note in self.guard.notes)
        charted = self._look.eyes.chart is not None or self._first.seen > 0 or said
        if text := describe_unseen(self.watched, self.steps, self.hearing.anything, charted):
            self.guard.note(text)
            self.response.say(f"unvanish: {text}")

    def flush(self) -> bool:
        """Write the rows of all steps so far into the run's folder; whether that worked."""
        if not self.guard.failure:
            self.chronicle.bring_rest()
        return self.store is None or self.store.flush()

    # -- the life of a step: its loss, its backward, its optimizers

    def step(self, loss: Any = None) -> None:
        """Note the loss of the step just made; without optimizers, this is what makes a step."""
        self.clock.start()
        if not self.watched.references:
            self._step.set_norm(*self._norms.read(None, self._look.open))
            if is_number(loss):
                self._step.loss = read_number(loss)
            self.judge.judge_finite(self._step.norm, self._step.loss)
            self._close_step()
        if self.chronicle.row is not None and loss is not None:
            if is_number(loss):
                self.chronicle.row.loss = read_number(loss)
            else:
                self.guard.note(f"the loss given to `step` is no number but a {type(loss).__name__}")
        self.clock.stop()

    def adopt(self, optimizer: Any) -> None:
        """An optimizer of the model has turned up, and is about to step."""
        self.watched.adopt(optimizer)
        self._look.read_again()
        self._norms.gauges.clear()

    def meet(self, optimizer: Any) -> None:
        """An optimizer that was not named holds parameters of the model."""
        self._first.gradients.elsewhere.update(
            id(p) for group in optimizer.param_groups for p in group["params"]
        )

    def _after_backward(self) -> None:
        """The backward has ended, and nothing has been clipped yet."""
        self.clock.start()
        if self._look.open:
            self._look.measure_after_backward()
        self.clock.stop()

    def before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """An optimizer is about to step, or to call its closure."""
        self.clock.start()
        step, looked = self._step, self._look.open
        if self._losses.settle():
            step.loss = self._losses.value
        self._first.examination.settle()
        if id(optimizer) in step.stepped:  # not every optimizer steps every time
            self._close_step()
            looked = self._look.open
        step.by_closure = bool(kwargs and kwargs.get("closure") is not None)
        if len(args) > 1:
            step.by_closure |= any(map(callable, args[1:]))
        self.hearing.stepping = weakref.ref(optimizer) if step.by_closure else None
        if not step.by_closure:
            self.hearing.note_norm(optimizer)
            if looked:
                self._look.measure_before_step()
                self._follow_time()
            self._deeds.begin(optimizer, step, looked)
            self.response.guard(optimizer)
        if self._trials.attentive:
            self._trials.hold(step.by_closure)
        self.clock.stop()

    def after_step(self, optimizer: Any) -> None:
        """An optimizer has stepped."""
        self.made += 1
        self.hearing.stepping = None
        self.clock.start()
        if self._step.by_closure:
            if self.response.clipper is None:
                self.hearing.note_norm(optimizer)
        else:
            self._deeds.end(optimizer, self._step)
        self._step.stepped.add(id(optimizer))
        if len(self._step.stepped) >= len(self.watched.references):
            self._close_step()
        self.clock.stop()

    def after_skipped_step(self) -> None:
        """The loss scaler left a step out: its gradients are not finite."""
        self.clock.start()
        self._step.set_norm(*self._norms.read(None, self._look.open))
        self._close_step(skipped=True)
        self.clock.stop()

    def _follow_time(self) -> None:
        """Follow the gradient through the recurrent layers, while the weights are those it came through."""
        for name, kind, profile in self._look.eyes.take_profiles():
            self.chronicle.profile(self._step.number, name, kind, profile)

    # -- a step's end

    def _close_step(self, skipped: bool = False) -> None:
        step, looked, judge, examined = self._step, self._look.open, self.judge, self._first.busy
        self.quiet.settle()
        stepped = tuple(step.stepped) if examined else ()
        self._losses.forget()
        self.chronicle.begin(step.close(self.watched.rates(), skipped))
        if examined:
            judge.judge_first(skipped, stepped)
        if looked:
            self._judge_look()
        else:
            if not isinstance(step.norm, float):
                self._arrivals.send(self.chronicle.row, ("norm", "loss"))
            due = step.made >= judge.verdicts.next and judge.verdicts.is_due(step.made, self.pace.elapsed)
            self.chronicle.settle(due)
            if due:
                judge.judge_rows()
        judge.note_step()
        if self._arrivals.waiting:
            judge.judge_late(self._arrivals.take())
        judge.try_step(skipped, looked)
        if self.chronicle.company.exchange is not None:
            judge.hear_others()
        self._time_step(looked)
        step.advance()
        self._prepare()

    def _time_step(self, looked: bool) -> None:
        ours, seconds = self.clock.end_step()
        if tried := self._trials.take_seconds():
            ours, seconds = ours - tried, seconds - tried
            self.pace.spend(tried)
        eyes, examination = self._look.eyes, self._first.examination
        if looked:
            ours += eyes.seconds
        ours += examination.seconds
        eyes.seconds = examination.seconds = 0.0
        if self.pace.steps % REFIT == 0:
            self._norms.fit()
        if self._step.number > self._step.first:  # the first one pays for imports, allocation, compilation
            self.pace.step(ours, seconds, looked)

    def _judge_look(self) -> None:
        """Bring in what the look has seen, judge it, and plan the next one."""
        number, chronicle = self._step.number, self.chronicle
        values = chronicle.bring_look(*self._look.close())
        if len(chronicle.history.sites) != len(self._look.sites):
            self._chart()
        chronicle.look(number, values)
        self.judge.judge_look()
        self._first.ask_again(self._look.eyes.size)
        interval = self.pace.interval(number - self._step.first)
        if self._look.labels.batches.doubtful and self.pace.affords:
            interval = 1
        fixed = self.pace.every is not None
        self._look.next = plan_look(number, interval, self.watched.ranks, fixed)

    def _note_sight(self) -> None:
        """Say how little was seen, if that is too little to take silence for health."""
        if not self.findings and (text := self.pace.describe_sight()):
            self.guard.note(text)

    def _chart(self) -> None:
        """The network has been mapped."""
        self.chronicle.chart(self._look.sites, self._look.axes)
        if self.chronicle.writer is not None:
            self._describe(self.chronicle.writer)

    def raise_due(self, last: bool) -> None:
        """WatchError if the ranks had to act together and this is the step, or the `last` chance."""
        self.judge.concert.raise_due(math.inf if last else self._step.number)

    # -- what it reports

    @property
    def findings(self) -> list[Finding]:
        """What was found so far, consequences under their causes."""
        return self.judge.verdicts.findings

    @property
    def history(self) -> History:
        """The last looks and steps."""
        return self.chronicle.history

    @property
    def store(self) -> Store | None:
        """The run's folder, if there is one and this process writes it."""
        return self.chronicle.company.store

    @property
    def steps(self) -> int:
        """How many steps were watched."""
        return self._step.number - self._step.first

    @property
    def overhead(self) -> float:
        """The share of the run's time that the watch took, by its own clock."""
        return self.pace.overhead

    def diagnosis(self) -> Diagnosis:
        """What was found so far, with the last looks as its trace."""
        findings = tuple(self.findings)
        return Diagnosis(findings, self.judge.trace(), subject=self.watched.name, seconds=self.pace.elapsed)

    def _describe(self, writer: Records) -> None:
        company = self.chronicle.company
        for text in company.list_troubles():
            self.guard.note(text)
        describe_run(writer, self.watched, self.pace, self.history.axes, self.guard.notes)
        if company.exchange is not None:
            writer.describe(relayed=sorted(company.exchange.relayed))
