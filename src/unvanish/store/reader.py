"""Reading a run, even while it grows: arrays over the steps, and the samples as a Trace."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unvanish.core.brief import Brief
from unvanish.core.diagnosis import Finding
from unvanish.core.facts import TraceFacts
from unvanish.core.names import show
from unvanish.core.run_facts import HistoryFacts, RunFacts
from unvanish.core.shown import Shown
from unvanish.core.trace import Site, Trace
from unvanish.store.backlog import Losses
from unvanish.store.columns import read_steps, read_table
from unvanish.store.layouts import SiteLayout, join_sites, name_sites, read_layouts
from unvanish.store.lock import name_writer, read_note
from unvanish.store.opening import open_to_read
from unvanish.store.parts import DAMAGED, read_axis, read_facts, read_finding, read_site
from unvanish.store.plain_tables import guard
from unvanish.store.schema import FILE, LOCK, STEP_COLUMNS

SPARE, SPREAD = 64_000_000, 16  # bytes that a trace may have in any case, and for each byte of the file
Floats = NDArray[np.float64]


class StoreError(Exception):
    """A run folder that cannot be written or read; the text names it and the reason."""


@dataclass(frozen=True, repr=False)
class Event(Brief):
    """A finding of a run, and the steps at which it was first and last seen."""

    first: int
    last: int
    finding: Finding


@dataclass(frozen=True, repr=False)
class Standing(Brief):
    """How whole a run's record is: who writes it at present, its end, its losses, its gaps."""

    writer: str
    closed: bool
    losses: Losses
    gaps: tuple[tuple[int, int], ...]


