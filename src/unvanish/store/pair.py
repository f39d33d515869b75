"""One rank whose record lies in two files: what it wrote itself, and what came from it when its folder was
another one.

Notable: a session that begins at a step takes back what the other file holds from there on; of a row that
both hold, that of the file whose last session began later counts, else the rank's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unvanish.core.run_facts import HistoryFacts, RunFacts
from unvanish.core.trace import Site
from unvanish.store.backlog import Losses
from unvanish.store.layouts import SiteLayout
from unvanish.store.reader import Event, Floats, Run, Standing, find_gaps, refuse_damage, require_room
from unvanish.store.schema import STEP_COLUMNS


@dataclass(frozen=True, repr=False)
class PairedRun(Run):
    """What one rank recorded, in its own file `part` and in the relayed one, `other`."""

    other: str = ""

    @property
    def size(self) -> int:
        """The bytes of both files."""
        return sum((self.folder / name).stat().st_size for name in (self.part, self.other))

    def _parts(self) -> tuple[tuple[Run, float], tuple[Run, float]]:
        """The older file and the newer one; each with the step from which its rows do not count."""
        own, relayed = Run(self.folder, self.part), Run(self.folder, self.other)
        begun = [_find_last_start(run) for run in (relayed, own)]
        older, newer = (relayed, own) if begun[1] >= begun[0] else (own, relayed)
        limit = max(begun) if begun[0] != begun[1] else math.inf
        return (older, limit), (newer, math.inf)

    def _newest(self) -> Run:
        return self._parts()[1][0]

    def _merge(self, read: Callable[[Run], Mapping[int, Any]]) -> dict[int, Any]:
        """Rows by their step, in order, each once."""
        found: dict[int, Any] = {}
        for run, limit in self._parts():
            found.update((step, row) for step, row in read(run).items() if step < limit)
        return dict(sorted(found.items()))

    def facts(self) -> RunFacts:
        """Facts of the newer file, with those that only the other has; sessions and losses of both."""
        both = [run.facts() for run, _ in self._parts()]
        joined: dict[str, Any] = {**both[0], **both[1]}
        sessions = {tuple(s) for facts in both for s in facts.get("sessions", [])}
        if sessions:
            joined["sessions"] = [list(s) for s in sorted(sessions)]
        for key in ("dropped", "lost_steps"):
            joined[key] = sum(facts.get(key, 0) for facts in both)
        return cast(RunFacts, joined)

    def steps(self) -> HistoryFacts:
        """An array for each column of `STEP_COLUMNS`, shape (steps,); NaN where nothing was measured."""
        rows = self._merge(_read_steps)
        table = np.array(list(rows.values()), np.float64).reshape(-1, len(STEP_COLUMNS))
        return cast(HistoryFacts, {name: table[:, i] for i, name in enumerate(STEP_COLUMNS)})

    def last_step(self) -> int | None:
        """The last step written; None for a new run."""
        steps = self.steps()["step"]
        return int(steps[-1]) if len(steps) else None

    def sites(self) -> tuple[Site, ...]:
        """The rows of the samples, of the newer file that has some."""
        return self._newest().sites() or self._parts()[0][0].sites()

    def earlier(self) -> tuple[SiteLayout, ...]:
        """None: of two files the looks at other sites are left out."""
        return ()

    def sample_steps(self) -> NDArray[np.int64]:
        """The steps at which the watch looked at the sites."""
        return np.array(list(self._merge(lambda run: dict.fromkeys(run.sample_steps().tolist()))), np.int64)

    def cells(self, steps: NDArray[np.int64], sites: int, statistics: int) -> Floats:
        """The samples of some steps, shape (steps, sites, statistics); NaN without, or if of other sites."""
        with refuse_damage(self.file):
            require_room(len(steps) * sites * statistics, self.size)
        values = np.full((len(steps), sites, statistics), math.nan)
        wanted = self.sites()
        for run, limit in self._parts():
            if _name_sites(run.sites()) == _name_sites(wanted):
                known = np.isin(steps, run.sample_steps()) & (steps < limit)
                values[known] = run.cells(steps[known], sites, statistics)
        return values

    def profiles(self) -> dict[str, tuple[NDArray[np.int64], list[Floats]]]:
        """For each recurrent layer and direction: the steps, ln of the gradient at every time step."""
        names = sorted({name for run, _ in self._parts() for name in run.profiles()})
        found = {}
        for name in names:
            rows = self._merge(lambda run, name=name: _read_profile(run, name))  # type: ignore[misc]
            found[name] = np.array(list(rows), np.int64), list(rows.values())
        return found

    def findings(self) -> tuple[Event, ...]:
        """The findings of both, each code once, from its first to its last step."""
        found: dict[str, Event] = {}
        for run, limit in self._parts():
            for event in run.findings():
                before = found.get(event.finding.code, event)
                if event.first < limit:
                    first, last = min(before.first, event.first), max(before.last, event.last)
                    found[event.finding.code] = Event(first, last, event.finding)
        return tuple(sorted(found.values(), key=lambda event: event.first))

    def version(self) -> int:
        """The version of the tables, the newer one of both."""
        return max(run.version() for run, _ in self._parts())

    def standing(self) -> Standing:
        """Who writes the run, whether it was closed, and what its record lacks."""
        older, newer = (run.standing() for run, _ in self._parts())
        return Standing(
            writer=newer.writer or older.writer,
            closed=newer.closed and older.closed,
            losses=Losses(
                older.losses.dropped + newer.losses.dropped,
                older.losses.steps + newer.losses.steps,
                newer.losses.failure or older.losses.failure,
            ),
            gaps=find_gaps(self.steps()["step"]),
        )


def _find_last_start(run: Run) -> float:
    """The first step of a file's last session; below all others without one."""
    sessions = run.facts().get("sessions") or []
    return float(sessions[-1][0]) if sessions else -math.inf


def _read_steps(run: Run) -> dict[int, Floats]:
    columns: dict[str, Floats] = dict(run.steps())  # type: ignore[arg-type]
    table = np.stack([columns[name] for name in STEP_COLUMNS], 1)
    return {int(row[0]): row for row in table}


def _read_profile(run: Run, name: str) -> dict[int, Floats]:
    steps, states = run.profiles().get(name, (np.empty(0, np.int64), []))
    return dict(zip(steps.tolist(), states, strict=True))


def _name_sites(sites: tuple[Site, ...]) -> list[tuple[str, str, str]]:
    return [(site.path, site.kind, site.role) for site in sites]
