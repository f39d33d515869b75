"""The watch as its user holds it: what hangs in the program, and the guard that every call from there passes.

Notable:
- A loop needs no change: the optimizers' own step hooks carry the watch, and hold it while they live. All
  else knows it weakly, so a watch that nobody closed ends with its optimizers, or with the interpreter.
- What fails inside is one warning, and the watch takes itself off (`probes.live.guard`); only
  `on_finding="raise"` raises, when all else is done.
- A watch that only its optimizer's hooks hold is closed when the next one comes, or makes its first step, as
  when a cell of a notebook runs again after Ctrl-C.
- A process that is forked from this one is not watched.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import weakref
from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from unvanish.clinic.config import ConfigError
from unvanish.clinic.watch.account import WatchReport
from unvanish.clinic.watch.errors import WatchError
from unvanish.clinic.watch.observer import Observer
from unvanish.clinic.watch.optimizers import OptimizerFinder
from unvanish.clinic.watch.orphans import is_forgotten, is_held_by_watch_alone
from unvanish.clinic.watch.scaling import ScalerStep
from unvanish.probes.errors import CheckError
from unvanish.probes.live.backwards import BackwardListener
from unvanish.probes.live.closures import ClosureEntry
from unvanish.probes.live.compiled import is_compiled
from unvanish.probes.live.guard import StepEntry, SwiftEntry, WatchEntry, WatchGuard
from unvanish.store import StoreError


class Watch(WatchReport):
    """A run under watch; a context manager. `close` detaches it and writes what is left.

    `build`: makes what observes the run, or raises what is wrong with the arguments: CheckError, ConfigError,
    StoreError.
    """

    def __init__(self, name: str, build: Callable[[WatchGuard], Observer]) -> None:
        super().__init__(name, WatchGuard(f"the watch of {name}", passing=(WatchError,)))
        self._among = False  # other watches of its optimizers, which may be forgotten by the first step
        self._finder: OptimizerFinder | None = None
        self._adopts = False  # optimizers that turn up
        self._entry: SwiftEntry | None = None  # of the loss that the program names
        judging = WatchGuard(f"the watch of {name}", passing=(CheckError, ConfigError, StoreError))
        judging.run(self._begin, build)
        self.guard.run(self.guard.take_over, judging)

    # -- attaching and detaching

    def _begin(self, build: Callable[[WatchGuard], Observer]) -> None:
        """Make what observes, and hang on the optimizers, the loss, the scaler."""
        _open.add(self)
        observer = self._observer = build(self.guard)
        guard, watched, snapshots = self.guard, observer.watched, observer.response.snapshots
        self.name = watched.name
        self._among = self._close_forgotten(observer)
        for optimizer in watched.optimizers:
            self._hang_on(optimizer)
        known = watched.optimizers
        self._adopts = not known
        self._finder = OptimizerFinder(guard, watched.inner, known, self._hear_step, self._meet_optimizer)
        quiet = observer.quiet
        self._entry = SwiftEntry(guard, self._step, quiet.tell)
        begins = SwiftEntry(guard, observer.hearing.begin_backward, quiet.hear)
        listener = BackwardListener(begins, WatchEntry(guard, observer.hearing.end_backward))
        guard.hold(listener)
        if not listener.listen():
            guard.note("this torch does not say where a backward begins: give the loss to `step`")
        if isinstance(watched.loss, nn.Module):
            if is_compiled(watched.loss):
                guard.note("the loss is not noted: its module is compiled; give it to `step`")
            else:
                guard.hang(watched.loss.register_forward_hook, WatchEntry(guard, self._note_loss))
        if snapshots is not None:
            snapshots.attach(guard, watched.inner, watched.loss)
        if watched.scaler is not None:
            step = ScalerStep(guard, watched.scaler, self._count, self._after_scaler)
            guard.hold(step)
            step.hang()

    def _hang_on(self, optimizer: Any) -> None:
        quiet = self._observing().quiet
        before = ClosureEntry(self.guard, self._before_step, quiet.before)
        after = StepEntry(self.guard, self._after_step, quiet.after)
        self.guard.hang_on_step(optimizer.register_step_pre_hook, before)
        self.guard.hang_on_step(optimizer.register_step_post_hook, after)

    def _close_forgotten(self, observer: Observer) -> bool:
        """Close the watches of its optimizers that nothing else holds; whether others are left."""
        wanted = {id(optimizer) for optimizer in observer.watched.optimizers}
        left = False
        for watch in tuple(_open):
            if watch is self:
                continue
            if watch.is_orphaned():
                watch.close()
                continue
            if not watch.watches(wanted, observer.watched.inner):
                continue
            if not is_forgotten(watch, (Watch._before_step, Watch._after_step, Watch._hear_step)):
                left = True
                continue
            with watch.guard.stepped() if self.guard.stepping else contextlib.nullcontext():
                watch.close()
            self.guard.note("an earlier watch of this optimizer, which nothing held any more, was closed")
        return left

    def adopt_later(self) -> None:
        """Take in optimizers of the model that turn up later, too, though some were named."""
        self._adopts = True

    def watches(self, optimizers: Collection[int], model: nn.Module) -> bool:
        """Whether it hangs on one of the optimizers with these ids, or waits for those of a model."""
        if self._observer is None:
            return False
        watched = self._observer.watched
        return any(id(o) in optimizers for o in watched.optimizers) or (
            self._adopts and watched.inner is model
        )

    def close(self) -> None:
        """Detach everything and write what is left; harmless when repeated."""
        self.guard.run_anyway(self._end)
        observer = self._observer
        if observer is not None:
            for once_more in (observer.finish, observer.give_up):  # what failed once may work
                if not observer.ended:
                    self.guard.run_anyway(once_more)
            self.guard.run_anyway(self._tell, observer, sys.exc_info()[0] is None)

    def _end(self) -> None:
        _open.discard(self)
        try:
            self.guard.let_go()
        finally:
            if self._observer is not None:
                self._observer.finish()

    def flush(self) -> bool:
        """Write the rows of all steps so far into the run's folder; whether that worked."""
        return self._observer is not None and self.guard.run_anyway(self._observer.flush) is True

    def abandon(self) -> None:
        """Detach everything and write nothing: in a forked process the record belongs to the other one."""
        self.guard.run_anyway(self._abandon)

    def _abandon(self) -> None:
        if self._observer is not None:
            self._observer.end()
        self.guard.let_go()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    # -- what the program calls

    def step(self, loss: Any = None) -> None:
        """Note the loss of the step just made; without optimizers, this is what makes a step."""
        if self._entry is not None:
            self._entry(loss)

    def _step(self, loss: Any) -> None:
        if self._observer is not None:
            self._observer.step(loss)
            if self._observer.judge.fresh:
                self._tell(self._observer)

    def _hear_step(self, optimizer: Any, *_: Any) -> None:
        if self._finder is not None and self._finder.hear(optimizer) and self.is_orphaned():
            self._end_orphaned()

    def is_orphaned(self) -> bool:
        """Whether it waits for an optimizer of a model that nothing else holds any more."""
        watched = None if self._observer is None else self._observer.watched
        if watched is None or not self._adopts or watched.references or watched.model is not watched.inner:
            return False
        return is_held_by_watch_alone(watched.model)

    def _end_orphaned(self) -> None:
        self.guard.note("nothing held its model any more, and no optimizer of it had stepped")
        self.close()

    def _meet_optimizer(self, optimizer: Any) -> None:
        """An optimizer of the model that nobody named is about to step for the first time."""
        if self._observer is not None and self._adopts:
            self._observer.adopt(optimizer)
            self._hang_on(optimizer)
        elif self._observer is not None:
            self._observer.meet(optimizer)

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._observer is not None and not self._observer.ended:
            if self._among:
                self._among = False
                self._close_forgotten(self._observer)
            self._observer.before_step(optimizer, args, kwargs)
            if self._observer.judge.fresh:
                self._tell(self._observer)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._observer is not None and not self._observer.ended:
            if self._finder is not None:
                self._finder.loosen()
            self._observer.after_step(optimizer)
            if self._observer.judge.fresh:
                self._tell(self._observer)

    def _note_loss(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._observer is not None:
            self._observer.hearing.hear_loss(output)

    def _after_scaler(self, optimizer: Any, made: int) -> None:
        """A scaler's step has ended, before which `made` steps were made: it may have left this one out."""
        observer = self._observer
        if observer is not None and observer.made == made and optimizer in observer.watched.optimizers:
            observer.after_skipped_step()
            self._tell(observer)

    def _count(self) -> int:
        return -1 if self._observer is None else self._observer.made

    def _tell(self, observer: Observer, last: bool = False) -> None:
        """Do what was asked for with new findings, when everything else is done; `last`: what is due, too."""
        fresh, observer.judge.fresh = observer.judge.fresh, []
        response, watched = observer.response, observer.watched
        for news in fresh:
            response.respond(
                news.finding, watched.inner, news.step, watched.loss,
                own=news.own, told=news.told, raises=news.raises,
            )  # fmt: skip
        observer.raise_due(last)


_open: weakref.WeakSet[Watch] = weakref.WeakSet()


def close_all() -> None:
    """The interpreter ends: the records of watches that nobody closed are written."""
    for watch in list(_open):
        with contextlib.suppress(WatchError):
            watch.close()


def _abandon_all() -> None:
    """The process was forked from the one that is watched."""
    for watch in list(_open):
        watch.abandon()


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