@dataclass(frozen=True, repr=False)
class Run(Shown):
    """A run's folder, for reading. Every method opens the file again, so a growing run is up to date."""

    folder: Path
    part: str = FILE  # the file in it

    @property
    def file(self) -> Path:
        """The SQLite file."""
        return self.folder / self.part

    @property
    def size(self) -> int:
        """The bytes of the file."""
        return self.file.stat().st_size

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    def facts(self) -> RunFacts:
        """Facts about the run: model, optimizers, versions, budget, overhead."""
        with self._reading() as reader:
            return read_facts(reader.execute("SELECT key, value FROM meta").fetchall())

    def steps(self) -> HistoryFacts:
        """An array for each column of `STEP_COLUMNS`, shape (steps,); NaN where nothing was measured."""
        with self._reading() as reader:
            table = read_table(reader)
        return cast(HistoryFacts, {name: table[:, i] for i, name in enumerate(STEP_COLUMNS)})

    def last_step(self) -> int | None:
        """The last step written; None for a new run."""
        with self._reading() as reader:
            last = reader.execute("SELECT max(step) FROM steps").fetchone()[0]
        return None if last is None else int(last)

    def sites(self) -> tuple[Site, ...]:
        """The rows of the samples; of a run continued with other sites, those of its last session."""
        with self._reading() as reader:
            rows = reader.execute("SELECT path, kind, role, facts FROM sites ORDER BY id").fetchall()
            told = read_facts(reader.execute("SELECT key, value FROM meta").fetchall()).get("site_count")
            return tuple(read_site(*row) for row in rows[:told])

    def sample_steps(self) -> NDArray[np.int64]:
        """The steps at which the watch looked at the sites."""
        with self._reading() as reader:
            rows = reader.execute("SELECT step FROM samples ORDER BY step").fetchall()
            return np.array([r[0] for r in rows], np.int64)

    def trace(self, most: int | None = None) -> Trace:
        """The samples [step, site, statistic] as a Trace; `facts["steps"]` are their steps.

        `most`: take at most `most` samples, evenly spread, with the last one.
        """
        facts, sites, earlier = self.facts(), self.sites(), self.earlier()
        statistics = tuple(facts.get("statistics", ()))
        steps = thin_out(self.sample_steps(), most)
        values = self.cells(steps, len(sites), len(statistics))
        if earlier:
            sites, values = self._join_looks(steps, earlier, sites, statistics, values)
        with refuse_damage(self.file):
            axes = tuple(read_axis(a, len(sites)) for a in facts.get("axes", ()))
        about = cast(TraceFacts, facts)  # a run's facts are among those of a trace
        return Trace(sites, values, axes, {**about, "steps": steps.tolist()}, statistics)

    def cells(self, steps: NDArray[np.int64], sites: int, statistics: int) -> Floats:
        """The samples of some steps, shape (steps, sites, statistics); NaN without, or if of other sites."""
        with self._reading() as reader:
            require_room(len(steps) * sites * statistics, self.file.stat().st_size)
            values = np.full((len(steps), sites, statistics), math.nan)
            for row, step in enumerate(steps):
                sample = reader.execute("SELECT cells FROM samples WHERE step = ?", (int(step),)).fetchone()
                found = np.frombuffer(sample[0], np.float32) if sample else np.empty(0, np.float32)
                if found.size == values[row].size:
                    values[row] = found.reshape(values[row].shape)
        return values

    def earlier(self) -> tuple[SiteLayout, ...]:
        """The sites of looks before the last session, if they may be others."""
        with self._reading() as reader:
            return read_layouts(reader)

    def _join_looks(
        self,
        steps: NDArray[np.int64],
        earlier: Sequence[SiteLayout],
        present: tuple[Site, ...],
        statistics: tuple[str, ...],
        last: Floats,
    ) -> tuple[tuple[Site, ...], Floats]:
        """The sites of all looks and their samples; `last`: those of the present sites."""
        sites = join_sites(present, earlier)
        with refuse_damage(self.file):
            require_room(len(steps) * len(sites) * len(statistics), self.size)
        values = np.full((len(steps), len(sites), len(statistics)), math.nan)
        values[:, : len(present)] = last
        places = {name: i for i, (name, _) in enumerate(name_sites(sites))}
        kept: dict[str, int] = {name: k for k, name in enumerate(statistics)}
        before = -1
        for layout in earlier:
            chosen = np.flatnonzero((steps > before) & (steps <= layout.until))
            before = layout.until
            rows = np.array([places[name] for name, _ in name_sites(layout.sites)], np.int64)
            shared = np.array([k for k, name in enumerate(layout.statistics) if name in kept], np.int64)
            columns = np.array([kept[layout.statistics[k]] for k in shared], np.int64)
            found = self.cells(steps[chosen], len(rows), len(layout.statistics))
            values[chosen] = math.nan
            values[np.ix_(chosen, rows, columns)] = found[:, :, shared]
        return sites, values

    def profiles(self) -> dict[str, tuple[NDArray[np.int64], list[Floats]]]:
        """For each recurrent layer and direction: the steps, ln of the gradient at every time step."""
        found: dict[str, tuple[list[int], list[Floats]]] = {}
        with self._reading() as reader:
            for step, site, state in reader.execute("SELECT step, site, state FROM profiles ORDER BY step"):
                steps, states = found.setdefault(site, ([], []))
                steps.append(int(step))
                states.append(np.frombuffer(state, np.float32).astype(np.float64))
            return {str(k): (np.array(steps, np.int64), states) for k, (steps, states) in found.items()}

    def findings(self) -> tuple[Event, ...]:
        """The findings in the order in which they were first seen."""
        with self._reading() as reader:
            rows = reader.execute("SELECT step, last, body FROM findings ORDER BY step, id").fetchall()
            return tuple(Event(int(first), int(last), read_finding(body)) for first, last, body in rows)

    def lacking(self) -> dict[int, list[int]]:
        """For each of several ranks that trained together: the steps that it has not written."""
        return {}

    def compare(self, other: Run) -> RunPair:
        """Both runs side by side, to print or to show in a notebook."""
        return RunPair(self, other)

    def version(self) -> int:
        """The version of the tables."""
        with self._reading() as reader:
            return int(reader.execute("PRAGMA user_version").fetchone()[0])

    def standing(self) -> Standing:
        """Who writes the run, whether it was closed, and what its record lacks."""
        note, held = read_note(self.folder / LOCK.format(self.part))
        facts = self.facts()
        with self._reading() as reader:
            steps = read_steps(reader)
        ended = "failure" in note  # it came to its end, though the file could not be told
        return Standing(
            writer=name_writer(note) if held else "",
            closed=ended or (bool(facts.get("closed", True)) and not note),
            losses=Losses(
                _most(facts.get("dropped"), note.get("dropped")),
                _most(facts.get("lost_steps"), note.get("lost_steps")),
                str(note.get("failure", ""))[:200],
            ),
            gaps=find_gaps(steps),
        )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with refuse_damage(self.file), open_to_read(self.file) as reader:
            guard(reader)
            yield reader


@dataclass(frozen=True, repr=False)
class RunPair(Shown):
    """Two runs side by side: `print` compares them, and a notebook shows the table."""

    first: Run
    second: Run


@contextmanager
def refuse_damage(file: Path) -> Iterator[None]:
    """Turn what a damaged or foreign record causes within the block into a StoreError."""
    try:
        yield
    except (sqlite3.Error, OSError, *DAMAGED) as error:
        raise StoreError(f"cannot read {file}: {show(error)[:200]}") from error


def require_room(numbers: int, size: int) -> None:
    """ValueError if a record of `size` bytes cannot hold as many numbers as it says."""
    if numbers * 8 > SPARE + SPREAD * size:
        raise ValueError(f"it says that it holds {numbers:,} numbers, far more than it has room for")


def find_gaps(steps: NDArray[Any]) -> tuple[tuple[int, int], ...]:
    """First and last of the numbers that are missing between these, which are in order."""
    breaks = np.flatnonzero(np.diff(steps) > 1)
    return tuple((int(steps[i]) + 1, int(steps[i + 1]) - 1) for i in breaks)


def thin_out(steps: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """At most `most` of these, evenly spread, with the last one."""
    if most is None or len(steps) <= most:
        return steps
    places = np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))
    return np.asarray(steps[places], np.int64)


def _most(*values: Any) -> int:
    """The largest whole number; 0 without one."""
    return max((v for v in values if isinstance(v, int) and v > 0), default=0)
