"""Reading a run, even while it grows: arrays over the steps, and the samples as a Trace."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from unvanish.core.diagnosis import Finding
from unvanish.core.facts import HistoryFacts, RunFacts, TraceFacts
from unvanish.core.names import show
from unvanish.core.trace import Site, Trace
from unvanish.store.parts import read_axis, read_facts, read_finding, read_site
from unvanish.store.plain_tables import guard
from unvanish.store.schema import FILE, STEP_COLUMNS, VERSION

DAMAGED = (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError)  # of a record
SPARE, SPREAD = 64_000_000, 16  # bytes that a trace may have in any case, and for each byte of the file
Floats = NDArray[np.float64]


class StoreError(Exception):
    """A run folder that cannot be written or read; the text names it and the reason."""


@dataclass(frozen=True)
class Event:
    """A finding of a run, and the steps at which it was first and last seen."""

    first: int
    last: int
    finding: Finding


@dataclass(frozen=True)
class Run:
    """A run's folder, for reading. Every method opens the file again, so a growing run is up to date."""

    folder: Path

    @property
    def file(self) -> Path:
        """The SQLite file."""
        return self.folder / FILE

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
            rows = reader.execute(f"SELECT {', '.join(STEP_COLUMNS)} FROM steps ORDER BY step")
            numbers = (math.nan if v is None else float(v) for row in rows for v in row)
            table = np.fromiter(numbers, np.float64).reshape(-1, len(STEP_COLUMNS))
        return cast(HistoryFacts, {name: table[:, i] for i, name in enumerate(STEP_COLUMNS)})

    def sites(self) -> tuple[Site, ...]:
        """The rows of the samples."""
        with self._reading() as reader:
            rows = reader.execute("SELECT path, kind, role, facts FROM sites ORDER BY id").fetchall()
            return tuple(read_site(*row) for row in rows)

    def sample_steps(self) -> NDArray[np.int64]:
        """The steps at which the watch looked at the sites."""
        with self._reading() as reader:
            rows = reader.execute("SELECT step FROM samples ORDER BY step").fetchall()
            return np.array([r[0] for r in rows], np.int64)

    def trace(self, most: int | None = None) -> Trace:
        """The samples [step, site, statistic] as a Trace; `facts["steps"]` are their steps.

        `most`: take at most `most` samples, evenly spread, with the last one.
        """
        facts, sites = self.facts(), self.sites()
        statistics = tuple(facts.get("statistics", ()))
        steps = self.sample_steps()
        if most is not None and len(steps) > most:
            steps = steps[np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))]
        with self._reading() as reader:
            cells = len(steps) * len(sites) * len(statistics)
            if cells * 8 > SPARE + SPREAD * self.file.stat().st_size:
                raise ValueError(f"it says that it holds {cells:,} numbers, far more than it has room for")
            values = np.full((len(steps), len(sites), len(statistics)), math.nan)
            for row, step in enumerate(steps):
                sample = reader.execute("SELECT cells FROM samples WHERE step = ?", (int(step),)).fetchone()
                found = np.frombuffer(sample[0], np.float32) if sample else np.empty(0, np.float32)
                if found.size == values[row].size:
                    values[row] = found.reshape(values[row].shape)
            axes = tuple(read_axis(a, len(sites)) for a in facts.get("axes", ()))
        about = cast(TraceFacts, facts)  # a run's facts are among those of a trace
        return Trace(sites, values, axes, {**about, "steps": steps.tolist()}, statistics)

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

    def version(self) -> int:
        """The version of the tables."""
        with self._reading() as reader:
            return int(reader.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(
                sqlite3.connect(f"{self.file.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
            ) as reader:
                guard(reader)
                yield reader
        except (sqlite3.Error, OSError, *DAMAGED) as error:
            raise StoreError(f"cannot read {self.file}: {show(error)[:200]}") from error


def open_run(folder: str | Path) -> Run:
    """A run for reading; StoreError if the folder holds no run, or one of a newer version."""
    run = Run(Path(folder))
    if not run.file.is_file():
        near = sorted(p.parent for p in Path(folder).glob(f"*/{FILE}"))[:3]
        hint = f"; there are runs in {', '.join(map(str, near))}" if near else ""
        raise StoreError(f"{folder} holds no run (no {FILE} in it){hint}")
    version = run.version()
    if version > VERSION:
        raise StoreError(f"{folder} was written by a newer unvanish (version {version} of the tables)")
    return run
