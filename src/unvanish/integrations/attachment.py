"""A watch on behalf of a library's callback: opened when its training begins, closed whatever happens.

Notable:
- A callback is made long before there is a model, and may be copied, pickled and used for several trainings:
  its arguments are judged when it is made, and the watch itself never goes with a copy.
- Opening one ends no run: what `watch` would refuse is a warning, and the training goes on unwatched.
- A callback that is dropped without a word closes its watch, as when a library has no event for exceptions.
- Findings are told in the library's own log, if it has one, and in no other place besides.
- Ranks end together or not at all: one that ended alone would leave the others waiting for it. So they agree
  on the batch, at every `ASKED`-th one, whether they have a watch or not, by a ballot that waits for nobody;
  without `stop` there is none.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import distributed

from unvanish.clinic.config import ConfigError
from unvanish.clinic.rounds import choose_rules
from unvanish.clinic.watch.front import Watch
from unvanish.clinic.watch.opening import require_options, watch
from unvanish.clinic.watch.response import Voice
from unvanish.core.caution import caution
from unvanish.core.diagnosis import Finding, at_least
from unvanish.core.plain import name_value
from unvanish.core.registry import settings as list_settings
from unvanish.core.registry import suggest
from unvanish.integrations.ballot import Ballot, open_ballot
from unvanish.probes.errors import CheckError
from unvanish.store import StoreError

PREFIX = "unvanish/"  # of the names of numbers in a library's log
OPTIONS = tuple(list_settings(require_options))
LIBRARIES = ("torch",)
ASKED = 8  # batches from one question of the ranks to the next
Tell = Callable[[str, str], Any]  # a text and its severity, into a library's log


class Attachment:
    """Holds the watch of a callback.

    `stop`: whether the callback is to end the training: True at an error, or the codes of rules that end it.
    `options`: keyword arguments of `unvanish.watch`, without the model, its optimizer, loss and scaler. What
    is wrong with one is raised here: TypeError, CheckError, ConfigError.
    """

    def __init__(
        self, *, on_finding: Any = "log", stop: bool | str | Iterable[str] = False, **options: Any
    ) -> None:
        for name in options:
            if name not in OPTIONS:
                raise TypeError(
                    f"unexpected argument {name!r}{suggest(name, OPTIONS)}; it is given to unvanish.watch"
                )
        require_options(on_finding=on_finding, **options)
        self.ways = (
            list(on_finding) if isinstance(on_finding, (list, tuple, set, frozenset)) else [on_finding]
        )
        self.stop = _read_stop(stop)
        self.options: dict[str, Any] = options
        self.watch: Watch | None = None
        self._found: list[Finding] = []
        self._taken = 0
        self._batches = 0
        self._ballot: Ballot | None = None
        self._last: weakref.finalize[[], Attachment] | None = None  # closes the watch

    def open(
        self,
        model: Any,
        optimizers: Any = None,
        loss: Any = None,
        scaler: Any = None,
        start: int | None = None,
        summed: bool = False,
        tell: Tell | None = None,
    ) -> None:
        """Watch a training; nothing happens if this one is watched already. What is wrong is a warning.

        `start`: the number of its first step, if it was resumed. `summed`: whether the library divides the
        losses of an accumulated step so that they add up. `tell`: writes into the library's log; it must not
        hold the callback.
        """
        if self.is_open and self.watch is not None and self.watch.watched.model is model:
            return
        self.close()
        found: list[Finding] = []
        self._found = found
        self._taken = self._batches = 0
        self._ballot = self._open_ballot()
        voices = [] if tell is None else [Voice(tell)]
        options = {**self.options, "on_finding": [*self.ways, found.append, *voices]}
        if start is not None and options.get("run") is not None:
            options.setdefault("start", start)
        try:
            self.watch = watch(model, optimizers, loss, scaler=scaler, **options)
            self._last = weakref.finalize(self, self.watch.close)
            self._last.atexit = False  # a watch writes its record itself then
            if not self.watch.failure:
                self.watch.watched.summed = summed
        except (CheckError, ConfigError, StoreError) as error:
            caution(f"unvanish: this training is not watched: {error}")

    @property
    def asks(self) -> bool:
        """Whether anything was asked for but the usual."""
        return bool(self.options or self.stop or self.ways != ["log"])

    @property
    def is_open(self) -> bool:
        """Whether a training is watched now."""
        return self.watch is not None and not self.watch.closed and not self.watch.failure

    @property
    def steps(self) -> int:
        """How many steps of the present or last training were watched."""
        return 0 if self.watch is None else self.watch.steps

    def close(self) -> None:
        """Detach everything and write what is left; harmless when repeated. The watch stays to be asked."""
        if self._last is not None:
            self._last()

    def end_with(self, thing: Any) -> None:
        """Close this watch when something goes that lives as long as the training, if nothing did before."""
        if self.watch is not None:
            weakref.finalize(thing, _close, weakref.ref(self.watch)).atexit = False

    def take_findings(self) -> list[Finding]:
        """What was found since it was last asked, in order."""
        fresh = self._found[self._taken :]
        self._taken += len(fresh)
        return fresh

    def metrics(self) -> dict[str, float]:
        """What is known of the step just made, by names that begin with `PREFIX`.

        `warnings` among them: how many warnings and errors were found so far.
        """
        if self.watch is None or self.watch.failure:
            return {}
        numbers = {**self.watch.numbers(), "warnings": float(len(at_least(self._found, "warning")))}
        return {PREFIX + name: value for name, value in numbers.items() if not math.isnan(value)}

    @property
    def wants_stop(self) -> bool:
        """Whether something was found that the user wants to end the training."""
        if isinstance(self.stop, bool):
            return self.stop and bool(at_least(self._found, "error"))
        return any(finding.code in self.stop for finding in self._found)

    def ends(self) -> bool:
        """Whether the training is to end now; asked once a batch, on every rank."""
        if self.stop is False:
            return False
        if self._ballot is None:
            return self.wants_stop
        self._batches += 1
        return self._batches % ASKED == 0 and self._ballot.ask(self.wants_stop)

    def _open_ballot(self) -> Ballot | None:
        """What the ranks agree by; None without several, or if none may stop."""
        several = distributed.is_available() and distributed.is_initialized()
        if self.stop is False or not several or distributed.get_world_size() == 1:
            return None
        return open_ballot(distributed.get_rank(), distributed.get_world_size())

    def __getstate__(self) -> Mapping[str, Any]:
        """A copy watches nothing yet."""
        fresh: dict[str, Any] = {
            "watch": None,
            "_found": [],
            "_taken": 0,
            "_batches": 0,
            "_ballot": None,
            "_last": None,
        }
        return {**self.__dict__, **fresh}


def _close(watch: weakref.ref[Watch]) -> None:
    found = watch()
    if found is not None:
        found.close()


def _read_stop(stop: Any) -> bool | frozenset[str]:
    """When to end a training; CheckError if it is something else, ConfigError if no rule has such a code."""
    if isinstance(stop, bool):
        return stop
    codes = [stop] if isinstance(stop, str) else stop
    if not isinstance(codes, Iterable):
        raise CheckError(f"stop is {name_value(stop)}; use True (at an error), False, or codes of rules")
    try:
        return frozenset(choose_rules(list(codes), None, None).codes)
    except ConfigError as error:
        raise ConfigError(str(error).replace("select", "stop", 1)) from error
