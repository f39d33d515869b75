"""Reading a run, even while it grows: arrays over the steps, and the samples as a Trace."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from unvanish.core.diagnosis import Evidence, Finding, Remedy
from unvanish.core.facts import HistoryFacts, RunFacts, TraceFacts
from unvanish.core.trace import Axis, Site, Trace
from unvanish.store.schema import FILE, STEP_COLUMNS

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
    part: str = FILE  # the file in it

    @property
    def file(self) -> Path:
        """The SQLite file."""
        return self.folder / self.part

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    def facts(self) -> RunFacts:
        """Facts about the run: model, optimizers, versions, budget, overhead."""
        with self._reading() as reader:
            rows = reader.execute("SELECT key, value FROM meta")
            return cast(RunFacts, {key: json.loads(value) for key, value in rows})

    def steps(self) -> HistoryFacts:
        """An array for each column of `STEP_COLUMNS`, shape (steps,); NaN where nothing was measured."""
        with self._reading() as reader:
            rows = reader.execute(f"SELECT {', '.join(STEP_COLUMNS)} FROM steps ORDER BY step").fetchall()
        table = np.array([[math.nan if v is None else v for v in row] for row in rows], np.float64)
        table = table.reshape(len(rows), len(STEP_COLUMNS))
        return cast(HistoryFacts, {name: table[:, i] for i, name in enumerate(STEP_COLUMNS)})

    def last_step(self) -> int | None:
        """The last step written; None for a new run."""
        with self._reading() as reader:
            last = reader.execute("SELECT max(step) FROM steps").fetchone()[0]
        return None if last is None else int(last)

    def sites(self) -> tuple[Site, ...]:
        """The rows of the samples."""
        with self._reading() as reader:
            rows = reader.execute("SELECT path, kind, role, facts FROM sites ORDER BY id").fetchall()
        return tuple(Site(path, kind, 0, role, json.loads(facts)) for path, kind, role, facts in rows)

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
        steps = thin_out(self.sample_steps(), most)
        values = self.cells(steps, len(sites), len(statistics))
        axes = tuple(Axis(a["name"], a["kind"], tuple(a["sites"])) for a in facts.get("axes", ()))
        about = cast(TraceFacts, facts)  # a run's facts are among those of a trace
        return Trace(sites, values, axes, {**about, "steps": steps.tolist()}, statistics)

    def cells(self, steps: NDArray[np.int64], sites: int, statistics: int) -> Floats:
        """The samples of some steps, shape (steps, sites, statistics); NaN without, or if of other sites."""
        values = np.full((len(steps), sites, statistics), math.nan)
        with self._reading() as reader:
            for row, step in enumerate(steps):
                sample = reader.execute("SELECT cells FROM samples WHERE step = ?", (int(step),)).fetchone()
                cells = np.frombuffer(sample[0], np.float32) if sample else np.empty(0, np.float32)
                if cells.size == values[row].size:
                    values[row] = cells.reshape(values[row].shape)
        return values

    def profiles(self) -> dict[str, tuple[NDArray[np.int64], list[Floats]]]:
        """For each recurrent layer and direction: the steps, ln of the gradient at every time step."""
        found: dict[str, tuple[list[int], list[Floats]]] = {}
        with self._reading() as reader:
            for step, site, state in reader.execute("SELECT step, site, state FROM profiles ORDER BY step"):
                steps, states = found.setdefault(site, ([], []))
                steps.append(step)
                states.append(np.frombuffer(state, np.float32).astype(np.float64))
        return {k: (np.array(steps, np.int64), states) for k, (steps, states) in found.items()}

    def findings(self) -> tuple[Event, ...]:
        """The findings in the order in which they were first seen."""
        with self._reading() as reader:
            rows = reader.execute("SELECT step, last, body FROM findings ORDER BY step, id").fetchall()
        return tuple(Event(first, last, parse_finding(json.loads(body))) for first, last, body in rows)

    def lacking(self) -> dict[int, list[int]]:
        """For each of several ranks that trained together: the steps that it has not written."""
        return {}

    def version(self) -> int:
        """The version of the tables."""
        with self._reading() as reader:
            return int(reader.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True, timeout=10)) as reader:
                yield reader
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.file}: {error}") from error


def thin_out(steps: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """At most `most` of these, evenly spread, with the last one."""
    if most is None or len(steps) <= most:
        return steps
    places = np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))
    return np.asarray(steps[places], np.int64)


def parse_finding(body: Mapping[str, Any]) -> Finding:
    """A finding from its JSON."""
    parts = dict(body)
    parts["sites"] = tuple(parts.get("sites", ()))
    parts["evidence"] = tuple(Evidence(**e) for e in parts.get("evidence", ()))
    parts["remedies"] = tuple(
        Remedy(**{**r, "targets": tuple(r.get("targets", ()))}) for r in parts.get("remedies", ())
    )
    parts["consequences"] = tuple(parse_finding(c) for c in parts.get("consequences", ()))
    return Finding(**parts)
