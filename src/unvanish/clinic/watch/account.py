"""What a watch reports of its training, to the program and to the reader."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from unvanish.clinic.watch.history import History
from unvanish.clinic.watch.numbers import read_numbers
from unvanish.clinic.watch.observer import Observer
from unvanish.clinic.watch.pace import Pace
from unvanish.clinic.watch.response import Response
from unvanish.clinic.watch.watched import Watched
from unvanish.core.caution import locate
from unvanish.core.diagnosis import Diagnosis, Finding, at_least
from unvanish.core.sight import Sight
from unvanish.core.trace import STATISTICS, Trace
from unvanish.probes.errors import CheckError
from unvanish.probes.live.guard import WatchGuard
from unvanish.store import Store


class WatchReport:
    """What was seen so far. `_observer`: None if the watch failed to open."""

    def __init__(self, name: str, guard: WatchGuard) -> None:
        self.name, self.guard = name, guard
        self._observer: Observer | None = None

    @property
    def failure(self) -> str:
        """Where and how the watch itself failed, in a line; empty if it did not."""
        return self.guard.failure

    @property
    def notes(self) -> list[str]:
        """What was left out, and why."""
        return list(self.guard.notes)

    @property
    def findings(self) -> list[Finding]:
        """What was found so far, consequences under their causes."""
        return [] if self._observer is None else self._observer.findings

    @property
    def healthy(self) -> bool:
        """Whether nothing at or above a warning was found."""
        return not at_least(self.findings, "warning")

    @property
    def closed(self) -> bool:
        """Whether it takes nothing any more."""
        return self._observer is None or self._observer.ended

    def numbers(self) -> dict[str, float]:
        """What is known of the step just made, and of the last look, by name (`numbers.read_numbers`)."""
        found = None if self._observer is None else self.guard.run(read_numbers, self._observer.chronicle)
        return {} if found is None else dict(found)

    @property
    def steps(self) -> int:
        """How many steps were watched."""
        return 0 if self._observer is None else self._observer.steps

    @property
    def overhead(self) -> float:
        """The share of the run's time that the watch took, by its own clock."""
        return math.nan if self._observer is None else self._observer.pace.overhead

    @property
    def store(self) -> Store | None:
        """The run's folder, if there is one and this process writes it."""
        return None if self._observer is None else self._observer.store

    @property
    def watched(self) -> Watched:
        """What is watched."""
        return self._observing().watched

    @property
    def pace(self) -> Pace:
        """When it looks, and what that costs."""
        return self._observing().pace

    @property
    def response(self) -> Response:
        """What it does with findings."""
        return self._observing().response

    @property
    def clock(self) -> Any:
        """The clock of the present step."""
        return self._observing().clock

    @property
    def history(self) -> History:
        """The last looks and steps."""
        return self._observing().history

    def diagnosis(self) -> Diagnosis:
        """What was found so far, with the last looks as its trace."""
        found = None if self._observer is None else self.guard.run_anyway(self._observer.diagnosis)
        if isinstance(found, Diagnosis):
            return found
        return Diagnosis(
            tuple(self.findings),
            Trace((), np.empty((0, 0, len(STATISTICS))), (), {"live": True}),
            subject=self.name,
        )

    def sight(self) -> Sight:
        """What was seen so far, in a screen: `print(watch)`, and what a notebook displays."""
        observer = self._observer
        looks = 0 if observer is None else len(observer.history.look_steps)
        reported = {} if observer is None else observer.judge.verdicts.reported
        return Sight(
            self.diagnosis(),
            self.steps,
            looks if observer is None else max(looks, observer.pace.looks),
            self.overhead,
            {code: (seen.first, seen.last) for code, seen in reported.items()},
            tuple(self.notes),
            self.failure,
        )

    def _observing(self) -> Observer:
        if self._observer is None:
            raise CheckError(f"this watch failed when it was opened ({self.failure}), so it has seen nothing")
        return self._observer

    def __str__(self) -> str:
        return self._show(str) or repr(self)

    def _repr_html_(self) -> str | None:
        return self._show(Sight._repr_html_)

    def _show(self, render: Callable[[Sight], str]) -> str | None:
        """What was seen so far, rendered; None if that fails, which ends no watch."""
        try:
            return render(self.sight())
        except Exception as error:
            self.guard.note(f"it could not be shown: {locate(error)}")
            return None

    def __repr__(self) -> str:
        found = ", ".join(f.code for f in self.findings) or "nothing found"
        looks = 0 if self._observer is None else self._observer.pace.looks
        lost = "" if self._observer is None else self._observer.chronicle.company.describe_losses()
        failed = f"; failed: {self.failure}" if self.failure else ""
        return f"<watch of {self.name}: {self.steps} steps, {looks} looks, {found}{lost}{failed}>"
